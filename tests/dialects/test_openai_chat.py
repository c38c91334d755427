from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from otelgw.dialects.facts import Facts, Usage
from otelgw.dialects.openai_chat import read_request, read_response
from tests.dialects import wire
from tests.dialects.conventions import OLDER, check_attributes, check_content


def whole(name: str) -> Facts:
    return read_response(wire.answer(name), wire.JSON, stream=False)


def streamed(name: str) -> Facts:
    return read_response(wire.answer(name), wire.SSE, stream=True)


def output(facts: Facts) -> Any:
    return facts.content["gen_ai.output.messages"]


def test_request_parameters_become_attributes_of_the_conventions_types() -> None:
    facts = read_request(wire.request("chat_tools.json"), wire.JSON)
    check_attributes(dict(facts.attributes))
    assert facts.attributes == {
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": -0.5,
        "gen_ai.request.stop_sequences": ["END", "\n\n"],
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.output.type": "json",
        "openai.request.service_tier": "auto",
        "openai.api.type": "chat_completions",
        "user.id": "end-user-1",
        "session.id": "s-1",
        "otelgw.tags": ["blue", "green"],
        "otelgw.metadata.feature": "search",
    }
    assert isinstance(facts.attributes["gen_ai.request.temperature"], float)


def test_request_messages_have_the_conventions_shape() -> None:
    facts = read_request(wire.request("chat_tools.json"), wire.JSON)
    check_content(dict(facts.content))
    check_content(dict(facts.content), OLDER)
    messages = facts.content["gen_ai.input.messages"]
    assert [message["role"] for message in messages] == [
        *("system", "developer", "user", "assistant", "tool", "tool", "assistant", "assistant")
    ]
    assert messages[2]["name"] == "ada"
    assert messages[2]["parts"][1:] == [
        {"type": "uri", "modality": "image", "uri": "https://files.example/cat.png?X-Amz-Signature=REDACTED&w=2"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBORw0KGgo="},
        {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "UklGRg=="},
        {"type": "file", "modality": "document", "file_id": "file-abc"},
        {
            "type": "blob",
            "modality": "document",
            "mime_type": "application/pdf",
            "content": "JVBERg==",
            "filename": "a.pdf",
        },
    ]
    assert messages[3]["parts"] == [
        {"type": "reasoning", "content": "I should look at the weather."},
        {"type": "tool_call", "id": "call_1", "name": "get_weather", "arguments": {"city": "Paris"}},
        {"type": "tool_call", "id": "call_2", "name": "shell", "arguments": "ls -l"},
    ]
    assert messages[4]["parts"] == [{"type": "tool_call_response", "id": "call_1", "response": "rainy, 14 C"}]
    assert messages[6]["parts"] == [{"type": "refusal", "content": "I cannot describe people."}]
    assert messages[7]["parts"] == [{"type": "file", "modality": "audio", "file_id": "audio_1"}]
    tools = facts.content["gen_ai.tool.definitions"]
    assert [(tool["type"], tool["name"]) for tool in tools] == [("function", "get_weather"), ("custom", "shell")]
    assert tools[0]["parameters"]["required"] == ["city"]


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("n", 1, "gen_ai.request.choice.count", None),
        ("stream", False, "gen_ai.request.stream", None),
        ("stop", "END", "gen_ai.request.stop_sequences", ["END"]),
        ("stop", [], "gen_ai.request.stop_sequences", None),
        ("top_k", 40, "gen_ai.request.top_k", 40),
        ("top_logprobs", 5, "gen_ai.request.top_k", None),
        ("max_tokens", 12.0, "gen_ai.request.max_tokens", 12),
        ("max_tokens", "12", "gen_ai.request.max_tokens", None),
        ("max_tokens", True, "gen_ai.request.max_tokens", None),
        ("seed", 2**70, "gen_ai.request.seed", None),
        ("temperature", 1, "gen_ai.request.temperature", 1.0),
        ("modalities", ["text", "audio"], "gen_ai.output.type", "speech"),
        ("response_format", {"type": "text"}, "gen_ai.output.type", "text"),
        ("response_format", {"type": "grammar"}, "gen_ai.output.type", None),
        ("reasoning", {"effort": "high"}, "gen_ai.request.reasoning.level", "high"),
    ],
)
def test_a_parameter_is_recorded_only_as_what_it_is(field: str, value: Any, attribute: str, expected: Any) -> None:
    facts = read_request(json.dumps({"model": "m", "messages": [], field: value}).encode(), wire.JSON)
    assert facts.attributes.get(attribute) == expected


