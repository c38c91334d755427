"""The spans of ordinary requests in OTLP's wire format, written down without being made.

What comes out is, byte by byte, what the encoder makes of the spans that ``spans.build`` returns.
"""

from __future__ import annotations

import struct
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelgw.tracing.ordinary import Likeness, Ordinary
from otelgw.tracing.usage import USAGE
from otelgw_exporters import semconv
from otelgw_exporters.otlp_values import double_head, field, text_head, utf8, varint
from otelgw_exporters.otlp_wire import FLAGS, FLAGS_REMOTE, EncodedSpan, Encoder
from otelgw_exporters.sheaf import Bundle

__all__ = ["OrdinarySpans"]

_SECOND = 1_000_000_000
_KNOWN = 8192  # of each kind of what is kept for the next requests like these
_SERVER, _CLIENT = b"\x30\x02", b"\x30\x03"  # field 6, kind
_UNSET = b"\x7a\x00"  # field 15, status
_times = struct.Struct("<BQBQ").pack
_double = struct.Struct("<d").pack
_COST, _AMOUNT, _OVERHEAD, _FIRST_BYTE, _FIRST_CHUNK = map(
    double_head,
    (
        semconv.GEN_AI_USAGE_COST,
        semconv.OTELGW_COST_AMOUNT,
        semconv.OTELGW_OVERHEAD_DURATION,
        semconv.OTELGW_ATTEMPT_TIME_TO_FIRST_BYTE,
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
    ),
)
_IN_AND_OUT = USAGE[:2]
# Written down here by name: an encoder that changes one of them cannot be replaced.
_NAMES = frozenset(
    {
        semconv.CLIENT_ADDRESS,
        semconv.GEN_AI_INPUT_MESSAGES,
        semconv.GEN_AI_OUTPUT_MESSAGES,
        semconv.GEN_AI_RESPONSE_ID,
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
        semconv.GEN_AI_USAGE_COST,
        semconv.OTELGW_ATTEMPT_REQUEST_ID,
        semconv.OTELGW_ATTEMPT_TIME_TO_FIRST_BYTE,
        semconv.OTELGW_CALL_ID,
        semconv.OTELGW_COST_AMOUNT,
        semconv.OTELGW_OVERHEAD_DURATION,
    }
)


class _Frame:
    """What is encoded once for a likeness: ``…_name`` stands between a span's parent and its times, ``…_told`` is of
    its attributes."""

    __slots__ = ("attempt_told", "generation_name", "generation_told", "likeness", "server_name", "server_told", "user")

    def __init__(self, encoder: Encoder, likeness: Likeness) -> None:
        who = encoder.attributes(likeness.who)
        self.likeness = likeness  # kept alive, for it is known by its identity
        self.server_name = field(5, utf8(likeness.route_name)) + _SERVER
        self.server_told = encoder.attributes(likeness.endpoint) + who
        self.generation_name = field(5, utf8(likeness.generation_name)) + _CLIENT
        self.generation_told = encoder.attributes(likeness.called) + who
        self.attempt_told = encoder.attributes(likeness.tried) + who
        self.user = encoder.attributes({semconv.USER_ID: likeness.user} if likeness.user else {})


_ATTEMPT_NAME = field(5, b"POST") + _CLIENT


