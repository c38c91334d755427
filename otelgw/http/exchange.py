"""One request in flight: what is known of it so far, and the one record that comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from otelgw.config.settings import LoggingPolicy, Tracing
from otelgw.http.body import Receive
from otelgw.http.headers import allow_listed, credentials_in
from otelgw.http.stream import OUTLET, Findings, Stream
from otelgw.spool import Intent
from otelgw.tracing.propagation import (
    RANDOM,
    SAMPLED,
    TRACE_HEADERS,
    Remote,
    extract,
    extract_baggage,
    new_span_id,
    new_trace_id,
    ratio_sampled,
)
from otelgw.tracing.record import EVERYBODY, Attempt, Caller, Capture, Record, Target

if TYPE_CHECKING:
    from otelgw.keys.grant import Grant

__all__ = ["Exchange", "call_id_of"]

_NOBODY = Caller()
_NO_TARGET = Target()
_NO_CAPTURE = Capture()
_NO_POLICY = LoggingPolicy()
_MAX_CALL_ID = 128


def call_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's call id where it is plain, else a new UUID (version 4)."""
    given = headers.get(b"x-litellm-call-id") or headers.get(b"x-otelgw-call-id")
    if given and len(given) <= _MAX_CALL_ID and given.isascii() and (text := given.decode()).isprintable():
        return text
    digits = new_trace_id()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Exchange:
    """Collects facts while a request passes; ``record`` turns them into the flat record.

    Times are nanoseconds after ``started`` (monotonic); ``cut`` cancels the request from outside with a reason.
    """

    __slots__ = (
        "_baggage",
        "_done",
        "_linked",
        "_noticed",
        "_watch",
        "answer_lines",
        "answered",
        "attempts",
        "audience",
        "body_read",
        "call_id",
        "caller",
        "committed",
        "content",
        "cost",
        "cut_reason",
        "error_message",
        "error_type",
        "extra_lines",
        "facts",
        "findings",
        "first_byte",
        "first_chunk",
        "flags",
        "generation_end",
        "generation_span_id",
        "grant",
        "headers",
        "intent",
        "labels",
        "less",
        "limit_headers",
        "metadata",
        "method",
        "more",
        "no_log",
        "outlet",
        "parent",
        "passing",
        "path",
        "policy",
        "raw_headers",
        "raw_request",
        "request",
        "response",
        "response_headers",
        "retries",
        "route",
        "sampled",
        "scope",
        "sent_bytes",
        "span_id",
        "started",
        "started_wall",
        "state",
        "status",
        "stream",
        "target",
        "task",
        "trace_id",
        "upstream_start",
        "usage_injected",
        "wants_raw",
    )

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.started = monotonic_ns()
        self.started_wall = time_ns()
        self.scope = scope
        # What carries the request, where that is a connection of ours and not another ASGI server.
        self.outlet: Stream | None = scope.pop(OUTLET, None)
        self.raw_headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        known = self.outlet.findings if self.outlet is not None else None
        self.findings = Findings() if known is None else known
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.call_id = call_id_of(self.headers)
        self.task = asyncio.current_task()
        self.cut_reason = ""
        self.route = ""
        self.caller = _NOBODY
        self.target = _NO_TARGET
        self.attempts: list[Attempt] = []
        self.request = _NO_CAPTURE
        self.response = _NO_CAPTURE
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.generation_span_id = ""
        self.upstream_start = self.first_byte = self.first_chunk = self.generation_end = 0
        self.answer_lines = b""  # header lines: what the gateway says of the upstream that it called
        self.extra_lines = b""  # more of them, for web pages
        self.status = 0
        self.body_read = False  # the caller's whole body is here
        self.answered = False
        self.committed = False
        self.error_type = ""
        self.error_message = ""
        self.stream = False
        self.usage_injected = False
        self.sent_bytes = 0
        self.cost: float | None = None  # USD
        self.retries = 0
        self.content = True
        self.intent = b""  # the spool's note of this request, which its record settles
        self.no_log = False  # the caller wants no record of this request
        self.policy = _NO_POLICY
        self.grant: Grant | None = None  # what a virtual key allows
        self.limit_headers: Sequence[tuple[bytes, bytes]] = ()  # its limits, in the answer
        self.less = False  # the caller wants no content recorded
        self.more = False  # the caller wants content recorded where the config does not, and may have it
        self.audience = EVERYBODY
        self.labels: dict[str, Any] = {}
        self.wants_raw = False
        self.raw_request = ""
        self.facts: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.trace_id = ""
        self.span_id = new_span_id()
        self.flags = SAMPLED | RANDOM
        self.state = ""
        self.sampled = True
        self.parent: Remote | None = None
        self.passing: Any = None  # the relay's answer in progress, whose capture is not finished yet
        self._linked: Remote | None = None
        self._baggage: dict[str, str] = {}
        self._done = False
        self._noticed = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def watched(self) -> bool:
        """A disconnect is noticed; nobody else may call ``receive``."""
        return self._noticed

    @property
    def baggage_header(self) -> str:
        """The caller's baggage as far as it is allow-listed."""
        return ",".join(f"{quote(key)}={quote(value)}" for key, value in self._baggage.items())

    def now(self) -> int:
        return monotonic_ns() - self.started

    def begin_trace(self, tracing: Tracing, trust: str) -> None:
        """Continue, link or ignore the caller's trace context; decide on sampling."""
        remote = None
        if trust != "ignore" and not TRACE_HEADERS.isdisjoint(self.headers):
            remote = extract(self.raw_headers, tracing.propagators)
        if remote is not None and remote.trace_id and trust == "continue":
            self.parent = remote
            self.trace_id = remote.trace_id
            self.flags = remote.flags
            self.state = remote.state
            self._baggage = extract_baggage(self.raw_headers, tracing.baggage_allow)
        else:
            self.trace_id = new_trace_id()
            if remote is not None and remote.trace_id:
                self._linked = remote
        self._sample(tracing, remote if trust == "continue" else None)

    def _sample(self, tracing: Tracing, remote: Remote | None) -> None:
        """Take the sampler's decision (the names are those of OTEL_TRACES_SAMPLER)."""
        sampler = tracing.sampler
        if remote is not None and sampler.startswith("parentbased_"):
            self.sampled = bool(remote.flags & SAMPLED)
        else:
            name = sampler.removeprefix("parentbased_")
            self.sampled = name == "always_on" or (
                name == "traceidratio" and ratio_sampled(self.trace_id, tracing.sampler_ratio)
            )
        if self.parent is None:
            self.flags = RANDOM | (SAMPLED if self.sampled else 0)

    def watch(self, receive: Receive) -> None:
        """Notice from now on when the caller goes, also while nothing is being sent."""
        self._noticed = True
        if self.outlet is not None:
            self.outlet.on_leave(self._left)
        else:
            self._watch = asyncio.get_running_loop().create_task(self._await_disconnect(receive))

    def _left(self) -> None:
        self.cut("client_disconnect")

    async def _await_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left()

    def cut(self, reason: str) -> None:
        """End the request from outside; its handler sees a cancellation and reads ``cut_reason``."""
        if not self._done and not self.cut_reason and self.task is not None:
            self.cut_reason = reason
            self.task.cancel()

    def fail(self, error_type: str, message: str = "") -> None:
        """Note the first error; later ones are its consequences."""
        if not self.error_type:
            self.error_type = error_type
            self.error_message = message

    def close(self) -> None:
        """The handler is about to return: nothing can cut it any more."""
        self._done = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def as_intent(self, target: Target) -> Intent:
        """Return what is known when the request is routed; nothing of its content."""
        scope = self.scope
        server = scope.get("server") or ("", 0)
        host, port = _address(self.headers.get(b"host", b""))
        parent, linked = self.parent, self._linked
        return Intent(
            self.call_id,
            self.trace_id,
            self.span_id,
            self.started_wall,
            self.generation_span_id,
            parent.span_id if parent is not None else "",
            self.flags,
            self.state,
            self.sampled,
            linked.trace_id if linked is not None else "",
            linked.span_id if linked is not None else "",
            self.upstream_start,
            self.method,
            self.route,
            self.path,
            scope.get("scheme", "http"),
            scope.get("http_version", ""),
            host or server[0],
            port or server[1] or 0,
            self.stream,
            target,
            self.caller,
            self.audience,
        )

    def record(self, tracing: Tracing) -> Record:
        """Return the record as of now."""
        scope = self.scope
        client = scope.get("client") or ("", 0)
        server = scope.get("server") or ("", 0)
        host, port = _address(self.headers.get(b"host", b""))
        parent, linked = self.parent, self._linked
        return Record(
            call_id=self.call_id,
            trace_id=self.trace_id,
            span_id=self.span_id,
            generation_span_id=self.generation_span_id,
            parent_span_id=parent.span_id if parent is not None else "",
            trace_flags=self.flags,
            trace_state=self.state,
            sampled=self.sampled,
            link_trace_id=linked.trace_id if linked is not None else "",
            link_span_id=linked.span_id if linked is not None else "",
            baggage=self._baggage,
            start=self.started_wall,
            upstream_start=self.upstream_start,
            first_byte=self.first_byte,
            first_chunk=self.first_chunk,
            generation_end=self.generation_end,
            end=self.now(),
            method=self.method,
            route=self.route,
            path=self.path,
            scheme=scope.get("scheme", "http"),
            http_version=scope.get("http_version", ""),
            server_address=host or server[0],
            server_port=port or server[1] or 0,
            client_address=client[0],
            client_port=client[1] or 0,
            user_agent=self.headers.get(b"user-agent", b"").decode("latin-1"),
            status=self.status,
            error_type=self.error_type,
            error_message=self.error_message,
            stream=self.stream,
            sent_bytes=self.sent_bytes,
            request_headers=allow_listed(self.raw_headers, tracing.capture_request_headers),
            response_headers=allow_listed(self.response_headers, tracing.capture_response_headers),
            target=self.target,
            caller=self.caller,
            attempts=self.attempts,
            request=self.request,
            response=self.response,
            content=self.content,
            facts=self.facts,
            cost=self.cost,
            metadata=self.metadata,
            stream_usage_injected=self.usage_injected,
            retry_count=self.retries,
            audience=self.audience,
            labels=self.labels,
            raw_request=self.raw_request,
            credentials=credentials_in(self.headers) if tracing.name_credentials else (),
        )


@lru_cache(maxsize=256)
def _address(host: bytes) -> tuple[str, int]:
    """Return the name and the port in a Host header, empty and 0 where it has none."""
    text = host.decode("latin-1")
    port = text.rpartition(":")[2]
    number = int(port) if port.isdigit() and len(port) <= len("65535") and ":" in text else 0
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0], number
