"""A request as a curl command that a person can read and run, once the keys are put back in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from otelgw.dialects.credentials import REDACTED, redacted_text
from otelgw.http.redaction import is_secret_header, mask

__all__ = ["command"]

_LENGTH = frozenset({b"host", b"content-length"})  # curl writes them itself


def command(
    method: str, url: str, headers: Iterable[tuple[bytes, bytes]], body: bytes, secrets: tuple[bytes, ...], limit: int
) -> str:
    """Return the command.

    ``url`` and ``body`` are as they may be recorded; ``secrets`` are replaced wherever else they stand, as is what
    looks like a key. Of ``body`` the first ``limit`` bytes are kept.
    """
    words = ["curl", "-X", method, url]
    for name, value in headers:
        if name.lower() in _LENGTH:
            continue
        shown = REDACTED if is_secret_header(name) else redacted_text(mask(value, secrets).decode("utf-8", "replace"))
        words += ["-H", f"{name.decode('latin-1')}: {shown}"]
    if body:
        text = mask(body[:limit], secrets).decode("utf-8", "replace")
        words += ["--data-raw", text + (f"…[{len(body) - limit} bytes cut]" if len(body) > limit else "")]
    return " ".join(map(shlex.quote, words))
