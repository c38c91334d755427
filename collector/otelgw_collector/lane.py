"""One destination's way through the spool: what it has read, what waits, what is being delivered, what is done.

No threads and no I/O here: the pipeline calls a lane under its lock and says what time it is.

A lane *follows* while the head reader's records fit into its queue. When the queue is full it falls behind: it is
offered nothing more, and reads the segments itself from where it is, so that a destination that is down costs disk and
no memory. Once it has read as far as the head it follows again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.address import Address
from otelgw_collector.flow import Position
from otelgw_collector.histogram import Histogram
from otelgw_collector.letters import Key, Letter
from otelgw_collector.retry import RetryPolicy
from otelgw_collector.segment_format import OVERHEAD
from otelgw_exporters.delivery import DONE, Exporter, Outcome, Verdict

__all__ = [
    "Batch",
    "Batching",
    "Counters",
    "Destination",
    "Frozen",
    "Item",
    "Lane",
    "Place",
    "Run",
    "Status",
    "letter_key",
    "runs_of",
]

T = TypeVar("T")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # of one try of one batch


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batch goes out and how much may wait. Sizes are of the records in the spool, times are seconds.

    A batch goes out when it has ``records`` or ``size``, or when its first record has waited ``linger``; after
    ``idle`` seconds without any, that is only ``first``, so that single requests are seen at once.
    """

    records: int = 256
    size: int = 4 * 1024 * 1024
    linger: float = 0.5
    first: float = 0.03
    idle: float = 1.0
    queue_records: int = 1024
    queue_size: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Destination(Generic[T]):
    """A destination instance. ``select`` returns the spans of a decoded record as it may see them, perhaps none.

    ``prepare`` makes of a decoded record what is left to ``select``: the head does it as soon as it has read the
    record, so that only what is needed waits in memory. Where it fails the record waits as it is. ``delivery_time``
    limits one try of one batch, in seconds.

    ``gather`` is told which records were prepared one after the other, so that they can be put together. ``together``
    returns what ``select`` returns of each of several records, all in one, or None where they are not put together.
    """

    name: str
    exporter: Exporter
    select: Callable[[T], Sequence[ReadableSpan]]
    batching: Batching = Batching()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    delivery_time: float = 30.0
    prepare: Callable[[T], T] | None = None
    gather: Callable[[Sequence[T]], None] | None = None
    together: Callable[[Sequence[T]], Sequence[ReadableSpan] | None] | None = None


class Place(NamedTuple):
    """Where a record is: its segment's key and the offsets of its first byte and of the one after it."""

    segment: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.segment}@{self.end}"


class Item(NamedTuple, Generic[T]):
    """A decoded record: the segment's key, the offset after it, its size in the spool in bytes.

    With an ``address`` it is for one destination only.
    """

    segment: str
    end: int
    size: int
    subject: T
    address: Address | None = None

    @property
    def place(self) -> Place:
        """Where the record is."""
        return Place(self.segment, self.end - self.size - OVERHEAD, self.end)


class Run(NamedTuple):
    """Records of one segment that follow each other: its key, the offsets of their first byte and of the one after
    the last one's, their number."""

    segment: str
    start: int
    end: int
    records: int


class Frozen(msgspec.Struct, array_like=True, frozen=True):
    """A batch as it outlasts the process: its records, in order.

    Of one that is tried again, ``spans`` are the ids (``letter_key``) of those that are left, ``runs`` their records,
    and ``end`` all that it was made of; a new one has all spans of its records, and no ``end`` of its own.
    """

    runs: tuple[Run, ...]
    spans: frozenset[str] | None = None
    end: tuple[Run, ...] = ()

    @property
    def whole(self) -> tuple[Run, ...]:
        """All records that it was made of; their ends are the cursors once it is dealt with."""
        return self.end or self.runs


