"""Which record each span of a batch is from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.lane import Item

__all__ = ["Sources"]

T = TypeVar("T")


class Sources(Sequence[Item[T]]):
    """Of each span of ``items`` which one it is from, found out when somebody asks: mostly nobody does."""

    def __init__(self, items: Sequence[Item[T]], select: Callable[[T], Sequence[ReadableSpan]]) -> None:
        self._items = items
        self._select = select
        self._found: list[Item[T]] | None = None

    def _all(self) -> list[Item[T]]:
        if self._found is None:
            self._found = [item for item in self._items for _ in range(len(self._select(item.subject)))]
        return self._found

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, key: int) -> Item[T]: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Item[T]]: ...
    def __getitem__(self, key: int | slice) -> Item[T] | Sequence[Item[T]]:
        return self._all()[key]

    def __iter__(self) -> Iterator[Item[T]]:
        return iter(self._all())
