"""From the spool to the destinations: one head decodes each record once, one courier per destination delivers.

Destinations share the decoded records and nothing else: a dead, slow or failing one delays no other. What a record is
and who may see which of its spans is passed in. The thread in ``run`` owns the ledger and deletes segments that every
destination is past.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from otelgw_collector.courier import Courier
from otelgw_collector.decoder import Decoder
from otelgw_collector.flow import Flow
from otelgw_collector.head import Head
from otelgw_collector.lane import Batching, Destination, Lane, Status
from otelgw_collector.ledger import Ledger
from otelgw_collector.retry import RetryPolicy

__all__ = ["Batching", "Destination", "Pipeline", "RetryPolicy", "Status"]

T = TypeVar("T")

_BUSY, _IDLE = 0.02, 0.08  # seconds between two looks at the spool
_SAVE = 0.25  # seconds between two writes of the cursors
_CLOSE = 0.2  # seconds that a courier in the middle of a delivery gets at the end


class Pipeline(Generic[T]):
    """Reads ``spool`` and delivers to ``destinations`` until stopped; cursors are kept in the file ``ledger``.

    ``decode`` turns a record's payload into whatever the destinations' ``select`` takes. ``clock`` counts seconds and
    is the one that exporters' deadlines are on. Without destinations the spool is left as it is.
    """

    def __init__(
        self,
        spool: Path,
        ledger: Path,
        decode: Callable[[bytes], T],
        destinations: Sequence[Destination[T]],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._spool = spool
        self._ledger_path = ledger
        self._decoder = Decoder(decode, spool / "undecodable")
        self._destinations = destinations
        self._clock = clock
        self._jitter = jitter
        self._flow = Flow()
        self._couriers: list[Courier[T]] = []
        self._saved: dict[str, dict[str, int]] = {}
        self._saved_at = float("-inf")
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
            return [courier.lane.status() for courier in self._couriers]

    @property
    def undecodable(self) -> int:
        """How many records could not be decoded."""
        return self._decoder.failed

    def run(self) -> None:
        """Read and deliver until stopped. Blocks.

        Raises:
            RuntimeError: a destination's thread has failed; a new process goes on from the cursors.
        """
        ledger = Ledger(self._ledger_path)
        lanes = [Lane(each, ledger.cursors(each.name)) for each in self._destinations]
        self._saved = {lane.destination.name: dict(lane.done) for lane in lanes}
        head = Head(self._spool, lanes, self._decoder, self._flow, self._clock)
        self._couriers = [Courier(lane, self._decoder, self._flow, self._clock, self._jitter) for lane in lanes]
        try:
            head.find()
            for lane in lanes:
                for gone in lane.done.keys() - head.segments:
                    lane.forget(gone)
            ledger.keep(head.segments)
            for courier in self._couriers:
                courier.start()
            self.ready.set()
            self._follow(head, ledger)
        finally:
            self._end(head, ledger)

    def _follow(self, head: Head[T], ledger: Ledger) -> None:
        pause = _BUSY
        while not self._is_over():
            if self._flow.failure is not None:
                raise RuntimeError("a delivering thread has failed") from self._flow.failure
            draining = self._flow.draining
            found = bool(self._couriers) and head.look()
            with self._flow.lock:
                self._flow.head_done = draining and not found
                if found or draining:
                    self._notify()
            self._save(ledger)
            if self._couriers and head.delete_finished():
                # The file is gone before its cursors: a full disk may not take the change before there is room.
                ledger.keep(head.segments)
            pause = _BUSY if found or draining else min(_IDLE, pause * 1.5)
            if not found:
                time.sleep(pause)

    def _is_over(self) -> bool:
        """True once stopped and every lane has ended, or the time for it is over."""
        flow = self._flow
        if flow.stop_at is None:
            return False
        with flow.lock:
            drained = flow.head_done and all(courier.lane.ended for courier in self._couriers)
        return drained or self._clock() >= flow.stop_at

    def _end(self, head: Head[T], ledger: Ledger) -> None:
        with self._flow.lock:
            self._flow.abandoned = True
            self._notify()
        self._save(ledger, force=True)
        for courier in self._couriers:
            courier.close(_CLOSE)
        self._save(ledger, force=True)
        if self._couriers and head.delete_finished():
            ledger.keep(head.segments)
        ledger.close()
        head.close()

    def _notify(self) -> None:
        for courier in self._couriers:
            courier.notify()

    def _save(self, ledger: Ledger, *, force: bool = False) -> None:
        now = self._clock()
        if now - self._saved_at < _SAVE and not force:
            return
        with self._flow.lock:
            done = {courier.lane.destination.name: dict(courier.lane.done) for courier in self._couriers}
        changed = {
            name: {key: offset for key, offset in offsets.items() if self._saved.get(name, {}).get(key) != offset}
            for name, offsets in done.items()
        }
        self._saved_at = now
        if any(changed.values()) and ledger.save(changed):
            self._saved = done
