"""Spans as OTLP's ``ExportTraceServiceRequest``: each span is encoded once, requests are put together from the pieces.

That makes splitting a request by size or after a refusal free of any encoding, and a repeated request identical byte
for byte.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

__all__ = ["EncodedSpan", "Encoder", "assemble", "split", "to_json"]

_INT64, _UINT64 = 1 << 63, (1 << 64) - 1
_DOUBLE = struct.Struct("<d")
_KINDS = {
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: Span.SPAN_KIND_CONSUMER,
}
_CODES = {
    StatusCode.UNSET: Status.STATUS_CODE_UNSET,
    StatusCode.OK: Status.STATUS_CODE_OK,
    StatusCode.ERROR: Status.STATUS_CODE_ERROR,
}
_PLAIN = frozenset({bool, int, float})
_SHORT = 40  # characters; longer values are mostly unique
_OVERHEAD = 8  # bytes of tag and length around a span, at most


class EncodedSpan(NamedTuple):
    """A span in wire format, with its resource and scope: the wire format of the messages around it, without it."""

    resource: bytes
    scope: bytes
    span: bytes


class Encoder:
    """Encodes spans; ``shape`` gives the attributes as the destination reads them."""

    def __init__(self, shape: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self._shape = shape
        # By identity, the object kept alive: hashing an SDK resource serialises all of it.
        self._known: dict[int, tuple[object, bytes]] = {}

    def __call__(self, span: ReadableSpan) -> EncodedSpan:
        """Return ``span`` in wire format.

        Raises:
            ValueError, TypeError: the span cannot be expressed in OTLP.
        """
        return EncodedSpan(
            self._once(span.resource, _resource),
            self._once(span.instrumentation_scope, _scope),
            _span(span, self._shape(span.attributes or {})),
        )

    def _once(self, value: Any, encode: Callable[[Any], bytes]) -> bytes:
        known = self._known.get(id(value))
        if known is None:
            if len(self._known) > 1000:
                self._known.clear()
            known = self._known[id(value)] = (value, encode(value))
        return known[1]


def split(spans: Sequence[EncodedSpan], max_bytes: int) -> list[Sequence[EncodedSpan]]:
    """Return runs of ``spans`` whose requests are at most ``max_bytes`` long; a longer span stands alone."""
    runs: list[Sequence[EncodedSpan]] = []
    start = size = 0
    seen: set[tuple[bytes, bytes]] = set()
    for index, encoded in enumerate(spans):
        own = len(encoded.span) + _OVERHEAD
        around = 0 if encoded[:2] in seen else len(encoded.resource) + len(encoded.scope) + 3 * _OVERHEAD
        if index > start and size + own + around > max_bytes:
            runs.append(spans[start:index])
            start, size = index, 0
            seen.clear()
            around = len(encoded.resource) + len(encoded.scope) + 3 * _OVERHEAD
        size += own + around
        seen.add(encoded[:2])
    return [*runs, spans[start:]] if start < len(spans) else runs


def assemble(spans: Iterable[EncodedSpan]) -> bytes:
    """Return the ExportTraceServiceRequest of ``spans``, grouped by resource and scope in order of appearance."""
    resources: dict[bytes, dict[bytes, list[bytes]]] = {}
    for encoded in spans:
        resources.setdefault(encoded.resource, {}).setdefault(encoded.scope, []).append(encoded.span)
    request = bytearray()
    for resource, scopes in resources.items():
        groups = bytearray(resource)
        for scope, members in scopes.items():
            groups += _field(2, scope + b"".join(_field(2, member) for member in members))
        request += _field(1, bytes(groups))
    return bytes(request)


def to_json(request: bytes) -> bytes:
    """Return an assembled request in OTLP's JSON mapping: ids in hex, enums as numbers, 64-bit integers as text."""
    message = ExportTraceServiceRequest.FromString(request)
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    for resource in tree.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for holder in (span, *span.get("links", ())):
                    _ids_to_hex(holder)
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


