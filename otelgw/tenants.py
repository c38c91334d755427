"""Keys' and teams' own destinations, delivered to by the pipeline: any number of tenants, a few threads.

To the pipeline all of them are one destination, which takes every record of a caller with destinations of its own and
keeps it (``tenant_queue``). From there each tenant's destination, a *route*, is delivered to in its own time: at most
one delivery at a time for a route, with its own back-off. Routes to a host that does not answer have a part of the
threads for themselves, and so have those to a host that nothing is known of yet; however many of them there are, the
rest is not delayed. A record names a tenant by the key's hash and the team's id; its destinations are looked up when
they are needed, and their credentials are nowhere but in the exporter made of them.
"""

from __future__ import annotations

import heapq
import logging
import os
import random
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Settings
from otelgw.errors import OtelgwError
from otelgw.keys import callbacks
from otelgw.keys.database import StoreError
from otelgw.keys.directory import Directory
from otelgw.keys.store import Store, open_store
from otelgw.keys.table import Changes
from otelgw.selection import Trace, selector
from otelgw.tally import Labels, Tally
from otelgw.tenant_exporters import Exporters
from otelgw.tenant_queue import Parcel, TenantQueue
from otelgw.tenant_routes import Route, Routes
from otelgw.tracing.record import EVERYBODY, Record, decode, encode
from otelgw_collector.lane import letter_key
from otelgw_collector.retry import RetryPolicy
from otelgw_exporters.delivery import Exporter, Outcome, all_done, all_retry

__all__ = ["NAME", "Counts", "Tenants"]

log = logging.getLogger(__name__)

NAME = "tenants"
"""What the pipeline calls all of them."""

_RECORDS, _SIZE = 128, 4 * 1024 * 1024  # of one delivery
_LINGER = 0.1  # seconds that a route's first record waits for others
_TIMEOUT = 10.0  # seconds for one delivery
_KNOWN = 20_000  # hosts and kinds of trouble that are remembered
_DISK_SHARE = 8  # of the spool's cap the queue may take an eighth
_TALLY = 0.5  # seconds between two times that the numbers are written down
_QUIET = 60.0  # seconds between two log lines on the same kind of trouble
_RETRY = RetryPolicy(first=1.0, most=300.0)
_WELL, _NEW, _TROUBLED = _KINDS = ("well", "new", "troubled")  # of routes, by what is known of their hosts
_END = 2.0  # seconds for deliveries under way when the pipeline stops


class _Carried(ReadableSpan):
    """Stands for a whole record on its way through the pipeline; named as its SERVER span."""

    def __init__(self, trace: Trace) -> None:
        span = trace.spans[0]
        super().__init__(name=span.name, context=span.get_span_context(), resource=span.resource)
        self.trace = trace


