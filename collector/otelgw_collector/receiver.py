"""Spans from other applications into the spool: what is taken, what is refused, and what the sender is told.

The transports (``receiver_grpc``, ``receiver_http``) bring a request's bytes and carry the answer back. A request is
acknowledged when it is in the spool, as one record of kind ``OTLP`` whose payload is an ``ExportTraceServiceRequest``
of the spans that were taken; ``otlp_spans.decode`` reads it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otelgw_collector.segment_format import OTLP
from otelgw_exporters import foreign, semconv

__all__ = [
    "Answer",
    "Counters",
    "Intake",
    "Screened",
    "Spool",
    "from_protobuf",
    "is_allowed",
    "screen",
    "take_content_out",
]

logger = logging.getLogger(__name__)

_SERVICE_INSTANCE_ID = "service.instance.id"
_FULL = 5.0  # seconds after which a sender may try again when the spool takes nothing
_STOPPING = 1.0
_SLOW = 64 * 1024  # bytes of a body that is not protobuf
_QUIET = 60.0  # seconds between two log lines about the same trouble


class Spool(Protocol):
    """Where requests go: a ``SegmentWriter``."""

    def append(self, payload: bytes, kind: int = ...) -> None:
        """Write one record; from then on it survives the death of this process."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender is told about a request.

    accepted
        it is in the spool, but for ``rejected`` spans, which must not be sent again; ``message`` says why.
    unreadable, too_large, unsupported
        it can never be taken.
    unauthorized
        the token is missing or wrong.
    unavailable
        not now; the sender is to try again after ``retry_after`` seconds.
    """

    kind: Literal["accepted", "unreadable", "too_large", "unsupported", "unauthorized", "unavailable"]
    message: str = ""
    rejected: int = 0
    retry_after: float = 0.0


@dataclass(slots=True)
class Counters:
    """What has become of requests and spans since the start."""

    requests: int = 0  # acknowledged
    spans: int = 0  # in the spool
    looped: int = 0  # spans refused because they came from here
    invalid: int = 0  # spans refused because their ids are none
    unreadable: int = 0  # requests
    unavailable: int = 0  # requests that were asked to come again
    answers: dict[tuple[str, str], int] = field(default_factory=dict)  # requests by protocol and kind of answer


class Screened(NamedTuple):
    """``payload`` is an ``ExportTraceServiceRequest`` with the ``taken`` spans; it is empty if there are none."""

    payload: bytes
    taken: int
    looped: int
    invalid: int


def from_protobuf(body: bytes) -> ExportTraceServiceRequest:
    """Return the request in ``body``.

    Raises:
        ValueError: it is none.
    """
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise ValueError("the body is no ExportTraceServiceRequest in protobuf") from None


def is_allowed(authorization: str, token_sha256: str) -> bool:
    """Say whether the header's value is ``Bearer`` and the token with this hash (hex); any is where there is none."""
    if not token_sha256:
        return True
    scheme, _, token = authorization.strip().partition(" ")
    digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    return hmac.compare_digest(digest, token_sha256) and scheme.lower() == "bearer"


def screen(request: ExportTraceServiceRequest, instance: str, body: bytes | None = None) -> Screened:
    """Return what is taken of ``request``: spans with valid ids that did not come from ``instance`` or through it.

    ``body`` is the request as it came; where everything is taken it stays as it is, with fields of newer protocol
    versions.
    """
    looped = invalid = taken = 0
    kept = ExportTraceServiceRequest()
    for resource in request.resource_spans:
        if _is_from(resource, instance):
            looped += sum(len(scope.spans) for scope in resource.scope_spans)
            continue
        valid = [(scope, [span for span in scope.spans if _is_valid(span)]) for scope in resource.scope_spans]
        count = sum(len(spans) for _, spans in valid)
        invalid += sum(len(scope.spans) for scope in resource.scope_spans) - count
        taken += count
        if count:
            _copy(kept.resource_spans.add(), resource, valid)
    if not taken:
        return Screened(b"", 0, looped, invalid)
    if not looped and not invalid:
        return Screened(body if body is not None else request.SerializeToString(), taken, 0, 0)
    return Screened(kept.SerializeToString(), taken, looped, invalid)


