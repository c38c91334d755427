"""Heads that a connection sends again and again, recognised by their bytes: what follows from one is found once.

A client that keeps its connection sends the same head with every request, but for the length of the body and the trace
context. So the next one need not be parsed: it is the bytes of one that was accepted, with blanks that hold nothing but
digits or a trace context. Whatever differs otherwise, or does not come in one piece with its body, is parsed.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from otelgw.http.stream import OUTLET, Findings, RawHeaders

__all__ = ["KnownHead"]

_LONGEST = 8 * 1024  # bytes of a head that is remembered
_LENGTH = b"content-length"
_BLANKS = {
    _LENGTH: re.compile(rb"([0-9]{1,9})(?=\r)"),
    b"traceparent": re.compile(rb"([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?=\r)"),
}
_UNREPEATABLE = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"http2-settings"})


class KnownHead:
    """A head that one connection has sent and may send again; not to be kept longer than the connection, for the
    caller's key is in it. ``findings`` are what was found out about it."""

    __slots__ = ("_blanks", "_headers", "_rest", "_scope", "findings")

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        blanks: list[tuple[bytes, re.Pattern[bytes], int, bytes]],
        rest: bytes,
    ) -> None:
        self._scope = {key: value for key, value in scope.items() if key != OUTLET}
        self._headers: RawHeaders = scope["headers"]
        self._blanks = blanks  # the bytes before a blank, its shape, its place among the headers and its name
        self._rest = rest
        self.findings = Findings()

    @classmethod
    def of(cls, data: bytes, scope: MutableMapping[str, Any]) -> KnownHead | None:
        """Return the head in ``data``, a whole request that was parsed as ``scope``; None where it is none of those
        that can be recognised."""
        head, found, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        headers: RawHeaders = scope["headers"]
        if not found or len(head) > _LONGEST or len(lines) != len(headers):
            return None
        blanks = []
        literal = first
        for place, (line, (name, value)) in enumerate(zip(lines, headers, strict=True)):
            prefix = line.removesuffix(value)
            if name in _UNREPEATABLE or prefix.rstrip(b" \t").lower() != name + b":":
                return None
            shape = _BLANKS.get(name)
            if shape is not None and value:
                blanks.append((b"%b\r\n%b" % (literal, prefix), shape, place, name))
                literal = b""
            else:
                literal += b"\r\n" + line
        lengths = [headers[place][1] for _, _, place, name in blanks if name == _LENGTH]
        if lengths != [b"%d" % len(body)]:
            return None
        return cls(scope, blanks, literal + b"\r\n\r\n")

    def match(self, data: bytes) -> tuple[MutableMapping[str, Any], bytes] | None:
        """Return the scope and the body of a request if ``data`` is one whole request with this head, else None."""
        headers = self._headers.copy()
        at = length = 0
        for literal, shape, place, name in self._blanks:
            if not data.startswith(literal, at):
                return None
            found = shape.match(data, at + len(literal))
            if found is None:
                return None
            value = found[1]
            at = found.end()
            headers[place] = (name, value)
            if name == _LENGTH:
                length = int(value)
        if not data.startswith(self._rest, at):
            return None
        body = data[at + len(self._rest) :]
        if len(body) != length:
            return None
        scope = self._scope.copy()
        scope["headers"] = headers
        return scope, body