@dataclass(slots=True)
class _State:
    """How a route does. ``left`` are the spans still to be sent of records that were sent in part, by number."""

    host: str = ""
    queued: bool = False
    busy: bool = False
    again: bool = False  # something came while it was busy
    tries: int = 0
    left: dict[int, frozenset[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """Spans by what became of them; records that were dropped for want of room or because their tenant is gone."""

    delivered: int = 0
    retried: int = 0
    dead: int = 0
    dropped: int = 0


class Tenants(Exporter):
    """The one destination. ``decoded`` makes a trace of a record, as for every other destination."""

    def __init__(self, settings: Settings, decoded: Callable[[bytes], Trace], store: Store | None = None) -> None:
        super().__init__(NAME, _TIMEOUT)
        keys = settings.keys
        state = Path(settings.state_dir)
        self._settings = keys
        self._template = keys.template
        self._master = settings.auth.master_key_sha256
        self._decoded = decoded
        self._directory = Directory(keys, store or open_store(state, keys.database_url))
        self._queue = TenantQueue(
            state / "tenants.db", settings.spool.disk_cap // _DISK_SHARE, durable=settings.spool.fsync
        )
        self._retry_limit = settings.spool.retry_limit
        self._changed = threading.Condition()
        self._states: dict[str, _State] = {}
        # Of each kind: a heap of routes that have something, by when, and how many are being delivered to.
        self._due: dict[str, list[tuple[float, str]]] = {kind: [] for kind in _KINDS}
        self._busy = dict.fromkeys(_KINDS, 0)
        self._hosts: OrderedDict[str, bool] = OrderedDict()  # whether the last delivery to it went well
        self._changes = Changes(state / "limits.table")
        self._routes = Routes(keys, self._directory, self._changes)
        self._exporters = Exporters(keys, self._is_busy)
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._told: dict[str, float] = {}
        self.counts = Counts()
        name = f"tenants_{os.getpid()}_{time.time_ns()}"  # a pid comes again; with the time the name does not
        self._tally = Tally(state, name, self._counted)
        self._tallied_at = 0.0
        with self._changed:
            for route in self._queue.routes():
                self._wake(route, "", 0.0)

    def select(self, trace: Trace) -> Sequence[ReadableSpan]:
        """Return what stands for a record whose caller may have destinations; the pipeline passes it on to here."""
        record = trace.record
        if record is None or not trace.spans or record.audience.nobody:
            return ()
        caller = record.caller
        if not caller.authenticated or not caller.key_hash or caller.key_hash == self._master:
            return ()
        return (_Carried(trace),)

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:  # noqa: ARG002 - the disk has none
        parcels: list[tuple[Parcel, str]] = []
        try:
            for span in spans:
                if isinstance(span, _Carried) and span.trace.record is not None:
                    parcels += self._parcels(span.trace.record)
            if parcels:
                self._queue.put([parcel for parcel, _ in parcels])
        except (StoreError, sqlite3.Error) as error:
            return all_retry(len(spans), f"{type(error).__name__}: {error}")
        due = time.monotonic() + _LINGER
        with self._changed:
            for name, host in {parcel.route: host for parcel, host in parcels}.items():
                self._wake(name, host, due)
        return all_done(len(spans))

    def shutdown(self) -> None:
        super().shutdown()
        with self._changed:
            self._changed.notify_all()
        self._exporters.close()
        deadline = time.monotonic() + _END
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._count(force=True)
        if not any(thread.is_alive() for thread in self._threads):
            self._queue.close()
            self._directory.store.close()
            self._changes.close()

    def _counted(self) -> Mapping[tuple[str, Labels], int]:
        counts = self.counts
        outcomes = (("delivered", counts.delivered), ("retried", counts.retried), ("dead", counts.dead))
        return {
            **{("otelgw.tenants.spans", (("outcome", outcome),)): count for outcome, count in outcomes},
            ("otelgw.tenants.dropped_records", ()): counts.dropped + self._queue.dropped,
        }

    def _count(self, *, force: bool = False) -> None:
        """Write the numbers down, every now and then; the caller holds the lock."""
        now = time.monotonic()
        if force or now - self._tallied_at >= _TALLY:
            self._tallied_at = now
            self._tally.write()

    @property
    def waiting(self) -> int:
        """Bytes of records that are not delivered."""
        return self._queue.size

    @property
    def open(self) -> int:
        """How many exporters are kept open."""
        return len(self._exporters)

    def _parcels(self, record: Record) -> list[tuple[Parcel, str]]:
        """Return what is to be kept of a record, each with the host that it is for."""
        routes = self._routes.of(record.caller)
        without = set(record.audience.without)
        if not routes or (without and not (routes := [each for each in routes if without.isdisjoint(each.names)])):
            return []
        payload, name = encode(record), f"{record.trace_id}-{record.span_id}"
        return [(Parcel(route.id, name, payload), route.host) for route in routes]

    def _wake(self, route: str, host: str, due: float) -> None:
        """Have a route delivered to; the caller holds the lock."""
        state = self._states.setdefault(route, _State())
        state.host = host or state.host
        if state.busy:
            state.again = True
        elif not state.queued:
            state.queued = True
            heapq.heappush(self._due[self._kind(state)], (due, route))
            if not self._idle and len(self._threads) < self._settings.threads and not self._stopped.is_set():
                name = f"deliver {NAME} {len(self._threads)}"
                self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
                self._threads[-1].start()
            self._changed.notify()

    def _kind(self, state: _State) -> str:
        well = self._hosts.get(state.host)
        if state.tries or well is False:
            return _TROUBLED
        return _WELL if well else _NEW

    def _run(self) -> None:
        while (picked := self._pick()) is not None:
            route, kind = picked
            outcome = "again"
            try:
                outcome = self._deliver_route(route)
            except Exception as error:  # noqa: BLE001 - the thread has other tenants to deliver to
                self._warn("bug", f"a delivery failed ({type(error).__name__})", error)
            finally:
                self._release(route, kind, outcome)

    def _pick(self) -> tuple[str, str] | None:
        """Wait for a route that is to be delivered to, and take it with its kind; None at the end."""
        most = max(1, self._settings.threads * 3 // 8)
        with self._changed:
            while not self._stopped.is_set():
                now = time.monotonic()
                open_ = [kind for kind in _KINDS if kind == _WELL or self._busy[kind] < most]
                for kind in open_:
                    heap = self._due[kind]
                    while heap and heap[0][0] <= now:
                        due, route = heapq.heappop(heap)
                        state = self._states[route]
                        known = self._kind(state)
                        if known == kind:
                            state.queued, state.busy, state.again = False, True, False
                            self._busy[kind] += 1
                            return route, kind
                        heapq.heappush(self._due[known], (due, route))  # its host has changed its mind meanwhile
                heads = [self._due[kind][0][0] for kind in open_ if self._due[kind]]
                if heads and min(heads) <= now:
                    continue
                self._idle += 1
                self._changed.wait(min(heads) - now if heads else None)
                self._idle -= 1
        return None

    def _release(self, route: str, kind: str, outcome: str) -> None:
        with self._changed:
            state = self._states[route]
            state.busy = False
            self._busy[kind] -= 1
            if outcome == "again":
                state.tries += 1
                self._wake(route, "", time.monotonic() + _RETRY.delay(state.tries, None, random.random))
            else:
                state.tries = 0
                if outcome == "more" or state.again:
                    self._wake(route, "", 0.0)
                else:
                    del self._states[route]
            self._count(force=not self._states)
            # Another thread may have found only routes of kinds that had no thread left.
            self._changed.notify()

    def _learn(self, host: str, *, well: bool) -> None:
        """Note how a delivery to a host went."""
        with self._changed:
            self._hosts[host] = well
            self._hosts.move_to_end(host)
            if len(self._hosts) > _KNOWN:
                self._hosts.popitem(last=False)

    def _deliver_route(self, route_id: str) -> str:
        """Deliver some of what waits for a route. Returns ``done``, ``more`` to do, or ``again`` after a pause."""
        parcels = self._queue.take(route_id, _RECORDS, _SIZE)
        if not parcels:
            return "done"
        try:
            route = self._routes.find(route_id)
            if route is None:
                self._queue.discard(route_id)
                self._exporters.drop(route_id)
                return "done"
            exporter = self._exporters.of(route)
        except (OtelgwError, OSError) as error:
            self._warn(route_id, f"not delivering: {error}")
            return self._given_up(parcels) or "again"
        return self._send(route, exporter, parcels)

    def _send(self, route: Route, exporter: Exporter, parcels: list[Parcel]) -> str:
        left = self._states[route.id].left
        spans, sources = self._spans(route, parcels)
        with callbacks.confining(route.callback, self._settings):
            outcome = _attempt(exporter, spans)
        if spans:
            self._learn(route.host, well=all(verdict.state != "retry" for verdict in outcome.verdicts))
        retried: dict[int, set[str]] = {}
        for span, parcel, verdict in zip(spans, sources, outcome.verdicts, strict=True):
            if verdict.state == "retry":
                retried.setdefault(parcel.number, set()).add(letter_key(span))
        states = [verdict.state for verdict in outcome.verdicts]
        with self._changed:
            self.counts.delivered += states.count("done")
            self.counts.dead += states.count("dead")
            self.counts.retried += states.count("retry")
        dead = next((verdict.reason for verdict in outcome.verdicts if verdict.state == "dead"), "")
        if dead:
            self._warn(f"{route.id} dead", f"spans can never be delivered and are given up: {dead}")
        self._queue.remove([parcel for parcel in parcels if parcel.number not in retried])
        left.clear()
        left.update({number: frozenset(keys) for number, keys in retried.items()})
        if retried:
            self._warn(route.id, f"not delivering, retrying: {outcome.reason}")
            self._exporters.drop(route.id)  # a confined one may be pinned to an address that is not the host's any more
            return self._given_up([parcel for parcel in parcels if parcel.number in retried]) or "again"
        return "more"

    def _spans(self, route: Route, parcels: list[Parcel]) -> tuple[list[ReadableSpan], list[Parcel]]:
        """Return the spans of records as the route's owner may see them, and of each one which record it is from."""
        row = callbacks.row_of(route.callback.name)
        seen = replace(
            self._template,
            name=row.name,
            type=row.name,
            on=callbacks.EVENTS[route.callback.event],
            callbacks=tuple(name.lower() for name in row.callbacks),
        )
        select = selector(seen)
        left = self._states[route.id].left
        spans: list[ReadableSpan] = []
        sources: list[Parcel] = []
        for parcel in parcels:
            try:
                chosen = select(self._decoded(_for_its_own(parcel.payload)))
            except Exception as error:  # noqa: BLE001 - a record that cannot be judged is not shown
                self._drop(1)
                self._warn("select", f"a record is withheld, its selection failed ({type(error).__name__})")
                continue
            unsent = left.get(parcel.number)
            chosen = [span for span in chosen if unsent is None or letter_key(span) in unsent]
            spans += chosen
            sources += [parcel] * len(chosen)
        return spans, sources

    def _given_up(self, parcels: list[Parcel]) -> str:
        """Give up what has been tried for too long; return ``more`` if there was any of it."""
        limit = self._retry_limit
        old = [parcel for parcel in parcels if limit and time.time() - parcel.kept_at >= limit]
        if old:
            self._queue.remove(old)
            self._drop(len(old))
        return "more" if len(old) == len(parcels) else ""

    def _drop(self, count: int) -> None:
        with self._changed:
            self.counts.dropped += count

    def _is_busy(self, route: str) -> bool:
        state = self._states.get(route)
        return state is not None and state.busy

    def _warn(self, kind: str, text: str, error: Exception | None = None) -> None:
        """Log trouble, each kind once a minute, and of all tenants together not more than a few lines a second."""
        now = time.monotonic()
        with self._changed:
            if len(self._told) > _KNOWN:
                self._told.clear()
            if now - self._told.get(kind, -_QUIET) < _QUIET or now - self._told.get("", -_QUIET) < 0.2:
                return
            self._told[kind] = self._told[""] = now
        log.warning("destination %s: %s", kind, text, exc_info=error)


def _for_its_own(payload: bytes) -> bytes:
    """Return a record as its caller's own destinations get it: what its key's policy keeps from others is for them."""
    record = decode(payload)
    if record.audience == EVERYBODY:
        return payload
    record.audience = EVERYBODY
    return encode(record)


def _attempt(exporter: Exporter, spans: Sequence[ReadableSpan]) -> Outcome:
    if not spans:
        return Outcome(())
    try:
        outcome = exporter.deliver(spans, time.monotonic() + _TIMEOUT)
    except Exception as error:  # noqa: BLE001 - one tenant's destination is not the others' trouble
        return all_retry(len(spans), f"the exporter failed: {type(error).__name__}")
    return outcome if len(outcome.verdicts) == len(spans) else all_retry(len(spans), "the exporter failed")
