"""When a failed attempt is repeated, whose turn it is then, and how long to wait before."""

from __future__ import annotations

import random
from email.utils import parsedate_to_datetime
from time import monotonic, time

__all__ = ["LONGEST_WAIT", "RETRIED_ERRORS", "Turns", "is_passing"]

LONGEST_WAIT = 10.0  # seconds; an upstream that asks for more gets no retry from here
# Failures before the head of an answer that another connection may not have.
RETRIED_ERRORS = frozenset(
    {"upstream_dns", "upstream_connect", "upstream_tls", "upstream_timeout_connect", "upstream_reset"}
)
_RETRIED_STATUSES = frozenset({408, 409, 429})
_SERVER_ERROR = 500
_LONGEST_BACKOFF = 8.0  # seconds


def is_passing(status: int) -> bool:
    """Return whether an answer with this status may be another one next time: 408, 409, 429 and every 5xx."""
    return status in _RETRIED_STATUSES or status >= _SERVER_ERROR


class Turns:
    """Whose turn it is among ``count`` upstreams, and how long to wait for it.

    Another upstream is asked at once; a second round backs off, and nobody is asked before the time that it named.
    """

    __slots__ = ("_count", "_not_before", "_tries", "position")

    def __init__(self, count: int) -> None:
        self.position = 0
        self._count = count
        self._tries = 0
        self._not_before: dict[int, float] = {}  # position -> monotonic seconds

    def next(self, retry_after: str = "") -> float:
        """Go on to the next upstream after an answer with this ``Retry-After``; return seconds to wait before."""
        now = monotonic()
        asked = _seconds(retry_after)
        if asked is not None:
            self._not_before[self.position] = now + asked
        self._tries += 1
        self.position = self._tries % self._count
        named = self._not_before.pop(self.position, None)
        if named is not None:
            return max(0.0, named - now)
        rounds = self._tries // self._count
        return random.uniform(0, min(_LONGEST_BACKOFF, 0.25 * 2**rounds)) if rounds else 0.0  # noqa: S311 - jitter, not a secret


def _seconds(retry_after: str) -> float | None:
    """Return what ``Retry-After`` says in seconds from now, None where it says nothing (RFC 9110, 10.2.3)."""
    text = retry_after.strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except ValueError:
        return None