def take_content_out(request: ExportTraceServiceRequest) -> None:
    """Remove what was said from a request's spans: from attributes, from those of events, and error texts."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                holders: list[Span | Span.Event] = [span, *span.events]
                for holder in holders:
                    kept = [pair for pair in holder.attributes if not foreign.is_content(pair.key)]
                    if len(kept) < len(holder.attributes):
                        holder.ClearField("attributes")
                        holder.attributes.extend(kept)
                span.status.ClearField("message")


def _copy(target: ResourceSpans, source: ResourceSpans, kept: Iterable[tuple[ScopeSpans, list[Span]]]) -> None:
    target.resource.CopyFrom(source.resource)
    target.schema_url = source.schema_url
    for scope, spans in kept:
        if spans:
            target.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url, spans=spans)


def _is_from(resource: ResourceSpans, instance: str) -> bool:
    return bool(instance) and any(_names(pair, instance) for pair in resource.resource.attributes)


def _names(pair: KeyValue, instance: str) -> bool:
    if pair.key == _SERVICE_INSTANCE_ID:
        return pair.value.string_value == instance
    if pair.key == semconv.OTELGW_VIA:
        return any(value.string_value == instance for value in pair.value.array_value.values)
    return False


def _is_valid(span: Span) -> bool:
    return (
        len(span.trace_id) == 16
        and len(span.span_id) == 8
        and len(span.parent_span_id) in {0, 8}
        and any(span.trace_id)
        and any(span.span_id)
    )


@dataclass
class Intake:
    """Writes requests to ``spool``. To be used by one thread.

    ``instance`` is the ``service.instance.id`` of this gateway's own spans. ``commit``, if there is one, returns when
    everything that is written by then is safe from power loss. Without ``content`` what was said is taken out of spans
    before they are written. Once ``stopping`` is set nothing is taken any more.
    """

    spool: Spool
    instance: str
    commit: Callable[[], Awaitable[None]] | None = None
    content: bool = True
    clock: Callable[[], float] = time.monotonic
    counters: Counters = field(default_factory=Counters)
    stopping: bool = False
    _said: dict[str, float] = field(default_factory=dict)

    async def receive(
        self, body: bytes, read: Callable[[bytes], ExportTraceServiceRequest] = from_protobuf, *, keep: bool = True
    ) -> Answer:
        """Take the request as ``take`` does; return its answer once it holds.

        A large body that is slow to read is read in a thread: others do not wait for it.
        """
        if keep or len(body) < _SLOW:
            answer = self.take(body, read, keep=keep)
        else:
            answer = await self._take_slowly(body, read)
        if answer.kind == "accepted" and self.commit is not None:
            try:
                await self.commit()
            except OSError as error:
                return self._full(error)
        return answer

    async def _take_slowly(self, body: bytes, read: Callable[[bytes], ExportTraceServiceRequest]) -> Answer:
        try:
            request = await asyncio.to_thread(read, body)
        except ValueError as error:
            return self._unreadable(error)
        return self._put(request, None)

    def take(
        self, body: bytes, read: Callable[[bytes], ExportTraceServiceRequest] = from_protobuf, *, keep: bool = True
    ) -> Answer:
        """Return the answer to the request in ``body``, which ``read`` understands.

        ``keep`` says that the body is protobuf, and goes into the spool as it is if all of it is taken.
        """
        try:
            request = read(body)
        except ValueError as error:
            return self._unreadable(error)
        return self._put(request, body if keep else None)

    def _put(self, request: ExportTraceServiceRequest, body: bytes | None) -> Answer:
        if self.stopping:
            return self._unavailable("the receiver is stopping", _STOPPING)
        if not self.content:
            take_content_out(request)
            body = None
        screened = screen(request, self.instance, body)
        if screened.taken:
            try:
                self.spool.append(screened.payload, OTLP)
            except OSError as error:
                return self._full(error)
            except ValueError:
                return Answer("too_large", "the request is larger than a record of the spool can be")
        return self._accepted(screened)

    def _accepted(self, screened: Screened) -> Answer:
        counters = self.counters
        counters.requests += 1
        counters.spans += screened.taken
        counters.looped += screened.looped
        counters.invalid += screened.invalid
        if screened.looped:
            self._say("spans that came from this gateway are refused, %d so far: a destination leads back here", None)
        return Answer("accepted", _explained(screened), screened.looped + screened.invalid)

    def note(self, protocol: str, kind: str) -> None:
        """Count a request that was answered over ``protocol``, whatever part of the receiver decided on it."""
        answers = self.counters.answers
        answers[protocol, kind] = answers.get((protocol, kind), 0) + 1

    def _unreadable(self, error: ValueError) -> Answer:
        self.counters.unreadable += 1
        return Answer("unreadable", str(error))

    def _full(self, error: OSError) -> Answer:
        self._say("the spool takes nothing: %s; senders are asked to come again", error.strerror)
        return self._unavailable("the spool takes nothing for now", _FULL)

    def _unavailable(self, message: str, seconds: float) -> Answer:
        self.counters.unavailable += 1
        return Answer("unavailable", message, retry_after=seconds)

    def _say(self, text: str, what: str | None) -> None:
        """Log trouble at most once a minute."""
        now = self.clock()
        if now - self._said.get(text, float("-inf")) >= _QUIET:
            self._said[text] = now
            logger.error(text, self.counters.looped if what is None else what)


def _explained(screened: Screened) -> str:
    reasons = []
    if screened.looped:
        reasons.append(f"{screened.looped} came from or through this gateway: its destination leads back to it")
    if screened.invalid:
        reasons.append(f"{screened.invalid} have a trace id or span id that is none")
    return "; ".join(reasons)