def runs_of(items: Sequence[Item[Any]]) -> tuple[Run, ...]:
    """Return where ``items`` are, in their order; the same one may come several times in a row."""
    runs: list[Run] = []
    segment, start, end, count = "", 0, 0, 0
    for item in items:
        if item.segment == segment and item.end == end:
            continue
        if item.segment != segment:
            if count:
                runs.append(Run(segment, start, end, count))
            segment, start, count = item.segment, item.end - item.size - OVERHEAD, 0
        end = item.end
        count += 1
    if count:
        runs.append(Run(segment, start, end, count))
    return tuple(runs)


@dataclass(slots=True)
class Batch:
    """Spans on their way. ``sources`` are the records that they came from, one for each span.

    ``runs`` are all records that it was made of, also those without a span in it; ``number`` counts the lane's batches.
    Times are on the lane's clock.
    """

    spans: Sequence[ReadableSpan]
    sources: Sequence[Item[Any]]
    runs: tuple[Run, ...]
    number: int = 0
    began: float = 0.0
    tries: int = 0
    not_before: float = 0.0
    asked_before: float = 0.0  # the part of not_before that the destination asked for
    subject: object = None  # of the first record

    def frozen(self) -> Frozen:
        """Return what has to be known to make the same batch again."""
        return Frozen(runs_of(self.sources), frozenset(map(letter_key, self.spans)), self.runs)


