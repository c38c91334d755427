"""Promises that every dialect keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelgw.dialects.facts import NOTHING
from otelgw.dialects.registry import DIALECTS, Dialect, dialect
from tests.dialects import wire
from tests.dialects.conventions import check_attributes, check_content

NAMES = st.sampled_from(
    [
        *("model", "messages", "role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id"),
        *("choices", "delta", "message", "index", "finish_reason", "usage", "prompt_tokens", "input", "output", "item"),
        *("response", "error", "image_url", "url", "metadata", "tools", "audio", "data", "status", "output_index"),
        *("prompt", "summary", "reasoning", "stop", "n", "stream", "top_k", "seed", "conversation", "instructions"),
        *("code", "tags", "user", "custom", "refusal", "reasoning_content", "summary_index", "content_index"),
    ]
)
WORDS = st.sampled_from(
    [
        *("text", "image_url", "file", "tool", "assistant", "message", "function_call", "reasoning", "web_search_call"),
        *("response.output_text.delta", "response.completed", "response.output_item.done", "error", "stop", "blob", ""),
        *("thinking", "input_audio", "refusal", "data:x;base64,AAAA", "https://u:p@h/?key=1", "{}", "\ud800"[:0], "é"),
    ]
)
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.just(2**80) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


@pytest.fixture(params=sorted(DIALECTS))
def reader(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def test_a_name_that_is_no_dialect_reads_nothing() -> None:
    unknown = dialect("klingon")
    assert unknown.read_request(b"{}") is NOTHING
    assert unknown.read_response(b"{}", wire.JSON, stream=False) is NOTHING


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.binary(max_size=60),
    st.sampled_from(["", wire.JSON, wire.SSE, "multipart/form-data; boundary=x", "text/plain"]),
)
def test_no_bytes_make_a_dialect_raise(reader: Dialect, body: bytes, tail: bytes, content_type: str) -> None:
    reader.read_request(body, content_type, tail=tail)
    for stream in (True, False):
        reader.read_response(body, content_type, stream=stream, tail=tail)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.dictionaries(NAMES, HOSTILE, max_size=6), st.lists(st.dictionaries(NAMES, HOSTILE, max_size=5), max_size=4))
def test_json_of_the_wrong_shape_gives_valid_content_or_none(
    reader: Dialect, document: dict[str, Any], chunks: list[dict[str, Any]]
) -> None:
    body = json.dumps(document).encode()
    for facts in (
        reader.read_request(body, wire.JSON),
        reader.read_response(body, wire.JSON, stream=False),
        reader.read_response(wire.stream(*chunks), wire.SSE, stream=True),
    ):
        check_content(dict(facts.content))
        check_attributes(dict(facts.attributes))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["chat_azure.sse", "chat_tools.sse", "responses.sse", "completions.sse"]), st.integers(0, 4000))
def test_a_stream_cut_anywhere_gives_valid_content(reader: Dialect, name: str, cut: int) -> None:
    facts = reader.read_response(wire.answer(name)[:cut], wire.SSE, stream=True)
    check_content(dict(facts.content))
    check_attributes(dict(facts.attributes))
