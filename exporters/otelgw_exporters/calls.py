"""The spans of one call of a model, found together in what a destination is given.

The gateway's spans of a request travel together: SERVER, the generation, one span an attempt. A call is about its
generation; a request that has none (refused, or passed through on a route without an operation) is about its SERVER
span. In spans of other applications each generation is a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from otelgw_exporters import foreign, semconv
from otelgw_exporters.delivery import DONE, Verdict

__all__ = ["Call", "calls", "identity", "verdicts_of"]

_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``span`` is what it is about; ``server`` and ``attempts`` are the gateway's, where they are there.

    ``positions`` says where the spans stand in what was given.
    """

    span: ReadableSpan
    server: ReadableSpan | None
    attempts: tuple[ReadableSpan, ...]
    positions: tuple[int, ...]

    @property
    def identity(self) -> str:
        """Trace id and span id of the gateway's (or the instrumentation's) own making: the same on every delivery.

        Never an id that a caller or an upstream chose: those repeat.
        """
        return identity(self.span)


def identity(span: ReadableSpan) -> str:
    """Return trace id and span id, in hex, with a hyphen between them."""
    context = span.context
    return f"{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}" if context else ""


def calls(spans: Sequence[ReadableSpan]) -> list[Call]:
    """Return the calls in ``spans``, in the order of what they are about; spans of no call are in none of them."""
    servers: dict[_Key, int] = {}
    children: dict[_Key, dict[int, int]] = {}  # by their span ids: a span that came twice is one
    subjects: list[tuple[int, ReadableSpan]] = []
    for position, span in enumerate(spans):
        attributes = span.attributes or {}
        if span.kind is SpanKind.SERVER and semconv.OTELGW_CALL_ID in attributes:
            if span.context is not None:
                servers[span.context.trace_id, span.context.span_id] = position
            if _is_call_itself(span):
                subjects.append((position, span))
        elif semconv.OTELGW_ATTEMPT_NUMBER in attributes and span.parent is not None:
            own = span.context.span_id if span.context else position
            children.setdefault((span.parent.trace_id, span.parent.span_id), {}).setdefault(own, position)
        elif foreign.is_generation(read := foreign.translated(span)):
            subjects.append((position, read))
    return [_call(position, span, spans, servers, children) for position, span in subjects]


def _is_call_itself(server: ReadableSpan) -> bool:
    """Say whether a SERVER span has no generation beside it, and more to tell than that the gateway answered."""
    attributes = server.attributes or {}
    attempts = attributes.get(semconv.OTELGW_ATTEMPTS)
    failed = semconv.ERROR_TYPE in attributes or server.status.status_code is StatusCode.ERROR
    return attempts is not None and (bool(attempts) or failed)


def _call(
    position: int,
    span: ReadableSpan,
    spans: Sequence[ReadableSpan],
    servers: dict[_Key, int],
    children: dict[_Key, dict[int, int]],
) -> Call:
    own = (span.context.trace_id, span.context.span_id) if span.context else (0, 0)
    above = servers.get((span.parent.trace_id, span.parent.span_id)) if span.parent else None
    server = position if own in servers else above
    attempts = sorted(children.get(own, {}).values(), key=lambda at: _number(spans[at]))
    held = {position, *attempts} | (set() if server is None else {server})
    return Call(
        span,
        None if server is None else spans[server],
        tuple(spans[at] for at in attempts),
        tuple(sorted(held)),
    )


def _number(span: ReadableSpan) -> int:
    value: Any = (span.attributes or {}).get(semconv.OTELGW_ATTEMPT_NUMBER)
    return value if isinstance(value, int) else 0


def verdicts_of(count: int, found: Iterable[tuple[Call, Verdict]]) -> tuple[Verdict, ...]:
    """Return a verdict for each of ``count`` spans: that of its call; done for a span of no call.

    A call's spans share their fate, so that they are together again when they are tried again.
    """
    verdicts = [DONE] * count
    for call, verdict in found:
        for position in call.positions:
            verdicts[position] = verdict
    return tuple(verdicts)
