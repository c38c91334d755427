"""The reading of ordinary chats is a short cut: everything is held against what ``openai_chat`` reads of the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from otelgw.dialects import openai_chat
from otelgw.dialects.ordinary_chat import Answer, Request, read_answer, read_request, read_stream
from tests.dialects import wire
from tests.tracing import drawn

BESIDE = {"gen_ai.request.model", "gen_ai.response.id"}  # told by the deployment, and by the answer's id
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SAID: dict[str, Any] = {"role": "assistant", "content": "hi"}
ANSWERED: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m-1",
    "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
}
SAMPLES = sorted(path for kind in ("answers", "requests") for path in (wire.HERE / kind).iterdir())
DEEP = b"[" * 100_000 + b"]" * 100_000  # deeper than any Python lets C code recurse


def exactly(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return attributes so that their order and the types of their values count, but no sign of zero."""
    return [(key, repr(value).replace("-0.0", "0.0")) for key, value in told.items() if key not in BESIDE]


def check_request(read: Request, body: bytes) -> None:
    facts = openai_chat.read_request(body)
    assert exactly(read.attributes()) == exactly(dict(facts.attributes))
    assert facts.content == {"gen_ai.input.messages": read.messages_read()}
    assert facts.complete


def check_answer(read: Answer, body: bytes) -> None:
    facts = openai_chat.read_response(body, wire.JSON, stream=False)
    assert exactly(read.attributes()) == exactly(dict(facts.attributes))
    assert read.id == facts.attributes["gen_ai.response.id"]
    assert facts.content == {"gen_ai.output.messages": read.messages_read()}
    assert read.read_usage() == facts.usage
    assert (facts.error_type, facts.error_message, facts.complete) == ("", "", True)


@given(drawn.requests)
@settings(max_examples=250, deadline=None)
def test_what_is_read_of_a_request_is_what_is_read_of_any(text: str) -> None:
    body = text.encode("utf-8", "surrogateescape")
    read = read_request(body)
    if read is not None:
        check_request(read, body)


@given(drawn.answers)
@settings(max_examples=250, deadline=None)
def test_what_is_read_of_an_answer_is_what_is_read_of_any(text: str) -> None:
    body = text.encode("utf-8", "surrogateescape")
    read = read_answer(body)
    if read is not None:
        check_answer(read, body)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name} {path.name}")
def test_what_providers_send_is_read_as_any_other_or_left_alone(path: Path) -> None:
    body = path.read_bytes()
    request, answer = read_request(body), read_answer(body)
    assert request is None, "those that are kept here use all that there is"
    assert (answer is not None) == (path.name == "chat_openai.json"), "the one without anything out of the ordinary"
    if answer is not None:
        check_answer(answer, body)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 1, "top_p": 0.5, "max_tokens": 0, "seed": -1, "n": 1, "top_k": 40},
        {"max_tokens": 1, "max_completion_tokens": 2, "reasoning_effort": "low", "service_tier": "flex"},
        {"n": 3, "stop": "END"},
        {"stop": ["a", ""], "frequency_penalty": -2, "presence_penalty": 1 << 70},
        {"stop": [], "model": None, "temperature": None, "max_tokens": None, "stream": False},
        {"logit_bias": {"1": 2}, "store": True, "verbosity": "low", "stream_options": {"include_usage": True}},
        {"messages": [{"role": role, "content": "ü\0\n"} for role in ("system", "developer", "user", "assistant")]},
    ],
    ids=str,
)
def test_a_request_of_text_and_parameters_is_ordinary(more: dict[str, Any]) -> None:
    body = json.dumps(ASKED | more).encode()
    read = read_request(body)
    assert read is not None
    check_request(read, body)


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"tools": []},
        {"response_format": {"type": "json_object"}},
        {"modalities": ["text"]},
        {"reasoning": {"effort": "low"}},
        {"user": "u"},
        {"safety_identifier": "u"},
        {"metadata": {}},
        {"litellm_metadata": {}},
        {"tags": ["a"]},
        {"api_key": "CANARY"},
        {"an_unknown_field": 1},
        {"messages": []},
        {"messages": None},
        {"messages": [SAID | {"name": "ann"}]},
        {"messages": [SAID | {"tool_calls": []}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "tool", "content": "a"}]},
        {"messages": ["hello"]},
        {"temperature": "0.5"},
        {"temperature": True},
        {"max_tokens": -1},
        {"max_tokens": 12.0},
        {"seed": 1 << 63},
        {"stop": ["a", None]},
        {"model": 7},
        {"service_tier": 7},
    ],
    ids=str,
)
def test_a_request_that_says_anything_else_is_not(more: dict[str, Any]) -> None:
    assert read_request(json.dumps(ASKED | more).encode()) is None


def test_a_request_without_messages_is_not_ordinary() -> None:
    assert read_request(b'{"model": "m"}') is None


