"""Finds one small form field in the beginning of a multipart body, without parsing the rest (RFC 7578)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Field", "boundary_of", "find_field", "replace_field"]

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^;\s"]{1,70}))', re.IGNORECASE)
_MAX_VALUE = 512
_MAX_PART_HEAD = 4096


class Field(NamedTuple):
    """A field's value and where it stands in the body."""

    value: str
    start: int
    end: int


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart content type, empty where it has none."""
    found = _BOUNDARY.search(content_type)
    return (found.group(1) or found.group(2)).encode("latin-1", "replace") if found else b""


def find_field(body: bytes, boundary: bytes, name: str) -> Field | None:
    """Return the first field called ``name``; None where it is absent, longer than 512 bytes or not complete yet."""
    delimiter = b"--" + boundary
    wanted = b'name="' + name.encode() + b'"'
    position = body.find(delimiter)
    while position >= 0:
        head_start = position + len(delimiter)
        head_end = body.find(b"\r\n\r\n", head_start, head_start + _MAX_PART_HEAD)
        if head_end < 0:
            return None
        value_start = head_end + 4
        if wanted in body[head_start:head_end] and b"filename=" not in body[head_start:head_end]:
            value_end = body.find(b"\r\n" + delimiter, value_start, value_start + _MAX_VALUE + len(delimiter) + 2)
            if value_end < 0:
                return None
            return Field(body[value_start:value_end].decode("utf-8", "replace"), value_start, value_end)
        position = body.find(b"\r\n" + delimiter, value_start)
        position = position + 2 if position >= 0 else -1
    return None


def replace_field(body: bytes, field: Field, value: str) -> bytes:
    return body[: field.start] + value.encode() + body[field.end :]