class OrdinarySpans:
    """Writes down the spans of ordinary requests as ``encoder`` would. Threads may share one."""

    def __init__(self, encoder: Encoder, resource: Resource, scope: InstrumentationScope) -> None:
        self._encoder = encoder
        self._around = encoder.around(resource, scope)
        self._frames: dict[int, _Frame] = {}
        self._parameters: dict[tuple[object, ...], bytes] = {}
        self._kinds: dict[tuple[object, ...], bytes] = {}
        self._numbers: dict[str, dict[int, bytes]] = {}
        self._sources: dict[str, bytes] = {}
        self._one_attempt = encoder.attributes({semconv.OTELGW_ATTEMPTS: 1})

    @staticmethod
    def fits(encoder: Encoder) -> bool:
        """Say whether ``encoder`` leaves the names and the values as they are written down here."""
        return encoder.is_plain(_NAMES, semconv.BODIES)

    def __call__(self, request: Ordinary) -> Bundle:
        """Return the spans of ``request``: SERVER, generation, attempt."""
        record = request.record
        frame = self._frames.get(id(request.likeness)) or self._frame(request.likeness)
        flags = record.trace_flags & 0xFF
        local = FLAGS[flags]
        ids = request.ids
        server_id, generation_id, attempt_id, parent_id = ids[16:24], ids[24:32], ids[32:40], ids[40:]
        trace = b"\x0a\x10" + ids[:16] + b"\x12\x08"
        common = b"".join((*_text(semconv.OTELGW_CALL_ID, record.call_id), frame.user))
        parent = b"\x22\x08" + parent_id if parent_id else b""
        server = b"".join(
            (
                trace,
                server_id,
                parent,
                frame.server_name,
                _times(0x39, record.start, 0x41, request.end),
                _UNSET,
                FLAGS_REMOTE[flags] if parent else local,
                frame.server_told,
                *self._server(request),
                common,
            )
        )
        generation = b"".join(
            (
                trace,
                generation_id,
                b"\x22\x08",
                server_id,
                frame.generation_name,
                _times(0x39, request.generation_start, 0x41, request.generation_end),
                _UNSET,
                local,
                frame.generation_told,
                *self._generation(request),
                common,
            )
        )
        tried = b"".join(
            (
                trace,
                attempt_id,
                b"\x22\x08",
                generation_id,
                _ATTEMPT_NAME,
                _times(0x39, request.attempt_start, 0x41, request.attempt_end),
                _UNSET,
                local,
                frame.attempt_told,
                *_attempt(request),
                common,
            )
        )
        spans = (b"\x12", varint(len(server)), server, b"\x12", varint(len(generation)), generation)
        joined = b"".join((*spans, b"\x12", varint(len(tried)), tried))
        return Bundle(EncodedSpan(*self._around, joined), 3)

    def _frame(self, likeness: Likeness) -> _Frame:
        if len(self._frames) >= _KNOWN:
            self._frames.clear()
        found = self._frames[id(likeness)] = _Frame(self._encoder, likeness)
        return found

    def _server(self, request: Ordinary) -> list[bytes]:
        record = request.record
        found: list[bytes] = []
        if record.client_address:
            found += _text(semconv.CLIENT_ADDRESS, record.client_address)
        if record.request.size:
            found.append(self._number(semconv.HTTP_REQUEST_BODY_SIZE, record.request.size))
        if record.sent_bytes:
            found.append(self._number(semconv.HTTP_RESPONSE_BODY_SIZE, record.sent_bytes))
        return found

    def _generation(self, request: Ordinary) -> list[bytes]:
        asked, answer = request.request, request.answer
        parameters, kind = asked.parameters, answer.kind
        found = [
            self._parameters.get(parameters) or self._keep(self._parameters, parameters, asked.attributes()),
            *_text(semconv.GEN_AI_RESPONSE_ID, answer.id),
            self._kinds.get(kind)
            or self._keep(self._kinds, kind, answer.attributes() | {semconv.OTELGW_USAGE_SOURCE: "provider"}),
        ]
        usage = request.usage
        for name, attribute in _IN_AND_OUT if answer.has_totals_only else USAGE:
            value = getattr(usage, name)
            if value is not None:
                found.append(self._number(attribute, value))
        if request.cost is not None:
            amount = _double(request.cost)
            found += (_COST, amount, _AMOUNT, amount, self._source(request.cost_source))
        if request.waited is not None:
            found += (_FIRST_CHUNK, _double(request.waited))
        found.append(self._one_attempt)
        if request.overhead is not None:
            found += (_OVERHEAD, _double(request.overhead))
        for attribute, messages in (
            (semconv.GEN_AI_INPUT_MESSAGES, asked.messages_read()),
            (semconv.GEN_AI_OUTPUT_MESSAGES, answer.messages_read()),
        ):
            text = semconv.json_text(messages)
            found += (text_head(attribute, len(text)), text)
        return found

    def _number(self, attribute: str, value: int) -> bytes:
        known = self._numbers.get(attribute)
        if known is None:
            known = self._numbers[attribute] = {}
        return known.get(value) or self._keep(known, value, {attribute: value})

    def _source(self, source: str) -> bytes:
        told = {semconv.OTELGW_COST_CURRENCY: "USD", semconv.OTELGW_COST_SOURCE: source}
        return self._sources.get(source) or self._keep(self._sources, source, told)

    def _keep(self, known: dict[Any, bytes], key: object, attributes: dict[str, Any]) -> bytes:
        if len(known) >= _KNOWN:
            known.clear()
        encoded = known[key] = self._encoder.attributes(attributes)
        return encoded


def _attempt(request: Ordinary) -> list[bytes]:
    attempt = request.attempt
    found: list[bytes] = []
    if attempt.request_id:
        found += _text(semconv.OTELGW_ATTEMPT_REQUEST_ID, attempt.request_id)
    if attempt.first_byte:
        found += (_FIRST_BYTE, _double((attempt.first_byte - attempt.start) / _SECOND))
    return found


def _text(attribute: str, value: str) -> tuple[bytes, bytes]:
    text = utf8(value)
    return text_head(attribute, len(text)), text
