"""Values and attributes in OTLP's wire format: AnyValue and KeyValue of ``common.proto``, written out by hand.

Nearly all of what a destination costs is spent on these; messages of protobuf's own library cost five times as much.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["attributes", "double_head", "field", "pair", "text_head", "utf8", "varint"]

_INT64, _UINT64 = 1 << 63, (1 << 64) - 1
_DOUBLE = struct.Struct("<d")
_TAGS = [bytes((number << 3 | 2,)) for number in range(16)]
_ONE_BYTE = [bytes((value,)) for value in range(0x80)]
_NAMES = 4096  # of attributes, and lengths of their texts


def varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value & 0x7F | 0x80 | (value & 0x3F80) << 1).to_bytes(2, "little")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field; ``number`` is below 16."""
    return _TAGS[number] + varint(len(content)) + content


def attributes(number: int, given: Mapping[str, Any]) -> bytes:
    """Return the repeated KeyValue field ``number``.

    Raises:
        TypeError: a value has no form in OTLP.
    """
    return b"".join([pair(number, key, value) for key, value in given.items()])


def pair(number: int, key: str, value: Any) -> bytes:
    """Return one KeyValue as field ``number``."""
    return field(number, field(1, utf8(key)) + field(2, _any(value)))


@lru_cache(maxsize=_NAMES)
def _short_text_head(key: str, size: int) -> bytes:
    return _text_head(key, size)


def _text_head(key: str, size: int) -> bytes:
    name, text = _name(key), varint(size)
    value = varint(1 + len(text) + size)
    whole = varint(len(name) + 2 + len(value) + len(text) + size)
    return b"\x4a%b%b\x12%b\x0a%b" % (whole, name, value, text)


def text_head(key: str, size: int) -> bytes:
    """Return attribute ``key`` of a Span with a text of ``size`` bytes, up to the text."""
    return _short_text_head(key, size) if size < 0x80 else _text_head(key, size)


@lru_cache(maxsize=_NAMES)
def double_head(key: str) -> bytes:
    """Return attribute ``key`` of a Span with a number, up to the eight bytes of the double."""
    name = _name(key)
    return b"\x4a" + varint(len(name) + 11) + name + b"\x12\x09\x21"


@lru_cache(maxsize=_NAMES)
def _name(key: str) -> bytes:
    return field(1, utf8(key))


def _any(value: Any) -> bytes:
    """Return an AnyValue: string 1, bool 2, int 3, double 4, array 5, kvlist 6, bytes 7."""
    if type(value) is str or isinstance(value, str):
        return field(1, utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if -_INT64 <= value < _INT64:
            return b"\x18" + varint(value & _UINT64)
        return field(1, str(value).encode())
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    if value is None:
        return b""
    if isinstance(value, bytes):
        return field(7, value)
    if isinstance(value, Mapping):
        return field(6, attributes(1, {str(key): item for key, item in value.items()}))
    if isinstance(value, Sequence):
        return field(5, b"".join(field(1, _any(item)) for item in value))
    raise TypeError(f"a value of type {type(value).__name__} has no form in OTLP")


def utf8(value: str) -> bytes:
    """Return ``value`` in UTF-8; a lone surrogate, which is none, as a question mark."""
    return value.encode("utf-8", "replace")
