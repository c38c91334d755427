"""Ordinary requests' spans are written down without being made: byte by byte what the encoder makes of the spans."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelgw.tracing import spans
from otelgw.tracing.ordinary import ordinary
from otelgw.tracing.ordinary_spans import OrdinarySpans
from otelgw.tracing.record import Price, Record, capture_whole, decode, encode
from otelgw_exporters import semconv
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import EncodedSpan, Encoder, Ready, apart, assemble
from otelgw_exporters.semconv import profile
from otelgw_exporters.sheaf import Bundle
from tests.dialects import wire
from tests.servers.otlp import spans_in
from tests.tracing import drawn
from tests.tracing.records import CALLER, CHAT, PLAIN, attempt, plain, scenarios
from tests.tracing.test_ordinary import NOT_ORDINARY

RESOURCE = Resource({"service.name": "otelgw"}, "https://schema.example/1")
SCOPE = InstrumentationScope("otelgw", "0.1.0")
VOCABULARIES = ("otel", "otel-1.41", "otel-1.36")
STREAMED = PLAIN.replace(b"{", b'{"stream": true, ', 1)
STREAMS = ("chat_azure.sse", "chat_tools.sse", "completions.sse")
ZEROS = tuple(b"\x21" + struct.pack("<d", zero) for zero in (-0.0, 0.0))


def anew(vocabulary: str) -> Encoder:
    """Return an encoder that has seen nothing yet; ``encoder`` keeps one for all."""
    made: Callable[[semconv.Profile], Encoder] = encoder.__wrapped__
    return made(profile(vocabulary))


# As long-lived as in a pipeline, so that what they keep of one request is there for the next; and another encoder than
# the one that the spans go through.
WRITERS = {name: OrdinarySpans(anew(name), RESOURCE, SCOPE) for name in VOCABULARIES}
ENCODERS = {name: anew(name) for name in VOCABULARIES}


def generic(made: Record) -> list[ReadableSpan]:
    return spans.build(made, RESOURCE, SCOPE)


def check(made: Record, vocabularies: Sequence[str] = VOCABULARIES, *, signs: bool = True) -> bool:
    """Hold a record's spans as they are written down against those that are made; False where none are written."""
    found = ordinary(made)
    if found is None:
        return False
    whole = generic(made)
    for name in vocabularies:
        bundle, ready = WRITERS[name](found), [ENCODERS[name].ready(span) for span in whole]
        _check_bytes(bundle.piece, [each.encoded for each in ready], signs=signs)
        assert bundle.size == sum(sum(map(len, each.encoded)) + 24 for each in ready)
        assert [_known_of(span) for span in bundle] == [_known_of(span) for span in ready]
    assert found.ended == max(span.end_time or 0 for span in whole)
    return True


def _check_bytes(piece: EncodedSpan, expected: list[EncodedSpan], *, signs: bool) -> None:
    joined, other = piece.span, b"".join(each.span for each in expected)
    if not signs:  # a number's sign where it is zero is that of the first request with such parameters
        joined, other = (each.replace(*ZEROS) for each in (joined, other))
    assert joined == other
    assert {each[:2] for each in expected} == {piece[:2]}
    parts = apart(piece)
    assert len(parts) == len(expected)
    assert b"".join(part.span for part in parts) == piece.span
    assert assemble([piece]) == assemble(parts)


def _known_of(span: ReadableSpan) -> tuple[Any, ...]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id, span.name, span.end_time


def written(made: Record, vocabulary: str = "otel") -> Bundle:
    found = ordinary(decode(encode(made)))
    assert found is not None
    return WRITERS[vocabulary](found)


@given(drawn.records)
@settings(max_examples=350, deadline=None)
def test_what_is_written_down_is_what_the_encoder_makes_of_the_spans(made: Record) -> None:
    check(made, signs=False)


@pytest.mark.parametrize("made", [*scenarios().values(), *NOT_ORDINARY.values()], ids=[*scenarios(), *NOT_ORDINARY])
def test_so_it_is_of_every_way_that_a_request_can_go_as_far_as_it_is_ordinary(made: Record) -> None:
    for more in ({}, {"trace_state": "", "metadata": {}, "request_headers": []}):
        check(decode(encode(replace(made, **more))))


