"""From a received ``ExportTraceServiceRequest`` to the SDK's spans: nothing that OTLP can say about a span is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otelgw_collector.trace_state import carried
from otelgw_exporters import semconv

__all__ = ["decode"]

T = TypeVar("T")

_KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: SpanKind.SERVER,
    trace_pb2.Span.SPAN_KIND_CLIENT: SpanKind.CLIENT,
    trace_pb2.Span.SPAN_KIND_PRODUCER: SpanKind.PRODUCER,
    trace_pb2.Span.SPAN_KIND_CONSUMER: SpanKind.CONSUMER,
}
_CODES = {
    trace_pb2.Status.STATUS_CODE_OK: StatusCode.OK,
    trace_pb2.Status.STATUS_CODE_ERROR: StatusCode.ERROR,
}
_REMOTE = trace_pb2.SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_FLAGS = trace_pb2.SpanFlags.SPAN_FLAGS_TRACE_FLAGS_MASK


def decode(payload: bytes, instance: str = "") -> list[ReadableSpan]:
    """Return the spans of a record of kind ``OTLP``, in order.

    ``instance`` is added to the resource's ``otelgw.via``: a receiver refuses spans that have been through it before.

    Raises:
        ValueError: the payload is no ``ExportTraceServiceRequest``.
    """
    request = ExportTraceServiceRequest.FromString(payload)
    found: list[ReadableSpan] = []
    for group in request.resource_spans:
        resource = _resource(group, instance)
        for scoped in group.scope_spans:
            scope = _scope(scoped)
            found += [_span(span, resource, scope) for span in scoped.spans]
    return found


def _resource(group: trace_pb2.ResourceSpans, instance: str) -> Resource:
    attributes = _attributes(group.resource.attributes)
    if instance:
        before = attributes.get(semconv.OTELGW_VIA, ())
        attributes[semconv.OTELGW_VIA] = [*(before if isinstance(before, list) else ()), instance]
    resource = Resource({}, group.schema_url)
    resource._attributes = _bounded(attributes)
    return resource


def _scope(scoped: trace_pb2.ScopeSpans) -> InstrumentationScope:
    scope = InstrumentationScope(scoped.scope.name, scoped.scope.version or None, scoped.schema_url)
    scope._attributes = _bounded(_attributes(scoped.scope.attributes))
    return scope


def _span(span: trace_pb2.Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    trace_id = int.from_bytes(span.trace_id, "big")
    flags, state = TraceFlags(span.flags & _FLAGS), carried(span.trace_state)
    parent = None
    if span.parent_span_id:
        remote = bool(span.flags & _REMOTE)
        parent = SpanContext(trace_id, int.from_bytes(span.parent_span_id, "big"), remote, flags, state)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int.from_bytes(span.span_id, "big"), False, flags, state),
        parent=parent,
        resource=resource,
        attributes=_counted(span.attributes, span.dropped_attributes_count),
        events=_listed(map(_event, span.events), span.dropped_events_count),
        links=_listed(map(_link, span.links), span.dropped_links_count),
        kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
        status=_status(span.status),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def _status(status: trace_pb2.Status) -> Status:
    code = _CODES.get(status.code, StatusCode.UNSET)
    # The SDK takes a description for errors only.
    return Status(code, status.message or None) if code is StatusCode.ERROR else Status(code)


def _event(event: trace_pb2.Span.Event) -> Event:
    return Event(event.name, _counted(event.attributes, event.dropped_attributes_count), event.time_unix_nano)


def _link(link: trace_pb2.Span.Link) -> Link:
    context = SpanContext(
        int.from_bytes(link.trace_id, "big"),
        int.from_bytes(link.span_id, "big"),
        bool(link.flags & _REMOTE),
        TraceFlags(link.flags & _FLAGS),
        carried(link.trace_state),
    )
    return Link(context, _counted(link.attributes, link.dropped_attributes_count))


def _counted(pairs: Iterable[common_pb2.KeyValue], dropped: int) -> Any:
    """Return the attributes in a form that knows how many were dropped before they came here."""
    attributes = _attributes(pairs)
    return _bounded(attributes, dropped) if dropped else attributes


def _bounded(attributes: dict[str, Any], dropped: int = 0) -> BoundedAttributes:
    counted = BoundedAttributes()
    # Put in as they are: they have been through a sender's SDK, and a second cleaning would drop and log.
    counted._dict = attributes
    counted.dropped = dropped
    return counted


def _listed(items: Iterable[T], dropped: int) -> Any:
    if not dropped:
        return tuple(items)
    counted: Any = BoundedList.from_seq(None, tuple(items))
    counted.dropped = dropped
    return counted


def _attributes(pairs: Iterable[common_pb2.KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)
