"""Finds one small form field in the beginning of a multipart body, without parsing the rest (RFC 7578)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Field", "Search", "boundary_of", "find_field", "replace_field"]

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


class Search:
    """Looks for the first field called ``name`` in a body that comes in parts; each byte is looked at about once.

    A field that is longer than 512 bytes is not it, nor is a file.
    """

    def __init__(self, boundary: bytes, name: str) -> None:
        self.body = bytearray()
        self.field: Field | None = None
        self._next = b"--" + boundary  # the first delimiter may stand at the start, the others begin a line
        self._delimiter = b"\r\n--" + boundary
        self._wanted = b'name="' + name.encode() + b'"'
        self._part = -1  # where the head of the part at hand begins; -1: its delimiter is still to come
        self._from = 0  # where the search for a delimiter goes on

    def feed(self, data: bytes) -> None:
        """Take the next part of the body and search it; ``field`` is set once it is complete."""
        self.body += data
        while self.field is None and self._find_part() and self._read_part():
            pass

    def _find_part(self) -> bool:
        """Go to the head of the next part, unless there already; False where it is not here yet."""
        if self._part >= 0:
            return True
        at = self.body.find(self._next, self._from)
        if at < 0:
            self._from = max(self._from, len(self.body) - len(self._next) + 1)
            return False
        self._part = at + len(self._next)
        self._next = self._delimiter
        return True

    def _read_part(self) -> bool:
        """Look at the part at hand; True where it is not the one and the search goes on behind its head."""
        body, start = self.body, self._part
        head_end = body.find(b"\r\n\r\n", start, start + _MAX_PART_HEAD)
        if head_end < 0:
            if len(body) - start < _MAX_PART_HEAD:
                return False
            head_end = start - 4  # no head: what follows is passed over like a file
        value = head_end + 4
        head = body[start:head_end]
        if self._wanted in head and b"filename=" not in head:
            end = body.find(self._delimiter, value, value + _MAX_VALUE + len(self._delimiter))
            if end >= 0:
                self.field = Field(body[value:end].decode("utf-8", "replace"), value, end)
                return False
            if len(body) - value < _MAX_VALUE + len(self._delimiter):
                return False
        self._part, self._from = -1, value
        return True


def find_field(body: bytes, boundary: bytes, name: str) -> Field | None:
    """Return the first field called ``name``; None where it is absent, longer than 512 bytes or not complete yet."""
    search = Search(boundary, name)
    search.feed(body)
    return search.field


def replace_field(body: bytes, field: Field, value: str) -> bytes:
    return body[: field.start] + value.encode() + body[field.end :]