@pytest.mark.parametrize("answer", sorted((wire.HERE / "answers").iterdir()), ids=lambda path: path.name)
def test_so_it_is_of_the_answers_of_known_providers(answer: Any) -> None:
    usual = {(PLAIN, "chat_openai.json"), *((STREAMED, name) for name in STREAMS)}
    for body in (PLAIN, STREAMED, wire.request("chat_tools.json"), wire.request("responses.json")):
        asked, kind = capture_whole(body, wire.JSON), wire.SSE if answer.suffix == ".sse" else wire.JSON
        made = plain(request=asked, response=capture_whole(answer.read_bytes(), kind), stream=body is STREAMED)
        assert check(decode(encode(made))) == ((body, answer.name) in usual)


@given(drawn.streams)
@settings(max_examples=250, deadline=None)
def test_so_it_is_of_streams(made: Record) -> None:
    check(made, signs=False)


def test_a_fair_share_of_the_streams_that_are_drawn_is_ordinary() -> None:
    found: list[bool] = []

    @given(drawn.streams)
    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    def draw(made: Record) -> None:
        found.append(ordinary(made) is not None)

    draw()
    assert 0.2 < sum(found) / len(found) < 0.9


COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "no parent": {"parent_span_id": ""},
    "flags": {"trace_flags": 511},
    "no parent, flags": {"parent_span_id": "", "trace_flags": 0},
    "a caller with a user": {"caller": replace(CALLER, user_id="ü" * 70, user_email="ann@mail.example")},
    "a long call id": {"call_id": "c" * 128},
    "packed": {"response": capture_whole(gzip.compress(wire.answer("chat_openai.json")), wire.JSON, "gzip")},
    "vendor's words": {"target": replace(CHAT, provider="x_ai")},
    "no price": {"target": replace(CHAT, price=None)},
    "a known price": {"target": replace(CHAT, price=Price("genai-prices", "openai", "gpt-4o"))},
    "a cost in a header": {"cost": 0.125},
    "no times": {"first_byte": 0, "first_chunk": 0, "generation_end": 0},
    "the second of its attempts": {"attempts": [attempt(number=2, retry_reason="429")]},
    "names that are long": {"route": "/" + "r" * 300, "path": "/" + "ü" * 9000},
    "no names": {"route": "", "path": "", "scheme": "", "http_version": "", "server_address": "", "server_port": 0},
    "nothing of the attempt": {"attempts": [replace(attempt(request_id=""), url="", first_byte=0, provider="")]},
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("changes", COMMON.values(), ids=COMMON)
def test_so_it_is_of_what_most_requests_are(vocabulary: str, changes: dict[str, Any]) -> None:
    assert check(decode(encode(plain(**changes))), (vocabulary,))


def body(**more: Any) -> dict[str, Any]:
    asked = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}], **more}
    return {"request": capture_whole(json.dumps(asked).encode(), wire.JSON)}


