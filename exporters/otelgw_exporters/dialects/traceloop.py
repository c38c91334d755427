"""OpenLLMetry, which Traceloop reads: labels as association properties, and a few names beside OpenTelemetry's.

``TRACELOOP`` is what its instrumentations sent before they had OpenTelemetry's messages, one attribute a field, for
backends that know that; ``OPENLLMETRY`` is what they send today. Names: opentelemetry-semantic-conventions-ai 0.5.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from otelgw_exporters import semconv
from otelgw_exporters.dialects.dialect import MESSAGES, Dialect, Names, field_of, prefixed
from otelgw_exporters.reading import Reading, as_text

__all__ = ["OPENLLMETRY", "TRACELOOP"]

_PROPERTIES = "traceloop.association.properties."
_TYPES = {"embeddings": "embedding", "text_completion": "completion", "rerank": "rerank"}


def _type(reading: Reading) -> str:
    return _TYPES.get(str(reading.get(semconv.GEN_AI_OPERATION_NAME)), "chat")


def _messages(reading: Reading) -> Iterator[tuple[str, Any]]:
    for index, message in enumerate(reading.messages):
        if isinstance(message, dict):
            yield from _message(f"gen_ai.prompt.{index}", message)
    for index, choice in enumerate(reading.choices):
        yield from _message(f"gen_ai.completion.{index}", choice["message"])
        if choice["finish_reason"]:
            yield f"gen_ai.completion.{index}.finish_reason", choice["finish_reason"]
    for index, tool in enumerate(reading.tools):
        function = tool.get("function")
        if isinstance(function, dict):
            at = f"llm.request.functions.{index}"
            yield f"{at}.name", str(function.get("name") or "")
            if function.get("description"):
                yield f"{at}.description", str(function["description"])
            if function.get("parameters") is not None:
                yield f"{at}.parameters", as_text(function["parameters"])


def _message(prefix: str, message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield f"{prefix}.role", str(message.get("role") or "user")
    content = as_text(message.get("content"))
    if content:
        yield f"{prefix}.content", content
    if message.get("tool_call_id"):
        yield f"{prefix}.tool_call_id", str(message["tool_call_id"])
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            at = f"{prefix}.tool_calls.{index}"
            yield f"{at}.id", str(call.get("id") or "")
            yield f"{at}.name", str(function.get("name") or "")
            yield f"{at}.arguments", as_text(function.get("arguments")) or ""


def _streamed(reading: Reading) -> bool:
    return reading.get(semconv.GEN_AI_REQUEST_STREAM) is True


_LABELS: Names = {
    f"{_PROPERTIES}session_id": field_of("session"),
    f"{_PROPERTIES}user_id": field_of("user"),
    f"{_PROPERTIES}tags": field_of("tags"),
}
_WORKFLOW: Names = {"traceloop.span.kind": "workflow", "traceloop.entity.name": lambda reading: reading.span.name}

OPENLLMETRY = Dialect(
    every=_LABELS,
    more=(prefixed(_PROPERTIES),),
    server=_WORKFLOW,
    generation={
        "gen_ai.is_streaming": _streamed,
        "gen_ai.usage.total_tokens": field_of("total_tokens"),
        "gen_ai.usage.reasoning_tokens": field_of("reasoning_tokens"),
    },
    # One name a count: whoever adds up both would count twice.
    dropped=frozenset({semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS}),
    marker="gen_ai.is_streaming",
)

TRACELOOP = Dialect(
    semconv="otel-1.36",
    every=_LABELS,
    more=(prefixed(_PROPERTIES),),
    server=_WORKFLOW,
    generation={
        "llm.request.type": _type,
        "gen_ai.is_streaming": _streamed,
        "gen_ai.usage.prompt_tokens": field_of("input_tokens"),
        "gen_ai.usage.completion_tokens": field_of("output_tokens"),
        "gen_ai.usage.cache_read_input_tokens": field_of("cache_read_tokens"),
        "gen_ai.usage.cache_creation_input_tokens": field_of("cache_write_tokens"),
        "gen_ai.usage.reasoning_tokens": field_of("reasoning_tokens"),
        "llm.usage.total_tokens": field_of("total_tokens"),
    },
    generation_more=(_messages,),
    dropped=MESSAGES
    | {
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
        "gen_ai.usage.cache_creation.input_tokens",
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
    },
    marker="llm.request.type",
)
