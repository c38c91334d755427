"""JSON in and out, whatever is in it: what cannot be said in JSON is said as near to it as can be, never refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["read", "write"]

_DEPTH = 100


def _known(value: Any) -> Any:
    """Return a value of a type that msgspec does not know as one that it does."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) else str(value)


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=_known).encode


def read(text: Any) -> Any:
    """Return the JSON value in a text or in bytes; None for anything else."""
    if not isinstance(text, str | bytes):
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(text, strict=False)  # lone surrogates and NaN, which msgspec refuses
    except (ValueError, RecursionError):
        return None


def write(value: Any) -> bytes:
    """Return ``value`` as JSON in UTF-8, on one line.

    Lone surrogates become question marks, what is no number null, an object of a strange type its text; nesting ends at
    100 levels.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError):
        return _encode(_plain(value, _DEPTH))


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not depth:
        return None
    if isinstance(value, Mapping):
        return {_plain(str(key), 1): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, depth - 1) for item in value]
    return _plain(str(value), 1)
