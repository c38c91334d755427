"""Spans of other instrumentations, as those instrumentations write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Status, StatusCode

from otelgw_exporters.foreign import is_content, is_generation, translated, without_content
from otelgw_exporters.foreign_messages import unflattened

SCHEMAS = Path(__file__).parents[2] / "../shared/semconv/semantic-conventions-genai-2026-08-03"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}

OPENINFERENCE: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.system": "openai",
    "llm.provider": "azure",
    "llm.model_name": "gpt-4o-2024-08-06",
    "llm.invocation_parameters": json.dumps({"model": "gpt-4o", "temperature": 0.5, "max_tokens": 9, "stop": "END"}),
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Be brief.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": "What is it?",
    "llm.input_messages.1.message.contents.1.message_content.type": "image",
    "llm.input_messages.1.message.contents.1.message_content.image.image.url": "data:image/png;base64,AAAA",
    "llm.input_messages.2.message.role": "tool",
    "llm.input_messages.2.message.content": "sunny",
    "llm.input_messages.2.message.tool_call_id": "call_0",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "weather",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"city": "Paris"}',
    "llm.finish_reason": "tool_calls",
    "llm.tools.0.tool.json_schema": json.dumps(
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}
    ),
    "llm.token_count.prompt": 10,
    "llm.token_count.completion": 3,
    "llm.token_count.total": 13,
    "llm.token_count.prompt_details.cache_read": 4,
    "llm.token_count.completion_details.reasoning": 2,
    "llm.cost.total": 0.25,
    "metadata": json.dumps({"tenant": "a"}),
    "tag.tags": ["x", "y"],
    "session.id": "s-1",
    "user.id": "u-1",
}
TRACELOOP: dict[str, Any] = {
    "llm.request.type": "chat",
    "gen_ai.system": "OpenAI",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.request.temperature": 0.5,
    "llm.is_streaming": True,
    "llm.headers": "None",
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be brief.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": json.dumps(
        [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "https://a.example/b"}}]
    ),
    "gen_ai.prompt.2.role": "tool",
    "gen_ai.prompt.2.tool_call_id": "call_0",
    "gen_ai.prompt.2.content": "sunny",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.finish_reason": "tool_calls",
    "gen_ai.completion.0.tool_calls.0.id": "call_1",
    "gen_ai.completion.0.tool_calls.0.name": "weather",
    "gen_ai.completion.0.tool_calls.0.arguments": '{"city": "Paris"}',
    "llm.request.functions.0.name": "weather",
    "llm.request.functions.0.description": "d",
    "llm.request.functions.0.parameters": json.dumps(WEATHER),
    "gen_ai.usage.prompt_tokens": 10,
    "gen_ai.usage.completion_tokens": 3,
    "llm.usage.total_tokens": 13,
    "gen_ai.usage.cache_read_input_tokens": 4,
    "gen_ai.openai.system_fingerprint": "fp_1",
    "traceloop.association.properties.tenant": "a",
    "traceloop.association.properties.user_id": "u-1",
    "traceloop.workflow.name": "w",
}
OTEL: dict[str, Any] = {  # opentelemetry-instrumentation-openai-v2, before and after its change of names
    "gen_ai.operation.name": "chat",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.openai.request.service_tier": "default",
    "gen_ai.openai.request.response_format": "json_schema",
    "gen_ai.openai.request.seed": 7,
    "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"hello"}]}]',
    "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"hi"}],"finish_reason":"stop"}]',
    "server.address": "api.openai.com",
}
SYSTEM = {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]}
RESULT = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_0", "response": "sunny"}]}
CALL = {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Paris"}}
ANSWER = {"role": "assistant", "parts": [CALL], "finish_reason": "tool_calls"}
TOOLS = [{"type": "function", "name": "weather", "description": "d", "parameters": WEATHER}]


def span(attributes: dict[str, Any], *events: Event, **fields: Any) -> ReadableSpan:
    return ReadableSpan("a", attributes=attributes, events=events, **fields)


def told(attributes: dict[str, Any], *events: Event) -> dict[str, Any]:
    return dict(translated(span(attributes, *events)).attributes or {})


def test_a_chat_of_openinference_is_a_generation() -> None:
    found = told(OPENINFERENCE)
    assert found.items() >= OPENINFERENCE.items()
    image = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "AAAA"}
    assert {key: value for key, value in found.items() if key not in OPENINFERENCE} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-4o-2024-08-06",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "gen_ai.usage.cost": 0.25,
        "otelgw.metadata.tenant": "a",
        "otelgw.tags": ["x", "y"],
        "gen_ai.input.messages": [
            SYSTEM,
            {"role": "user", "parts": [{"type": "text", "content": "What is it?"}, image]},
            RESULT,
        ],
        "gen_ai.output.messages": [ANSWER],
        "gen_ai.tool.definitions": TOOLS,
    }
    assert is_generation(translated(span(OPENINFERENCE)))


def test_a_chat_of_openllmetry_is_a_generation() -> None:
    found = told(TRACELOOP)
    assert found.items() >= TRACELOOP.items()
    image = {"type": "uri", "modality": "image", "uri": "https://a.example/b"}
    assert {key: value for key, value in found.items() if key not in TRACELOOP} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "openai.response.system_fingerprint": "fp_1",
        "otelgw.metadata.tenant": "a",
        "otelgw.metadata.user_id": "u-1",
        "user.id": "u-1",
        "gen_ai.input.messages": [
            SYSTEM,
            {"role": "user", "parts": [{"type": "text", "content": "What is it?"}, image]},
            RESULT,
        ],
        "gen_ai.output.messages": [ANSWER],
        "gen_ai.tool.definitions": TOOLS,
    }


def test_a_chat_of_opentelemetrys_own_is_a_generation() -> None:
    found = told(OTEL)
    assert found["gen_ai.provider.name"] == "openai"
    assert found["openai.request.service_tier"] == "default"
    assert (found["gen_ai.output.type"], found["gen_ai.request.seed"]) == ("json", 7)
    assert found["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]
    assert found["gen_ai.output.messages"][0]["finish_reason"] == "stop"


def test_messages_in_span_events_are_read() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    found = told(
        OTEL | {"gen_ai.input.messages": "", "gen_ai.output.messages": "not json"},
        Event("gen_ai.system.message", {"content": "Be brief."}),
        Event("gen_ai.user.message", {"gen_ai.event.content": '{"content": "hello"}'}),
        Event("gen_ai.tool.message", {"content": "sunny", "id": "call_0"}),
        Event("gen_ai.choice", {"finish_reason": "tool_calls", "message": json.dumps({"tool_calls": [call]})}),
        Event("exception", {"exception.message": "no"}),
    )
    user = {"role": "user", "parts": [{"type": "text", "content": "hello"}]}
    assert found["gen_ai.input.messages"] == [SYSTEM, user, RESULT]
    assert found["gen_ai.output.messages"] == [ANSWER]


def test_an_older_form_of_events_is_read() -> None:
    found = told(
        {"gen_ai.system": "openai", "gen_ai.request.model": "m"},
        Event("gen_ai.content.prompt", {"gen_ai.prompt": '[{"role": "user", "content": "hello"}]'}),
        Event("gen_ai.content.completion", {"gen_ai.completion": '[{"role": "assistant", "content": "hi"}]'}),
    )
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]
    assert found["gen_ai.output.messages"][0]["parts"] == [{"type": "text", "content": "hi"}]


def test_completions_and_embeddings_are_generations() -> None:
    completion = told(
        {
            "openinference.span.kind": "LLM",
            "llm.prompts.0.prompt.text": "once",
            "llm.choices.0.completion.text": "upon",
        }
    )
    assert completion["gen_ai.operation.name"] == "text_completion"
    assert completion["gen_ai.output.messages"][0]["parts"] == [{"type": "text", "content": "upon"}]
    embedding = told(
        {
            "openinference.span.kind": "EMBEDDING",
            "embedding.model_name": "e",
            "embedding.embeddings.0.embedding.text": "one",
            "embedding.embeddings.0.embedding.vector": [0.1],
        }
    )
    assert (embedding["gen_ai.operation.name"], embedding["gen_ai.request.model"]) == ("embeddings", "e")
    assert embedding["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": "one"}]}]


def test_what_a_span_says_in_the_newest_words_is_believed() -> None:
    messages = [{"role": "user", "parts": []}]
    found = told(OPENINFERENCE | {"gen_ai.usage.input_tokens": 99, "gen_ai.input.messages": messages})
    assert found["gen_ai.usage.input_tokens"] == 99
    assert found["gen_ai.input.messages"] == messages


@pytest.mark.parametrize(
    "attributes", [{}, {"http.request.method": "GET"}, {"otelgw.call_id": "1", "gen_ai.system": "openai"}]
)
def test_other_spans_and_our_own_stay_the_very_same(attributes: dict[str, Any]) -> None:
    made = span(attributes)
    assert translated(made) is made
    assert not is_generation(made)


@pytest.mark.parametrize(("kind", "is_one"), [("LLM", True), ("EMBEDDING", True), ("TOOL", False), ("CHAIN", False)])
def test_only_calls_of_models_are_generations(kind: str, is_one: bool) -> None:
    assert is_generation(translated(span({"openinference.span.kind": kind}))) is is_one


def test_the_span_that_was_given_is_not_changed() -> None:
    made = span(dict(OPENINFERENCE))
    translated(made)
    assert made.attributes == OPENINFERENCE


@pytest.mark.parametrize("attributes", [OPENINFERENCE, TRACELOOP, OTEL], ids=["openinference", "traceloop", "otel"])
@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the conventions' schemas are not beside the repository")
def test_messages_fit_the_schemas_of_the_conventions(attributes: dict[str, Any]) -> None:
    found = told(attributes)
    for name in ("input-messages", "output-messages", "tool-definitions"):
        schema = json.loads((SCHEMAS / f"gen-ai-{name}.json").read_text())
        value = found.get(f"gen_ai.{name.replace('-', '.')}", [])
        jsonschema.validate(value, schema)


RECORDED = Path(__file__).parent / "foreign"
RECORDINGS = [
    (path.stem, name, recorded)
    for path in sorted(RECORDED.glob("*.json"))
    for name, recorded in json.loads(path.read_text()).items()
]


@pytest.mark.skipif(not RECORDINGS, reason="no instrumentation has been recorded")
def test_every_recorded_call_of_an_instrumentation_is_understood() -> None:
    for instrumentation, name, recorded in RECORDINGS:
        first = recorded[0] if isinstance(recorded, list) else recorded
        made = translated(span(first["attributes"]))
        found: Any = made.attributes
        where = f"{instrumentation} {name}"
        assert is_generation(made), where
        assert found["gen_ai.request.model"], where
        assert found["gen_ai.provider.name"] == "openai", where
        if name not in {"failure", "stream"}:
            assert found["gen_ai.usage.input_tokens"] > 0, where
        if (name, instrumentation.startswith("opentelemetry")) != ("embeddings", True):
            assert found["gen_ai.input.messages"][0]["parts"], where
        if name not in {"failure", "embeddings"}:
            assert found["gen_ai.output.messages"][0]["parts"], where


CANARY = "canary-7f3a"


def _salted(value: Any) -> Any:
    return f"{CANARY} {value}" if isinstance(value, str) else value


@pytest.mark.parametrize("attributes", [OPENINFERENCE, TRACELOOP, OTEL], ids=["openinference", "traceloop", "otel"])
def test_no_vocabulary_carries_content_past_a_destination_without_it(attributes: dict[str, Any]) -> None:
    salted = {
        key: _salted(value) if ".message" in key or is_content(key) else value for key, value in attributes.items()
    }
    assert any(CANARY in str(value) for value in salted.values())
    events = BoundedList.from_seq(None, [Event("gen_ai.user.message", {"content": CANARY, "gen_ai.system": "x"})])
    events.dropped = 3  # type: ignore[attr-defined]
    error = Status(StatusCode.ERROR, CANARY)
    made = ReadableSpan("a", attributes=salted, events=events, status=error)
    bare = without_content(translated(made))
    text = str([bare.attributes, [dict(event.attributes or {}) for event in bare.events], bare.status.description])
    assert CANARY not in text
    assert (bare.attributes or {}).get("gen_ai.request.model", "gpt-4o").startswith("gpt-4o")  # type: ignore[union-attr]
    assert (bare.dropped_events, bare.status.status_code) == (3, StatusCode.ERROR)
    assert CANARY in str(made.attributes)


def test_names_of_templates_are_no_content() -> None:
    assert not is_content("gen_ai.prompt.name")
    assert not is_content("gen_ai.request.model")
    assert is_content("gen_ai.prompt.0.content")
    assert is_content("llm.input_messages.0.message.content")
    assert is_content("langfuse.observation.input")
    assert is_content("mlflow.spanOutputs")
    assert is_content("gcp.vertex.agent.llm_request")
    assert not is_content("gcp.vertex.agent.session_id")
    assert not is_content("langfuse.observation.type")
    assert not is_content("crewai.agent.role")


def test_items_are_put_in_order_whatever_order_they_come_in() -> None:
    assert unflattened({"p.10.a": 3, "p.2.a": 2, "p.0.a.b": 1, "p.x.a": 0, "p.1": 0}, "p") == [
        {"a.b": 1},
        {"a": 2},
        {"a": 3},
    ]


KEYS = st.sampled_from([*OPENINFERENCE, *TRACELOOP, *OTEL])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(
        ['[{"type": 1}]', "[{}]", "[1]", "{}", "null", "[" * 5000, '[{"type":"image_url","image_url":[]}]']
    ),
    st.lists(st.text(max_size=3) | st.integers() | st.dictionaries(st.text(max_size=3), st.integers()), max_size=3),
    st.binary(max_size=4),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
NAMES = st.sampled_from(["gen_ai.user.message", "gen_ai.choice", "gen_ai.content.prompt", "gen_ai.content.completion"])
HELD = st.sampled_from(
    ["content", "message", "tool_calls", "gen_ai.event.content", "gen_ai.prompt", "gen_ai.completion"]
)


@given(st.dictionaries(KEYS, VALUES, max_size=8), st.lists(st.tuples(NAMES, st.dictionaries(HELD, VALUES)), max_size=2))
def test_no_span_breaks_the_translation(attributes: dict[str, Any], events: list[tuple[str, dict[str, Any]]]) -> None:
    made = span(attributes, *(Event(name, held) for name, held in events))
    found = translated(made)
    is_generation(found)
    without_content(found)
    assert (found.attributes or {}).items() >= {
        key: value for key, value in attributes.items() if not isinstance(value, str) and value == value
    }.items()
