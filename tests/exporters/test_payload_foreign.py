"""Payloads of what other instrumentations recorded, from spans captured in their own runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from otelgw_exporters import payload, semconv
from tests.exporters import samples
from tests.exporters.instrumented import LIBRARIES, MESSAGES, captured, scenarios
from tests.exporters.test_payload import check, whole

CASES = [(library, scenario) for library in LIBRARIES for scenario in scenarios(library)]
OPENAI = next(name for name in LIBRARIES if name.startswith("opentelemetry-"))
OPENINFERENCE = next(name for name in LIBRARIES if name.startswith("openinference-"))
FLATTENED, MODERN = sorted(name for name in LIBRARIES if name.startswith("openllmetry-"))


def payload_of(library: str, scenario: str) -> dict[str, Any]:
    (call,) = payload.calls([captured(library, scenario)])
    return whole(call)


@pytest.mark.parametrize(("library", "scenario"), CASES)
def test_every_captured_span_is_a_call_with_a_valid_payload(library: str, scenario: str) -> None:
    found = payload_of(library, scenario)
    check(found)
    assert found["id"] == found["otelgw"]["trace_id"] + "-" + found["otelgw"]["span_id"]
    assert found["custom_llm_provider"] == "openai"
    assert found["response_time"] == 0.25
    assert found["otelgw"]["service_name"] == "app"
    assert found["status"] == ("failure" if scenario == "failure" else "success")


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != OPENAI])
def test_the_messages_are_those_that_the_library_was_given(library: str) -> None:
    assert payload_of(library, "chat")["messages"] == MESSAGES


def test_what_the_openai_instrumentation_leaves_out_is_all_that_is_missing() -> None:
    found = payload_of(OPENAI, "chat")["messages"]
    assert found == [MESSAGES[0], {"role": "user", "content": ""}, *MESSAGES[2:]]


@pytest.mark.parametrize("library", LIBRARIES)
def test_answer_usage_and_parameters_are_there(library: str) -> None:
    found = payload_of(library, "chat")
    assert found["response"]["object"] == "chat.completion"
    assert found["response"]["id"] == "chatcmpl-scripted"
    (choice,) = found["response"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("echo: thanks", "stop")
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == (9, 4, 13)
    assert found["otelgw"]["usage_source"] == "provider"
    asked = {"temperature": 0.2, "max_tokens": 64, "top_p": 0.9, "frequency_penalty": 0.5}
    assert found["model_parameters"].items() >= asked.items()
    assert found["response_cost"] == pytest.approx(6.25e-05)
    assert found["otelgw"]["cost_source"] == "genai-prices"
    assert found["cost_breakdown"]["input_cost"] + found["cost_breakdown"]["output_cost"] == pytest.approx(6.25e-05)


@pytest.mark.parametrize("library", LIBRARIES)
def test_tool_calls_come_as_openai_has_them(library: str) -> None:
    (choice,) = payload_of(library, "tools")["response"]["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call == {
        "id": "call_0",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != OPENAI])
def test_a_stream_is_one_answer_and_tools_are_parameters(library: str) -> None:
    streamed = payload_of(library, "stream")
    assert streamed["stream"] is True
    assert streamed["response"]["object"] == "chat.completion"
    assert streamed["response"]["choices"][0]["message"]["content"] == "echo: say hello"
    (tool,) = payload_of(library, "tools")["model_parameters"]["tools"]
    assert (tool["type"], tool["function"]["name"]) == ("function", "weather")
    assert tool["function"]["parameters"] == {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_failure_has_its_status_and_its_exception(library: str) -> None:
    information = payload_of(library, "failure")["error_information"]
    assert information["error_code"] == "429"
    assert information["error_class"] == "RateLimitError"
    assert "Rate limit reached" in information["error_message"]


def test_openinference_keeps_the_apis_json_and_so_does_the_payload() -> None:
    for scenario in ("chat", "embeddings", "completion", "responses"):
        attributes = scenarios(OPENINFERENCE)[scenario]["attributes"]
        found = payload_of(OPENINFERENCE, scenario)
        asked = json.loads(attributes["input.value"])
        assert found["response"] == json.loads(attributes["output.value"])
        assert asked.keys() - found["model_parameters"].keys() <= {
            "model",
            "messages",
            "input",
            "prompt",
            "instructions",
        }
    assert payload_of(OPENINFERENCE, "responses")["call_type"] == "aresponses"
    assert payload_of(OPENINFERENCE, "embeddings")["call_type"] == "aembedding"
    assert payload_of(OPENINFERENCE, "completion")["call_type"] == "atext_completion"


@pytest.mark.parametrize("library", [OPENINFERENCE, FLATTENED, MODERN])
def test_texts_to_embed_are_messages(library: str) -> None:
    found = payload_of(library, "embeddings")["messages"]
    assert found == [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]


@pytest.mark.parametrize("library", [OPENINFERENCE, FLATTENED, MODERN])
def test_a_prompt_and_its_completion_are_texts(library: str) -> None:
    found = payload_of(library, "completion")
    assert found["messages"] == [{"role": "user", "content": "hello"}]
    assert found["response"]["object"] == "text_completion"
    assert found["response"]["choices"][0]["text"] == "hello there"


def test_the_end_user_of_an_application_is_no_owner_of_a_key() -> None:
    for library in (OPENINFERENCE, FLATTENED, MODERN):
        found = payload_of(library, "chat")
        assert found["end_user"] == "u-1"
        assert found["metadata"]["user_api_key_user_id"] is None


def test_agents_tools_and_http_spans_are_no_calls_and_do_no_harm() -> None:
    spans = [
        samples.span(1, {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}, kind=SpanKind.INTERNAL),
        samples.span(2, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}, kind=SpanKind.INTERNAL),
        samples.span(3, {"openinference.span.kind": "TOOL", "input.value": "x"}, kind=SpanKind.INTERNAL),
        samples.span(4, {"http.request.method": "POST"}, kind=SpanKind.CLIENT),
        samples.generation(5),
    ]
    (call,) = payload.calls(spans)
    assert call.positions == (4,)


def test_messages_as_json_text_are_read_as_well() -> None:
    (call,) = payload.calls([semconv.json_string(samples.generation(5, text="what is a canary"))])
    found = whole(call)
    assert found["messages"] == [{"role": "user", "content": "what is a canary"}]
    assert found["otelgw"]["parent_span_id"] == f"{1:016x}"
