"""Spans as OTLP's ``ExportTraceServiceRequest``: each span is encoded once, requests are put together from the pieces.

That makes splitting a request by size or after a refusal free of any encoding, and a repeated request identical byte
for byte.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from otelgw_exporters.layers import Layers
from otelgw_exporters.otlp_attributes import Attributes, Singly
from otelgw_exporters.otlp_values import attributes, field, utf8, varint
from otelgw_exporters.turn import offer_turn

__all__ = [
    "FLAGS",
    "FLAGS_REMOTE",
    "EncodedSpan",
    "Encoder",
    "Ready",
    "Singly",
    "apart",
    "assemble",
    "laid_out",
    "split",
    "to_json",
]

_TIMES = struct.Struct("<BQBQ")
# By value: an enum's own hash is a Python function, and so is ``value``. OTLP counts kinds from 1, 0 being unspecified.
_KINDS = {kind.value: bytes((0x30, kind.value + 1)) for kind in SpanKind}
_CODES = {StatusCode.UNSET.value: b"", StatusCode.OK.value: b"\x18\x01", StatusCode.ERROR.value: b"\x18\x02"}
_STATUSES = {code: field(15, encoded) for code, encoded in _CODES.items()}  # without a description
_TRACE_FLAGS = int(SpanFlags.SPAN_FLAGS_TRACE_FLAGS_MASK)
_LOCAL = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE = _LOCAL | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
# With a parent here, and with one elsewhere; by the trace's flags.
FLAGS, FLAGS_REMOTE = (
    [struct.pack("<BBI", 0x85, 0x01, flags | where) for flags in range(_TRACE_FLAGS + 1)] for where in (_LOCAL, _REMOTE)
)
_KNOWN = 20_000  # resources and scopes
_OVERHEAD = 8  # bytes of tag and length around a message, at most


class EncodedSpan(NamedTuple):
    """A span in wire format, as the field of the ScopeSpans around it, with its resource and scope: the wire format of
    those messages without it."""

    resource: bytes
    scope: bytes
    span: bytes


class Ready(ReadableSpan):
    """A span that is encoded already. What is left of it is its ids, name and end."""

    def __init__(self, span: ReadableSpan, encoded: EncodedSpan) -> None:
        # Not the constructor of a whole span: there are three of these for every request.
        self._context = span._context
        self._name = span._name
        self._end_time = span._end_time
        self.encoded = encoded

    @classmethod
    def of(cls, encoded: EncodedSpan) -> Ready:
        """Return the span that is in ``encoded``."""
        _, at = _length(encoded.span, 0)
        message = Span.FromString(encoded.span[at:])
        trace_id, span_id = (int.from_bytes(each, "big") for each in (message.trace_id, message.span_id))
        made = cls.__new__(cls)
        made._context = SpanContext(trace_id, span_id, is_remote=False)
        made._name = message.name
        made._end_time = message.end_time_unix_nano
        made.encoded = encoded
        return made


class Encoder:
    """Encodes spans; ``shape`` gives the attributes as the destination reads them.

    An encoder that several destinations share keeps what it has encoded for as long as the span lives.
    """

    def __init__(self, shape: Callable[[Mapping[str, Any]], Mapping[str, Any]], singly: Singly | None = None) -> None:
        self._attributes = Attributes(shape, singly)
        # By identity, the object kept alive: hashing an SDK resource serialises all of it.
        self._known: dict[int, tuple[object, bytes]] = {}
        self._users = 0
        self._done: WeakKeyDictionary[ReadableSpan, EncodedSpan] | None = None

    def shared(self) -> Encoder:
        """Return this encoder for one more destination."""
        self._users += 1
        if self._users > 1 and self._done is None:
            self._done = WeakKeyDictionary()
        return self

    def __call__(self, span: ReadableSpan) -> EncodedSpan:
        """Return ``span`` in wire format.

        Raises:
            ValueError, TypeError: the span cannot be expressed in OTLP.
        """
        if type(span) is Ready:
            return span.encoded
        done = self._done
        encoded = done.get(span) if done is not None else None
        if encoded is None:
            encoded = self._encoded(span)
            offer_turn()
            if done is not None:
                done[span] = encoded
        return encoded

    def ready(self, span: ReadableSpan) -> Ready:
        """Return ``span`` as this encoder takes it later, without anything else that it holds.

        Raises:
            ValueError, TypeError: the span cannot be expressed in OTLP.
        """
        return Ready(span, self._encoded(span))

    def around(self, resource: Any, scope: Any) -> tuple[bytes, bytes]:
        """Return what stands around a span: the fields of its resource and of its scope."""
        known = self._known
        outer = known.get(id(resource)) or self._once(resource, _resource)
        inner = known.get(id(scope)) or self._once(scope, _scope)
        return outer[1], inner[1]

    def attributes(self, given: Mapping[str, Any]) -> bytes:
        """Return ``given`` as they stand in a span.

        Raises:
            ValueError, TypeError: one of them cannot be expressed in OTLP.
        """
        return b"".join(self._attributes(given))

    def is_plain(self, names: frozenset[str], dropped: frozenset[str]) -> bool:
        """Say whether ``names`` stay, structured values become JSON, and ``dropped`` are left out."""
        return self._attributes.is_plain(names, dropped)

    def _encoded(self, span: ReadableSpan) -> EncodedSpan:
        kept = span._attributes
        around = self.around(span._resource, span._instrumentation_scope)
        return EncodedSpan(*around, _span(span, self._attributes(kept) if kept is not None else []))

    def _once(self, value: Any, encode: Callable[[Any], bytes]) -> tuple[object, bytes]:
        if len(self._known) > _KNOWN:
            self._known.clear()
        encoded = self._known[id(value)] = (value, encode(value))
        return encoded


def apart(spans: EncodedSpan) -> list[EncodedSpan]:
    """Return the spans that were joined to ``spans``, of one resource and scope."""
    found: list[EncodedSpan] = []
    joined, begin = spans.span, 0
    while begin < len(joined):
        size, at = _length(joined, begin)
        found.append(spans._replace(span=joined[begin : at + size]))
        begin = at + size
    return found


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Return the length of the field at ``at``, whose tag is one byte, and where its content begins."""
    size = shift = 0
    while True:
        at += 1
        size |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            return size, at + 1