def test_an_answer_gives_ids_usage_and_reason() -> None:
    facts = whole("chat_openai.json")
    check_attributes(dict(facts.attributes))
    assert facts.attributes == {
        "gen_ai.response.id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.finish_reasons": ["stop"],
        "openai.response.service_tier": "default",
        "openai.response.system_fingerprint": "fp_fc9f1d7035",
    }
    assert facts.usage == Usage(input=1117, output=46, cache_read=1024, reasoning=12, audio_input=0, audio_output=0)
    assert not facts.error_type
    assert facts.complete


def test_choices_come_in_index_order_each_with_its_reason() -> None:
    facts = whole("chat_choices.json")
    check_content(dict(facts.content))
    check_content(dict(facts.content), OLDER)
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["tool_calls", "content_filter", "error"]
    assert [message["finish_reason"] for message in output(facts)] == ["tool_call", "content_filter", "error"]
    assert output(facts)[0]["parts"] == [
        {"type": "reasoning", "content": "Two calls are needed."},
        {"type": "tool_call", "id": "call_a", "name": "get_weather", "arguments": {"city": "Paris"}},
        {"type": "tool_call", "id": "call_b", "name": "get_time", "arguments": "not json"},
    ]
    assert output(facts)[1]["parts"] == [{"type": "refusal", "content": "I cannot help with that."}]
    assert output(facts)[2]["parts"] == [
        {"type": "blob", "modality": "audio", "content": "UklGRg==", "transcript": "Hello there."}
    ]
    assert facts.usage is not None
    assert (facts.usage.audio_input, facts.usage.audio_output) == (10, 15)


def test_vllm_nulls_are_absent_not_zero() -> None:
    facts = whole("chat_vllm.json")
    assert facts.usage == Usage(input=17, output=53)
    assert "openai.response.service_tier" not in facts.attributes
    assert output(facts)[0]["parts"] == [
        {"type": "reasoning", "content": "2+2 is 4."},
        {"type": "text", "content": "4"},
    ]


def test_a_cost_that_the_provider_reports_is_kept() -> None:
    assert whole("chat_openrouter.json").usage == Usage(
        input=12, output=5, cache_read=3, cache_write=4, reasoning=0, cost=0.000111
    )


def test_azure_first_chunk_without_names_does_not_name_the_answer() -> None:
    facts = streamed("chat_azure.sse")
    check_content(dict(facts.content))
    assert facts.attributes["gen_ai.response.id"] == "chatcmpl-az1"
    assert facts.attributes["gen_ai.response.model"] == "gpt-4o-2024-11-20"
    assert facts.attributes["openai.response.system_fingerprint"] == "fp_az"
    assert facts.usage == Usage(input=9, output=2)
    assert output(facts) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hallo"}], "finish_reason": "stop"}
    ]
    assert facts.complete


def test_streamed_tool_calls_are_put_together_by_index() -> None:
    facts = streamed("chat_tools.sse")
    check_content(dict(facts.content))
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert output(facts)[0]["parts"] == [
        {"type": "tool_call", "id": "call_a", "name": "get_weather", "arguments": {"city": "Paris"}},
        {"type": "tool_call", "id": "call_b", "name": "get_time", "arguments": {}},
    ]
    assert facts.usage is not None
    assert (facts.usage.input, facts.usage.output) == (81, 34)


def delta(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}, **fields}]}


