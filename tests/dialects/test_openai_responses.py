from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from otelgw.dialects.facts import Usage
from otelgw.dialects.openai_responses import read_request, read_response
from tests.dialects import wire
from tests.dialects.conventions import OLDER, check_attributes, check_content


def test_request_parameters_instructions_and_items_are_read() -> None:
    facts = read_request(wire.request("responses.json"), wire.JSON)
    check_attributes(dict(facts.attributes))
    check_content(dict(facts.content))
    check_content(dict(facts.content), OLDER)
    assert facts.attributes == {
        "gen_ai.request.model": "gpt-5",
        "gen_ai.request.max_tokens": 300,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.reasoning.level": "medium",
        "gen_ai.request.previous_response.id": "resp_0",
        "gen_ai.conversation.id": "conv_1",
        "gen_ai.output.type": "json",
        "gen_ai.prompt.name": "pmpt_1",
        "gen_ai.prompt.version": "2",
        "openai.request.service_tier": "flex",
        "openai.api.type": "responses",
        "otelgw.metadata.feature": "loan",
        "user.id": "reader-7",
    }
    assert facts.content["gen_ai.system_instructions"] == [{"type": "text", "content": "You are a librarian."}]
    messages = facts.content["gen_ai.input.messages"]
    assert [message["role"] for message in messages] == ["user", "user", "assistant", "assistant", "tool", "assistant"]
    assert [part["type"] for part in messages[1]["parts"]] == ["text", "uri", "file", "file"]
    assert messages[2]["parts"] == [{"type": "reasoning", "content": "Looking it up."}]
    assert messages[3]["parts"][0]["arguments"] == {"title": "Emma"}
    assert messages[4]["parts"] == [{"type": "tool_call_response", "id": "call_1", "response": "shelf 3"}]


def test_no_credential_of_a_tool_definition_is_recorded() -> None:
    facts = read_request(wire.request("responses.json"), wire.JSON)
    assert "canary" not in json.dumps([dict(facts.content), dict(facts.attributes)])
    assert facts.content["gen_ai.tool.definitions"][1:] == [
        {"type": "web_search", "name": "web_search"},
        {"type": "mcp", "name": "shelves", "server_label": "shelves"},
    ]


def test_an_answer_is_one_message_of_all_its_items() -> None:
    facts = read_response(wire.answer("responses.json"), wire.JSON, stream=False)
    check_attributes(dict(facts.attributes))
    check_content(dict(facts.content))
    assert facts.attributes == {
        "gen_ai.response.id": "resp_67ccd2bed1ec8190",
        "gen_ai.response.model": "gpt-5-2025-08-07",
        "gen_ai.response.finish_reasons": ["tool_call"],
        "gen_ai.conversation.id": "conv_1",
        "openai.response.service_tier": "flex",
    }
    assert facts.usage == Usage(input=36, output=87, cache_read=5, reasoning=40)
    (message,) = facts.content["gen_ai.output.messages"]
    assert [part["type"] for part in message["parts"]] == [
        *(
            "reasoning",
            "server_tool_call",
            "server_tool_call",
            "server_tool_call_response",
            "text",
            "refusal",
            "tool_call",
        )
    ]
    assert message["parts"][2]["server_tool_call"] == {"type": "mcp", "server_label": "shelves", "arguments": {"n": 1}}


def test_the_last_event_of_a_stream_tells_the_response() -> None:
    facts = read_response(wire.answer("responses.sse"), wire.SSE, stream=True)
    check_content(dict(facts.content))
    assert facts.complete
    assert facts.usage == Usage(input=11, output=9, cache_read=0, reasoning=4)
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["tool_call"]
    assert facts.answer is not None
    assert facts.answer["object"] == "response"
    assert read_response(json.dumps(facts.answer).encode(), wire.JSON, stream=False) == replace(facts, answer=None)


def test_a_cut_stream_is_put_together_from_its_deltas() -> None:
    body = wire.answer("responses.sse")
    complete = read_response(body, wire.SSE, stream=True)
    cut = read_response(body[: body.index(b"event: response.completed")], wire.SSE, stream=True)
    check_content(dict(cut.content))
    assert not cut.complete
    assert cut.usage is None
    assert cut.attributes["gen_ai.response.id"] == "resp_s1"
    assert cut.attributes["gen_ai.response.finish_reasons"] == ["error"]
    (expected,) = complete.content["gen_ai.output.messages"]
    (message,) = cut.content["gen_ai.output.messages"]
    assert message["parts"] == expected["parts"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "completed"}, ["stop"]),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, ["length"]),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, ["content_filter"]),
        ({"status": "failed", "error": {"code": "server_error", "message": "x"}}, ["error"]),
        ({"status": "cancelled"}, ["error"]),
        ({"status": "queued", "output": []}, None),
    ],
)
def test_the_status_of_a_response_gives_its_finish_reason(changes: dict[str, Any], expected: Any) -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    body = json.dumps({"id": "r", "output": [item], **changes}).encode()
    assert read_response(body, wire.JSON, stream=False).attributes.get("gen_ai.response.finish_reasons") == expected


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "it broke", "param": None},
        {"type": "error", "error": {"code": "server_error", "message": "it broke"}},
        {
            "type": "response.failed",
            "response": {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "it broke"}},
        },
    ],
)
def test_an_error_event_is_the_answers_error(event: dict[str, Any]) -> None:
    facts = read_response(wire.stream(event, done=False), wire.SSE, stream=True)
    assert (facts.error_type, facts.error_message) == ("server_error", "it broke")
