"""Captured bodies, made readable: the content coding taken off, within a bound."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from otelgw.tracing.record import Capture

__all__ = ["DECODED_LIMIT", "Body", "readable"]

DECODED_LIMIT = 4 * 1024 * 1024  # bytes that a compressed capture may become
_BLOCK = 64 * 1024
_MISSING = b"\n"  # a tail that says no more than that the rest is missing

# zlib's window bits by content coding; deflate is meant to be zlib's format and is often raw.
_WINDOWS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}


class Body(NamedTuple):
    """``head`` is all of a body, unless ``tail`` is not empty: then what stands between the two is missing."""

    head: bytes = b""
    tail: bytes = b""


_UNREADABLE = Body()


def readable(capture: Capture) -> Body:
    """Return the captured body as text; empty where it is withheld or its coding is not gzip or deflate."""
    coding = capture.encoding and capture.encoding.strip().lower()
    if not coding or coding == "identity":
        return Body(capture.head, capture.tail)
    for window in _WINDOWS.get(coding, ()):
        decoded, ended = _inflated(capture.head, window)
        if decoded:
            missing = bool(capture.tail) or (not ended and len(decoded) >= DECODED_LIMIT)
            return Body(decoded, _MISSING if missing else b"")
    return _UNREADABLE


def _inflated(body: bytes, window: int) -> tuple[bytes, bool]:
    """Return at most ``DECODED_LIMIT`` bytes of what ``body`` holds, and whether that is its end."""
    found = bytearray()
    inflater = zlib.decompressobj(window)
    at = 0
    pending = b""
    while len(found) < DECODED_LIMIT and (pending or at < len(body)):
        if not pending:
            pending = body[at : at + _BLOCK]
            at += _BLOCK
        try:
            found += inflater.decompress(pending, DECODED_LIMIT - len(found))
        except zlib.error:
            break
        if inflater.eof:
            if window < 0 or not inflater.unused_data:
                return bytes(found), True
            pending, inflater = inflater.unused_data, zlib.decompressobj(window)  # gzip members may follow each other
        else:
            pending = inflater.unconsumed_tail
    return bytes(found), False
