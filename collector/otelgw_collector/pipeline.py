"""From the spool to the destinations: one head decodes each record once, one courier per destination delivers.

Destinations share the decoded records and nothing else: a dead, slow or failing one delays no other. What a record is
and who may see which of its spans is passed in. The thread in ``run`` owns the ledger and deletes segments that have to
go.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from otelgw_collector.aside import Aside
from otelgw_collector.courier import Courier
from otelgw_collector.decoder import Decoder
from otelgw_collector.flow import Flow
from otelgw_collector.head import Head
from otelgw_collector.intents import Intents
from otelgw_collector.journal import Journal, resumed
from otelgw_collector.lane import Batching, Counters, Destination, Frozen, Lane, Status
from otelgw_collector.ledger import HEAD, Changes, Ledger
from otelgw_collector.quarantine import Quarantine
from otelgw_collector.retention import Retention
from otelgw_collector.retry import RetryPolicy
from otelgw_collector.segment_format import RECORD
from otelgw_collector.sweeper import Sweeper

__all__ = ["Batching", "Destination", "Health", "Pipeline", "Retention", "RetryPolicy", "Status"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between two looks at the spool. The first record of a look costs twice what the others do, as the processor
# has forgotten everything meanwhile: it is worth to wait for company, which batches do for longer anyway.
_LOOK = 0.08
_SOON = 0.02  # seconds: at the end, and where a destination is about to have room
_WORTHWHILE = 64 * 1024  # bytes of records; a look costs as much for one of them as for many
_PATIENCE = 0.1  # seconds
_SAVE = 0.25  # seconds between two writes of the cursors
_REPORT = 1.0  # seconds between two reports
_QUIET = 60.0  # seconds between two log lines on a state that cannot be shown
_CLOSE = 0.2  # seconds that a courier in the middle of a delivery gets at the end


@dataclass(frozen=True, slots=True)
class Health:
    """How the pipeline does. Sizes are in bytes; ``dead`` are the dead letters that there are, by destination.

    ``newer`` are records that a newer otelgw wrote, ``given_up`` those and segments of it that had to go for want of
    room.
    """

    destinations: Sequence[Status]
    spool_size: int = 0
    spool_cap: int = 0
    undecodable: int = 0
    quarantined: int = 0
    newer: int = 0
    given_up: int = 0
    dead: Mapping[str, int] = field(default_factory=dict)


class Pipeline(Generic[T]):
    """Reads ``spool`` and delivers to ``destinations`` until stopped; cursors are kept in the file ``ledger``.

    ``decode`` turns a record's payload into whatever the destinations' ``select`` takes; a mapping has a function for
    each kind of record. ``observe`` sees every record once, ``report`` is called every second with how things are, both
    in the thread of ``run``; ``killed`` makes a record of the intent of a request whose worker died; ``age`` says how
    many seconds ago a record was written. ``clock`` counts seconds and is the one that exporters' deadlines are on.
    Without destinations the spool is left as it is.
    """

    def __init__(
        self,
        spool: Path,
        ledger: Path,
        decode: Callable[[bytes], T] | Mapping[int, Callable[[bytes], T]],
        destinations: Sequence[Destination[T]],
        *,
        retention: Retention | None = None,
        dead_letter_cap: int = 256 * 1024 * 1024,
        observe: Callable[[T], None] | None = None,
        report: Callable[[Health], None] | None = None,
        killed: Callable[[bytes], bytes] | None = None,
        age: Callable[[T], float] = lambda _: 0.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._spool = spool
        self._ledger_path = ledger
        decoders = decode if isinstance(decode, Mapping) else {RECORD: decode}
        self._quarantine = Quarantine(ledger.with_name("decoding"))
        self._aside = Aside(spool / "undecodable")
        self._decoder = Decoder(decoders, self._aside, self._quarantine)
        self._destinations = destinations
        self._retention = retention or Retention()
        self._dead_letter_cap = dead_letter_cap
        self._observe = observe
        self._report = report
        self._killed = killed
        self._age = age
        self._clock = clock
        self._jitter = jitter
        self._flow = Flow()
        self._couriers: list[Courier[T]] = []
        self._saved: dict[str, dict[str, int]] = {}
        self._counted: dict[str, dict[str, int]] = {}
        self._frozen: dict[str, str] = {}
        self._journal = Journal(ledger.with_name("batches"))
        self._saved_at = self._reported_at = self._told_at = float("-inf")
        self._crowded_since = 0.0
        self.ready = threading.Event()

    def stop(self, limit: float) -> None:
        """Have ``run`` return within ``limit`` seconds, having delivered what it can; the rest stays on disk.

        Safe to call from a signal handler and more than once; the earliest end counts.
        """
        at, earlier = self._clock() + limit, self._flow.stop_at
        self._flow.stop_at = at if earlier is None else min(at, earlier)

    def status(self) -> list[Status]:
        """Return how each destination does."""
        with self._flow.lock:
            return [courier.lane.status(self._flow.positions, self._age) for courier in self._couriers]

    @property
    def undecodable(self) -> int:
        """How many records could not be decoded."""
        return self._decoder.failed

    def run(self) -> None:
        """Read and deliver until stopped. Blocks.

        Raises:
            RuntimeError: a destination's thread has failed; a new process goes on from the cursors.
        """
        ledger = Ledger(self._ledger_path, self._dead_letter_cap)
        self._quarantine.deaths = ledger.accuse(self._quarantine.found)
        ledger.enlist(destination.name for destination in self._destinations)
        lanes = [self._lane(destination, ledger) for destination in self._destinations]
        self._saved[HEAD] = ledger.cursors(HEAD)
        head = Head(
            self._spool,
            lanes,
            self._decoder,
            self._flow,
            self._clock,
            intents=Intents(ledger.intents()),
            cursors=self._saved[HEAD],
            observe=self._observe,
            killed=self._killed,
        )
        sweeper = Sweeper(
            head,
            lanes,
            self._flow,
            self._retention,
            self._aside,
            self._clock,
            lambda: self._save(head, ledger, force=True),
        )
        self._couriers = [
            Courier(lane, self._decoder, self._flow, self._clock, self._jitter, self._journal) for lane in lanes
        ]
        try:
            if lanes:
                head.find()
                for lane in lanes:
                    for key in lane.read.keys() - head.segments:
                        if key.partition(":")[0] not in head.unread:
                            lane.forget(key)
                ledger.keep(head.segments, head.unread)
                self._journal.start({lane.destination.name: tuple(lane.thaw) for lane in lanes})
            for courier in self._couriers:
                courier.start()
            self.ready.set()
            self._follow(head, sweeper, ledger)
        finally:
            self._end(head, sweeper, ledger)

    def _lane(self, destination: Destination[T], ledger: Ledger) -> Lane[T]:
        done = ledger.cursors(destination.name)
        known = ledger.counters(destination.name)
        frozen = ledger.frozen(destination.name)
        self._saved[destination.name] = dict(done)
        self._counted[destination.name] = known
        if frozen is not None:
            self._frozen[destination.name] = frozen
        counters = Counters(**{name: known.get(name, 0) for name in Counters.__slots__})
        begun = resumed(_thawed(frozen), self._journal.found.get(destination.name, []), done)
        return Lane(destination, done, deque(begun), counters=counters)

    def _follow(self, head: Head[T], sweeper: Sweeper, ledger: Ledger) -> None:
        while not self._is_over():
            if self._flow.failure is not None:
                raise RuntimeError("a delivering thread has failed") from self._flow.failure
            draining = self._flow.draining
            waiting = self._must_wait()
            size = head.look() if self._couriers and not waiting else 0
            found = bool(size) or waiting or (bool(self._couriers) and head.bury())
            with self._flow.lock:
                self._flow.head_done = draining and not found
                if found or draining:
                    self._notify(force=draining)
            self._save(head, ledger)
            if self._couriers and sweeper.sweep():
                # The file is gone before its cursors: a full disk may not take the change before there is room.
                ledger.keep(head.segments, head.unread)
            self._tell(sweeper, ledger)
            if size < _WORTHWHILE:
                time.sleep(_SOON if draining or waiting else _LOOK)

    def _must_wait(self) -> bool:
        """True while a destination that follows the head has not much room, but is about to have.

        One that falls behind reads again what the head has read. The others wait for it no longer than is noticed.
        """
        with self._flow.lock:
            crowded = any(courier.lane.following and courier.lane.crowded for courier in self._couriers)
        now = self._clock()
        if not crowded:
            self._crowded_since = now
        return crowded and now - self._crowded_since < _PATIENCE

    def _is_over(self) -> bool:
        """True once stopped and every lane has ended, or the time for it is over."""
        flow = self._flow
        if flow.stop_at is None:
            return False
        with flow.lock:
            drained = flow.head_done and all(courier.lane.ended for courier in self._couriers)
        return drained or self._clock() >= flow.stop_at

    def _end(self, head: Head[T], sweeper: Sweeper, ledger: Ledger) -> None:
        with self._flow.lock:
            self._flow.abandoned = True
            self._notify(force=True)
        self._save(head, ledger, force=True)
        for courier in self._couriers:
            courier.close(_CLOSE)
        self._save(head, ledger, force=True)
        if self._couriers and sweeper.sweep(force=True):
            ledger.keep(head.segments, head.unread)
        self._tell(sweeper, ledger, force=True)
        ledger.close()
        self._journal.close()
        head.close()

    def _notify(self, *, force: bool) -> None:
        for courier in self._couriers:
            courier.notify(force=force)

    def _tell(self, sweeper: Sweeper, ledger: Ledger, *, force: bool = False) -> None:
        now = self._clock()
        if self._report is None or (now - self._reported_at < _REPORT and not force):
            return
        self._reported_at = now
        decoder = self._decoder
        health = Health(
            self.status(),
            sweeper.size,
            self._retention.cap,
            decoder.failed,
            decoder.quarantined,
            decoder.newer,
            sweeper.given_up,
            ledger.dead(),
        )
        try:
            self._report(health)
        except OSError as error:
            self._unshown(error)

    def _unshown(self, error: OSError) -> None:
        now = self._clock()
        if now - self._told_at >= _QUIET:
            self._told_at = now
            logger.warning("the pipeline's state cannot be shown: %s", error.strerror or error)

    def _save(self, head: Head[T], ledger: Ledger, *, force: bool = False) -> None:
        now = self._clock()
        if now - self._saved_at < _SAVE and not force:
            return
        self._saved_at = now
        lanes = [courier.lane for courier in self._couriers]
        with self._flow.lock:
            done = {lane.destination.name: dict(lane.done) for lane in lanes}
            done[HEAD] = {key: position.offset for key, position in self._flow.positions.items()}
            counted = {lane.destination.name: asdict(lane.counters) for lane in lanes}
            frozen = {lane.destination.name: _freezable(lane, force=force) for lane in lanes}
            reached = {lane.destination.name: lane.reached for lane in lanes}
            dead, taken_up = [lane.dead[:] for lane in lanes], [lane.taken_up[:] for lane in lanes]
        opened, settled = head.intents.changes()
        texts = {name: msgspec.json.encode(batch).decode() for name, batch in frozen.items() if batch is not None}
        changes = Changes(
            cursors=_changed(done, self._saved),
            counters=_changed(counted, self._counted),
            frozen={
                name: texts.get(name)
                for name in texts.keys() | self._frozen.keys()
                if texts.get(name) != self._frozen.get(name)
            },
            taken_up=[key for keys in taken_up for key in keys],
            dead=[letter for letters in dead for letter in letters],
            intents=opened,
            settled=settled,
        )
        if not changes or not ledger.save(changes):
            return
        self._saved, self._counted, self._frozen = done, counted, texts
        head.intents.saved()
        self._journal.saved(reached)
        with self._flow.lock:
            for lane, written, resumed in zip(lanes, dead, taken_up, strict=True):
                del lane.dead[: len(written)]
                del lane.taken_up[: len(resumed)]


def _thawed(text: str | None) -> Frozen | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Frozen)
    except msgspec.DecodeError:  # another version's: its spans are sent in other batches
        return None


def _freezable(lane: Lane[T], *, force: bool) -> Frozen | None:
    """Return the batch on its way: one that is tried again, or any that is left behind at the end."""
    if lane.batch is not None:
        return lane.batch.frozen() if lane.batch.spans and (lane.batch.tries or force) else None
    return lane.thaw[0] if lane.thaw else None


def _changed(now: Mapping[str, dict[str, int]], saved: Mapping[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {
        name: {key: value for key, value in values.items() if saved.get(name, {}).get(key) != value}
        for name, values in now.items()
    }