def _ids_to_hex(holder: dict[str, Any]) -> None:
    for name in ("traceId", "spanId", "parentSpanId"):
        if name in holder:
            holder[name] = base64.b64decode(holder[name]).hex()


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    size = len(content)
    return _TAGS[number] + (_ONE_BYTE[size] if size < 0x80 else _varint(size)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_TAGS = [bytes((number << 3 | 2,)) for number in range(16)]
_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def _resource(resource: Any) -> bytes:
    """The fields of ResourceSpans apart from its scope_spans."""
    encoded = _field(1, _attributes(1, resource.attributes))
    return encoded + (_field(3, _utf8(resource.schema_url)) if resource.schema_url else b"")


def _scope(scope: Any) -> bytes:
    """The fields of ScopeSpans apart from its spans."""
    if scope is None:
        return _field(1, b"")
    message = InstrumentationScope(name=_text(scope.name), version=_text(scope.version or ""))
    encoded = _field(1, message.SerializeToString() + _attributes(3, scope.attributes or {}))
    return encoded + (_field(3, _utf8(scope.schema_url)) if scope.schema_url else b"")


def _span(span: ReadableSpan, attributes: Mapping[str, Any]) -> bytes:
    context = span.get_span_context()
    if context is None:
        raise ValueError("the span has no context")
    message = Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=_trace_state(context),
        name=_text(span.name),
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        status=Status(code=_CODES[span.status.status_code], message=_text(span.status.description or "")),
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
        flags=_flags(context, span.parent),
    )
    if span.parent is not None:
        message.parent_span_id = span.parent.span_id.to_bytes(8, "big")
    parts = [message.SerializeToString(), _attributes(9, attributes)]
    parts += [_field(11, _event(event)) for event in span.events]
    parts += [_field(13, _link(link)) for link in span.links]
    return b"".join(parts)


def _event(event: Event) -> bytes:
    message = Span.Event(
        name=_text(event.name),
        time_unix_nano=event.timestamp,
        dropped_attributes_count=event.dropped_attributes,
    )
    return message.SerializeToString() + _attributes(3, event.attributes or {})


def _link(link: Link) -> bytes:
    message = Span.Link(
        trace_id=link.context.trace_id.to_bytes(16, "big"),
        span_id=link.context.span_id.to_bytes(8, "big"),
        trace_state=_trace_state(link.context),
        dropped_attributes_count=link.dropped_attributes,
        flags=_flags(link.context, link.context),
    )
    return message.SerializeToString() + _attributes(4, link.attributes or {})


def _trace_state(context: SpanContext) -> str:
    return _text(context.trace_state.to_header()) if context.trace_state else ""


def _flags(context: SpanContext, remote: SpanContext | None) -> int:
    """The span's W3C trace flags, and whether the context it came from is another process's."""
    flags = int(context.trace_flags) & SpanFlags.SPAN_FLAGS_TRACE_FLAGS_MASK
    flags |= SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    return flags | (SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK if remote is not None and remote.is_remote else 0)


def _attributes(number: int, attributes: Mapping[str, Any]) -> bytes:
    """Return the repeated KeyValue field ``number``.

    Written out by hand: attributes are most of a span, and protobuf's Python objects take three times as long.
    """
    return b"".join(
        [
            _known_pair(number, key, value)
            if type(value) in _PLAIN or (type(value) is str and len(value) <= _SHORT)
            else _pair(number, key, value)
            for key, value in attributes.items()
        ]
    )


def _pair(number: int, key: str, value: Any) -> bytes:
    return _field(number, _field(1, _utf8(key)) + _field(2, _any(value)))


# Most attributes of a request are those of the one before it. Typed, because 1, 1.0 and True are equal.
_known_pair = lru_cache(maxsize=8192, typed=True)(_pair)


def _any(value: Any) -> bytes:
    """Return an AnyValue: string 1, bool 2, int 3, double 4, array 5, kvlist 6, bytes 7."""
    if isinstance(value, str):
        return _field(1, _utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if -_INT64 <= value < _INT64:
            return b"\x18" + _varint(value & _UINT64)
        return _field(1, str(value).encode())
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    if value is None:
        return b""
    if isinstance(value, bytes):
        return _field(7, value)
    if isinstance(value, Mapping):
        return _field(6, _attributes(1, {str(key): item for key, item in value.items()}))
    if isinstance(value, Sequence):
        return _field(5, b"".join(_field(1, _any(item)) for item in value))
    raise TypeError(f"a value of type {type(value).__name__} has no form in OTLP")


def _text(value: str) -> str:
    """Return ``value`` as protobuf takes it: a lone surrogate is no UTF-8."""
    return value if value.isascii() else _utf8(value).decode()


def _utf8(value: str) -> bytes:
    return value.encode("utf-8", "replace")
