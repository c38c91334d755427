"""The head: follows every segment of the spool, decodes each record once and offers it to the lanes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from otelgw_collector.decoder import Decoder
from otelgw_collector.flow import Flow, Position
from otelgw_collector.lane import Item, Lane
from otelgw_collector.segments import Entry, SegmentReader, find_segments

__all__ = ["Head"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Head(Generic[T]):
    """Reads ``spool`` on behalf of ``lanes``. To be used by one thread; what it shares is in ``flow``."""

    def __init__(
        self,
        spool: Path,
        lanes: Sequence[Lane[T]],
        decoder: Decoder[T],
        flow: Flow,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._lanes = lanes
        self._decode = decoder
        self._flow = flow
        self._clock = clock
        self._readers: dict[str, SegmentReader] = {}
        self._unsupported: set[Path] = set()
        self._said: set[str] = set()

    @property
    def segments(self) -> frozenset[str]:
        """The keys of all segments that are there."""
        return frozenset(self._readers)

    def find(self) -> None:
        """Take in segments that are new."""
        known = {reader.path for reader in self._readers.values()} | self._unsupported
        for name in find_segments(self._spool):
            if name.path in known:
                continue
            try:
                reader = SegmentReader(name.path)
            except BlockingIOError:
                continue
            except OSError as error:
                self._say(f"segment {name.path.name} cannot be opened: {error.strerror}")
                continue
            if reader.supported:
                self._add(reader)
            else:
                reader.close()
                self._unsupported.add(name.path)
                self._say(f"segment {name.path.name} is of a newer format: left as it is")

    def _add(self, reader: SegmentReader) -> None:
        """Start where the furthest lane is; the others read up to there themselves."""
        with self._flow.lock:
            offset = max((lane.read.get(reader.key, 0) for lane in self._lanes), default=0)
            reader.offset = max(reader.offset, offset)
            self._readers[reader.key] = reader
            self._flow.positions[reader.key] = Position(reader.path, offset)

    def look(self) -> bool:
        """Read once what is new in each segment; True if there was anything."""
        self.find()
        found = [self._read(key, reader) for key, reader in list(self._readers.items())]
        return any(found)

    def _read(self, key: str, reader: SegmentReader) -> bool:
        before, skipped = reader.offset, reader.skipped
        try:
            entries = reader.read()
        except OSError as error:
            self._say(f"segment {reader.path.name} cannot be read: {error.strerror}")
            return False
        for entry in entries:
            self._dispatch(key, reader.path, entry)
        if reader.skipped > skipped:
            lost = reader.skipped - skipped
            logger.error("segment %s: %d bytes before offset %d are damaged", reader.path.name, lost, reader.offset)
        if reader.offset == before:
            return False
        with self._flow.lock:
            self._flow.positions[key] = Position(reader.path, reader.offset)
            for lane in self._lanes:
                if lane.following:
                    lane.pass_by(key, reader.offset)
        return True

    def _dispatch(self, key: str, path: Path, entry: Entry) -> None:
        """Decode a record if any lane follows, and offer it to those that do."""
        with self._flow.lock:
            wanted = any(lane.following for lane in self._lanes)
        subjects = self._decode(path, entry) if wanted else []
        now = self._clock()
        with self._flow.lock:
            self._flow.positions[key] = Position(path, entry.end)
            for lane in self._lanes:
                if lane.following and not wanted:
                    lane.following = False  # it caught up meanwhile, and reads this record itself
                elif lane.following and subjects:
                    lane.offer(Item(key, entry.end, len(entry.payload), subjects[0]), now)
                elif lane.following:
                    lane.pass_by(key, entry.end)

    def delete_finished(self) -> bool:
        """Delete the segments that nobody writes to and every lane is past; True if there were any."""
        deleted = [key for key, reader in self._readers.items() if self._delete(key, reader)]
        for key in deleted:
            self._readers.pop(key).close()
            with self._flow.lock:
                del self._flow.positions[key]
                for lane in self._lanes:
                    lane.forget(key)
        return bool(deleted)

    def _delete(self, key: str, reader: SegmentReader) -> bool:
        with self._flow.lock:
            offset = self._flow.positions[key].offset
            past = all(lane.done.get(key, 0) >= offset for lane in self._lanes)
        try:
            return past and reader.finished and reader.delete()
        except OSError as error:
            self._say(f"segment {reader.path.name} cannot be deleted: {error.strerror}")
            return False

    def _say(self, text: str) -> None:
        """Log trouble that every look finds again, the first time."""
        if text not in self._said:
            self._said.add(text)
            logger.error("%s", text)

    def close(self) -> None:
        """Release the file handles."""
        for reader in self._readers.values():
            reader.close()
