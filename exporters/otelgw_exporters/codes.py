"""What a failure means that a cloud service gives a code for, such as NoSuchBucket: who can mend it, and how."""

from __future__ import annotations

from collections.abc import Mapping

from otelgw_exporters.delivery import OPERATOR_DELAY, Reply

__all__ = ["explained"]

_SKEW = 60.0  # seconds by which clocks may differ before it is worth a word; Amazon takes five minutes, Azure fifteen
_TOO_LARGE = 413


def explained(code: str, reason: str, status: int, hints: Mapping[str, str], skew: float = 0.0) -> Reply:
    """Return the reply to a failure that only the operator can mend, or that refuses the request for good."""
    hint = hints.get(code) or _STATUS_HINTS.get(status, "")
    if abs(skew) > _SKEW:
        hint = f"the clock of this machine is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}: mend it (NTP)"
    if hint:
        return Reply("again", f"{reason} ({hint})", OPERATOR_DELAY)
    return Reply("too_large" if status == _TOO_LARGE else "refused", reason)


_STATUS_HINTS = {
    301: "the bucket is elsewhere: mend the destination's region or endpoint_url",
    307: "the bucket is elsewhere: mend the destination's region or endpoint_url",
    401: "the credentials are not accepted: mend them",
    403: "the credentials lack the right to write, or are not accepted: mend them",
    404: "nothing is there: mend the destination's endpoint_url",
    405: "this takes no writes: mend the destination's endpoint_url",
    407: "a proxy asks for credentials: mend HTTPS_PROXY",
}
