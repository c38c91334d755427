"""Encoded spans of records that follow each other, put together while they are at hand.

A batch consists of a few sheaves instead of hundreds of spans: none of them has to be touched again to be sent, by any
destination. Who wants the spans themselves finds them in it, and a request made of sheaves is, byte by byte, the one
that ``assemble`` makes of their spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import overload

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters.otlp_wire import EncodedSpan, Ready, apart

__all__ = ["Bundle", "Sheaf", "Sheaves", "gathered", "size_of"]

_OVERHEAD = 24  # bytes of tags and lengths around a span, its scope and its resource, at most: as ``split`` counts

Encode = Callable[[ReadableSpan], EncodedSpan]


class Bundle(Sequence[ReadableSpan]):
    """The ``count`` spans of one record, encoded together: ``piece`` is all of them. Who wants one takes it apart."""

    __slots__ = ("_count", "_spans", "piece")

    def __init__(self, piece: EncodedSpan, count: int) -> None:
        self.piece = piece
        self._count = count
        self._spans: list[ReadableSpan] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, key: int) -> ReadableSpan: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[ReadableSpan]: ...
    def __getitem__(self, key: int | slice) -> ReadableSpan | Sequence[ReadableSpan]:
        if self._spans is None:
            self._spans = [Ready.of(each) for each in apart(self.piece)]
        return self._spans[key]

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(self[:])

    @property
    def size(self) -> int:
        """What ``split`` takes for the size of a request of it."""
        resource, scope, spans = self.piece
        return (len(resource) + len(scope) + _OVERHEAD) * self._count + len(spans)


class Sheaf:
    """The spans of ``records``, in order. ``pieces`` are their encoded forms, those of one resource and scope in one,
    and ``size`` is what ``split`` takes for that of a request of them."""

    __slots__ = ("count", "pieces", "records", "size")

    def __init__(self, records: Sequence[Sequence[ReadableSpan]], pieces: Sequence[EncodedSpan], size: int) -> None:
        self.records = records
        self.count = sum(map(len, records))
        self.pieces = pieces
        self.size = size


def gathered(records: Sequence[Sequence[ReadableSpan]]) -> Sheaf | None:
    """Return the sheaf of the spans of ``records``; None unless all of them are encoded already."""
    members: dict[tuple[bytes, bytes], list[bytes]] = {}
    around: tuple[object, object] = (None, None)
    same: list[bytes] = []
    size = 0
    for spans in records:
        pieces, own = ((spans.piece,), spans.size) if type(spans) is Bundle else _encoded(spans)
        if own is None:
            return None
        size += own
        for resource, scope, encoded in pieces:
            if around[0] is not resource or around[1] is not scope:
                same = members.setdefault((resource, scope), [])
                around = (resource, scope)
            same.append(encoded)
    return Sheaf(records, [EncodedSpan(*key, b"".join(encoded)) for key, encoded in members.items()], size)


def _encoded(spans: Sequence[ReadableSpan]) -> tuple[Sequence[EncodedSpan], int | None]:
    """Return what spans were encoded to, and what ``split`` takes for its size; None unless all of them are."""
    pieces = [span.encoded for span in spans if type(span) is Ready]
    return pieces, size_of(pieces) if len(pieces) == len(spans) else None


class Sheaves(Sequence[ReadableSpan]):
    """The spans of a batch: sheaves, and spans that are in none."""

    def __init__(self, parts: Sequence[Sheaf | Sequence[ReadableSpan]]) -> None:
        self._parts = parts
        self._count = sum(part.count if isinstance(part, Sheaf) else len(part) for part in parts)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ReadableSpan]:
        for part in self._parts:
            yield from chain.from_iterable(part.records) if isinstance(part, Sheaf) else part

    @overload
    def __getitem__(self, key: int) -> ReadableSpan: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[ReadableSpan]: ...
    def __getitem__(self, key: int | slice) -> ReadableSpan | Sequence[ReadableSpan]:
        return list(self)[key]

    def encoded(self, encode: Encode) -> tuple[list[EncodedSpan], int]:
        """Return all of it in wire format, and what ``split`` takes for the size of a request of it.

        Raises what ``encode`` does of a span that is in no sheaf.
        """
        pieces: list[EncodedSpan] = []
        size = 0
        for part in self._parts:
            if isinstance(part, Sheaf):
                pieces += part.pieces
                size += part.size
            elif isinstance(part, Bundle):
                pieces.append(part.piece)
                size += part.size
            else:
                found = [encode(span) for span in part]
                pieces += found
                size += size_of(found)
        return pieces, size


def size_of(spans: Iterable[EncodedSpan]) -> int:
    """Return what ``split`` takes for the size of a request of ``spans``."""
    return sum([len(resource) + len(scope) + len(span) + _OVERHEAD for resource, scope, span in spans])
