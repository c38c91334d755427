"""Spans on their way to a ``SpanExporter`` in another process, and back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

__all__ = ["read", "written"]

Shape = Any  # Callable[[Mapping[str, Any]], Mapping[str, Any]]


def written(span: ReadableSpan, shape: Shape) -> dict[str, Any]:
    """Return a span in plain values; ``shape`` gives its attributes as they are to be seen."""
    scope = span.instrumentation_scope
    return {
        "name": span.name,
        "context": _context(span.context),
        "parent": _context(span.parent),
        "kind": span.kind.name,
        "status": [span.status.status_code.name, span.status.description],
        "times": [span.start_time, span.end_time],
        "attributes": dict(shape(span.attributes or {})),
        "events": [[event.name, dict(event.attributes or {}), event.timestamp] for event in span.events],
        "links": [[_context(link.context), dict(link.attributes or {})] for link in span.links],
        "resource": [dict(span.resource.attributes), span.resource.schema_url] if span.resource else None,
        "scope": [scope.name, scope.version, scope.schema_url, dict(scope.attributes or {})] if scope else None,
    }


def _context(context: SpanContext | None) -> list[Any] | None:
    if context is None:
        return None
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    return [trace_id, span_id, context.is_remote, int(context.trace_flags), list(context.trace_state.items())]


def read(plain: Mapping[str, Any]) -> ReadableSpan:
    """Return the span that was ``written``."""
    resource, scope = plain["resource"], plain["scope"]
    code, description = plain["status"]
    return ReadableSpan(
        plain["name"],
        context=_read_context(plain["context"]),
        parent=_read_context(plain["parent"]),
        kind=SpanKind[plain["kind"]],
        status=Status(StatusCode[code], description),
        start_time=plain["times"][0],
        end_time=plain["times"][1],
        attributes=_frozen(plain["attributes"]),
        events=[Event(name, _frozen(attributes), at) for name, attributes, at in plain["events"]],
        links=[
            Link(context, _frozen(attributes))
            for given, attributes in plain["links"]
            if (context := _read_context(given)) is not None
        ],
        resource=Resource(_frozen(resource[0]), resource[1]) if resource else None,
        instrumentation_scope=InstrumentationScope(scope[0], scope[1], scope[2], _frozen(scope[3])) if scope else None,
    )


def _read_context(given: Sequence[Any] | None) -> SpanContext | None:
    if given is None:
        return None
    trace_id, span_id, remote, flags, state = given
    ids = (int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"))
    return SpanContext(*ids, remote, TraceFlags(flags), TraceState([tuple(pair) for pair in state]))


def _frozen(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as the SDK holds them: lists are tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
