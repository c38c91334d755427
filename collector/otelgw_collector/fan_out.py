"""Giving what the head has read to the lanes, some records at a time: what a lane costs is paid once for all of them.

Lanes of destinations with the same ``prepare`` share what it makes of a record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from otelgw_collector.address import Address
from otelgw_collector.lane import Item, Lane

__all__ = ["FanOut", "prepared", "put_together"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Share(Generic[T]):
    """Lanes that need the same of a record. ``records`` and ``size`` say how much of it the roomiest still takes."""

    __slots__ = ("_gather", "addressed", "items", "lanes", "prepare", "records", "size")

    def __init__(self, prepare: Callable[[T], T] | None, lanes: Sequence[Lane[T]]) -> None:
        self.prepare = prepare
        self.lanes = lanes
        self._gather = dict.fromkeys(lane.destination.gather for lane in lanes)
        self.begin()

    def begin(self) -> None:
        self.items: list[Item[T]] = []
        self.addressed = False
        rooms = [lane.room for lane in self.lanes if lane.following]
        self.records = max((records for records, _ in rooms), default=0)
        self.size = max((size for _, size in rooms), default=0)

    def prepared(self, subject: T, size: int, address: Address | None) -> T:
        """Return a record as it is to wait, if it will; where preparing it fails, as it is."""
        if self.prepare is None or self.records <= 0 or self.size <= 0:
            return subject
        if address is not None and not any(lane.wants(address) for lane in self.lanes):
            return subject
        self.records -= 1
        self.size -= size
        return prepared(self.prepare, subject)

    def gather(self) -> None:
        """Have what was prepared put together, unless it is not all for all lanes."""
        for gather in self._gather:
            if not self.addressed:
                put_together(gather, self.items)


def prepared(prepare: Callable[[T], T] | None, subject: T) -> T:
    """Return what ``prepare`` makes of a record; where it fails, or there is none, the record as it is."""
    if prepare is None:
        return subject
    try:
        return prepare(subject)
    except Exception:  # noqa: BLE001 - selecting finds out which span it is, and what becomes of it
        return subject


def put_together(gather: Callable[[Sequence[T]], None] | None, items: Sequence[Item[T]]) -> None:
    """Have ``gather`` put together what was made ready of ``items``; where it fails they stay apart."""
    if gather is None:
        return
    try:
        gather([item.subject for item in items])
    except Exception as error:  # noqa: BLE001 - it saves work, and nothing else rests on it
        logger.warning(
            "%d records are sent one by one, as they cannot be joined (%s)", len(items), type(error).__name__
        )


class FanOut(Generic[T]):
    """Collects records and offers them to ``lanes``. To be used by one thread."""

    def __init__(self, lanes: Sequence[Lane[T]]) -> None:
        alike: dict[Callable[[T], T] | None, list[Lane[T]]] = {}
        for lane in lanes:
            alike.setdefault(lane.destination.prepare, []).append(lane)
        self._shares = [_Share(prepare, members) for prepare, members in alike.items()]
        self._wanted = False

    def begin(self) -> bool:
        """Begin anew; False if no lane follows, so that nothing needs to be decoded."""
        self._wanted = any(lane.following for share in self._shares for lane in share.lanes)
        if self._wanted:
            for share in self._shares:
                share.begin()
        return self._wanted

    def add(self, segment: str, end: int, size: int, subject: T, address: Address | None = None) -> None:
        """Take in a decoded record; the arguments are those of an ``Item``."""
        item: Item[T] | None = None
        for share in self._shares:
            needed = share.prepared(subject, size, address)
            if item is None or item.subject is not needed:
                item = Item(segment, end, size, needed, address)
            share.items.append(item)
            share.addressed |= address is not None

    def gather(self) -> None:
        """Have what was prepared put together before it is offered."""
        for share in self._shares:
            share.gather()

    def offer(self, segment: str, end: int, now: float) -> None:
        """Offer what was taken in to the lanes that follow: all that there is in ``segment`` up to ``end``.

        The caller holds the lock of the lanes.
        """
        for share in self._shares:
            for lane in share.lanes:
                if not lane.following:
                    continue
                if not self._wanted:
                    lane.following = False  # it caught up meanwhile, and reads these records itself
                    continue
                items = share.items
                if share.addressed:
                    items = [item for item in items if lane.wants(item.address)]
                lane.offer_all(items, segment, end, now)