def _choice(**more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": SAID, "finish_reason": "stop"} | more]}


def _said(**more: Any) -> dict[str, Any]:
    return _choice(message=SAID | more)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model": None, "service_tier": None, "system_fingerprint": None, "created": None},
        {"model": "", "service_tier": "", "system_fingerprint": ""},
        {"service_tier": "default", "system_fingerprint": "fp", "created": 1, "prompt_filter_results": [{"index": 0}]},
        {"usage": {}},
        {"usage": {"prompt_tokens": "9", "completion_tokens": -1}},
        {"usage": {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.25, "prompt_tokens_details": None}},
        {"usage": {"input_tokens": 9, "output_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5000}}},
        {"x_groq": {"usage": {"prompt_tokens": 1}}},
        _said(refusal=None, annotations=[{"type": "url_citation"}], audio=None, function_call=None, tool_calls=[]),
        _said(reasoning=None, reasoning_content=None, tool_calls=None, role="model"),
        _choice(finish_reason="end_turn", logprobs={"content": []}, stop_reason=7, content_filter_results={}),
        _choice(finish_reason="error", index="x"),
    ],
    ids=str,
)
def test_an_answer_of_text_is_ordinary(more: dict[str, Any]) -> None:
    body = json.dumps(ANSWERED | more).encode()
    read = read_answer(body)
    assert read is not None
    check_answer(read, body)


@pytest.mark.parametrize(
    "more",
    [
        {"id": ""},
        {"id": None},
        {"object": "chat.completion.chunk"},
        {"object": "error"},
        {"choices": []},
        {"choices": None},
        {"choices": [*_choice()["choices"], *_choice(index=1)["choices"]]},
        {"usage": None},
        {"usage": []},
        {"error": {"message": "no"}},
        {"error": None},
        {"provider": "x"},
        {"model": 7},
        _said(content=None),
        _said(content=""),
        _said(content=[{"type": "text", "text": "a"}]),
        _said(role=None),
        _said(refusal="no"),
        _said(refusal=""),
        _said(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}]),
        _said(function_call={"name": "f"}),
        _said(reasoning_content="hm"),
        _said(reasoning="hm"),
        _said(audio={"id": "a"}),
        _said(images=[]),
        _choice(finish_reason=None),
        _choice(finish_reason=""),
        _choice(native_finish_reason="stop"),
    ],
    ids=str,
)
def test_an_answer_that_says_anything_else_is_not(more: dict[str, Any]) -> None:
    assert read_answer(json.dumps(ANSWERED | more).encode()) is None


def test_a_providers_own_unknown_reason_is_told() -> None:
    body = json.dumps(ANSWERED | _choice(finish_reason="unknown")).encode()
    read = read_answer(body)
    assert read is not None
    check_answer(read, body)
    assert read.attributes()["gen_ai.response.finish_reasons"] == ["unknown"]


def _stream(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1"}
SAYS = CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}]}
ENDS = CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
COUNTS = CHUNK | {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}


def test_a_stream_of_text_is_ordinary() -> None:
    body = _stream(SAYS, ENDS, COUNTS)
    read, facts = read_stream(body, wire.SSE), openai_chat.read_response(body, wire.SSE, stream=True)

    assert read is not None
    assert [("gen_ai.response.id", read.id), *read.attributes().items()] == list(facts.attributes.items())
    assert {"gen_ai.output.messages": read.messages_read()} == facts.content
    assert (read.read_usage(), read.model) == (facts.usage, "m-1")
    assert hash(read.kind) == hash(read_stream(body, wire.SSE).kind)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "body",
    [
        _stream(SAYS, ENDS),
        _stream(SAYS, COUNTS)[:-14],
        _stream(SAYS, ENDS, COUNTS, {"error": {"message": "no"}}),
        _stream(*({key: value for key, value in each.items() if key != "id"} for each in (SAYS, ENDS, COUNTS))),
        _stream({key: value for key, value in SAYS.items() if key != "id"}, ENDS, COUNTS),
        _stream(COUNTS),
        b"",
    ],
    ids=["no usage", "no end", "an error", "no id", "an id that comes late", "no choice", "nothing"],
)
def test_any_other_stream_is_left_alone(body: bytes) -> None:
    assert read_stream(body, wire.SSE) is None


def test_a_stream_is_ordinary_only_where_one_was_asked_for() -> None:
    asked = json.dumps(ASKED | {"stream": True}).encode()
    plain = json.dumps(ASKED).encode()

    assert read_request(asked, stream=True) is not None
    assert read_request(asked) is None
    assert read_request(plain, stream=True) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xef\xbb\xbf%b",
        b"%bx",
        b"%b%b",
        DEEP,
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        rb'{"messages": [{"role": "user", "content": "\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e400}',
        b'{"messages": [{"role": "user", "content": "a"}], "logit_bias": %b}' % DEEP,
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_is_no_good_json_is_nothing_ordinary_and_never_raises(body: bytes) -> None:
    for good in (json.dumps(ASKED).encode(), json.dumps(ANSWERED).encode()):
        given = body.replace(b"%b", good)
        assert read_request(given) is None
        assert read_answer(given) is None


@pytest.mark.parametrize(
    ("member", "again"), [("temperature", "0.5"), ("model", '"other"'), ("messages", '[{"role":"user","content":"b"}]')]
)
def test_of_a_member_that_is_given_twice_the_later_one_counts_as_it_does_elsewhere(member: str, again: str) -> None:
    body = f'{json.dumps(ASKED | {"temperature": 0})[:-1]}, "{member}": {again}}}'.encode()
    read = read_request(body)
    assert read is not None
    check_request(read, body)
