"""The sweeper: deletes segments that are delivered and old enough, and keeps the spool within its limit.

What a newer otelgw wrote, whole segments or records, is left for it, and counts as not delivered.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from otelgw_collector import address
from otelgw_collector.aside import Aside
from otelgw_collector.flow import Flow, Position
from otelgw_collector.head import Head
from otelgw_collector.lane import Lane
from otelgw_collector.retention import UNAUTHENTICATED, Retention, Stored, victims
from otelgw_collector.segment_format import ADDRESSED, INTENT, SETTLED, Entry
from otelgw_collector.segments import SegmentReader, name_of

__all__ = ["Sweeper"]

logger = logging.getLogger(__name__)

_QUIET = 60.0  # seconds between two log lines on records that had to go
_PAUSE = 1.0  # seconds between two looks at sizes


class Sweeper:
    """Belongs to the head's thread. ``save`` puts on disk how far the lanes are."""

    def __init__(
        self,
        head: Head[Any],
        lanes: Sequence[Lane[Any]],
        flow: Flow,
        retention: Retention,
        aside: Aside,
        clock: Callable[[], float] = time.monotonic,
        save: Callable[[], object] = lambda: None,
    ) -> None:
        self._head = head
        self._lanes = lanes
        self._flow = flow
        self._retention = retention
        self._aside = aside
        self._clock = clock
        self._save = save
        self._found: dict[str, tuple[float, int]] = {}
        self._dropped: Counter[str] = Counter()
        self._told_at = float("-inf")
        self._swept_at = float("-inf")
        self.size = 0  # bytes of the spool when last looked, with what is set aside
        self.given_up = 0  # records and segments of a newer otelgw that had to go

    def sweep(self, *, force: bool = False) -> bool:
        """Delete what has to go; True if anything went."""
        now = self._clock()
        if now - self._swept_at < (0.0 if self._retention.delivered == 0 else _PAUSE) and not force:
            return False
        self._swept_at = now
        stored = self._stored()
        newer = self._newer_segments()
        self.size = sum(each.size for each in (*stored, *newer)) + self._head.live_size + self._aside.size
        total, free = self.size, self._free(stored)
        if total > self._retention.cap:
            newer += [Stored(str(path), *kept, False, False) for path, kept in self._aside.newer.items()]
        gone = victims([*stored, *newer], self._retention, now=time.time(), total=total, free=free)
        sizes = {each.key: each.size for each in (*stored, *newer)}
        delivered = {each.key for each in stored if each.delivered}
        deleted = False
        if not delivered.isdisjoint(gone):
            # Else a crash would have batches made again of which a part is gone. A full disk may not take it: then room
            # matters more.
            self._save()
        for key in gone:
            if key not in self._head.read_out:
                self.size -= sizes[key] if self._give_up_newer(Path(key)) else 0
                continue
            position = self._head.read_out[key]
            if key not in delivered:
                self._give_up(key, position)
            if self._delete(position):
                self._head.forget(key)
                self._found.pop(key, None)
                self.size -= sizes[key]
                deleted = True
        self._tell(now)
        return deleted

    def _newer_segments(self) -> list[Stored]:
        """Return the segments of a newer format, by path."""
        found: list[Stored] = []
        for path in list(self._head.unsupported):
            try:
                status = path.stat()
            except OSError:
                self._head.unsupported.discard(path)
                continue
            found.append(Stored(str(path), status.st_mtime, status.st_size, False, False))
        return found

    def _give_up_newer(self, path: Path) -> bool:
        try:
            self._aside.remove(path)
        except OSError as error:
            logger.warning("%s cannot be deleted: %s", path.name, error.strerror)
            return False
        self._head.unsupported.discard(path)
        self.given_up += 1
        self._dropped["a newer otelgw"] += 1
        return True

    def _stored(self) -> list[Stored]:
        with self._flow.lock:
            past = {
                key: all(lane.done.get(key, 0) >= position.offset for lane in self._lanes)
                for key, position in self._head.read_out.items()
            }
        return [Stored(key, *self._look_up(key), self._is_unauthenticated(key), past[key]) for key in past]

    def _look_up(self, key: str) -> tuple[float, int]:
        """Return a finished segment's last change and its size: neither changes any more."""
        known = self._found.get(key)
        if known is None:
            try:
                status = self._head.read_out[key].path.stat()
                known = (status.st_mtime, status.st_size)
            except OSError:
                known = (0.0, 0)
            self._found[key] = known
        return known

    def _is_unauthenticated(self, key: str) -> bool:
        name = name_of(self._head.read_out[key].path)
        return name is not None and name.worker.endswith(UNAUTHENTICATED)

    def _free(self, stored: Sequence[Stored]) -> int:
        if not stored:
            return 0
        try:
            found = os.statvfs(self._head.read_out[stored[0].key].path.parent)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def _give_up(self, key: str, position: Position) -> None:
        """Count what each destination loses with a segment, and take it out of its way."""
        with self._flow.lock:
            evicted = {
                lane.destination.name: lane.evict(key, position.offset)
                for lane in self._lanes
                if lane.done.get(key, 0) < position.offset
            }
        lost = {name: waiting for name, (waiting, _) in evicted.items()}
        for entry in _entries(position, min((unread for _, unread in evicted.values()), default=0)):
            for name, (_, unread) in evicted.items():
                lost[name] += entry.end > unread and _is_for(entry, name)
        with self._flow.lock:
            for lane in self._lanes:
                lane.counters.dropped += lost.get(lane.destination.name, 0)
        self._dropped.update(lost)

    def _tell(self, now: float) -> None:
        if self._dropped.total() and now - self._told_at >= _QUIET:
            what = ", ".join(f"{count} of {name}" for name, count in sorted(self._dropped.items()) if count)
            logger.error(
                "the spool is at its limit of %d bytes: undelivered records had to go: %s", self._retention.cap, what
            )
            self._dropped.clear()
            self._told_at = now

    def _delete(self, position: Position) -> bool:
        try:
            reader = SegmentReader(position.path, position.offset)
        except FileNotFoundError:
            return True
        except OSError as error:
            logger.warning("segment %s cannot be deleted: %s", position.path.name, error.strerror)
            return False
        try:
            return reader.delete()
        except OSError as error:
            logger.warning("segment %s cannot be deleted: %s", position.path.name, error.strerror)
            return False
        finally:
            reader.close()


def _is_for(entry: Entry, destination: str) -> bool:
    if entry.kind in {INTENT, SETTLED}:
        return False
    try:
        return entry.kind != ADDRESSED or address.decode(entry.payload).destination == destination
    except ValueError:
        return False


def _entries(position: Position, start: int) -> Iterator[Entry]:
    """Yield the records of a finished segment from an offset on; fewer if it cannot be read."""
    try:
        reader = SegmentReader(position.path, start)
    except OSError:
        return
    try:
        while entries := reader.read(until=position.offset):
            yield from entries
    except OSError:
        return
    finally:
        reader.close()
