"""httpx's ``Headers`` over a list that is there already, for the seam to upstreams.

``httpx.Headers`` copies, lower-cases and re-encodes every header it is given. What passes the seam has been parsed, and
its sender or reader wants the list back as it is; so the index that lookups need is made when somebody looks something
up, which any other transport may do and the relay does not.
"""

from __future__ import annotations

import httpx

__all__ = ["LazyHeaders"]

RawHeaders = list[tuple[bytes, bytes]]


class Block:
    """Headers that many requests have. ``start``: what those with ``method`` to ``url`` begin with on the wire, noted
    by who has written one."""

    __slots__ = ("headers", "method", "start", "url")

    def __init__(self, headers: RawHeaders) -> None:
        self.headers = headers
        self.start = b""
        self.method = ""
        self.url: httpx.URL | None = None


class LazyHeaders(httpx.Headers):
    """Headers with their case and order; everything that ``httpx.Headers`` can do works."""

    def __init__(self, raw: RawHeaders) -> None:
        self._given = raw
        self._index: list[tuple[bytes, bytes, bytes]] | None = None
        self._encoding = None

    @property
    def _list(self) -> list[tuple[bytes, bytes, bytes]]:
        if self._index is None:
            self._index = [(name, name.lower(), value) for name, value in self._given]
        return self._index

    @_list.setter
    def _list(self, index: list[tuple[bytes, bytes, bytes]]) -> None:
        self._index = index

    @property
    def raw(self) -> RawHeaders:
        if self._index is None:
            return self._given
        return [(name, value) for name, _, value in self._index]


class BlockHeaders(LazyHeaders):
    """A block with the host and the length of a body, which are put around it when somebody looks. ``untouched``: what
    is in here is what was given."""

    def __init__(self, block: Block, url: httpx.URL, length: int) -> None:
        self._index = None
        self._encoding = None
        self._url = url
        self._length = length
        self.block = block

    @property
    def untouched(self) -> bool:
        return self._index is None

    @property
    def _given(self) -> RawHeaders:  # type: ignore[override]
        return [(b"Host", self._url.netloc), *self.block.headers, (b"Content-Length", b"%d" % self._length)]
