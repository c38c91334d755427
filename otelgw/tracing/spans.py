"""From a record to the OpenTelemetry spans of its request.

::

    SERVER  "POST /v1/chat/completions"     request accepted … last byte sent
    └ CLIENT  "chat gpt-4o"                 the one generation, all retries; the only span with gen_ai.*
       ├ CLIENT  "POST"                     attempt 1
       └ CLIENT  "POST"                     attempt 2, http.request.resend_count = 1

A route without an operation has no generation span: its attempts hang under the SERVER span. Ids, times and parents
are the record's, so building the same record twice gives the same spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from otelgw.tracing import generation, shared
from otelgw.tracing.generation import Generation
from otelgw.tracing.limits import AttributeLimits
from otelgw.tracing.record import Attempt, Capture, Headers, Record
from otelgw.tracing.shared import put
from otelgw_collector.trace_state import carried
from otelgw_exporters import semconv
from otelgw_exporters.layers import Layers

__all__ = ["build", "overhead", "waited"]

_SECOND = 1_000_000_000
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
# Ends that are an error of the SERVER span whatever status had been sent.
_ABORTS = frozenset({"client_disconnect", "shutdown", "worker_killed"})
_LIMITS = AttributeLimits()
_UNSET = Status(StatusCode.UNSET)
_NOTHING: Mapping[str, Any] = {}
_context = tuple.__new__
# What is known of the deployment prevails over what was asked for.
_TWICE = (semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_REQUEST_STREAM)
_LABELS = (semconv.OTELGW_LABELS_DROPPED, semconv.OTELGW_TAGS, semconv.SESSION_ID)


def build(
    record: Record, resource: Resource, scope: InstrumentationScope, limits: AttributeLimits = _LIMITS
) -> list[ReadableSpan]:
    """Return the spans of ``record``: SERVER first, then the generation if there is one, then the attempts in order.

    Messages are structured values; ``otelgw_exporters.semconv.profile`` shapes them for a destination.
    """
    return _Builder(record, resource, scope, limits).spans()


class _Span(ReadableSpan):
    """A span of the SDK's, made without the constructor: that one takes three times as long."""

    _instrumentation_info = None
    _events = ()

    def __init__(
        self,
        builder: _Builder,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        status: Status,
        start: int,
        end: int,
        links: tuple[Link, ...] = (),
    ) -> None:
        """``start`` and ``end`` are nanoseconds after the record's start."""
        began = builder.record.start
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._status = status
        self._start_time = began + start
        self._end_time = began + max(start, end)
        self._links = links
        self._resource = builder.resource
        self._instrumentation_scope = builder.scope


