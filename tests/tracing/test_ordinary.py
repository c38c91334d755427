"""Which records are ordinary, and what is kept of those. What their spans say is in ``test_ordinary_spans``."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelgw.tracing import spans
from otelgw.tracing.bodies import DECODED_LIMIT
from otelgw.tracing.ordinary import Ordinary, ordinary
from otelgw.tracing.record import Audience, Caller, Capture, Price, Record, capture_whole, decode, encode
from tests.dialects import wire
from tests.tracing import drawn
from tests.tracing.records import CALLER, CHAT, MS, PLAIN, attempt, plain, scenarios, withheld

ANSWER = wire.answer("chat_openai.json")
STREAMED = PLAIN.replace(b"{", b'{"stream": true, ', 1)


def read(made: Record) -> Ordinary | None:
    """Read after a trip through the spool's encoding, as the pipeline does."""
    return ordinary(decode(encode(made)))


def answered(body: bytes, kind: str = wire.JSON, encoding: str = "", **more: Any) -> Capture:
    return replace(capture_whole(body, kind, encoding), **more)


def test_a_plain_chat_is_ordinary() -> None:
    found = read(plain())

    assert found is not None
    assert found.attempt is found.record.attempts[0]
    assert found.request.messages_read()[1]["parts"] == [{"type": "text", "content": "CANARY say hello"}]
    assert found.answer.messages_read()[0]["finish_reason"] == "stop"
    assert (found.usage.input, found.usage.output, found.usage.cache_read) == (1117, 46, 1024)
    assert (found.cost, found.cost_source) == (0.001209, "config")
    assert found.ended == plain().start + 92 * MS


def test_a_plain_stream_is_ordinary() -> None:
    answer = capture_whole(wire.answer("chat_azure.sse"), wire.SSE)

    found = read(plain(stream=True, request=capture_whole(STREAMED, wire.JSON), response=answer))

    assert found is not None
    assert found.waited == (plain().first_byte - plain().upstream_start) / 1e9
    assert found.likeness.called["gen_ai.request.stream"] is True
    assert "gen_ai.request.stream" not in read(plain()).likeness.called  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "changes",
    [
        {"request": capture_whole(gzip.compress(PLAIN, mtime=0), wire.JSON, "gzip")},
        {"response": capture_whole(gzip.compress(ANSWER, mtime=0), wire.JSON, "gzip")},
        {"response": capture_whole(ANSWER, wire.JSON, "identity")},
        {"response": answered(ANSWER, "")},
        {"parent_span_id": "", "trace_flags": 0, "sampled": False},
        {"route": "", "user_agent": "", "client_address": "", "server_address": ""},
        {"caller": Caller()},
        {"caller": replace(CALLER, user_id="u")},
        {"target": replace(CHAT, price=None)},
        {"target": replace(CHAT, price=Price("genai-prices", "no such provider"))},
        {"cost": 0.5},
        {"first_byte": 0, "first_chunk": 0, "generation_end": 0},
        {"attempts": [replace(attempt(request_id=""), first_byte=0)]},
        {"attempts": [attempt(number=2, retry_reason="429")], "retry_count": 1},
        {"audience": Audience(without=("console",))},
        {"attempts": [replace(attempt(), end=0, url="https://h.example/?key=CANARY")]},
    ],
    ids=" ".join,
)
def test_what_differs_from_request_to_request_leaves_it_ordinary(changes: dict[str, Any]) -> None:
    assert read(plain(**changes)) is not None