def split(spans: Sequence[EncodedSpan], max_bytes: int) -> list[Sequence[EncodedSpan]]:
    """Return runs of ``spans`` whose requests are at most ``max_bytes`` long; a longer span stands alone."""
    if sum([len(resource) + len(scope) + len(span) + 3 * _OVERHEAD for resource, scope, span in spans]) <= max_bytes:
        return [spans] if spans else []
    runs: list[Sequence[EncodedSpan]] = []
    start = size = 0
    seen: set[tuple[bytes, bytes]] = set()
    for index, encoded in enumerate(spans):
        own = len(encoded.span)
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
    return b"".join(laid_out(spans))


def laid_out(spans: Iterable[EncodedSpan]) -> list[bytes]:
    """Return what ``assemble`` does in the pieces that it is made of, for who can send them one after the other."""
    resources: dict[bytes, dict[bytes, list[bytes]]] = {}
    around: tuple[object, object] = (None, None)
    members: list[bytes] = []
    for resource, scope, span in spans:
        if around[0] is not resource or around[1] is not scope:
            members = resources.setdefault(resource, {}).setdefault(scope, [])
            around = (resource, scope)
        members.append(span)
    # Sizes first, so that the spans, which are nearly all of it, are copied once.
    request: list[bytes] = []
    for resource, scopes in resources.items():
        groups: list[bytes] = [resource]
        inside = len(resource)
        for scope, members in scopes.items():
            size = len(scope) + sum(map(len, members))
            length = varint(size)
            inside += 1 + len(length) + size
            groups += (b"\x12" + length + scope, *members)
        request += (b"\x0a" + varint(inside) + groups[0], *groups[1:])
    return request


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


