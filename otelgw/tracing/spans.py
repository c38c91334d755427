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

from otelgw.dialects.credentials import redacted_url
from otelgw.tracing import generation
from otelgw.tracing.generation import Generation
from otelgw.tracing.limits import AttributeLimits
from otelgw.tracing.record import Attempt, Capture, Record
from otelgw_collector.trace_state import carried
from otelgw_exporters import semconv

__all__ = ["build"]

_SECOND = 1_000_000_000
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
# Ends that are an error of the SERVER span whatever status had been sent.
_ABORTS = frozenset({"client_disconnect", "shutdown", "worker_killed"})
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_LIMITS = AttributeLimits()
_UNSET = Status(StatusCode.UNSET)


def build(
    record: Record, resource: Resource, scope: InstrumentationScope, limits: AttributeLimits = _LIMITS
) -> list[ReadableSpan]:
    """Return the spans of ``record``: SERVER first, then the generation if there is one, then the attempts in order.

    Messages are structured values; ``otelgw_exporters.semconv.profile`` shapes them for a destination.
    """
    return _Builder(record, resource, scope, limits).spans()


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
        self.labels = _labels(record, self.read.labels)
        self.metadata = {
            key: value for key, value in self.read.labels.items() if key.startswith(semconv.OTELGW_METADATA)
        }

    def spans(self) -> list[ReadableSpan]:
        record = self.record
        server = self.context(record.span_id)
        found = [self.server_span(server)]
        parent = server
        if record.generation_span_id:
            parent = self.context(record.generation_span_id)
            found.append(self.generation_span(parent, server))
        found += [self.attempt_span(attempt, parent) for attempt in record.attempts]
        return found

    def context(self, span_id: str, *, remote: bool = False) -> SpanContext:
        return SpanContext(self.trace_id, int(span_id, 16), remote, self.flags, self.state)

    def span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        core: dict[str, Any],
        extra: Mapping[str, Any],
        status: Status,
        times: tuple[int, int],
        links: Iterable[Link] = (),
    ) -> ReadableSpan:
        start = self.record.start
        return ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self.resource,
            attributes=self.limits.applied(core, extra),
            links=tuple(links),
            kind=kind,
            status=status,
            start_time=start + times[0],
            end_time=start + max(times),
            instrumentation_scope=self.scope,
        )

    def server_span(self, context: SpanContext) -> ReadableSpan:
        record = self.record
        method = record.method if record.method in _METHODS else "HTTP"
        core = _server_attributes(record)
        if not record.generation_span_id:
            # What stands on the generation's span otherwise. Without attempts this says that there is no such span.
            core[semconv.OTELGW_ATTEMPTS] = len(record.attempts)
            core |= {key: self.read.content[key] for key in semconv.BODIES & self.read.content.keys()}
        core |= self.labels
        error = record.error_type or (str(record.status) if record.status >= _SERVER_ERROR else "")
        if error:
            core[semconv.ERROR_TYPE] = error
        failed = error and (record.status < _CLIENT_ERROR or record.status >= _SERVER_ERROR or error in _ABORTS)
        message = self.read.error_message if not record.generation_span_id or record.error_message else ""
        if message and not failed:
            core[semconv.OTELGW_ERROR_MESSAGE] = message
        parent = self.context(record.parent_span_id, remote=True) if record.parent_span_id else None
        extra = _headers(semconv.HTTP_REQUEST_HEADER, record.request_headers)
        extra |= _headers(semconv.HTTP_RESPONSE_HEADER, record.response_headers)
        extra |= self.metadata
        extra |= {key: value for key, value in record.baggage.items() if not key.startswith("gen_ai.")}
        return self.span(
            f"{method} {record.route}" if record.route else method,
            context,
            parent,
            SpanKind.SERVER,
            core,
            extra,
            _failed(message) if failed else _UNSET,
            (0, self.end),
            _links(record),
        )

    def generation_span(self, context: SpanContext, parent: SpanContext) -> ReadableSpan:
        record, read = self.record, self.read
        core = _generation_attributes(record, read)
        core |= self.labels
        if read.error_type:
            core[semconv.ERROR_TYPE] = read.error_type
        core |= read.content
        model = core.get(semconv.GEN_AI_REQUEST_MODEL)
        operation = record.target.operation
        return self.span(
            f"{operation} {model}" if model else operation,
            context,
            parent,
            SpanKind.CLIENT,
            core,
            self.metadata | record.baggage,
            _failed(read.error_message) if read.error_type else _UNSET,
            (record.upstream_start, record.generation_end or self.end),
        )

    def attempt_span(self, attempt: Attempt, parent: SpanContext) -> ReadableSpan:
        core = _attempt_attributes(attempt)
        core |= self.labels
        error = attempt.error_type or (str(attempt.status) if attempt.status >= _CLIENT_ERROR else "")
        if error:
            core[semconv.ERROR_TYPE] = error
        extra = _headers(semconv.HTTP_REQUEST_HEADER, attempt.request_headers)
        extra |= _headers(semconv.HTTP_RESPONSE_HEADER, attempt.response_headers)
        extra |= self.metadata
        return self.span(
            attempt.method if attempt.method in _METHODS else "HTTP",
            self.context(attempt.span_id),
            parent,
            SpanKind.CLIENT,
            core,
            extra,
            _failed("") if error else _UNSET,
            (attempt.start, attempt.end or self.record.generation_end or self.end),
        )