NOT_ORDINARY: dict[str, Record] = {
    "a trace state": plain(trace_state="congo=t61"),
    "a link": plain(link_trace_id="ab" * 16, link_span_id="cd" * 8),
    "baggage": plain(baggage={"k": "v"}),
    "labels from headers": plain(labels={"otelgw.metadata.a": "b"}),
    "labels from the key": plain(metadata={"tags": ["a"]}),
    "captured headers of the request": plain(request_headers=[("authorization", "CANARY")]),
    "captured headers of the answer": plain(response_headers=[("x-a", "b")]),
    "captured headers sent upstream": plain(attempts=[attempt(request_headers=[("x-a", "b")])]),
    "captured headers from upstream": plain(attempts=[attempt(response_headers=[("x-a", "b")])]),
    "the upstream's call as a command": plain(raw_request="curl https://api.example"),
    "the names of credentials": plain(credentials=("authorization",)),
    "no answer": plain(status=0),
    "another answer than 200": plain(status=201),
    "an error status": plain(status=500, error_type="500"),
    "an error behind a 200": plain(error_type="client_disconnect"),
    "an error message": plain(error_message="it broke"),
    "a stream that nobody asked for": plain(stream=True),
    "a stream that broke off": plain(
        stream=True, request=answered(STREAMED), response=answered(wire.answer("chat_azure.sse")[:-200], wire.SSE)
    ),
    "a stream that ended in an error": plain(
        stream=True, request=answered(STREAMED), response=answered(wire.answer("chat_error_midway.sse"), wire.SSE)
    ),
    "ids of another length": plain(span_id="ab"),
    "ids that are none": plain(trace_id="x" * 32),
    "no id": plain(trace_id=""),
    "an answer that is a stream all the same": plain(response=answered(ANSWER, wire.SSE)),
    "no attempt": plain(attempts=[]),
    "a second attempt": plain(attempts=[attempt(1, 2, 30, 429), attempt(2, 50, 90)]),
    "an attempt that failed": plain(attempts=[attempt(status=429)]),
    "an attempt with an error": plain(attempts=[attempt(error_type="upstream_reset")]),
    "another method": plain(method="PUT"),
    "another method upstream": plain(attempts=[attempt(method="PUT")]),
    "no generation": plain(generation_span_id=""),
    "another operation": plain(target=replace(CHAT, operation="embeddings")),
    "an operation that has no usage": plain(target=replace(CHAT, operation="fetch_response")),
    "another dialect": plain(target=replace(CHAT, dialect="openai_completions")),
    "a deployment without a model": plain(target=replace(CHAT, model="")),
    "no end, as the worker died": plain(end=0),
    "content that is not recorded": withheld(plain()),
    "a request that is not held whole": plain(request=answered(PLAIN[:40], tail=PLAIN[-20:], sha256="ab" * 32)),
    "an answer that is not held whole": plain(response=answered(ANSWER[:40], tail=ANSWER[-20:], sha256="ab" * 32)),
    "a request known by its hash": plain(request=answered(b"", sha256="ab" * 32)),
    "a request that broke off": plain(request=answered(PLAIN[:-1])),
    "an answer that broke off": plain(response=answered(ANSWER[:-3])),
    "an answer whose packing broke off": plain(
        response=answered(gzip.compress(ANSWER, mtime=0)[:-30], encoding="gzip")
    ),
    "an answer that is longer than is unpacked": plain(
        response=answered(gzip.compress(ANSWER + b" " * DECODED_LIMIT), encoding="gzip")
    ),
    "an answer in an unreadable coding": plain(response=answered(ANSWER, encoding="br")),
    "an empty answer": plain(response=Capture()),
    "a request that names its user": plain(request=answered(PLAIN[:-1] + b',"user":"u-1"}')),
    "an answer without usage": plain(response=answered(ANSWER.replace(b'"usage"', b'"x_groq"'))),
    "an answer without counts": plain(response=answered(ANSWER.replace(b"_tokens", b"_things"))),
    "an answer without the input's count": plain(response=answered(ANSWER.replace(b'"prompt_tokens"', b'"pt"'))),
    "an answer that calls a tool": plain(
        response=answered(ANSWER.replace(b'"annotations": []', b'"tool_calls": [{"id": "c", "function": {}}]'))
    ),
}


@pytest.mark.parametrize("made", NOT_ORDINARY.values(), ids=NOT_ORDINARY)
def test_whatever_else_a_span_can_tell_makes_a_request_unusual(made: Record) -> None:
    assert read(made) is None


def test_ways_that_a_request_can_go_are_left_to_what_makes_all_spans() -> None:
    assert {name for name, made in scenarios().items() if read(made) is not None} == set()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"generation_end": 0},
        {"generation_end": 200 * MS},
        {"attempts": [attempt(end=500)]},
        {"attempts": [replace(attempt(), end=0)]},
        {"attempts": [attempt(start=700, end=90)]},
        {"upstream_start": 800 * MS},
        {"end": 1},
    ],
    ids=str,
)
def test_it_ended_when_the_last_of_its_spans_did(changes: dict[str, Any]) -> None:
    found = read(plain(**changes))
    assert found is not None

    made = spans.build(found.record, Resource({}), InstrumentationScope("otelgw"))
    times = [(span.start_time, span.end_time) for span in made]
    assert times == [
        (found.record.start, found.end),
        (found.generation_start, found.generation_end),
        (found.attempt_start, found.attempt_end),
    ]
    assert found.ended == max(end or 0 for _, end in times)


def test_requests_share_a_likeness_that_came_the_same_way_from_the_same_caller_to_the_same_deployment() -> None:
    one = read(plain())
    alike = read(plain(call_id="other", trace_id="ab" * 16, start=7, client_address="other", sent_bytes=5))
    assert one is not None
    assert alike is not None
    assert alike.likeness is one.likeness
    for changes in (
        {"route": "/v2"},
        {"path": "/v2"},
        {"scheme": "https"},
        {"server_address": "other"},
        {"server_port": 1},
        {"http_version": "2"},
        {"user_agent": "other"},
        {"target": replace(CHAT, alias="other")},
        {"caller": replace(CALLER, user_id="other")},
        {"attempts": [attempt(number=2)]},
        {"attempts": [replace(attempt(), url="https://other.example")]},
        {"attempts": [replace(attempt(), server_address="other")]},
        {"attempts": [replace(attempt(), server_port=1)]},
        {"attempts": [replace(attempt(), provider="other")]},
        {"attempts": [replace(attempt(), model="other")]},
        {"attempts": [replace(attempt(), retry_reason="429")]},
    ):
        other = read(plain(**changes))
        assert other is not None
        assert other.likeness is not one.likeness, changes


def test_of_what_is_drawn_for_these_tests_a_good_part_is_ordinary_and_a_good_part_is_not() -> None:
    known: list[bool] = []

    @given(drawn.records)
    @settings(max_examples=200, deadline=None)
    def look(made: Record) -> None:
        known.append(ordinary(made) is not None)

    look()
    assert len(known) / 10 < sum(known) < len(known) * 9 / 10
