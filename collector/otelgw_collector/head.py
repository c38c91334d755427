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

_SETTLED = 2_000_000_000  # nanoseconds


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
        self._live: dict[str, SegmentReader] = {}
        self._read_out: set[str] = set()
        self._unsupported: set[Path] = set()
        self._said: set[str] = set()
        self._listed = 0

    @property
    def segments(self) -> frozenset[str]:
        """The keys of all segments that are there."""
        return frozenset(self._read_out | self._live.keys())

    def find(self) -> None:
        """Take in segments that are new."""
        if not self._may_have_changed():
            return
        known = {position.path for position in self._flow.positions.values()} | self._unsupported
        for name in find_segments(self._spool):
            if name.path in known:
                continue
            try:
                reader = SegmentReader(name.path)
            except BlockingIOError:
                self._listed = 0  # its writer is about to begin: look again
                continue
            except OSError as error:
                self._say(f"segment {name.path.name} cannot be opened: {error.strerror}")
                self._listed = 0
                continue
            if reader.supported:
                self._add(reader)
            else:
                reader.close()
                self._unsupported.add(name.path)
                self._say(f"segment {name.path.name} is of a newer format: left as it is")

    def _may_have_changed(self) -> bool:
        """Tell by the directory's time whether to list it; a recent time says little, as clocks tick coarsely."""
        try:
            changed = self._spool.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        same = changed == self._listed and time.time_ns() - changed > _SETTLED
        self._listed = changed
        return not same

    def _add(self, reader: SegmentReader) -> None:
        """Start where the furthest lane is; the others read up to there themselves.

        Of a closed segment the head reads nothing while all lanes are behind: they read it in any case.
        """
        closed = reader.closed
        with self._flow.lock:
            skip = closed and not any(lane.following for lane in self._lanes)
            offset = reader.size if skip else max((lane.read.get(reader.key, 0) for lane in self._lanes), default=0)
            reader.offset = max(reader.offset, offset)
            self._flow.positions[reader.key] = Position(reader.path, offset)
        self._live[reader.key] = reader
        self._retire_if_finished(reader)

    def _retire_if_finished(self, reader: SegmentReader) -> None:
        """Keep no file open that has nothing more to give: after a long outage there are thousands."""
        if reader.finished:
            del self._live[reader.key]
            self._read_out.add(reader.key)
            reader.close()

    def look(self) -> bool:
        """Read once what is new in each segment; True if there was anything."""
        self.find()
        found = False
        for key, reader in list(self._live.items()):
            found |= self._read(key, reader)
            self._retire_if_finished(reader)
        return found

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
        with self._flow.lock:
            past = [
                (key, self._flow.positions[key])
                for key in self._read_out
                if all(lane.done.get(key, 0) >= self._flow.positions[key].offset for lane in self._lanes)
            ]
        deleted = [key for key, position in past if self._delete(position)]
        with self._flow.lock:
            for key in deleted:
                self._read_out.remove(key)
                del self._flow.positions[key]
                for lane in self._lanes:
                    lane.forget(key)
        return bool(deleted)

    def _delete(self, position: Position) -> bool:
        try:
            reader = SegmentReader(position.path, position.offset)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._say(f"segment {position.path.name} cannot be deleted: {error.strerror}")
            return False
        try:
            return reader.delete()
        except OSError as error:
            self._say(f"segment {position.path.name} cannot be deleted: {error.strerror}")
            return False
        finally:
            reader.close()

    def _say(self, text: str) -> None:
        """Log trouble that every look finds again, the first time."""
        if text not in self._said:
            self._said.add(text)
            logger.error("%s", text)

    def close(self) -> None:
        """Release the file handles."""
        for reader in self._live.values():
            reader.close()