def letter_key(span: ReadableSpan) -> str:
    """Return what names a span everywhere: its trace's and its own id in hex."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}-{context.span_id:016x}" if context is not None else ""


@dataclass(slots=True)
class Counters:
    """Spans by what became of them; ``retried`` counts each further try of each span.

    ``dropped`` are records that had to go unread, because the spool had grown beyond its limit.
    """

    delivered: int = 0
    retried: int = 0
    dead: int = 0
    rejected: int = 0
    unselected: int = 0  # records, not spans, whose selection failed
    dropped: int = 0  # records, not spans


class Status(NamedTuple):
    """How a destination does. ``state`` is ok, retrying or behind; ``error`` is the last reason while retrying.

    ``queued`` are records in memory, ``backlog`` the bytes of the spool that it has not dealt with; ``oldest`` is how
    many seconds ago the oldest record was done that it has not, as far as that has been read, else 0.
    """

    name: str
    state: str
    error: str
    queued: int
    counters: Counters
    backlog: int = 0
    oldest: float = 0.0
    latency: Histogram = Histogram(())


@dataclass(slots=True)
class Lane(Generic[T]):
    """The state of one destination. ``read`` and ``done`` are offsets by segment key.

    ``thaw`` are the batches to begin with, in order, from before a restart. ``dead`` and ``taken_up`` are what is to be
    saved together with the cursors.
    """

    destination: Destination[T]
    done: dict[str, int]
    thaw: deque[Frozen] = field(default_factory=deque)
    read: dict[str, int] = field(default_factory=dict)
    following: bool = False
    queue: deque[Item[T]] = field(default_factory=deque)
    queued_size: int = 0
    batch: Batch | None = None
    ended: bool = False
    error: str = ""
    counters: Counters = field(default_factory=Counters)
    latency: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    dead: list[Letter] = field(default_factory=list)
    taken_up: list[Key] = field(default_factory=list)
    _begun: int = 0
    _taken: bool = False  # there are records that are neither in the queue nor in a batch
    _due: float = 0.0
    _active_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.read = dict(self.done)
        for run in (run for frozen in self.thaw for run in frozen.whole):
            self.read[run.segment] = max(run.end, self.read.get(run.segment, 0))

    @property
    def idle(self) -> bool:
        """True when everything that was read is dealt with."""
        return not self.queue and self.batch is None and not self.thaw and not self._taken

    @property
    def reached(self) -> int:
        """The number of the first batch that is not dealt with."""
        return self._begun + 1 if self.batch is None else self.batch.number

    @property
    def has_room(self) -> bool:
        """True while the queue takes another record."""
        records, size = self.room
        return records > 0 and size > 0

    @property
    def room(self) -> tuple[int, int]:
        """How many records, and bytes of records, the queue takes before it is full."""
        batching = self.destination.batching
        return batching.queue_records - len(self.queue), batching.queue_size - self.queued_size

    @property
    def crowded(self) -> bool:
        """True while the queue is half full and the destination has not failed: there will be room soon."""
        batching = self.destination.batching
        full = 2 * len(self.queue) >= batching.queue_records or 2 * self.queued_size >= batching.queue_size
        return full and (self.batch is None or not self.batch.tries)

    def wants(self, address: Address | None) -> bool:
        """True for a record that is for everybody or for this destination."""
        return address is None or address.destination == self.destination.name

    def offer(self, item: Item[T], now: float) -> bool:
        """Queue a record that the head has just read; False if the queue is full and the lane falls behind.

        One that the lane has read by itself before is nothing new.
        """
        if item.end <= self.read.get(item.segment, 0):
            return True
        if not self.has_room:
            self.following = False
            return False
        self._begin_to_wait(now)
        self._push(item)
        return True

    def offer_all(self, items: Sequence[Item[T]], segment: str, end: int, now: float) -> None:
        """Offer ``items`` of a segment, in order, and note that it holds nothing else up to ``end``.

        Does what ``offer`` does with each and ``pass_by`` at the end; at once where all are new and there is room.
        """
        records, room = self.room
        size = sum([item.size for item in items])
        if items and items[0].end > self.read.get(segment, 0) and len(items) <= records and size <= room:
            self._begin_to_wait(now)
            self.queue.extend(items)
            self.queued_size += size
            self.read[segment] = end
            return
        if all(self.offer(item, now) for item in items):
            self.pass_by(segment, end)

    def _begin_to_wait(self, now: float) -> None:
        """Note when the queue's first record is due, if it is about to come."""
        if not self.queue:
            batching = self.destination.batching
            was_idle = self.batch is None and now - self._active_at >= batching.idle
            self._due = now + (batching.first if was_idle else batching.linger)

    def take_in(self, items: Sequence[Item[T]], segment: str, offset: int) -> None:
        """Queue records that the lane has read itself, up to ``offset``; they have waited long enough.

        Those that it was made to pass by meanwhile are left out.
        """
        self._due = float("-inf")
        passed = self.read.get(segment, 0)
        for item in items:
            if item.end > passed:
                self._push(item)
        self.pass_by(segment, offset)

    def _push(self, item: Item[T]) -> None:
        self.queue.append(item)
        self.queued_size += item.size
        self.read[item.segment] = item.end

    def pass_by(self, segment: str, offset: int) -> None:
        """Note that there is nothing for this lane up to ``offset``."""
        self.read[segment] = max(offset, self.read.get(segment, 0))
        if self.idle:
            self.done[segment] = self.read[segment]

    def pause(self, now: float, *, draining: bool) -> float | None:
        """Return the seconds until there is something to deliver; None if that takes another record."""
        if self.batch is not None:
            return max(0.0, (self.batch.asked_before if draining else self.batch.not_before) - now)
        if not self.queue:
            return None
        batching = self.destination.batching
        if draining or len(self.queue) >= batching.records or self.queued_size >= batching.size:
            return 0.0
        return max(0.0, self._due - now)

    def take(self, now: float) -> list[Item[T]]:
        """Remove the next batch's records from the queue, at least one; ``begin`` is to follow."""
        batching = self.destination.batching
        items: list[Item[T]] = []
        size = 0
        if len(self.queue) <= batching.records and self.queued_size <= batching.size:
            items, size = list(self.queue), self.queued_size
            self.queue.clear()
        while (
            self.queue and len(items) < batching.records and (not items or size + self.queue[0].size <= batching.size)
        ):
            item = self.queue.popleft()
            items.append(item)
            size += item.size
        self._taken = True
        self.queued_size -= size
        self._active_at = now
        self._due = now if self.queue else self._due
        return items

    def begin(
        self,
        spans: Sequence[ReadableSpan],
        items: Sequence[Item[T]],
        sources: Sequence[Item[T]] = (),
        now: float = 0.0,
        runs: tuple[Run, ...] | None = None,
    ) -> Batch:
        """Start the delivery of the selected ``spans`` of ``items``; ``sources`` says of each span which it is from.

        ``runs`` are those of a batch from before a restart: some of it may be gone.
        """
        self._begun += 1
        whole = runs_of(items) if runs is None else runs
        subject = items[0].subject if items else None
        self.batch = Batch(spans, sources, whole, self._begun, now, subject=subject)
        self._taken = False
        if runs is not None:
            self.thaw.popleft()
        return self.batch

    def judged(self, outcome: Outcome, now: float) -> Outcome:
        """Return the outcome with everything given up that has been tried for too long."""
        limit = self.destination.retry.limit
        if self.batch is None or not limit or now - self.batch.began < limit:
            return outcome
        return Outcome(
            tuple(
                Verdict("dead", f"given up after {limit:g} s: {verdict.reason}")
                if verdict.state == "retry"
                else verdict
                for verdict in outcome.verdicts
            ),
            outcome.rejected,
            outcome.message,
        )

    def settle(self, outcome: Outcome, now: float, jitter: Callable[[], float]) -> None:
        """Note what became of the batch; spans to be retried stay in it."""
        batch = self.batch
        if batch is None:
            raise RuntimeError("there is no batch to settle")
        verdicts = outcome.verdicts
        left: Sequence[ReadableSpan] = ()
        dead = 0
        if verdicts.count(DONE) != len(batch.spans):
            again = [verdict.state == "retry" for verdict in verdicts]
            left = batch.spans
            if not all(again):
                left = [span for span, retry in zip(batch.spans, again, strict=True) if retry]
                batch.sources = [source for source, retry in zip(batch.sources, again, strict=False) if retry]
            dead = sum(verdict.state == "dead" for verdict in verdicts)
        self.counters.delivered += len(batch.spans) - len(left) - dead - outcome.rejected
        self.counters.dead += dead
        self.counters.rejected += outcome.rejected
        self.counters.retried += len(left)
        self._active_at = now
        if left:
            policy = self.destination.retry
            batch.spans = left
            batch.tries += 1
            batch.asked_before = now + policy.asked(outcome.after)
            batch.not_before = now + policy.delay(batch.tries, outcome.after, jitter)
            return
        self.done.update({run.segment: run.end for run in batch.runs if run.segment in self.read})
        self.batch = None
        if self.idle:
            self.done.update(self.read)

    def evict(self, segment: str, end: int) -> tuple[int, int]:
        """Pass by what has not been begun of a segment that has to go.

        Returns the number of records that were waiting, and the offset from which on it was not read at all.
        """
        kept = [item for item in self.queue if item.segment != segment]
        waiting = len(self.queue) - len(kept)
        self.queue = deque(kept)
        self.queued_size = sum(item.size for item in kept)
        unread = self.read.get(segment, 0)
        self.pass_by(segment, end)
        return waiting, unread

    def forget(self, segment: str) -> None:
        """Drop a segment that is deleted."""
        self.read.pop(segment, None)
        self.done.pop(segment, None)

    def status(
        self,
        positions: Mapping[str, Position] = MappingProxyType({}),
        age: Callable[[T], float] = lambda _: 0.0,
    ) -> Status:
        """Return a snapshot; ``positions`` say how far the head is, ``age`` how old a record is, in seconds."""
        oldest = self.batch.subject if self.batch is not None else self.queue[0].subject if self.queue else None
        state = "retrying" if self.batch is not None and self.batch.tries else "ok" if self.following else "behind"
        return Status(
            self.destination.name,
            state,
            self.error,
            len(self.queue) + (len(set(map(id, self.batch.sources))) if self.batch is not None else 0),
            Counters(**asdict(self.counters)),
            sum(max(0, position.offset - self.done.get(key, 0)) for key, position in positions.items()),
            age(cast("T", oldest)) if oldest is not None else 0.0,
            self.latency,
        )
