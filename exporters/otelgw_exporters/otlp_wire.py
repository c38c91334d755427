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
from weakref import WeakKeyDictionary

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from otelgw_exporters import semconv
from otelgw_exporters.layers import Layers
from otelgw_exporters.turn import offer_turn

__all__ = ["EncodedSpan", "Encoder", "Ready", "Singly", "assemble", "split", "to_json"]

_INT64, _UINT64 = 1 << 63, (1 << 64) - 1
_DOUBLE = struct.Struct("<d")
_TIMES = struct.Struct("<BQBQ")
_FLAGS = struct.Struct("<BBI")
# By value: an enum's own hash is a Python function, and so is ``value``. OTLP counts kinds from 1, 0 being unspecified.
_KINDS = {kind.value: bytes((0x30, kind.value + 1)) for kind in SpanKind}
_CODES = {StatusCode.UNSET.value: b"", StatusCode.OK.value: b"\x18\x01", StatusCode.ERROR.value: b"\x18\x02"}
_TRACE_FLAGS = int(SpanFlags.SPAN_FLAGS_TRACE_FLAGS_MASK)
_LOCAL = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE = _LOCAL | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_AS_JSON = semconv.FORMS["json_string"]
# Their values are new with every request: to remember them is to forget what comes again.
_UNIQUE = frozenset(
    {
        semconv.CLIENT_ADDRESS,
        semconv.GEN_AI_RESPONSE_ID,
        semconv.OTELGW_ATTEMPT_REQUEST_ID,
        semconv.OTELGW_CALL_ID,
        semconv.OTELGW_REQUEST_SHA256,
        semconv.OTELGW_RESPONSE_SHA256,
    }
)
_SHORT = 80  # characters: a hash in hex; longer values are mostly unique
_KNOWN = 20_000  # resources, scopes and layers
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


class Singly(NamedTuple):
    """What is known of a shape, so that attributes can be taken one by one.

    Those in ``dropped`` are left out, one in ``special`` has to go through the shape by itself, of any other only the
    value is changed, by ``form``. Where one of ``merged`` is there, two may become one: the shape has to see all.
    """

    form: Callable[[Any], Any]
    dropped: frozenset[str]
    special: frozenset[str]
    merged: frozenset[str]


class Encoder:
    """Encodes spans; ``shape`` gives the attributes as the destination reads them.

    An encoder that several destinations share keeps what it has encoded for as long as the span lives.
    """

    def __init__(self, shape: Callable[[Mapping[str, Any]], Mapping[str, Any]], singly: Singly | None = None) -> None:
        self._shape = shape
        self._singly = singly
        # Most attributes of a request are those of the one before it. Typed, because 1, 1.0 and True are equal.
        self._known_pair = lru_cache(maxsize=8192, typed=True)(self._pair)
        # By identity, the object kept alive: hashing an SDK resource serialises all of it, and layers have no hash.
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

    def _encoded(self, span: ReadableSpan) -> EncodedSpan:
        return EncodedSpan(
            self._once(span._resource, _resource),
            self._once(span._instrumentation_scope, _scope),
            _span(span, self._attributes(span._attributes or {})),
        )

    def _attributes(self, attributes: Mapping[str, Any]) -> bytes:
        if self._singly is None or not self._singly.merged.isdisjoint(attributes):
            return _attributes(9, self._shape(attributes))
        if type(attributes) is Layers:
            shared = [self._once(layer, self._pairs) for layer in attributes.shared]
            return b"".join((*shared, self._pairs(attributes.own)))
        return self._pairs(attributes)

    def _pairs(self, attributes: Mapping[str, Any]) -> bytes:
        known, pair = self._known_pair, self._pair
        return b"".join(
            [
                known(key, value)
                if ((kind := type(value)) is str and len(value) <= _SHORT and key not in _UNIQUE)
                or kind is int
                or kind is bool
                else pair(key, value)
                for key, value in attributes.items()
            ]
        )

    def _pair(self, key: str, value: Any) -> bytes:
        singly = self._singly
        if singly is None or key in singly.special:
            return _attributes(9, self._shape({key: value}))
        if key in singly.dropped:
            return b""
        kind = type(value)
        if kind is str:
            return _text_pair(key, value.encode("utf-8", "replace"))
        if kind is float:
            return _double_head(key) + _DOUBLE.pack(value)
        if kind is list and value and type(value[0]) is dict and singly.form is _AS_JSON:
            return _text_pair(key, semconv.json_text(value))
        formed = singly.form(value)
        if type(formed) is str:
            return _text_pair(key, formed.encode("utf-8", "replace"))
        return _pair(9, key, formed)

    def _once(self, value: Any, encode: Callable[[Any], bytes]) -> bytes:
        known = self._known.get(id(value))
        if known is None:
            if len(self._known) > _KNOWN:
                self._known.clear()
            known = self._known[id(value)] = (value, encode(value))
        return known[1]


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
            length = _varint(size)
            inside += 1 + len(length) + size
            groups += (b"\x12", length, scope, *members)
        request += (b"\x0a", _varint(inside), *groups)
    return b"".join(request)


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
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_TAGS = [bytes((number << 3 | 2,)) for number in range(16)]
_ONE_BYTE = [bytes((value,)) for value in range(0x80)]
_STATUSES = {code: _field(15, encoded) for code, encoded in _CODES.items()}  # without a description


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


