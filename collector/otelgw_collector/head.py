"""The head: follows every segment of the spool, decodes each record once and offers it to the lanes.

What settles an intent is read after the intent: a worker's segments one after the other, and the records of killed
requests, which settle those of workers that are dead, after all that dead workers have left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from otelgw_collector.decoder import Decoder
from otelgw_collector.fan_out import FanOut
from otelgw_collector.flow import Flow, Position
from otelgw_collector.intents import KILLED, Intents
from otelgw_collector.lane import Lane
from otelgw_collector.segment_format import INTENT, SETTLED, Entry
from otelgw_collector.segments import SegmentReader, SegmentWriter, find_segments, is_waiting, name_of
from otelgw_exporters.turn import offer_turn

__all__ = ["Head"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SETTLED = 2_000_000_000  # nanoseconds
_AT_ONCE = 256 * 1024  # bytes of one segment that are read at a time
_TURN = 8 * 1024  # bytes of records after which the processor is offered to others: a fraction of a millisecond
_TOGETHER = 32  # records that are offered together: some milliseconds of work


class Head(Generic[T]):
    """Reads ``spool`` on behalf of ``lanes``. To be used by one thread; what it shares is in ``flow``.

    ``observe`` sees every record that it decodes, in the order of reading. ``killed`` makes a record of the intent of a
    request whose worker died; without it there is none. ``intents`` are what was known when the head before this one
    had read up to ``cursors``, offsets by segment key.
    """

    def __init__(
        self,
        spool: Path,
        lanes: Sequence[Lane[T]],
        decoder: Decoder[T],
        flow: Flow,
        clock: Callable[[], float] = time.monotonic,
        *,
        intents: Intents | None = None,
        cursors: Mapping[str, int] = MappingProxyType({}),
        observe: Callable[[T], None] | None = None,
        killed: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._spool = spool
        self._lanes = lanes
        self._decode = decoder
        self._flow = flow
        self._clock = clock
        self.intents = intents or Intents()
        self._cursors = cursors
        self._fan_out = FanOut(lanes)
        self._observe = observe
        self._killed = killed
        self._live: dict[str, SegmentReader] = {}
        self.read_out: dict[str, Position] = {}
        self.unsupported: set[Path] = set()  # segments of a newer format
        self._unopened: set[Path] = set()
        self._said: set[str] = set()
        self._listed = 0
        self._unoffered = 0

    @property
    def segments(self) -> frozenset[str]:
        """The keys of all segments that are there."""
        return frozenset(self.read_out.keys() | self._live.keys())

    @property
    def unread(self) -> frozenset[str]:
        """The names of segments that are there and cannot be read for now."""
        return frozenset(path.name for path in self.unsupported | self._unopened)

    @property
    def live_size(self) -> int:
        """Bytes in the segments that are still written to."""
        return sum(reader.size for reader in self._live.values())

    def find(self) -> None:
        """Take in segments that are new."""
        if not self._may_have_changed():
            return
        known = {position.path for position in self._flow.positions.values()} | self.unsupported
        self._unopened.clear()
        for name in sorted(find_segments(self._spool), key=lambda each: each.worker.startswith(KILLED)):
            if name.path in known:
                continue
            try:
                reader = SegmentReader(name.path)
            except BlockingIOError:
                self._listed = 0  # its writer is about to begin: look again
                continue
            except OSError as error:
                self._say(f"segment {name.path.name} cannot be opened: {error.strerror}")
                self._unopened.add(name.path)
                self._listed = 0
                continue
            if reader.supported:
                self._add(reader)
            else:
                reader.close()
                self.unsupported.add(name.path)
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
        """Go on where the last head's cursor was saved; lanes that are not that far read up to there themselves.

        It was saved together with what was in flight by then. The lanes' cursors may be past what settles an intent
        in one segment, and not yet past the intent in another: who read from there on would take it for new.
        A closed segment is read at once where no lane follows: of that there is only to note what was in flight.
        """
        closed = reader.closed
        with self._flow.lock:
            done = max((lane.done.get(reader.key, 0) for lane in self._lanes), default=0)
            offset = max(done, self._cursors.get(reader.key, 0))
            reader.offset = max(reader.offset, offset)
            self._flow.positions[reader.key] = Position(reader.path, reader.offset)
            for lane in self._lanes:
                if lane.following and offset:
                    lane.following = False  # it could not be opened before, and the lane may not be that far
                elif lane.following:
                    lane.pass_by(reader.key, reader.offset)  # the header
            unwanted = closed and not any(lane.following for lane in self._lanes)
        self._live[reader.key] = reader
        while unwanted and not self._must_wait(reader) and self._read(reader.key, reader):
            pass
        self._retire_if_finished(reader)

    def _retire_if_finished(self, reader: SegmentReader) -> None:
        """Keep no file open that has nothing more to give: after a long outage there are thousands."""
        if reader.finished:
            del self._live[reader.key]
            self.read_out[reader.key] = Position(reader.path, reader.offset)
            reader.close()

    def look(self) -> int:
        """Read once what is new in each segment, up to a limit; return the number of bytes that there were."""
        self.find()
        found = 0
        for key, reader in list(self._live.items()):
            if not self._must_wait(reader):
                found += self._read(key, reader)
                self._retire_if_finished(reader)
        return found

    def _must_wait(self, reader: SegmentReader) -> bool:
        """True while there is more to read of a segment that comes before this one."""
        own = name_of(reader.path)
        for other in self._live.values():
            name = name_of(other.path)
            if own is None or name is None or other is reader:
                continue
            if name.worker == own.worker and name.seq < own.seq:
                return True
            if own.worker.startswith(KILLED) and not name.worker.startswith(KILLED) and other.closed:
                return True
        return False

    def _read(self, key: str, reader: SegmentReader) -> int:
        before, skipped = reader.offset, reader.skipped
        try:
            entries = reader.read(_AT_ONCE)
        except OSError as error:
            self._say(f"segment {reader.path.name} cannot be read: {error.strerror}")
            return 0
        name = name_of(reader.path)
        together: list[Entry] = []
        for entry in entries:
            if entry.kind == SETTLED:
                self.intents.settle(entry.payload)
            elif entry.kind != INTENT:
                together.append(entry)
            elif name is not None:
                self.intents.begin(name.worker, entry.payload)
            if len(together) == _TOGETHER:
                self._dispatch(key, reader.path, together)
                together = []
        if together:
            self._dispatch(key, reader.path, together)
        if reader.skipped > skipped:
            lost = reader.skipped - skipped
            logger.error("segment %s: %d bytes before offset %d are damaged", reader.path.name, lost, reader.offset)
        if reader.offset > before:
            with self._flow.lock:
                self._flow.positions[key] = Position(reader.path, reader.offset)
                for lane in self._lanes:
                    if lane.following:
                        lane.pass_by(key, reader.offset)
        return reader.offset - before

    def _dispatch(self, key: str, path: Path, entries: Sequence[Entry]) -> None:
        """Decode records if anybody wants them, and offer them to the lanes that follow."""
        wanted = self._fan_out.begin()
        if wanted or self._observe is not None:
            for entry in entries:
                for subject, address in self._decode(path, entry):
                    if self._observe is not None and address is None:
                        self._observe(subject)
                    if wanted:
                        self._fan_out.add(key, entry.end, len(entry.payload), subject, address)
                self._unoffered += len(entry.payload)
                if self._unoffered > _TURN:
                    self._unoffered = 0
                    offer_turn()
        if wanted:
            self._fan_out.gather()
        end = entries[-1].end
        with self._flow.lock:
            self._flow.positions[key] = Position(path, end)
            self._fan_out.offer(key, end, self._clock())

    def bury(self) -> bool:
        """Put what dead workers had begun on record; True if there was anything.

        A worker is dead when none of its segments is open and it is not waiting for room for one. It opens the next one
        before it leaves the last, so that the directory is listed after that was seen.
        """
        if self._killed is None:
            return False
        dead = self._without_sign(self.intents.workers - self._living())
        if not dead:
            return False
        self._listed = 0
        self.look()
        living = self._living()
        left = self.intents.left_by(self._without_sign(dead - living))
        # What is left may be on record already, in a segment that waits for its turn to be read.
        if not left or any(worker.startswith(KILLED) for worker in living):
            return False
        writer = SegmentWriter(self._spool, f"{KILLED}{time.time_ns()}")
        try:
            for identity, payload in left:
                self._put_on_record(writer, payload, identity)
                self.intents.settle(identity)
        except OSError as error:
            self._say(f"requests of a dead worker cannot be put on record for now: {error.strerror}")
            return False
        finally:
            writer.close()
        logger.warning("%d requests were in flight when their worker died", len(left))
        return True

    def _without_sign(self, workers: set[str]) -> set[str]:
        return {worker for worker in workers if not is_waiting(self._spool, worker)}

    def _put_on_record(self, writer: SegmentWriter, payload: bytes, identity: bytes) -> None:
        if self._killed is None:
            return
        try:
            record = self._killed(payload)
        except Exception as error:  # noqa: BLE001 - whatever is in it, one intent must not stop the others
            self._say(f"the intent of a request cannot be read ({type(error).__name__})")
            return
        # Settled in the same breath: this process may die before it has saved that, and must not do it twice.
        writer.append(record, settles=identity)

    def _living(self) -> set[str]:
        names = (name_of(reader.path) for reader in self._live.values())
        return {name.worker for name in names if name is not None}

    def forget(self, key: str) -> None:
        """Drop a segment that is deleted."""
        with self._flow.lock:
            self.read_out.pop(key, None)
            self._flow.positions.pop(key, None)
            for lane in self._lanes:
                lane.forget(key)

    def _say(self, text: str) -> None:
        """Log trouble that every look finds again, the first time."""
        if text not in self._said:
            self._said.add(text)
            logger.error("%s", text)

    def close(self) -> None:
        """Release the file handles."""
        for reader in self._live.values():
            reader.close()
