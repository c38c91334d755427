"""A courier: the thread that delivers for one destination, and nobody else's."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector import address as addresses
from otelgw_collector.decoder import Decoder
from otelgw_collector.fan_out import prepared, put_together
from otelgw_collector.flow import Flow, Position
from otelgw_collector.journal import Journal
from otelgw_collector.lane import Batch, Frozen, Item, Lane, Place, Run, letter_key
from otelgw_collector.letters import Key, Letter
from otelgw_collector.segment_format import ADDRESSED, Entry
from otelgw_collector.segments import SegmentReader, read_between
from otelgw_collector.sources import Sources
from otelgw_exporters.delivery import DONE, Exporter, Outcome, Verdict

__all__ = ["Courier"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_QUIET = 60.0  # seconds between two log lines on the same kind of trouble
_READ = 512 * 1024  # bytes read at a time while catching up


class Courier(Generic[T]):
    """Selects, batches, delivers and retries for one lane, on a thread of its own."""

    def __init__(
        self,
        lane: Lane[T],
        decoder: Decoder[T],
        flow: Flow,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        journal: Journal | None = None,
    ) -> None:
        self.lane = lane
        self._journal = journal
        self._decode = decoder
        self._flow = flow
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition(flow.lock)
        self._warned: dict[str, float] = {}
        self._wakes_at = float("inf")  # by itself
        self._thread = threading.Thread(target=self._run, name=f"deliver {lane.destination.name}", daemon=True)

    def start(self) -> None:
        """Start delivering."""
        self._thread.start()

    def notify(self, *, force: bool = False) -> None:
        """Have the courier look what there is to do, if there is more than it knows of; the caller holds the lock."""
        lane, now = self.lane, self._clock()
        pause = lane.pause(now, draining=self._flow.draining)
        sooner = pause is not None and now + pause < self._wakes_at
        if force or sooner or (lane.idle and not lane.following):
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Close the exporter and wait for the thread, at most ``timeout`` seconds."""
        try:
            self.lane.destination.exporter.shutdown()
        except Exception as error:  # noqa: BLE001 - one destination's trouble is not another's
            self._warn("close", f"cannot be closed ({type(error).__name__})")
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while self._wait():
                self._step()
        except BaseException as error:  # noqa: BLE001 - run() must learn of any end of this thread
            logger.critical("destination %s: its thread failed (%s)", self.lane.destination.name, type(error).__name__)
            self._flow.failure = error

    def _wait(self) -> bool:
        """Wait until there is something to deliver or to catch up with; False once the lane has ended."""
        lane, flow = self.lane, self._flow
        with self._changed:
            while not (flow.abandoned or lane.ended):
                if lane.thaw and lane.batch is None:
                    return True
                now = self._clock()
                pause = lane.pause(now, draining=flow.draining)
                if pause == 0:
                    return True
                if lane.idle and (not lane.following or flow.behind(lane.read)):
                    return True
                if flow.stop_at is not None:
                    lane.ended = flow.head_done if pause is None else now + pause >= flow.stop_at
                if not lane.ended:
                    self._wakes_at = float("inf") if pause is None else now + pause
                    self._changed.wait(pause)
            lane.ended = True
            return False

    def _step(self) -> None:
        lane = self.lane
        if lane.idle:
            self._catch_up()
            return
        if lane.batch is None and lane.thaw:
            self._thaw(lane.thaw[0])
        elif lane.batch is None:
            with self._flow.lock:
                items = lane.take(self._clock())
            self._begin(items, *self._selected(items))
        # Asked after the batch is noted: at the end nothing is noted any more, and so nothing tried either.
        if lane.batch is not None and not self._flow.abandoned:
            self._deliver(lane.batch)

    def _begin(self, items: Sequence[Item[T]], spans: Sequence[ReadableSpan], sources: Sequence[Item[T]]) -> None:
        again = [
            self._key(key)
            for item in items
            if item.address is not None and item.address.letters
            for key in item.address.spans
        ]
        with self._flow.lock:
            self.lane.taken_up += again
            batch = self.lane.begin(spans, items, sources, self._clock())
        if self._journal is not None and spans:
            # Before the first try: whatever ends this process, the next one sends these spans in the same batch.
            self._journal.begin(self.lane.destination.name, batch.number, Frozen(batch.runs))

    def _thaw(self, frozen: Frozen) -> None:
        """Make a batch again that was on its way when the last process ended: the same spans in the same order."""
        items: list[Item[T]] = []
        lost = 0
        for run in frozen.runs:
            found = self._again(run)
            lost += 0 if found else run.records
            items += found
        spans, sources = self._selected(items)
        if frozen.spans is not None:
            left = [index for index, span in enumerate(spans) if letter_key(span) in frozen.spans]
            all_spans, all_sources = list(spans), list(sources)
            spans, sources = [all_spans[at] for at in left], [all_sources[at] for at in left]
        resumed = [
            self._key(letter_key(span))
            for span, source in zip(spans, sources, strict=True)
            if source.address is not None and source.address.letters
        ]
        with self._flow.lock:
            self.lane.taken_up += resumed
            self.lane.begin(spans, items, sources, self._clock(), frozen.whole)
            self.lane.counters.dropped += lost

    def _again(self, run: Run) -> list[Item[T]]:
        """Read records once more; none if their segment is gone."""
        with self._flow.lock:
            position = self._flow.positions.get(run.segment)
        if position is None:
            return []
        return self._items(run.segment, position.path, read_between(position.path, run.start, run.end))

    def _items(self, segment: str, path: Path, entries: Iterable[Entry]) -> list[Item[T]]:
        """Decode records that the head has read before, and make ready those that the lane wants."""
        prepare = self.lane.destination.prepare
        items = [
            Item(segment, entry.end, len(entry.payload), prepared(prepare, subject), address)
            for entry in entries
            for subject, address in self._decode(path, entry)
            if self.lane.wants(address)
        ]
        if all(item.address is None for item in items):
            put_together(self.lane.destination.gather, items)
        return items

    def _entry(self, place: Place) -> Entry | None:
        """Read a record once more; None if its segment is gone."""
        with self._flow.lock:
            position = self._flow.positions.get(place.segment)
        found = read_between(position.path, place.start, place.end) if position is not None else []
        return found[0] if found and found[0].end == place.end else None

    def _catch_up(self) -> None:
        """Read what the head has read and the lane has not, as much as fits; follow the head if there is nothing."""
        lane = self.lane
        with self._flow.lock:
            behind = self._flow.behind(lane.read)
            lane.following = not behind
        for key, position in behind.items():
            if not lane.has_room:
                break
            try:
                self._read(key, position)
            except OSError as error:
                self._warn("read", f"segment {position.path.name} is lost to it: {error.strerror}")
                with self._flow.lock:
                    lane.pass_by(key, position.offset)

    def _read(self, key: str, position: Position) -> None:
        lane = self.lane
        reader = SegmentReader(position.path, lane.read.get(key, 0))
        try:
            while lane.has_room and reader.offset < position.offset:
                items = self._items(key, position.path, reader.read(_READ, position.offset))
                with self._flow.lock:
                    lane.take_in(items, key, reader.offset)
            if reader.offset >= position.offset:  # also of a segment that holds no record
                with self._flow.lock:
                    lane.pass_by(key, position.offset)
        finally:
            reader.close()
        if reader.skipped:
            self._warn("damage", f"{reader.skipped} bytes of segment {position.path.name} are damaged and skipped")

    def _selected(self, items: Sequence[Item[T]]) -> tuple[Sequence[ReadableSpan], Sequence[Item[T]]]:
        """Return the spans that this destination gets, and of each one which record it is from."""
        destination = self.lane.destination
        if destination.together is not None and all(item.address is None for item in items):
            found = destination.together([item.subject for item in items])
            if found is not None:
                return found, Sources(items, destination.select)
        spans: list[ReadableSpan] = []
        sources: list[Item[T]] = []
        for item in items:
            try:
                chosen = destination.select(item.subject)
            except Exception as error:  # noqa: BLE001 - a record that cannot be judged is not shown
                self.lane.counters.unselected += 1
                self._warn("select", f"a record is withheld, its selection failed ({type(error).__name__})")
                continue
            if item.address is not None and item.address.spans:
                chosen = [span for span in chosen if letter_key(span) in item.address.spans]
            spans += chosen
            sources += [item] * len(chosen)
        return spans, sources

    def _deliver(self, batch: Batch) -> None:
        lane, stop_at = self.lane, self._flow.stop_at
        began = self._clock()
        deadline = began + lane.destination.delivery_time
        deadline = deadline if stop_at is None else min(deadline, stop_at)
        outcome = _attempt(lane.destination.exporter, batch.spans, deadline) if batch.spans else Outcome(())
        now, stop_at = self._clock(), self._flow.stop_at
        if self._flow.abandoned and any(verdict.state != "done" for verdict in outcome.verdicts):
            return  # the exporter was closed in mid-delivery: what it says then is no verdict on the spans
        outcome = lane.judged(outcome, now)
        dead = self._letters(batch, outcome)
        with self._flow.lock:
            lane.dead += dead
            lane.settle(outcome, now, self._jitter)
            if batch.spans:
                lane.latency.observe(now - began)
            if lane.batch is not None and stop_at is not None:
                # Only a destination that names a time gets another try while everybody waits for the end.
                lane.ended = outcome.after is None or now + outcome.after >= stop_at
        self._report(outcome)

    def _letters(self, batch: Batch, outcome: Outcome) -> list[Letter]:
        """Return the dead letters of what can never be delivered, each with the record that it is from."""
        found: list[Letter] = []
        records: dict[Place, Entry | None] = {}
        if outcome.verdicts.count(DONE) == len(batch.spans):
            return found
        for span, source, verdict in zip(batch.spans, batch.sources, outcome.verdicts, strict=True):
            if verdict.state != "dead":
                continue
            place = source.place
            if place not in records:
                records[place] = self._entry(place)
            entry = records[place]
            kind, payload = (0, b"") if entry is None else _original(entry)
            key = self._key(letter_key(span))
            found.append(Letter(key, span.name, verdict.reason, time.time(), str(place), kind, payload))
        return found

    def _key(self, span: str) -> Key:
        trace_id, _, span_id = span.partition("-")
        return Key(self.lane.destination.name, trace_id, span_id)

    def _report(self, outcome: Outcome) -> None:
        """Log what changed: trouble at most once a minute, its end once."""
        lane = self.lane
        if not lane.error and not outcome.rejected and outcome.verdicts.count(DONE) == len(outcome.verdicts):
            return
        retried = [verdict.reason for verdict in outcome.verdicts if verdict.state == "retry"]
        dead = [verdict.reason for verdict in outcome.verdicts if verdict.state == "dead"]
        if dead:
            self._warn("dead", f"{len(dead)} spans can never be delivered, they are dead letters now: {dead[0]}")
        if outcome.rejected:
            self._warn("rejected", f"{outcome.rejected} spans were dropped by the destination: {outcome.message}")
        if retried:
            self._warn("retry", f"not delivering, retrying: {retried[0]}")
        elif lane.error:
            self._warned.pop("retry", None)
            logger.info("destination %s: delivering again", lane.destination.name)
        lane.error = retried[0] if retried else ""

    def _warn(self, kind: str, text: str) -> None:
        now = self._clock()
        if now - self._warned.get(kind, -_QUIET) >= _QUIET:
            self._warned[kind] = now
            logger.warning("destination %s: %s", self.lane.destination.name, text)


def _original(entry: Entry) -> tuple[int, bytes]:
    """Return a record's kind and payload as they were first written."""
    if entry.kind != ADDRESSED:
        return entry.kind, entry.payload
    found = addresses.decode(entry.payload)
    return found.kind, found.payload


def _attempt(exporter: Exporter, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
    """Deliver once. An exporter that raises is given halves, so that only the span it stumbles over is given up."""
    try:
        outcome = exporter.deliver(spans, deadline)
        if len(outcome.verdicts) != len(spans):
            raise ValueError("one verdict per span is needed")
    except Exception as error:  # noqa: BLE001 - a bug in one destination is not the others' trouble
        if len(spans) == 1:
            return Outcome((Verdict("dead", f"the exporter failed: {type(error).__name__}"),))
        middle = len(spans) // 2
        parts = [_attempt(exporter, half, deadline) for half in (spans[:middle], spans[middle:])]
        message = next((part.message for part in parts if part.message), "")
        return Outcome(parts[0].verdicts + parts[1].verdicts, sum(part.rejected for part in parts), message)
    return outcome