class _Builder:
    """The spans of one record."""

    def __init__(
        self, record: Record, resource: Resource, scope: InstrumentationScope, limits: AttributeLimits
    ) -> None:
        self.record = record
        self.resource = resource
        self.scope = scope
        self.limits = limits
        self.trace_id = int(record.trace_id, 16)
        self.flags = TraceFlags(record.trace_flags)
        self.state = carried(record.trace_state)
        self.end = record.end or _last_moment(record)
        self.read: Generation = generation.read(record)
        labels = self.read.labels
        self.who = shared.who(record.target.alias, record.caller)
        self.common = _common(record, labels)
        # Without labels, whose names are anybody's, and facts, which another version may have written, no name stands
        # in two of the tables, but for those in _TWICE.
        self.plain = record.content and not labels and not record.labels
        self.metadata: Mapping[str, Any] = (
            {key: value for key, value in labels.items() if key.startswith(semconv.OTELGW_METADATA)}
            if labels
            else _NOTHING
        )

    def spans(self) -> list[ReadableSpan]:
        record = self.record
        server = parent = self.context(record.span_id)
        found: list[ReadableSpan] = [self.server_span(server)]
        if record.generation_span_id:
            parent = self.context(record.generation_span_id)
            found.append(self.generation_span(parent, server))
        found += [self.attempt_span(attempt, parent) for attempt in record.attempts]
        return found

    def context(self, span_id: str) -> SpanContext:
        trace_id, number, flags = self.trace_id, int(span_id, 16), self.flags
        if self.state is None and trace_id and number:
            # What the constructor makes of these, without asking again whether they are valid.
            return _context(SpanContext, (trace_id, number, False, flags, DEFAULT_TRACE_STATE, True))
        return SpanContext(trace_id, number, is_remote=False, trace_flags=flags, trace_state=self.state)

    def attributes(self, shared: Mapping[str, Any], own: dict[str, Any], extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a span's attributes: what it shares with spans like it, its own, the request's, and extras."""
        made = Layers if self.plain else Layers.of
        layers = made((shared, self.who), own, self.common)
        return self.limits.applied(layers, extra) if extra or self.limits.length is not None else layers

    def server_span(self, context: SpanContext) -> ReadableSpan:
        record = self.record
        method = record.method if record.method in shared.METHODS else "HTTP"
        own = _server_attributes(record)
        if not record.generation_span_id:
            # What stands on the generation's span otherwise. Without attempts this says that there is no such span.
            own[semconv.OTELGW_ATTEMPTS] = len(record.attempts)
            own |= {key: value for key, value in self.read.content.items() if key in semconv.BODIES}
            if record.raw_request:
                own[semconv.OTELGW_RAW_REQUEST] = record.raw_request
        error = record.error_type or (str(record.status) if record.status >= _SERVER_ERROR else "")
        if error:
            own[semconv.ERROR_TYPE] = error
        failed = error and (record.status < _CLIENT_ERROR or record.status >= _SERVER_ERROR or error in _ABORTS)
        message = self.read.error_message if not record.generation_span_id or record.error_message else ""
        if message and not failed:
            own[semconv.OTELGW_ERROR_MESSAGE] = message
        extra = self.brought(record.request_headers, record.response_headers)
        if record.baggage:
            extra = {**extra, **{key: value for key, value in record.baggage.items() if not key.startswith("gen_ai.")}}
        return _Span(
            self,
            f"{method} {record.route}" if record.route else method,
            context,
            self.caller(),
            SpanKind.SERVER,
            self.attributes(shared.endpoint(record), own, extra),
            _failed(message) if failed else _UNSET,
            0,
            self.end,
            _links(record) if record.link_trace_id else (),
        )

    def caller(self) -> SpanContext | None:
        """Return the context that the request came with, where its trace goes on here."""
        span_id = self.record.parent_span_id
        return SpanContext(self.trace_id, int(span_id, 16), True, self.flags, self.state) if span_id else None

    def generation_span(self, context: SpanContext, parent: SpanContext) -> ReadableSpan:
        record, read = self.record, self.read
        own = read.attributes
        _add_generation_attributes(own, record)
        if read.error_type:
            own[semconv.ERROR_TYPE] = read.error_type
        own |= read.content
        if record.raw_request:
            own[semconv.OTELGW_RAW_REQUEST] = record.raw_request
        extra = {**self.metadata, **record.baggage} if record.baggage else self.metadata
        called = shared.called(record.target, record.stream)
        for key in _TWICE:
            if key in called and key in own:
                del own[key]
        attributes = self.attributes(called, own, extra)
        model = (self.limits.length is None and record.target.model) or attributes.get(semconv.GEN_AI_REQUEST_MODEL)
        operation = record.target.operation
        return _Span(
            self,
            f"{operation} {model}" if model else operation,
            context,
            parent,
            SpanKind.CLIENT,
            attributes,
            _failed(read.error_message) if read.error_type else _UNSET,
            record.upstream_start,
            record.generation_end or self.end,
        )

    def attempt_span(self, attempt: Attempt, parent: SpanContext) -> ReadableSpan:
        own: dict[str, Any] = {}
        if attempt.request_id:
            own[semconv.OTELGW_ATTEMPT_REQUEST_ID] = attempt.request_id
        if attempt.first_byte:
            own[semconv.OTELGW_ATTEMPT_TIME_TO_FIRST_BYTE] = (attempt.first_byte - attempt.start) / _SECOND
        error = attempt.error_type or (str(attempt.status) if attempt.status >= _CLIENT_ERROR else "")
        if error:
            own[semconv.ERROR_TYPE] = error
        extra = self.brought(attempt.request_headers, attempt.response_headers)
        return _Span(
            self,
            attempt.method if attempt.method in shared.METHODS else "HTTP",
            self.context(attempt.span_id),
            parent,
            SpanKind.CLIENT,
            self.attributes(shared.tried(attempt), own, extra),
            _failed("") if error else _UNSET,
            attempt.start,
            attempt.end or self.record.generation_end or self.end,
        )

    def brought(self, request: Headers, response: Headers) -> Mapping[str, Any]:
        """Return what a span has from its callers: headers, if they are recorded, and metadata."""
        return {**_headers(request, response), **self.metadata} if request or response else self.metadata


def _server_attributes(record: Record) -> dict[str, Any]:
    """Return what is the request's own; ``shared.endpoint`` has the rest."""
    found: dict[str, Any] = {}
    if record.client_address:
        found[semconv.CLIENT_ADDRESS] = record.client_address
    if record.request.size:
        found[semconv.HTTP_REQUEST_BODY_SIZE] = record.request.size
    if record.sent_bytes:
        found[semconv.HTTP_RESPONSE_BODY_SIZE] = record.sent_bytes
    if record.credentials:
        found[semconv.OTELGW_REQUEST_CREDENTIALS] = record.credentials
    if record.link_trace_id:
        found[semconv.OTELGW_CALLER_TRACE_ID] = record.link_trace_id
        found[semconv.OTELGW_CALLER_SPAN_ID] = record.link_span_id
    return found


def _add_generation_attributes(found: dict[str, Any], record: Record) -> None:
    first_chunk = waited(record)
    if first_chunk is not None:
        found[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first_chunk
    found[semconv.OTELGW_ATTEMPTS] = len(record.attempts)
    took = overhead(record)
    if took is not None:
        found[semconv.OTELGW_OVERHEAD_DURATION] = took
    for capture, names in ((record.request, _REQUEST_MARKS), (record.response, _RESPONSE_MARKS)):
        if capture.sha256 and not capture.withheld:
            put(found, _capture_marks(capture, *names))


_REQUEST_MARKS = (semconv.OTELGW_REQUEST_TRUNCATED, semconv.OTELGW_REQUEST_SHA256, semconv.OTELGW_REQUEST_MEDIA_TYPE)
_RESPONSE_MARKS = (
    semconv.OTELGW_RESPONSE_TRUNCATED,
    semconv.OTELGW_RESPONSE_SHA256,
    semconv.OTELGW_RESPONSE_MEDIA_TYPE,
)


def _capture_marks(capture: Capture, truncated: str, sha256: str, media_type: str) -> Iterable[tuple[str, Any]]:
    """Say of a body that is not recorded whole that it is not, and which one it was."""
    held = bool(capture.head or capture.tail)
    # Without its parameters: a multipart boundary is new with every request.
    essence = "" if held else capture.content_type.partition(";")[0].strip()
    return ((truncated, held), (sha256, capture.sha256), (media_type, essence))


def _common(record: Record, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands on every span of this request, apart from the caller's metadata."""
    found: dict[str, Any] = {semconv.OTELGW_CALL_ID: record.call_id}
    user = record.caller.user_id
    if record.labels:
        found |= record.labels
    if labels:
        put(found, ((key, labels.get(key)) for key in _LABELS))
        user = labels.get(semconv.USER_ID) or user
    if user:
        found[semconv.USER_ID] = user
    return found


def _headers(request: Headers, response: Headers) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix, headers in ((semconv.HTTP_REQUEST_HEADER, request), (semconv.HTTP_RESPONSE_HEADER, response)):
        for name, value in headers:
            found.setdefault(prefix + name.lower(), []).append(value)
    return found


def _failed(message: str) -> Status:
    return Status(StatusCode.ERROR, message or None)


def _links(record: Record) -> tuple[Link, ...]:
    if not record.link_trace_id or not record.link_span_id:
        return ()
    return (Link(SpanContext(int(record.link_trace_id, 16), int(record.link_span_id, 16), is_remote=True)),)


def waited(record: Record) -> float | None:
    """Return the seconds to the first chunk of a stream; None where none came."""
    if not record.stream or not record.first_byte or record.status >= _CLIENT_ERROR:
        return None
    return max(0.0, (record.first_byte - record.upstream_start) / _SECOND)


def overhead(record: Record) -> float | None:
    """Return the seconds that the gateway itself took of the time to the caller's first byte.

    That is the time until the upstream was called, and from having what is sent first (the whole answer where it is
    held, its first byte where it is not) to sending it.
    """
    if not record.attempts or not record.first_chunk:
        return None
    last = record.attempts[-1]
    had = last.end if last.end and last.end <= record.first_chunk else record.first_byte
    return (record.attempts[0].start + max(0, record.first_chunk - had)) / _SECOND


def _last_moment(record: Record) -> int:
    """Return the last time that is known of a record whose worker did not live to see its end."""
    known = [record.upstream_start, record.first_byte, record.first_chunk, record.generation_end]
    known += [max(attempt.start, attempt.first_byte, attempt.end) for attempt in record.attempts]
    return max(known)
