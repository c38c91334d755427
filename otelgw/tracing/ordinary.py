"""Requests with nothing out of the ordinary: one chat, one attempt, one answer, all of it well and recorded whole.

What the spans of one have that those of many others have too is its ``Likeness``. The rest of it is here by name, so
that its spans can be written down without being made: ``ordinary_spans`` does that. ``spans.build`` makes the spans of
any request, of an ordinary one too, and what it makes is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from otelgw.dialects import ordinary_chat, sse
from otelgw.dialects.facts import Usage
from otelgw.dialects.ordinary_chat import Answer, Request, Streamed
from otelgw.tracing import shared
from otelgw.tracing.bodies import readable
from otelgw.tracing.generation import cost_of
from otelgw.tracing.record import Attempt, Capture, Record
from otelgw.tracing.spans import overhead, waited

__all__ = ["Likeness", "Ordinary", "ordinary"]

_OK = 200
_DIGITS, _BYTES = 80, 40  # of the four ids that a request always has
_KNOWN = 4096  # likenesses


class Likeness:
    """What the spans of requests share that came the same way, from the same caller, to the same deployment.

    ``endpoint`` is of the SERVER span, ``called`` of the generation's, ``tried`` of the attempt's, ``who`` of all.
    """

    __slots__ = ("called", "endpoint", "generation_name", "route_name", "tried", "user", "who")

    def __init__(self, record: Record, attempt: Attempt) -> None:
        self.endpoint: Mapping[str, Any] = shared.endpoint(record)
        self.called: Mapping[str, Any] = shared.called(record.target, record.stream)
        self.tried: Mapping[str, Any] = shared.tried(attempt)
        self.who: Mapping[str, Any] = shared.who(record.target.alias, record.caller)
        self.user = record.caller.user_id
        self.generation_name = f"{record.target.operation} {record.target.model}"
        self.route_name = f"{record.method} {record.route}" if record.route else record.method


class Ordinary(msgspec.Struct, frozen=True, gc=False):
    """An ordinary request and its one ``attempt``. Times are nanoseconds since the epoch.

    ``ids`` are those of the trace, the SERVER span, the generation and the attempt, and that of the caller's span if
    the trace goes on from there: the first is of 16 bytes, the others of 8.
    ``overhead`` is in seconds, and so is ``waited``, of a stream the time to its first chunk.
    """

    record: Record
    ids: bytes
    attempt: Attempt
    likeness: Likeness
    request: Request
    answer: Answer | Streamed
    usage: Usage
    cost: float | None
    cost_source: str
    overhead: float | None
    waited: float | None
    end: int
    generation_start: int
    generation_end: int
    attempt_start: int
    attempt_end: int

    @property
    def ended(self) -> int:
        """When the last of its spans ended."""
        return max(self.end, self.generation_end, self.attempt_end)


_likenesses: dict[tuple[object, ...], Likeness] = {}


def ordinary(record: Record) -> Ordinary | None:
    """Return ``record`` as the ordinary request that it is of; None where it is none."""
    if not _may_be(record):
        return None
    attempt = record.attempts[0]
    ids = _ids(record, attempt)
    if ids is None:
        return None
    asked, answered = record.request, record.response
    request = ordinary_chat.read_request(asked.head if not asked.encoding else _text(asked), stream=record.stream)
    if request is None:
        return None
    body = answered.head if not answered.encoding else _text(answered)
    answer: Answer | Streamed | None
    if record.stream:
        answer = ordinary_chat.read_stream(body, answered.content_type)
    else:
        answer = ordinary_chat.read_answer(body)
    if answer is None:
        return None
    usage = answer.read_usage()
    if usage is None or usage.input is None or usage.output is None:
        return None
    cost, source = cost_of(record, usage, answer.model or "")
    start, last = record.start, record.generation_end or record.end
    called, tried = record.upstream_start, attempt.start
    return Ordinary(
        record,
        ids,
        attempt,
        _likeness(record, attempt),
        request,
        answer,
        usage,
        cost,
        source,
        overhead(record),
        waited(record),
        start + record.end,
        start + called,
        start + max(called, last),
        start + tried,
        start + max(tried, attempt.end or last),
    )


def _may_be(record: Record) -> bool:
    """Say whether nothing but the bodies can make the request an unusual one."""
    if record.status != _OK or record.error_type or len(record.attempts) != 1:
        return False
    attempt, target = record.attempts[0], record.target
    return not (
        target.dialect != "openai_chat"
        or target.operation != "chat"
        or not target.model
        or not record.content
        or not record.generation_span_id
        or record.start <= 0
        or record.end <= 0
        or record.method != "POST"
        or attempt.method != "POST"
        or attempt.status != _OK
        or attempt.error_type
        or record.error_message
        or record.trace_state
        or record.link_trace_id
        or record.baggage
        or record.facts
        or record.labels
        or record.metadata
        or record.raw_request
        or record.credentials
        or record.request_headers
        or record.response_headers
        or attempt.request_headers
        or attempt.response_headers
        or not _is_whole(record.request)
        or not _is_whole(record.response)
        or sse.is_stream(record.response.content_type, asked=record.stream) is not record.stream
    )


def _ids(record: Record, attempt: Attempt) -> bytes | None:
    own = record.trace_id + record.span_id + record.generation_span_id + attempt.span_id
    try:
        ids = bytes.fromhex(own + record.parent_span_id)
    except ValueError:
        return None
    return ids if len(own) == _DIGITS and len(ids) == (_BYTES + 8 if record.parent_span_id else _BYTES) else None


def _is_whole(capture: Capture) -> bool:
    return not (capture.tail or capture.sha256 or capture.withheld)


def _text(capture: Capture) -> bytes:
    body = readable(capture)
    return b"" if body.tail else body.head


def _likeness(record: Record, attempt: Attempt) -> Likeness:
    key = (
        record.stream,
        record.route,
        record.path,
        record.scheme,
        record.server_address,
        record.server_port,
        record.http_version,
        record.user_agent,
        record.target,
        record.caller,
        attempt.server_address,
        attempt.server_port,
        attempt.url,
        attempt.number,
        attempt.provider,
        attempt.model,
        attempt.retry_reason,
    )
    found = _likenesses.get(key)
    if found is None:
        if len(_likenesses) >= _KNOWN:
            _likenesses.clear()
        found = _likenesses[key] = Likeness(record, attempt)
    return found
