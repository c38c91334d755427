"""OpenAI's Chat Completions, also as vLLM, Ollama, Groq, Mistral, OpenRouter, Azure and many others speak it."""

from __future__ import annotations

from typing import Any

from otelgw.dialects import document, labels, parts, sse, tools
from otelgw.dialects.choices import UNREAD, assistant_parts, in_order, output_message, reasons_of, reported
from otelgw.dialects.deltas import StreamedAnswer
from otelgw.dialects.facts import NOTHING, Facts, Usage
from otelgw.dialects.failure import NO_FAILURE, Failure, read_failure
from otelgw.dialects.fields import (
    RESPONSE,
    Table,
    choice_count,
    count,
    flag,
    integer,
    mapping,
    mappings,
    number,
    string,
    strings,
    taken,
)
from otelgw.dialects.frames import Frames
from otelgw.dialects.usage import read_usage
from otelgw_exporters import semconv

__all__ = ["API_TYPE", "REQUEST", "SAMPLING", "read_request", "read_response"]

SAMPLING: Table = (
    ("model", semconv.GEN_AI_REQUEST_MODEL, string),
    ("max_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, count),
    ("temperature", semconv.GEN_AI_REQUEST_TEMPERATURE, number),
    ("top_p", semconv.GEN_AI_REQUEST_TOP_P, number),
    ("top_k", semconv.GEN_AI_REQUEST_TOP_K, integer),  # vLLM, Ollama; OpenAI's top_logprobs is another thing
    ("frequency_penalty", semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, number),
    ("presence_penalty", semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, number),
    ("stop", semconv.GEN_AI_REQUEST_STOP_SEQUENCES, strings),
    ("seed", semconv.GEN_AI_REQUEST_SEED, integer),
    ("n", semconv.GEN_AI_REQUEST_CHOICE_COUNT, choice_count),
    ("stream", semconv.GEN_AI_REQUEST_STREAM, flag),
    ("service_tier", semconv.OPENAI_REQUEST_SERVICE_TIER, string),
)
"""The fields that Chat Completions and Completions share."""

REQUEST: Table = (
    *SAMPLING,
    ("max_completion_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, count),
    ("reasoning_effort", semconv.GEN_AI_REQUEST_REASONING_LEVEL, string),
)
"""The fields of a request that are attributes as they are."""

API_TYPE = {semconv.OPENAI_API_TYPE: "chat_completions"}
"""What every request says of itself."""

_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}
_TOOL_ROLES = ("tool", "function")
_SPEAKERS = frozenset({"assistant", "developer", "system", "user"})
# Where none of these is asked for, nothing has to be looked for beyond the parameters and the messages.
_BEYOND = frozenset(
    {"functions", "modalities", "reasoning", "response_format", "tools", *labels.FIELDS},
)


def read_request(body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts:  # noqa: ARG001
    """Return the parameters and messages of a request; of a cut one, what its head and its tail hold whole."""
    request, whole = document.load(body, tail)
    if not isinstance(request, dict):
        return NOTHING
    attributes = taken(request, REQUEST) | API_TYPE
    content: dict[str, Any] = {}
    messages = [_input_message(message) for message in mappings(request.get("messages"))]
    if messages:
        content[semconv.GEN_AI_INPUT_MESSAGES] = messages
    if not _BEYOND.isdisjoint(request):
        attributes |= _beyond(request)
        offered = tools.definitions(request)
        if offered:
            content[semconv.GEN_AI_TOOL_DEFINITIONS] = offered
    return Facts(attributes, content, complete=whole)


def _beyond(request: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a request that no table has."""
    found: dict[str, Any] = {}
    effort = string(mapping(request.get("reasoning")).get("effort"))
    if effort:
        found[semconv.GEN_AI_REQUEST_REASONING_LEVEL] = effort
    output_type = _output_type(request)
    if output_type:
        found[semconv.GEN_AI_OUTPUT_TYPE] = output_type
    return found | labels.from_request(request)


def _output_type(request: dict[str, Any]) -> str | None:
    modalities = request.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        return "speech"
    kind = string(mapping(request.get("response_format")).get("type"))
    return _OUTPUT_TYPES.get(kind) if kind else None


def _input_message(message: dict[str, Any]) -> dict[str, Any]:
    given, content = message.get("role"), message.get("content")
    if type(content) is str and content and len(message) == 2 and type(given) is str and given in _SPEAKERS:
        return {"role": given, "parts": [{"type": "text", "content": content}]}  # as nearly all are
    role = string(given) or "user"
    if role in _TOOL_ROLES:
        found = [parts.tool_response(message.get("tool_call_id"), _tool_result(message.get("content")))]
    elif role == "assistant":
        found = assistant_parts(message)
    else:
        found = parts.from_content(message.get("content"))
    read: dict[str, Any] = {"role": "tool" if role == "function" else role, "parts": found}
    name = string(message.get("name"))
    if name:
        read["name"] = name
    return read


def _tool_result(content: Any) -> Any:
    return parts.from_content(content) if isinstance(content, list) else content


def read_response(body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts:
    """Return what an answer says of itself, and its messages; of a stream, its deltas merged."""
    if sse.is_stream(content_type, stream):
        return _read_stream(body, tail)
    answer, whole = document.load(body, tail)
    failure = read_failure(answer)
    if not isinstance(answer, dict):
        return Facts(error_type=failure.type, error_message=failure.message, complete=whole)
    attributes = taken(answer, RESPONSE)
    choices = in_order(answer.get("choices"))
    reasons = reasons_of(choices, tail)
    if choices and not (tail and UNREAD in reasons):
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = reasons
    messages = [output_message(choice.get("message"), reason) for choice, reason in zip(choices, reasons, strict=True)]
    return Facts(
        attributes,
        {semconv.GEN_AI_OUTPUT_MESSAGES: messages} if messages else {},
        read_usage(answer.get("usage")),
        failure.type,
        failure.message,
        complete=whole,
    )


def _read_stream(body: bytes, tail: bytes) -> Facts:
    attributes: dict[str, Any] = {}
    unknown = RESPONSE
    streamed = StreamedAnswer()
    usage: Usage | None = None
    failure = NO_FAILURE
    done = False
    stream, frames, at = sse.whole(body, tail), Frames(), 0
    while at < len(stream):
        block = sse.block(stream, at)
        at += len(block) + 2
        event = sse.event(block)
        if event is None:
            continue
        if event.data == sse.DONE:
            done = True
            continue
        chunk = document.value_of(event.data)
        if event.type == b"error" or (isinstance(chunk, dict) and chunk.get("error")):
            failure = failure if failure.type else _failure_in(event, chunk)
        if not isinstance(chunk, dict):
            continue
        if unknown:  # the answer is named by its first chunk that knows the name: Azure's very first has empty ones
            attributes |= taken(chunk, unknown)
            unknown = tuple(row for row in unknown if row[1] not in attributes)
        usage = read_usage(chunk.get("usage") or mapping(chunk.get("x_groq")).get("usage")) or usage
        streamed.add(chunk)
        run = frames.run(stream, at, block, chunk)
        if run is not None:
            streamed.say(run.choice, run.field, run.text)
            at += run.length
    messages = streamed.messages()
    reasons = streamed.reasons()
    if reasons:
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = [reported(reason) for reason in reasons]
    said = [output_message(message, reason) for message, reason in zip(messages, reasons, strict=True)]
    content = {semconv.GEN_AI_OUTPUT_MESSAGES: said} if said else {}
    ended = done or (bool(reasons) and all(reasons))
    return Facts(attributes, content, usage, failure.type, failure.message, ended, streamed.answer(messages))


def _failure_in(event: sse.Event, chunk: Any) -> Failure:
    found = read_failure(chunk)
    if found.type:
        return found
    return Failure("_OTHER", event.data[:1024].decode("utf-8", "replace"))
