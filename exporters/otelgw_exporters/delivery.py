"""What every destination is: something that takes spans and answers for each one what became of it.

``deliver`` is one try. It answers per span: done, retry (perhaps not before some time) or dead (can never be delivered,
and why). Whoever calls it keeps the spans that are to be retried. ``export`` wraps it for use as a plain OpenTelemetry
``SpanExporter``, whose caller keeps nothing: there, the retries take place within the exporter's own timeout.
"""

from __future__ import annotations

import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from otelgw_exporters.otlp_wire import Encoder
    from otelgw_exporters.sheaf import Sheaf

__all__ = [
    "DONE",
    "OPERATOR_DELAY",
    "UNUSABLE",
    "Exporter",
    "Outcome",
    "Reply",
    "Verdict",
    "all_done",
    "all_retry",
    "backoff",
    "deliver_in_parts",
    "to_outcome",
]


T = TypeVar("T")

OPERATOR_DELAY = 60.0
"""Seconds between two tries where only a change of configuration or rights can help."""

UNUSABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What encoding a span of strange content can raise; the span is at fault, and a repetition of no use."""

_REFUSALS = 32  # single spans that one delivery may find out to be refused before the rest is taken to be, too


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one span. ``after`` is the least delay in seconds that the destination asked for."""

    state: Literal["done", "retry", "dead"]
    reason: str = ""
    after: float | None = None


DONE = Verdict("done")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One verdict per span, in order.

    ``rejected`` counts spans that the destination accepted as part of a request and then says it dropped, without
    saying which (OTLP's partial success); they must not be sent again. ``message`` is what it said about that.
    """

    verdicts: tuple[Verdict, ...]
    rejected: int = 0
    message: str = ""

    @property
    def reason(self) -> str:
        """The first reason why a span was not delivered; empty if all were."""
        return next((verdict.reason for verdict in self.verdicts if verdict.reason), "")

    @property
    def after(self) -> float | None:
        """The longest delay that was asked for, in seconds."""
        return max((verdict.after for verdict in self.verdicts if verdict.after is not None), default=None)


def all_done(count: int) -> Outcome:
    return Outcome((DONE,) * count)


def all_retry(count: int, reason: str, after: float | None = None) -> Outcome:
    return Outcome((Verdict("retry", reason, after),) * count)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request, classified.

    accepted
        taken; ``rejected`` of its spans were dropped by the destination, unnamed.
    again
        not taken for now; ``after`` is the delay in seconds that the destination asked for.
    too_large
        not taken because of its size: a smaller request may be.
    refused
        not taken because of what is in it: sending the same again is of no use.
    """

    kind: Literal["accepted", "again", "too_large", "refused"]
    reason: str = ""
    after: float | None = None
    rejected: int = 0


def deliver_in_parts(
    parts: Sequence[Sequence[T]],
    send: Callable[[Sequence[T]], Reply],
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[tuple[Sequence[T], Reply]]:
    """Send ``parts`` in order; return every part that was decided on, with its reply, in the order of the items.

    A part that is too large or refused is halved until only the items at fault are left. After a reply that asks for
    patience nothing more is sent: the rest gets the same reply. When more than 32 single items were refused, what is
    refused from then on is not halved any further.
    """
    waiting = [part for part in reversed(parts) if part]
    decided: list[tuple[Sequence[T], Reply]] = []
    refusals = 0
    while waiting:
        part = waiting.pop()
        reply = send(part) if clock() < deadline else Reply("again", "the time for one delivery was over")
        if reply.kind == "again":
            decided.extend((left, reply) for left in (part, *reversed(waiting)))
            break
        if len(part) > 1 and (reply.kind == "too_large" or (reply.kind == "refused" and refusals < _REFUSALS)):
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
            continue
        refusals += reply.kind == "refused"
        decided.append((part, reply))
    return decided


def to_outcome(decided: Sequence[tuple[Sequence[object], Reply]]) -> Outcome:
    """Return what ``deliver_in_parts`` found out, per item."""
    verdicts: list[Verdict] = []
    rejected, message = 0, ""
    for part, reply in decided:
        verdicts += [_verdict(reply, len(part))] * len(part)
        if reply.rejected and reply.rejected < len(part):
            rejected, message = rejected + reply.rejected, message or reply.reason
    return Outcome(tuple(verdicts), rejected, message)


def _verdict(reply: Reply, count: int) -> Verdict:
    if reply.kind == "accepted":
        # Everything in the request was dropped, so there is no doubt which spans are meant.
        return Verdict("dead", reply.reason or "rejected") if reply.rejected >= count else DONE
    if reply.kind == "again":
        return Verdict("retry", reply.reason, reply.after)
    return Verdict("dead", reply.reason)


def backoff(tries: int, *, first: float, most: float, jitter: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after ``tries`` failures: doubling from ``first`` to ``most``, half of it random."""
    return min(most, first * 2.0 ** min(tries - 1, 30)) * (0.5 + jitter() / 2)


class Exporter(SpanExporter):
    """Base of every destination. ``timeout`` is how long one delivery may take, in seconds.

    ``ahead``, where a destination has it, makes of a span what ``deliver`` takes in its place, and what needs less
    memory until then. It may raise what ``UNUSABLE`` names; such a span is given to ``deliver`` as it is. ``gather``
    puts what ``ahead`` has made of several records together; ``deliver`` can be given ``Sheaves`` then, and ``Bundle``s
    as ``encoder`` would make them.
    """

    ahead: Callable[[ReadableSpan], ReadableSpan] | None = None
    gather: Callable[[Sequence[Sequence[ReadableSpan]]], Sheaf | None] | None = None
    encoder: Encoder | None = None

    def __init__(self, name: str, timeout: float = 10.0) -> None:
        self.name = name
        self.timeout = timeout
        self._stopped = threading.Event()

    @abstractmethod
    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        """Try once to deliver ``spans``; blocks until ``deadline`` (on ``time.monotonic``) at the latest.

        Never raises for what a destination or the network does.
        """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver ``spans``, with retries while the timeout lasts; FAILURE if any was not delivered."""
        if self._stopped.is_set():
            return SpanExportResult.FAILURE
        deadline = time.monotonic() + self.timeout
        left, tries, lost = list(spans), 0, 0
        while left:
            outcome = self.deliver(left, deadline)
            tries += 1
            verdicts = list(zip(left, outcome.verdicts, strict=True))
            left = [span for span, verdict in verdicts if verdict.state == "retry"]
            lost += outcome.rejected + sum(verdict.state == "dead" for _, verdict in verdicts)
            delay = max(outcome.after or 0.0, backoff(tries, first=1.0, most=30.0))
            if left and (time.monotonic() + delay >= deadline or self._stopped.wait(delay)):
                return SpanExportResult.FAILURE
        return SpanExportResult.FAILURE if lost else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Release connections; waits in ``export`` end. Deliveries in progress may fail."""
        self._stopped.set()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing is held back, so there is nothing to flush."""
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