@pytest.mark.parametrize(
    "chunks",
    [
        # Gemini's endpoint: every parallel call whole, all with index 0 or none at all.
        [
            delta({"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}),
            delta({"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ],
        [
            delta({"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}),
            delta({"id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ],
        # Older vLLM: a new id with every delta.
        [
            delta({"index": 0, "id": "a", "function": {"name": "f"}}),
            delta({"index": 0, "id": "zzz", "function": {"arguments": '{"x"'}}),
            delta({"index": 0, "id": "yyy", "function": {"arguments": ":1}"}}),
            delta({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}),
        ],
    ],
)
def test_tool_calls_of_servers_that_number_them_badly_are_told_apart(chunks: list[Any]) -> None:
    facts = read_response(wire.stream(*chunks), wire.SSE, stream=True)
    assert output(facts)[0]["parts"] == [
        {"type": "tool_call", "id": "a", "name": "f", "arguments": {"x": 1}},
        {"type": "tool_call", "id": "b", "name": "g", "arguments": {}},
    ]


def test_an_error_in_the_middle_of_a_stream_is_the_answers_error() -> None:
    facts = streamed("chat_error_midway.sse")
    assert (facts.error_type, facts.error_message) == ("server_error", "Provider disconnected")
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert output(facts)[0]["parts"] == [{"type": "text", "content": "Hel"}]


def test_a_stream_cut_before_its_reason_ends_with_error() -> None:
    body = wire.answer("chat_azure.sse")
    facts = read_response(body[: body.index(b'"lo"') + 2], wire.SSE, stream=True)
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert output(facts)[0]["parts"] == [{"type": "text", "content": "Hal"}]
    assert facts.usage is None
    assert not facts.complete


def test_a_stream_with_its_middle_missing_still_has_names_usage_and_reason() -> None:
    body = wire.answer("chat_azure.sse")
    facts = read_response(body[:500], wire.SSE, stream=True, tail=body[-600:])
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert facts.usage == Usage(input=9, output=2)
    assert facts.complete


def test_an_answer_with_its_middle_missing_still_has_names_usage_and_reason() -> None:
    answer = json.loads(wire.answer("chat_openai.json"))
    answer["choices"][0]["message"]["content"] = "word " * 1000
    body = json.dumps(answer).encode()
    facts = read_response(body[:600], wire.JSON, stream=False, tail=body[-600:])
    check_content(dict(facts.content))
    assert facts.attributes["gen_ai.response.id"] == answer["id"]
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert facts.usage is not None
    assert facts.usage.input == 1117
    assert output(facts)[0]["parts"][0]["content"].startswith("word word")
    assert not facts.complete


def test_a_reason_in_the_missing_middle_is_not_called_an_error() -> None:
    answer = json.loads(wire.answer("chat_choices.json"))
    answer["choices"][1]["message"]["content"] = "word " * 1000
    body = json.dumps(answer).encode()
    facts = read_response(body[:700], wire.JSON, stream=False, tail=body[-300:])
    assert "gen_ai.response.finish_reasons" not in facts.attributes
    assert output(facts)[0]["finish_reason"] == "unknown"


def test_a_cut_request_keeps_what_stands_whole_on_both_sides() -> None:
    picture = "data:image/png;base64," + "A" * 5000
    content = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": picture}}]
    body = json.dumps(
        {"messages": [{"role": "user", "content": content}], "model": "gpt-4o", "temperature": 0.5}
    ).encode()
    facts = read_request(body[:2000], wire.JSON, tail=body[-400:])
    check_content(dict(facts.content))
    assert facts.attributes["gen_ai.request.model"] == "gpt-4o"
    assert facts.attributes["gen_ai.request.temperature"] == 0.5
    assert facts.content["gen_ai.input.messages"][0]["parts"][0] == {"type": "text", "content": "look"}
    assert not facts.complete


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}',
            "rate_limit_exceeded",
        ),
        (b'[{"error":{"code":400,"message":"slow down","status":"INVALID_ARGUMENT"}}]', "400"),
        (b'{"object":"error","message":"slow down","type":"BadRequestError","code":null}', "BadRequestError"),
        (b'{"error":"slow down","error_type":"overloaded"}', "overloaded"),
        (b'{"error":"slow down"}', "_OTHER"),
        (b'{"detail":"slow down"}', "_OTHER"),
        (b'{"error":{"message":"slow down","code":"a b c"}}', "_OTHER"),
    ],
)
def test_errors_are_read_in_every_providers_shape(body: bytes, expected: str) -> None:
    facts = read_response(body, wire.JSON, stream=True)
    assert (facts.error_type, facts.error_message) == (expected, "slow down")


def test_a_long_error_message_is_cut_to_one_kibibyte() -> None:
    facts = read_response(
        json.dumps({"error": {"message": "é" * 5000}}, ensure_ascii=False).encode(), wire.JSON, stream=False
    )
    assert len(facts.error_message.encode()) == 1024


TEXT = st.text(max_size=20)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.uuids().map(str),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {
                    "name": st.text("abc", min_size=1, max_size=5),
                    "arguments": st.dictionaries(TEXT, TEXT, max_size=3).map(json.dumps),
                }
            ),
        }
    ),
    min_size=1,
    max_size=3,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={"refusal": TEXT, "reasoning_content": TEXT, "tool_calls": CALLS},
)


def pieces(data: st.DataObject, text: str) -> list[str]:
    cut = data.draw(st.integers(0, len(text)))
    return [text[:cut], text[cut:]]


def deltas_of(data: st.DataObject, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return ``message`` as a provider would stream it, in pieces at arbitrary places."""
    found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for field in ("reasoning_content", "content", "refusal"):
        if message.get(field):
            found += [{field: piece} for piece in pieces(data, message[field])]
    for index, call in enumerate(message.get("tool_calls", ())):
        first, rest = pieces(data, call["function"]["arguments"])
        start = {"name": call["function"]["name"], "arguments": first}
        found.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": start}]})
        found.append({"tool_calls": [{"index": index, "function": {"arguments": rest}}]})
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(MESSAGES, st.sampled_from(["stop", "tool_calls", "length"])), min_size=1, max_size=3), st.data()
)
def test_merged_deltas_equal_the_message_that_is_not_streamed(
    choices: list[tuple[dict[str, Any], str]], data: st.DataObject
) -> None:
    names = {"id": "c-1", "model": "m-1"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    answered = [{"index": i, "message": m, "finish_reason": reason} for i, (m, reason) in enumerate(choices)]
    answer = json.dumps({**names, "choices": answered, "usage": usage}).encode()
    queues = [
        [{"index": i, "delta": delta, "finish_reason": None} for delta in deltas_of(data, message)]
        + [{"index": i, "delta": {}, "finish_reason": reason}]
        for i, (message, reason) in enumerate(choices)
    ]
    chunks: list[Any] = []
    while any(queues):
        queue = data.draw(st.sampled_from([queue for queue in queues if queue]))
        chunks.append({**names, "choices": [queue.pop(0)], "usage": None})
    chunks.append({**names, "choices": [], "usage": usage})
    streamed = read_response(wire.stream(*chunks), wire.SSE, stream=True)
    assert replace(streamed, answer=None) == read_response(answer, wire.JSON, stream=False)
    assert streamed.answer is not None
    assert streamed.answer | {"choices": []} == {**names, "object": "chat.completion", "choices": [], "usage": usage}
    assert list(map(said_in, streamed.answer["choices"])) == list(map(said_in, answered))


def said_in(choice: dict[str, Any]) -> dict[str, Any]:
    """Return ``choice`` without what a stream does not tell from nothing: an empty text."""
    return choice | {"message": {key: value for key, value in choice["message"].items() if value}}


def test_a_streamed_answer_keeps_what_is_not_known_here() -> None:
    chunks: list[Any] = [
        {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {
            "id": "c-1",
            "model": "m-1",
            "created": 1700000000,
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": "assistant", "content": "a", "annotations": [1]},
                    "logprobs": {"content": [{"token": "a"}], "refusal": None},
                }
            ],
            "citations": ["https://example.com"],
        },
        {
            "id": "",
            "model": "",
            "created": 0,
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": "b", "annotations": [2]},
                    "logprobs": {"content": [{"token": "b"}], "refusal": None},
                    "finish_reason": "stop",
                    "native_finish_reason": "STOP",
                }
            ],
        },
    ]
    assert read_response(wire.stream(*chunks), wire.SSE, stream=True).answer == {
        "id": "c-1",
        "model": "m-1",
        "created": 1700000000,
        "object": "chat.completion",
        "prompt_filter_results": [{"prompt_index": 0}],
        "citations": ["https://example.com"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "annotations": [1, 2]},
                "finish_reason": "stop",
                "logprobs": {"content": [{"token": "a"}, {"token": "b"}], "refusal": None},
                "native_finish_reason": "STOP",
            }
        ],
    }


def test_streamed_audio_padded_in_every_piece_is_one_valid_blob() -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "audio": {"id": "a1", "transcript": "He"}}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"data": "UklG", "transcript": "y"}}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"data": "Rg=="}}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"data": "AAA="}}, "finish_reason": "stop"}]},
    ]
    facts = read_response(wire.stream(*chunks), wire.SSE, stream=True)
    assert output(facts)[0]["parts"] == [
        {"type": "blob", "modality": "audio", "content": "UklGRgAA", "transcript": "Hey"}
    ]


def test_mistral_content_streamed_as_parts_is_joined_by_kind() -> None:
    def think(text: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}

    deltas = [{"content": [think("Let ")]}, {"content": [think("me see.")]}, {"content": "Fo"}, {"content": "ur."}]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    facts = read_response(wire.stream(*chunks), wire.SSE, stream=True)
    assert output(facts)[0]["parts"] == [
        {"type": "reasoning", "content": "Let me see."},
        {"type": "text", "content": "Four."},
    ]
