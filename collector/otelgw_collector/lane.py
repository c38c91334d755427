"""One destination's way through the spool: what it has read, what waits, what is being delivered, what is done.

No threads and no I/O here: the pipeline calls a lane under its lock and says what time it is.

A lane *follows* while the head reader's records fit into its queue. When the queue is full it falls behind: it is
offered nothing more, and reads the segments itself from where it is, so that a destination that is down costs disk and
no memory. Once it has read as far as the head it follows again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.retry import RetryPolicy
from otelgw_exporters.delivery import Exporter, Outcome

__all__ = ["Batch", "Batching", "Counters", "Destination", "Item", "Lane", "Status"]

T = TypeVar("T")


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

    ``delivery_time`` limits one try of one batch, in seconds.
    """

    name: str
    exporter: Exporter
    select: Callable[[T], Sequence[ReadableSpan]]
    batching: Batching = Batching()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    delivery_time: float = 30.0


class Item(NamedTuple, Generic[T]):
    """A decoded record: the segment's key, the offset after it, its size in the spool in bytes."""

    segment: str
    end: int
    size: int
    subject: T


@dataclass(slots=True)
class Batch:
    """Spans on their way. ``ends`` are the cursors once all of them are dealt with. Times are on the lane's clock."""

    spans: list[ReadableSpan]
    ends: dict[str, int]
    tries: int = 0
    not_before: float = 0.0
    asked_before: float = 0.0  # the part of not_before that the destination asked for


@dataclass(slots=True)
class Counters:
    """Spans by what became of them; ``retried`` counts each further try of each span."""

    delivered: int = 0
    retried: int = 0
    dead: int = 0
    rejected: int = 0
    unselected: int = 0  # records, not spans, whose selection failed


class Status(NamedTuple):
    """How a destination does. ``state`` is ok, retrying or behind; ``error`` is the last reason while retrying."""

    name: str
    state: str
    error: str
    queued: int
    counters: Counters


@dataclass(slots=True)
class Lane(Generic[T]):
    """The state of one destination. ``read`` and ``done`` are offsets by segment key."""

    destination: Destination[T]
    done: dict[str, int]
    read: dict[str, int] = field(default_factory=dict)
    following: bool = False
    queue: deque[Item[T]] = field(default_factory=deque)
    queued_size: int = 0
    batch: Batch | None = None
    ended: bool = False
    error: str = ""
    counters: Counters = field(default_factory=Counters)
    _due: float = 0.0
    _active_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.read = dict(self.done)

    @property
    def idle(self) -> bool:
        """True when everything that was read is dealt with."""
        return not self.queue and self.batch is None

    @property
    def has_room(self) -> bool:
        """True while the queue takes another record."""
        batching = self.destination.batching
        return len(self.queue) < batching.queue_records and self.queued_size < batching.queue_size

    def offer(self, item: Item[T], now: float) -> bool:
        """Queue a record that the head has just read; False if the queue is full and the lane falls behind."""
        if not self.has_room:
            self.following = False
            return False
        if not self.queue:
            batching = self.destination.batching
            was_idle = self.batch is None and now - self._active_at >= batching.idle
            self._due = now + (batching.first if was_idle else batching.linger)
        self._push(item)
        return True

    def take_in(self, items: Sequence[Item[T]], segment: str, offset: int) -> None:
        """Queue records that the lane has read itself, up to ``offset``; they have waited long enough."""
        self._due = float("-inf")
        for item in items:
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

    def is_behind(self, positions: Mapping[str, int]) -> bool:
        """True if the head has read further than this lane."""
        return any(self.read.get(segment, 0) < offset for segment, offset in positions.items())

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
        """Remove the next batch's records from the queue; at least one."""
        batching = self.destination.batching
        items: list[Item[T]] = []
        size = 0
        while (
            self.queue and len(items) < batching.records and (not items or size + self.queue[0].size <= batching.size)
        ):
            item = self.queue.popleft()
            items.append(item)
            size += item.size
        self.queued_size -= size
        self._active_at = now
        self._due = now if self.queue else self._due
        return items

    def begin(self, spans: Sequence[ReadableSpan], items: Sequence[Item[T]]) -> Batch:
        """Start the delivery of the selected ``spans`` of ``items``."""
        self.batch = Batch(list(spans), {item.segment: item.end for item in items})
        return self.batch

    def settle(self, outcome: Outcome, now: float, jitter: Callable[[], float]) -> None:
        """Note what became of the batch; spans to be retried stay in it."""
        batch = self.batch
        if batch is None:
            raise RuntimeError("there is no batch to settle")
        left = [span for span, verdict in zip(batch.spans, outcome.verdicts, strict=True) if verdict.state == "retry"]
        dead = sum(verdict.state == "dead" for verdict in outcome.verdicts)
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
        self.done.update(batch.ends)
        self.batch = None
        if not self.queue:
            self.done.update(self.read)

    def forget(self, segment: str) -> None:
        """Drop a segment that is deleted."""
        self.read.pop(segment, None)
        self.done.pop(segment, None)

    def status(self) -> Status:
        """Return a snapshot."""
        state = "retrying" if self.batch is not None and self.batch.tries else "ok" if self.following else "behind"
        counters = Counters(*(getattr(self.counters, name) for name in Counters.__slots__))
        return Status(self.destination.name, state, self.error, len(self.queue), counters)
