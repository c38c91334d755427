"""Keys of objects: the same for the same calls whenever they are written, and safe whatever an alias holds.

Safe means: of letters, digits and ``_ . - =``, without empty or dotted segments, at most about 900 bytes of UTF-8
(S3 and Google take 1024 bytes, Azure 1024 characters). A name that had to be changed for that carries a hash of what
it was, so that two teams never share a prefix.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import UTC, datetime

from otelgw_exporters.errors import DestinationConfigError

__all__ = ["hour", "per_request", "prefix_of", "segment"]

_SECOND = 1_000_000_000
_UNSAFE = re.compile(r"[^\w.-]")
_LONGEST = 60  # characters of a name; of UTF-8 at most four times as many bytes
_LONGEST_PREFIX = 300  # bytes
_LAST_YEAR = 253_402_300_799  # seconds: 9999-12-31


def segment(text: str) -> str:
    """Return ``text`` as one segment of a key; equal only for equal texts."""
    plain = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    safe = _UNSAFE.sub("_", plain)[:_LONGEST].lstrip(".").rstrip(".")
    if safe == text:
        return safe
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe}-{digest}" if safe else digest


def prefix_of(path: str) -> str:
    """Return the configured prefix as keys begin with it: empty, or ending with a slash.

    Raises:
        DestinationConfigError: it has a segment that is no name, or is too long.
    """
    parts = [part for part in path.split("/") if part]
    if any(part in {".", ".."} or not part.isprintable() for part in parts):
        raise DestinationConfigError(f"path: {path!r} has a segment that cannot be part of a key")
    whole = "".join(f"{part}/" for part in parts)
    if len(whole.encode("utf-8", "replace")) > _LONGEST_PREFIX:
        raise DestinationConfigError(f"path: longer than {_LONGEST_PREFIX} bytes")
    return whole


def _at(time_ns: int) -> datetime:
    """Return the time, in microseconds, rounded down."""
    seconds, rest = divmod(max(0, time_ns), _SECOND)
    return datetime.fromtimestamp(min(seconds, _LAST_YEAR), UTC).replace(microsecond=rest // 1000)


def hour(time_ns: int) -> str:
    """Return the Hive-style partition of a time in UTC."""
    at = _at(time_ns)
    return f"date={at:%Y-%m-%d}/hour={at:%H}/"


def per_request(time_ns: int, call_id: str, span_id: str) -> str:
    """Return LiteLLM's name of a call that began at ``time_ns``.

    The span's own id stands at its end, as a call id is the caller's to choose, and may come again.
    """
    at = _at(time_ns)
    named = "" if span_id in call_id else f"_{span_id}"
    return f"{at:%Y-%m-%d}/time-{at:%H-%M-%S-%f}_{segment(call_id)}{named}.json"
