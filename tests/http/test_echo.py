"""The built-in echo model: OpenAI's shapes, as the OpenAI SDK's own types see them."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import struct
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from otelgw.http.client import build_request
from otelgw.http.echo import DIMENSIONS, EchoTransport

BASE = "http://echo.invalid/v1"
HELLO = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello big world"}]


def transport(mock: str | None = None) -> EchoTransport:
    numbers = itertools.count(1)
    return EchoTransport(mock, clock=lambda: 1_700_000_000.9, new_id=lambda: f"id{next(numbers)}")


async def _send(
    path: str, content: bytes, echo: EchoTransport, method: str, mock: str | None
) -> tuple[httpx.Response, list[bytes]]:
    request = build_request(method, httpx.URL(BASE + path), [], content)
    if mock is not None:
        request.extensions["otelgw.mock_response"] = mock
    response = await echo.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response, [chunk async for chunk in response.stream]


def send(
    path: str, body: Any, *, echo: EchoTransport | None = None, method: str = "POST", mock: str | None = None
) -> tuple[httpx.Response, list[bytes]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asyncio.run(_send(path, content, echo or transport(), method, mock))


def ask(path: str, body: Any, **options: Any) -> Any:
    response, chunks = send(path, body, **options)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    content = b"".join(chunks)
    assert response.headers["content-length"] == str(len(content))
    return json.loads(content)


def stream(path: str, body: Any, **options: Any) -> list[Any]:
    """Return the data of each event; check that it is one event a chunk."""
    response, chunks = send(path, body, **options)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in response.headers
    assert all(chunk.count(b"\n\n") == 1 and chunk.endswith(b"\n\n") for chunk in chunks)
    data = [chunk.partition(b"data: ")[2].strip() for chunk in chunks]
    return [item.decode() if item == b"[DONE]" else json.loads(item) for item in data]


def valid(model: Any, value: Any) -> Any:
    """Return ``value`` as an SDK type; a missing or ill-typed field fails."""
    return TypeAdapter(model).validate_python(value)


def test_a_chat_says_the_last_user_message_again() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "x"}, {"role": "user", "content": "and  now\nthis "}]
    messages.append({"role": "tool", "content": "ignored", "tool_call_id": "1"})
    tools = [{"type": "function", "function": {"name": "f"}}]
    answer = valid(ChatCompletion, ask("/chat/completions", {"model": "echo", "messages": messages, "tools": tools}))
    assert answer.choices[0].message.content == "and  now\nthis "
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.id, answer.created, answer.model) == ("chatcmpl-id1", 1_700_000_000, "echo")


def test_usage_counts_words() -> None:
    answer = valid(ChatCompletion, ask("/chat/completions", {"model": "echo", "messages": HELLO}))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)


def test_a_message_of_parts_is_echoed_without_its_images() -> None:
    parts = [
        {"type": "text", "text": "what is "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "this?"},
    ]
    answer = ask("/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": parts}]})
    assert answer["choices"][0]["message"]["content"] == "what is this?"


def test_the_mock_text_is_said_instead() -> None:
    body = {"model": "gpt-4o", "messages": HELLO}
    assert ask("/chat/completions", body, echo=transport("mock"))["choices"][0]["message"]["content"] == "mock"
    for mock in ("of this call", ""):
        answer = ask("/chat/completions", body, echo=transport("mock"), mock=mock)
        assert answer["choices"][0]["message"]["content"] == mock
        assert answer["model"] == "gpt-4o"


@pytest.mark.parametrize("include_usage", [None, False, True])
def test_a_chat_stream_gives_a_word_a_chunk_and_the_usage_only_if_asked(include_usage: bool | None) -> None:
    body: dict[str, Any] = {"model": "echo", "messages": HELLO, "stream": True}
    if include_usage is not None:
        body["stream_options"] = {"include_usage": include_usage}
    *events, done = stream("/chat/completions", body)
    assert done == "[DONE]"
    chunks = [valid(ChatCompletionChunk, event) for event in events]
    if include_usage:
        last = chunks.pop()
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.total_tokens == 8
        assert all("usage" in event and event["usage"] is None for event in events[:-1])
    else:
        assert all("usage" not in event for event in events)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert [delta.content for delta in deltas] == ["", "hello ", "big ", "world", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_several_choices_are_told_apart_by_index() -> None:
    body = {"model": "echo", "messages": HELLO, "n": 2}
    assert [choice["index"] for choice in ask("/chat/completions", body)["choices"]] == [0, 1]
    events = stream("/chat/completions", {**body, "stream": True})[:-1]
    for index in (0, 1):
        own = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == "hello big world"
        assert own[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", {"messages": HELLO, "max_tokens": 2}),
        ("/chat/completions", {"messages": HELLO, "max_completion_tokens": 2, "max_tokens": 9}),
        ("/completions", {"prompt": "hello big world", "max_tokens": 2}),
    ],
)
def test_a_token_limit_cuts_after_so_many_words(path: str, body: dict[str, Any]) -> None:
    answer = ask(path, body)
    choice = answer["choices"][0]
    assert (choice.get("text") or choice["message"]["content"]) == "hello big "
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


@settings(deadline=None)
@given(st.text())
def test_the_pieces_of_a_stream_join_to_the_whole_text(text: str) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
    whole = ask("/chat/completions", body)
    events = stream("/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    said = "".join(choice["delta"].get("content", "") for event in events[:-1] for choice in event["choices"])
    assert said == whole["choices"][0]["message"]["content"] == text
    assert events[-2]["usage"] == whole["usage"]


def test_a_completion_says_each_prompt_again() -> None:
    answer = valid(Completion, ask("/completions", {"model": "echo", "prompt": ["one two", "three"]}))
    assert [choice.text for choice in answer.choices] == ["one two", "three"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)


def test_a_completion_stream_says_the_same_as_the_whole() -> None:
    body = {"model": "echo", "prompt": "one two three", "stream": True, "stream_options": {"include_usage": True}}
    *events, done = stream("/completions", body)
    assert done == "[DONE]"
    assert [choice["text"] for event in events for choice in event["choices"]] == ["one ", "two ", "three", ""]
    assert [choice["finish_reason"] for event in events for choice in event["choices"]] == [None] * 3 + ["stop"]
    assert [event["usage"] is None for event in events] == [True] * 4 + [False]
    assert {event["object"] for event in events} == {"text_completion"}
    valid(Completion, events[-1])


@pytest.mark.parametrize(
    ("given_", "count", "words"), [("a b", 1, 2), (["a b", "c"], 2, 3), ([1, 2], 1, 2), ([[1], [2]], 2, 2)]
)
def test_each_input_gets_a_vector(given_: Any, count: int, words: int) -> None:
    answer = valid(CreateEmbeddingResponse, ask("/embeddings", {"model": "echo", "input": given_}))
    assert [row.index for row in answer.data] == list(range(count))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == words
    for row in answer.data:
        assert len(row.embedding) == DIMENSIONS
        assert math.hypot(*row.embedding) == pytest.approx(1.0, abs=1e-6)


def test_a_vector_depends_on_the_text_alone_and_is_the_same_in_both_encodings() -> None:
    body = {"model": "echo", "input": ["same", "other", "same"], "dimensions": 5}
    floats = [row["embedding"] for row in ask("/embeddings", body)["data"]]
    assert floats[0] == floats[2] != floats[1]
    packed = [row["embedding"] for row in ask("/embeddings", {**body, "encoding_format": "base64"})["data"]]
    assert [list(struct.unpack("<5f", base64.b64decode(item))) for item in packed] == floats


@pytest.mark.parametrize(
    "input_",
    [
        "hello big world",
        [
            {"role": "user", "content": "no"},
            {"role": "user", "content": [{"type": "input_text", "text": "hello big world"}]},
        ],
    ],
)
def test_a_response_has_the_shape_of_the_responses_api(input_: Any) -> None:
    body = {"model": "echo", "input": input_, "instructions": "be brief", "metadata": {"a": "b"}}
    answer = valid(Response, ask("/responses", body))
    assert answer.output_text == "hello big world"
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 3
    assert answer.metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("limit", "said", "end"), [(None, "hello big world", "completed"), (1, "hello ", "incomplete")]
)
def test_a_response_stream_has_the_events_of_the_responses_api(limit: int | None, said: str, end: str) -> None:
    body = {"model": "echo", "input": "hello big world", "stream": True, "max_output_tokens": limit}
    _, chunks = send("/responses", body)
    names = [chunk.split(b"\n")[0].removeprefix(b"event: ").decode() for chunk in chunks]
    events = [valid(ResponseStreamEvent, event) for event in stream("/responses", body)]
    assert names == [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{end}",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == said
    assert events[-1].response.output_text == said


REFUSED = [
    ("/chat/completions", b"{", None),
    ("/chat/completions", b"[]", None),
    ("/chat/completions", b'{"messages":[]}', "messages"),
    ("/chat/completions", b'{"messages":"hi"}', "messages"),
    ("/chat/completions", b'{"messages":[{"role":"user","content":"x"}],"n":0}', "n"),
    ("/chat/completions", b'{"messages":[{"role":"user","content":"x"}],"max_tokens":"many"}', "max_tokens"),
    ("/completions", b'{"prompt":{}}', "prompt"),
    ("/embeddings", b"{}", "input"),
    ("/embeddings", b'{"input":[]}', "input"),
    ("/embeddings", b'{"input":[1,"a"]}', "input"),
    ("/embeddings", b'{"input":"a","encoding_format":"hex"}', "encoding_format"),
    ("/embeddings", b'{"input":"a","dimensions":100000}', "dimensions"),
    ("/responses", b"{}", "input"),
]


@pytest.mark.parametrize(("path", "body", "param"), REFUSED)
def test_what_openai_would_refuse_is_refused_in_its_words(path: str, body: bytes, param: str | None) -> None:
    response, chunks = send(path, body)
    assert response.status_code == 400
    error = json.loads(b"".join(chunks))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/images/generations"), ("GET", "/chat/completions"), ("POST", "")]
)
def test_any_other_path_is_not_found(method: str, path: str) -> None:
    response, chunks = send(path, b"{}", method=method)
    assert response.status_code == 404
    assert json.loads(b"".join(chunks))["error"]["message"] == f"Invalid URL ({method} /v1{path})"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["/chat/completions", "/completions", "/embeddings", "/responses"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["messages", "content", "role", "text", "type", "input", "prompt", "stream", "n", "stream_options",
                     "metadata", "model", "max_tokens", "tools", "instructions"]
                ),
                inner | st.sampled_from(["user", "text", True, 1]),
                max_size=5,
            )
        ),
        max_leaves=12,
    ),
)  # fmt: skip
def test_no_json_whatsoever_breaks_it(path: str, body: Any) -> None:
    response, chunks = send(path, body)
    assert response.status_code in {200, 400}
    assert chunks


def test_a_streamed_request_body_is_read() -> None:
    async def pieces() -> Any:
        content = json.dumps({"model": "echo", "messages": HELLO}).encode()
        yield content[:10]
        yield content[10:]

    async def main() -> None:
        request = build_request("POST", httpx.URL(f"{BASE}/chat/completions"), [], pieces())
        response = await transport().handle_async_request(request)
        assert response.status_code == 200

    asyncio.run(main())