def _span(span: ReadableSpan, attributes: bytes) -> bytes:
    """Return a Span as the field that it is. Written out by hand, as the attributes are: most of what a destination
    costs is spent here.

    The private attributes are what the SDK's properties return; a property is a call, and some of these copy.
    """
    context = span._context
    if context is None:
        raise ValueError("the span has no context")
    trace_id, span_id, _, flags, state, _ = context
    parent, status, kept = span._parent, span._status, span._attributes
    name, code, description = span._name.encode("utf-8", "replace"), status._status_code, status._description
    size = len(name)
    try:
        times = _TIMES.pack(0x39, span._start_time or 0, 0x41, span._end_time or 0)
        around = _FLAGS.pack(0x85, 0x01, flags & _TRACE_FLAGS | (_REMOTE if parent and parent[2] else _LOCAL))
    except struct.error:
        raise ValueError("a time of the span does not fit into 64 bits") from None
    parts = [
        b"\x0a\x10%b\x12\x08%b" % (trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big")),
        b"" if state is DEFAULT_TRACE_STATE else _state(context),
        b"\x22\x08" + parent[1].to_bytes(8, "big") if parent is not None else b"",
        b"\x2a" + (_ONE_BYTE[size] if size < 0x80 else _varint(size)) + name if size else b"",
        _KINDS[span._kind._value_],
        times,
        _status(code, description) if description else _STATUSES[code._value_],
        around,
        attributes,
    ]
    # Plain mappings and tuples, as the gateway's own spans have, have not dropped anything.
    if type(kept) is not dict and type(kept) is not Layers and (dropped := span.dropped_attributes):
        parts.append(b"\x50" + _varint(dropped))
    if span._events or type(span._events) is not tuple:
        parts += [_field(11, _event(event)) for event in span._events]
        parts.append(b"\x60" + _varint(span.dropped_events) if span.dropped_events else b"")
    if span._links or type(span._links) is not tuple:
        parts += [_field(13, _link(link)) for link in span._links]
        parts.append(b"\x70" + _varint(span.dropped_links) if span.dropped_links else b"")
    whole = _varint(sum(map(len, parts)))
    return b"".join((b"\x12", whole, *parts))


def _state(context: SpanContext) -> bytes:
    state = _trace_state(context)
    return _field(3, _utf8(state)) if state else b""


def _status(code: StatusCode, description: str) -> bytes:
    return _field(15, _field(2, _utf8(description)) + _CODES[code.value])


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
        flags=int(link.context.trace_flags) & _TRACE_FLAGS | (_REMOTE if link.context.is_remote else _LOCAL),
    )
    return message.SerializeToString() + _attributes(4, link.attributes or {})


def _trace_state(context: SpanContext) -> str:
    return _text(context.trace_state.to_header()) if context.trace_state else ""


def _attributes(number: int, attributes: Mapping[str, Any]) -> bytes:
    """Return the repeated KeyValue field ``number``."""
    return b"".join([_pair(number, key, value) for key, value in attributes.items()])


def _pair(number: int, key: str, value: Any) -> bytes:
    return _field(number, _field(1, _utf8(key)) + _field(2, _any(value)))


def _text_pair(key: str, text: bytes) -> bytes:
    """Return attribute ``key`` of a span with a text: the same as ``_pair(9, key, text)``, in one piece."""
    value = len(text)
    holder = value + 1 + (1 if value < 0x80 else _size(value))
    name = _key(key)
    whole = len(name) + 1 + (1 if holder < 0x80 else _size(holder)) + holder
    return b"".join((b"\x4a", _varint(whole), name, b"\x12", _varint(holder), b"\x0a", _varint(value), text))


@lru_cache(maxsize=1024)
def _double_head(key: str) -> bytes:
    """Return attribute ``key`` of a span with a number, up to the number's eight bytes."""
    name = _key(key)
    return b"\x4a" + _varint(len(name) + 11) + name + b"\x12\x09\x21"


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return _field(1, _utf8(key))


def _size(value: int) -> int:
    """Return how many bytes the varint of ``value`` has."""
    return (value.bit_length() + 6) // 7


def _any(value: Any) -> bytes:
    """Return an AnyValue: string 1, bool 2, int 3, double 4, array 5, kvlist 6, bytes 7."""
    if type(value) is str or isinstance(value, str):
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