def _server_attributes(record: Record) -> dict[str, Any]:
    method = record.method
    found: dict[str, Any] = {semconv.HTTP_REQUEST_METHOD: method if method in _METHODS else "_OTHER"}
    if method not in _METHODS:
        found[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = method
    _put(
        found,
        (
            (semconv.HTTP_ROUTE, record.route),
            (semconv.URL_PATH, record.path),
            (semconv.URL_SCHEME, record.scheme),
            (semconv.SERVER_ADDRESS, record.server_address),
            (semconv.SERVER_PORT, record.server_port),
            (semconv.CLIENT_ADDRESS, record.client_address),
            (semconv.NETWORK_PROTOCOL_VERSION, record.http_version),
            (semconv.USER_AGENT_ORIGINAL, record.user_agent),
            (semconv.HTTP_REQUEST_BODY_SIZE, record.request.size),
            (semconv.HTTP_RESPONSE_STATUS_CODE, record.status),
            (semconv.HTTP_RESPONSE_BODY_SIZE, record.sent_bytes),
        ),
    )
    if record.link_trace_id:
        found[semconv.OTELGW_CALLER_TRACE_ID] = record.link_trace_id
        found[semconv.OTELGW_CALLER_SPAN_ID] = record.link_span_id
    return found


def _generation_attributes(record: Record, read: Generation) -> dict[str, Any]:
    target = record.target
    found: dict[str, Any] = {semconv.GEN_AI_OPERATION_NAME: target.operation}
    _put(
        found,
        (
            (semconv.GEN_AI_PROVIDER_NAME, target.provider),
            (semconv.OTELGW_MODEL_ID, target.deployment_id),
            (semconv.SERVER_ADDRESS, target.server_address),
            (semconv.SERVER_PORT, target.server_port),
        ),
    )
    found |= read.attributes
    if target.model:
        found[semconv.GEN_AI_REQUEST_MODEL] = target.model
    if record.stream:
        found[semconv.GEN_AI_REQUEST_STREAM] = True
        if record.first_byte and record.status < _CLIENT_ERROR:
            waited = (record.first_byte - record.upstream_start) / _SECOND
            found[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = max(0.0, waited)
    found[semconv.OTELGW_ATTEMPTS] = len(record.attempts)
    overhead = _overhead(record)
    if overhead is not None:
        found[semconv.OTELGW_OVERHEAD_DURATION] = overhead
    _put(found, _capture_marks(record.request, *_REQUEST_MARKS))
    _put(found, _capture_marks(record.response, *_RESPONSE_MARKS))
    return found


_REQUEST_MARKS = (semconv.OTELGW_REQUEST_TRUNCATED, semconv.OTELGW_REQUEST_SHA256, semconv.OTELGW_REQUEST_MEDIA_TYPE)
_RESPONSE_MARKS = (
    semconv.OTELGW_RESPONSE_TRUNCATED,
    semconv.OTELGW_RESPONSE_SHA256,
    semconv.OTELGW_RESPONSE_MEDIA_TYPE,
)


def _capture_marks(capture: Capture, truncated: str, sha256: str, media_type: str) -> Iterable[tuple[str, Any]]:
    """Say of a body that is not recorded whole that it is not, and which one it was."""
    if not capture.sha256 or capture.withheld:
        return ()
    held = bool(capture.head or capture.tail)
    # Without its parameters: a multipart boundary is new with every request.
    essence = "" if held else capture.content_type.partition(";")[0].strip()
    return ((truncated, held), (sha256, capture.sha256), (media_type, essence))


def _attempt_attributes(attempt: Attempt) -> dict[str, Any]:
    method = attempt.method
    found: dict[str, Any] = {semconv.HTTP_REQUEST_METHOD: method if method in _METHODS else "_OTHER"}
    _put(
        found,
        (
            (semconv.SERVER_ADDRESS, attempt.server_address),
            (semconv.SERVER_PORT, attempt.server_port),
            (semconv.URL_FULL, redacted_url(attempt.url)),
            (semconv.HTTP_REQUEST_RESEND_COUNT, attempt.number - 1),
            (semconv.HTTP_RESPONSE_STATUS_CODE, attempt.status),
            (semconv.OTELGW_ATTEMPT_NUMBER, attempt.number),
            (semconv.OTELGW_ATTEMPT_PROVIDER, attempt.provider),
            (semconv.OTELGW_ATTEMPT_MODEL, attempt.model),
            (semconv.OTELGW_ATTEMPT_RETRY_REASON, attempt.retry_reason),
            (semconv.OTELGW_ATTEMPT_REQUEST_ID, attempt.request_id),
        ),
    )
    if attempt.first_byte:
        found[semconv.OTELGW_ATTEMPT_TIME_TO_FIRST_BYTE] = (attempt.first_byte - attempt.start) / _SECOND
    return found


def _labels(record: Record, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands on every span of the request, apart from the caller's metadata."""
    found: dict[str, Any] = {semconv.OTELGW_CALL_ID: record.call_id}
    caller = record.caller
    _put(
        found,
        (
            (semconv.OTELGW_MODEL_ALIAS, record.target.alias),
            (semconv.OTELGW_KEY_HASH, caller.key_hash),
            (semconv.OTELGW_KEY_ALIAS, caller.key_alias),
            (semconv.OTELGW_TEAM_ID, caller.team_id),
            (semconv.OTELGW_TEAM_ALIAS, caller.team_alias),
            (semconv.OTELGW_TAGS, labels.get(semconv.OTELGW_TAGS)),
            (semconv.SESSION_ID, labels.get(semconv.SESSION_ID)),
            (semconv.USER_ID, labels.get(semconv.USER_ID) or caller.user_id),
        ),
    )
    return found


def _put(attributes: dict[str, Any], pairs: Iterable[tuple[str, Any]]) -> None:
    """Add what is known: an empty value is an unknown one."""
    attributes |= {key: value for key, value in pairs if value}


def _headers(prefix: str, headers: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in headers:
        found.setdefault(prefix + name.lower(), []).append(value)
    return found


def _failed(message: str) -> Status:
    return Status(StatusCode.ERROR, message or None)


def _links(record: Record) -> tuple[Link, ...]:
    if not record.link_trace_id or not record.link_span_id:
        return ()
    return (Link(SpanContext(int(record.link_trace_id, 16), int(record.link_span_id, 16), is_remote=True)),)


def _overhead(record: Record) -> float | None:
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