def _resource(resource: Any) -> bytes:
    """The fields of ResourceSpans apart from its scope_spans."""
    encoded = field(1, attributes(1, resource.attributes))
    return encoded + (field(3, utf8(resource.schema_url)) if resource.schema_url else b"")


def _scope(scope: Any) -> bytes:
    """The fields of ScopeSpans apart from its spans."""
    if scope is None:
        return field(1, b"")
    message = InstrumentationScope(name=_text(scope.name), version=_text(scope.version or ""))
    encoded = field(1, message.SerializeToString() + attributes(3, scope.attributes or {}))
    return encoded + (field(3, utf8(scope.schema_url)) if scope.schema_url else b"")


def _span(span: ReadableSpan, held: list[bytes]) -> bytes:
    """Return a Span with its attributes ``held`` as the field that it is.

    The private attributes are what the SDK's properties return; a property is a call, and some of these copy.
    """
    context = span._context
    if context is None:
        raise ValueError("the span has no context")
    trace_id, span_id, _, flags, state, _ = context
    parent, status, kept = span._parent, span._status, span._attributes
    code, description = status._status_code, status._description
    name = span._name.encode("utf-8", "replace")
    flagged = FLAGS_REMOTE if parent is not None and parent[2] else FLAGS
    try:
        times = _TIMES.pack(0x39, span._start_time or 0, 0x41, span._end_time or 0)
    except struct.error:
        raise ValueError("a time of the span does not fit into 64 bits") from None
    body = [
        b"\x0a\x10%b\x12\x08%b" % (trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big")),
        b"" if state is DEFAULT_TRACE_STATE else _state(context),
        b"\x22\x08" + parent[1].to_bytes(8, "big") if parent is not None else b"",
        field(5, name) if name else b"",
        _KINDS[span._kind._value_],
        times,
        _status(code, description) if description else _STATUSES[code._value_],
        flagged[flags & _TRACE_FLAGS],
        *held,
    ]
    # Plain mappings and tuples, as the gateway's own spans have, have not dropped anything.
    if type(kept) is not dict and type(kept) is not Layers and (dropped := span.dropped_attributes):
        body.append(b"\x50" + varint(dropped))
    if span._events or type(span._events) is not tuple:
        body += [field(11, _event(event)) for event in span._events]
        body.append(b"\x60" + varint(span.dropped_events) if span.dropped_events else b"")
    if span._links or type(span._links) is not tuple:
        body += [field(13, _link(link)) for link in span._links]
        body.append(b"\x70" + varint(span.dropped_links) if span.dropped_links else b"")
    return field(2, b"".join(body))


def _state(context: SpanContext) -> bytes:
    state = _trace_state(context)
    return field(3, utf8(state)) if state else b""


def _status(code: StatusCode, description: str) -> bytes:
    return field(15, field(2, utf8(description)) + _CODES[code.value])


def _event(event: Event) -> bytes:
    message = Span.Event(
        name=_text(event.name),
        time_unix_nano=event.timestamp,
        dropped_attributes_count=event.dropped_attributes,
    )
    return message.SerializeToString() + attributes(3, event.attributes or {})


def _link(link: Link) -> bytes:
    message = Span.Link(
        trace_id=link.context.trace_id.to_bytes(16, "big"),
        span_id=link.context.span_id.to_bytes(8, "big"),
        trace_state=_trace_state(link.context),
        dropped_attributes_count=link.dropped_attributes,
        flags=int(link.context.trace_flags) & _TRACE_FLAGS | (_REMOTE if link.context.is_remote else _LOCAL),
    )
    return message.SerializeToString() + attributes(4, link.attributes or {})


def _trace_state(context: SpanContext) -> str:
    return _text(context.trace_state.to_header()) if context.trace_state else ""


def _text(value: str) -> str:
    """Return ``value`` as protobuf takes it: a lone surrogate is no UTF-8."""
    return value if value.isascii() else utf8(value).decode()
