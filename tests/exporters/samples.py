"""Spans for the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

__all__ = ["RESOURCE", "SCOPE", "context", "generation", "span"]

RESOURCE = Resource({"service.name": "tests", "service.instance.id": "1"})
SCOPE = InstrumentationScope("otelgw", "0.1.0")
START = 1_764_000_000_000_000_000


def context(number: int, *, trace: int = 0xABCDEF, remote: bool = False) -> SpanContext:
    return SpanContext(trace, number, remote, TraceFlags(1), TraceState([("vendor", "x")]))


def span(
    number: int = 1,
    attributes: Mapping[str, Any] | None = None,
    *,
    name: str = "POST /v1/chat/completions",
    parent: int | None = None,
    trace: int = 0xABCDEF,
    kind: SpanKind = SpanKind.SERVER,
    status: Status | None = None,
    events: Sequence[Event] = (),
    links: Sequence[Link] = (),
    resource: Resource = RESOURCE,
) -> ReadableSpan:
    return ReadableSpan(
        name,
        context=context(number, trace=trace),
        parent=None if parent is None else context(parent, trace=trace),
        resource=resource,
        attributes=dict(attributes or {"http.response.status_code": 200, "number": number}),
        events=events,
        links=links,
        kind=kind,
        status=status or Status(StatusCode.UNSET),
        start_time=START + number,
        end_time=START + number + 12_300_000,
        instrumentation_scope=SCOPE,
    )


def generation(number: int = 2, *, parent: int = 1, text: str = "hello", **more: Any) -> ReadableSpan:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "echo",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 34,
        "gen_ai.usage.cost": 0.00021,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": text}]}],
        **more,
    }
    return span(number, attributes, name="chat echo", parent=parent, kind=SpanKind.CLIENT)