def test_requests_that_differ_in_one_respect_only_are_not_taken_for_each_other() -> None:
    parameters: list[dict[str, Any]] = [
        {},
        *({name: 1} for name in ("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "n")),
        *({name: 2} for name in ("max_tokens", "temperature", "frequency_penalty", "presence_penalty", "n")),
        {"stop": "a"},
        {"stop": ["a"]},
        {"stop": ["a", "b"]},
        {"service_tier": "a"},
        {"reasoning_effort": "a"},
    ]
    told = wire.answer("chat_openai.json")
    answers = [
        told,
        told.replace(b"gpt-4o-2024-08-06", b"fp_fc9f1d7035"),
        told.replace(b'"default"', b'"stop"'),
        told.replace(b'"default"', b"null"),
        told.replace(b'"stop"', b'"length"'),
        told.replace(b"1117", b"46"),
        told.replace(b'"cached_tokens": 1024', b'"cached_tokens": 46'),
    ]
    made = [plain(**changes) for changes in COMMON.values()]
    made += [plain(**body(**more)) for more in parameters]
    made += [plain(response=capture_whole(answer, wire.JSON)) for answer in answers]
    for each in (*made, *reversed(made)):
        assert check(decode(encode(each)))


def test_it_is_right_also_after_more_kinds_of_requests_than_are_remembered() -> None:
    again = [decode(encode(plain(**changes))) for changes in COMMON.values()]
    first = decode(encode(plain()))
    for number in range(9000):
        asked = b'{"messages":[{"role":"user","content":"a"}],"seed":%d}' % number
        made = replace(first, user_agent=f"agent {number}", request=capture_whole(asked, wire.JSON), sent_bytes=number)
        found = ordinary(made)
        assert found is not None
        WRITERS["otel"](found)
        if number % 600 == 0:
            assert check(made, ("otel",))
            assert all(check(each, ("otel",)) for each in again)


def test_it_is_right_for_several_threads_at_once_as_lanes_that_catch_up_have_their_own() -> None:
    write = OrdinarySpans(anew("otel"), RESOURCE, SCOPE)
    first = decode(encode(plain()))

    def made(number: int) -> Record:
        return replace(first, user_agent=f"agent {number % 1500}", sent_bytes=number % 9000 + 1)

    def wrong(numbers: Sequence[int]) -> list[int]:
        found, own = [], anew("otel")
        for number in numbers:
            each = ordinary(made(number))
            assert each is not None
            bundle = write(each)
            if number % 29 == 0 and bundle.piece.span != b"".join(own(span).span for span in generic(each.record)):
                found.append(number)
        return found

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert [*threads.map(wrong, [range(begin, begin + 6000) for begin in range(0, 12_000, 3000)])] == [[]] * 4
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_it_is_for_encoders_that_leave_names_and_values_as_they_are(vocabulary: str) -> None:
    assert OrdinarySpans.fits(encoder(profile(vocabulary)))


@pytest.mark.parametrize(
    "other",
    [
        *(profile(name, bodies=True) for name in VOCABULARIES),
        *(profile(name, "structured") for name in VOCABULARIES),
        *(profile(name) for name in semconv.TABLES),
        *(profile(name, "structured", bodies=True) for name in semconv.TABLES),
    ],
    ids=str,
)
def test_it_is_for_no_encoder_that_changes_more(other: semconv.Profile) -> None:
    assert not OrdinarySpans.fits(encoder(other))


def test_no_encoder_changes_more_than_is_known_of_it() -> None:
    for encode_ in (Encoder(dict), Encoder(lambda given: {**given, "more": 1})):
        assert not OrdinarySpans.fits(encode_)


def test_who_takes_the_spans_out_gets_them_encoded() -> None:
    bundle = written(plain())
    assert [type(span) for span in bundle] == [Ready] * 3
    assert list(bundle) == list(bundle), "the same ones each time"
    assert (bundle[0].name, bundle[-1].name) == ("POST /v1/chat/completions", "POST")
    assert bundle[1:] == list(bundle)[1:]
    assert assemble(map(ENCODERS["otel"], bundle)) == assemble([bundle.piece])


def test_a_receiver_reads_the_spans() -> None:
    sent = ExportTraceServiceRequest.FromString(assemble([written(plain()).piece]))
    server, generation, tried = spans_in([sent])
    assert [span.name for span in (server, generation, tried)] == ["POST /v1/chat/completions", "chat gpt-4o", "POST"]
    assert generation.parent_span_id == server.span_id
    assert tried.parent_span_id == generation.span_id
    told = {pair.key: pair.value for pair in generation.attributes}
    assert len(told) == len(generation.attributes), "no name twice"
    assert json.loads(told["gen_ai.output.messages"].string_value)[0]["role"] == "assistant"


SECRET = "CANARY-secret"


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_no_secret_gets_into_what_is_written_down(vocabulary: str) -> None:
    told = json.loads(wire.answer("chat_openai.json"))
    hidden = {name: {"api_key": SECRET} for name in ("logit_bias", "stream_options", "prompt_cache_key", "store")}
    spoken = {name: {"api_key": SECRET} for name in ("created", "x_groq", "prompt_logprobs", "kv_transfer_params")}
    told["choices"][0] |= {"logprobs": {"api_key": SECRET}, "stop_reason": SECRET}
    told["usage"]["api_key"] = SECRET
    url = f"https://user:{SECRET}@api.example/v1?key={SECRET}&api-key={SECRET}"
    made = plain(
        attempts=[replace(attempt(), url=url)],
        response=capture_whole(json.dumps(told | spoken).encode(), wire.JSON),
        **body(**hidden),
    )
    bundle = written(made, vocabulary)

    assert check(decode(encode(made)), (vocabulary,))
    assert b"api.example" in bundle.piece.span
    assert not any(SECRET.encode() in piece for piece in bundle.piece)
    for more in (
        body(api_key=SECRET),
        body(metadata={"api_key": SECRET}),
        body(extra_headers={"authorization": SECRET}),
        {"request_headers": [("authorization", f"Bearer {SECRET}")]},
        {"attempts": [attempt(request_headers=[("authorization", f"Bearer {SECRET}")])]},
        {"attempts": [attempt(response_headers=[("set-cookie", SECRET)])]},
        {"credentials": ("authorization",)},
        {"raw_request": f"curl -H 'authorization: {SECRET}'"},
    ):
        assert ordinary(decode(encode(plain(**more)))) is None
