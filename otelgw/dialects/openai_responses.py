"""OpenAI's Responses API: create (streamed and not) and retrieve."""

from __future__ import annotations

from typing import Any

import msgspec

from otelgw.dialects import document, labels, parts, sse, tools
from otelgw.dialects.choices import ERROR
from otelgw.dialects.facts import NOTHING, Facts
from otelgw.dialects.failure import NO_FAILURE, Failure, read_failure
from otelgw.dialects.fields import (
    RESPONSE,
    Table,
    count,
    flag,
    integer,
    mapping,
    mappings,
    number,
    string,
    taken,
)
from otelgw.dialects.response_events import StreamedResponse
from otelgw.dialects.response_items import calls_a_tool, input_message, item_parts
from otelgw.dialects.usage import read_usage
from otelgw_exporters import semconv

__all__ = ["read_request", "read_response"]

_REQUEST: Table = (
    ("model", semconv.GEN_AI_REQUEST_MODEL, string),
    ("max_output_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, count),
    ("temperature", semconv.GEN_AI_REQUEST_TEMPERATURE, number),
    ("top_p", semconv.GEN_AI_REQUEST_TOP_P, number),
    ("seed", semconv.GEN_AI_REQUEST_SEED, integer),  # not OpenAI's; servers that imitate it
    ("stream", semconv.GEN_AI_REQUEST_STREAM, flag),
    ("service_tier", semconv.OPENAI_REQUEST_SERVICE_TIER, string),
    ("previous_response_id", semconv.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, string),
)
_PROMPT: Table = (
    ("id", semconv.GEN_AI_PROMPT_NAME, string),
    ("version", semconv.GEN_AI_PROMPT_VERSION, string),
)
_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}
_INCOMPLETE = {"max_output_tokens": "length", "max_tokens": "length", "content_filter": "content_filter"}
_UNFINISHED = ("queued", "in_progress")
_FAILED = ("failed", "cancelled")


def read_request(body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts:  # noqa: ARG001
    """Return the parameters, instructions and input items of a request."""
    request, whole = document.load(body, tail)
    if not isinstance(request, dict):
        return NOTHING
    attributes = taken(request, _REQUEST) | taken(mapping(request.get("prompt")), _PROMPT)
    attributes[semconv.OPENAI_API_TYPE] = "responses"
    effort = string(mapping(request.get("reasoning")).get("effort"))
    if effort:
        attributes[semconv.GEN_AI_REQUEST_REASONING_LEVEL] = effort
    kind = string(mapping(mapping(request.get("text")).get("format")).get("type"))
    if kind in _OUTPUT_TYPES:
        attributes[semconv.GEN_AI_OUTPUT_TYPE] = _OUTPUT_TYPES[kind]
    conversation = _conversation(request)
    if conversation:
        attributes[semconv.GEN_AI_CONVERSATION_ID] = conversation
    attributes |= labels.from_request(request)
    content = {
        semconv.GEN_AI_SYSTEM_INSTRUCTIONS: _instructions(request.get("instructions")),
        semconv.GEN_AI_INPUT_MESSAGES: _input(request.get("input")),
        semconv.GEN_AI_TOOL_DEFINITIONS: tools.definitions(request),
    }
    return Facts(attributes, {key: value for key, value in content.items() if value}, complete=whole)


def _conversation(holder: dict[str, Any]) -> str | None:
    given = holder.get("conversation")
    return string(given) or string(mapping(given).get("id"))


def _instructions(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, list):  # as an answer repeats them
        return [part for item in mappings(given) for part in item_parts(item)]
    return parts.from_content(given)


def _input(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "parts": [parts.text(given)]}] if given else []
    return [input_message(item) for item in mappings(given)]


def read_response(body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts:
    """Return what an answer says of itself, and its items as one message."""
    if sse.is_stream(content_type, stream):
        return _read_stream(body, tail)
    answer, whole = document.load(body, tail)
    if not isinstance(answer, dict):
        failure = read_failure(answer)
        return Facts(error_type=failure.type, error_message=failure.message, complete=whole)
    return _facts(answer, read_failure(answer), ended=whole, cut=bool(tail))


def _read_stream(body: bytes, tail: bytes) -> Facts:
    streamed = StreamedResponse()
    failure = NO_FAILURE
    for event in sse.events(body, tail):
        data = document.value_of(event.data)
        if not isinstance(data, dict):
            continue
        if not string(data.get("type")) and event.type:
            data["type"] = event.type.decode("utf-8", "replace")
        streamed.add(data)
        if data.get("type") == "error" or isinstance(data.get("error"), dict):
            failure = read_failure(data)
    answer = streamed.response()
    facts = _facts(answer, failure if failure.type else read_failure(answer), ended=streamed.ended, cut=False)
    return msgspec.structs.replace(facts, answer=answer or None)


def _facts(answer: dict[str, Any], failure: Failure, *, ended: bool, cut: bool) -> Facts:
    attributes = taken(answer, RESPONSE)
    conversation = _conversation(answer)
    if conversation:
        attributes[semconv.GEN_AI_CONVERSATION_ID] = conversation
    items = list(mappings(answer.get("output")))
    reason = _reason(answer, items, ended=ended or cut)
    if reason:
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = [reason]
    said = [part for item in items for part in item_parts(item)]
    content: dict[str, Any] = {}
    if said:
        message = {"role": "assistant", "parts": said, "finish_reason": reason or ERROR}
        content[semconv.GEN_AI_OUTPUT_MESSAGES] = [message]
    usage = read_usage(answer.get("usage"))
    return Facts(attributes, content, usage, failure.type, failure.message, complete=ended)


def _reason(answer: dict[str, Any], items: list[dict[str, Any]], *, ended: bool) -> str | None:
    """Return why the one generation ended; None for one that has not begun to, or is no generation at all."""
    status = answer.get("status")
    if status in _FAILED:
        return ERROR
    if status == "incomplete":
        why = string(mapping(answer.get("incomplete_details")).get("reason"))
        return _INCOMPLETE.get(why, why) if why else ERROR
    if ended and (status in _UNFINISHED or (status is None and not items)):
        return None
    if not ended:
        return ERROR if answer else None
    return "tool_call" if any(calls_a_tool(item) for item in items) else "stop"
