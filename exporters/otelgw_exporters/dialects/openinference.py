"""OpenInference, which Phoenix and Arize read: a span kind, and messages as one attribute a field.

Names and shapes: openinference-semantic-conventions 0.1.42.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from otelgw_exporters import semconv
from otelgw_exporters.dialects.dialect import MESSAGES, Dialect, field_of
from otelgw_exporters.document import write
from otelgw_exporters.reading import Reading, as_text

__all__ = ["OPENINFERENCE"]

_KINDS = {
    "embeddings": "EMBEDDING",
    "rerank": "RERANKER",
    "retrieval": "RETRIEVER",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
}
_SYSTEMS = {
    "aws.bedrock": "amazon",
    "azure.ai.inference": "openai",
    "azure.ai.openai": "openai",
    "gcp.gemini": "vertexai",
    "gcp.gen_ai": "vertexai",
    "gcp.vertex_ai": "vertexai",
    "mistral_ai": "mistralai",
}
_PROVIDERS = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistralai",
    "x_ai": "xai",
}
_COUNTS = (
    ("llm.token_count.prompt", "input_tokens"),
    ("llm.token_count.completion", "output_tokens"),
    ("llm.token_count.total", "total_tokens"),
    ("llm.token_count.prompt_details.cache_read", "cache_read_tokens"),
    ("llm.token_count.prompt_details.cache_write", "cache_write_tokens"),
    ("llm.token_count.completion_details.reasoning", "reasoning_tokens"),
)


def _kind(reading: Reading) -> str:
    return _KINDS.get(str(reading.get(semconv.GEN_AI_OPERATION_NAME)), "LLM")


def _provider(names: Mapping[str, str]) -> Any:
    def read(reading: Reading) -> str | None:
        name = reading.text(semconv.GEN_AI_PROVIDER_NAME)
        return names.get(name, name) if name else None

    return read


def _model(reading: Reading) -> Iterator[tuple[str, Any]]:
    if reading.model:
        yield "embedding.model_name" if _kind(reading) == "EMBEDDING" else "llm.model_name", reading.model
    if reading.parameters:
        name = "embedding" if _kind(reading) == "EMBEDDING" else "llm"
        yield f"{name}.invocation_parameters", as_text(reading.parameters)


def _counts(reading: Reading) -> Iterator[tuple[str, Any]]:
    for name, own in (
        *_COUNTS,
        ("llm.token_count.prompt_details.audio", ""),
        ("llm.token_count.completion_details.audio", ""),
    ):
        value = getattr(reading, own) if own else reading.count(_AUDIO[name])
        if value is not None:
            yield name, value
    if reading.cost is not None:
        yield "llm.cost.total", reading.cost
    if reading.cost_parts is not None:
        yield "llm.cost.prompt", reading.cost_parts[0]
        yield "llm.cost.completion", reading.cost_parts[1]


_AUDIO = {
    "llm.token_count.prompt_details.audio": semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS,
    "llm.token_count.completion_details.audio": semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS,
}


def _messages(reading: Reading) -> Iterator[tuple[str, Any]]:
    if _kind(reading) == "EMBEDDING":
        for index, message in enumerate(reading.messages):
            if isinstance(message, dict) and isinstance(message.get("content"), str):
                yield f"embedding.embeddings.{index}.embedding.text", message["content"]
        return
    for index, message in enumerate(reading.messages):
        if isinstance(message, dict):
            yield from _message(f"llm.input_messages.{index}.message", message)
    for index, choice in enumerate(reading.choices):
        yield from _message(f"llm.output_messages.{index}.message", choice["message"])
    for index, tool in enumerate(reading.tools):
        yield f"llm.tools.{index}.tool.json_schema", write(tool).decode()


def _message(prefix: str, message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield f"{prefix}.role", str(message.get("role") or "user")
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield f"{prefix}.content", content
    elif isinstance(content, list):
        for index, part in enumerate(content):
            yield from _part(f"{prefix}.contents.{index}.message_content", part)
    for key, name in (("tool_call_id", "tool_call_id"), ("name", "name")):
        if message.get(key):
            yield f"{prefix}.{name}", str(message[key])
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            at = f"{prefix}.tool_calls.{index}.tool_call"
            yield f"{at}.id", str(call.get("id") or "")
            yield f"{at}.function.name", str(function.get("name") or "")
            yield f"{at}.function.arguments", as_text(function.get("arguments")) or ""


def _part(prefix: str, part: Any) -> Iterator[tuple[str, Any]]:
    kind = part.get("type") if isinstance(part, dict) else None
    image = part.get("image_url") if isinstance(part, dict) else None
    if kind == "text":
        yield f"{prefix}.type", "text"
        yield f"{prefix}.text", str(part.get("text") or "")
    elif kind == "image_url" and isinstance(image, dict) and isinstance(image.get("url"), str):
        yield f"{prefix}.type", "image"
        yield f"{prefix}.image.image.url", image["url"]
    else:
        yield f"{prefix}.type", "text"
        yield f"{prefix}.text", as_text(part) or ""


def _mime(name: str) -> Any:
    def read(reading: Reading) -> str | None:
        return "application/json" if getattr(reading, name) is not None else None

    return read


def _finish(reading: Reading) -> str | None:
    reasons = reading.get(semconv.GEN_AI_RESPONSE_FINISH_REASONS)
    return str(reasons[0]) if isinstance(reasons, list | tuple) and reasons else None


OPENINFERENCE = Dialect(
    semconv="otel",
    every={
        "session.id": field_of("session"),
        "user.id": field_of("user"),
        "tag.tags": field_of("tags"),
        "metadata": lambda reading: as_text(reading.metadata or None),
        "openinference.span.kind": "CHAIN",
    },
    generation={
        "openinference.span.kind": _kind,
        "llm.provider": _provider(_PROVIDERS),
        "llm.system": _provider(_SYSTEMS),
        "llm.finish_reason": _finish,
    },
    content={
        "input.value": field_of("input_text"),
        "input.mime_type": _mime("input_text"),
        "output.value": field_of("output_text"),
        "output.mime_type": _mime("output_text"),
    },
    generation_more=(_model, _counts, _messages),
    # What is left of gen_ai.* says what OpenInference has no word for.
    dropped=MESSAGES
    | {
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
        semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS,
        semconv.GEN_AI_USAGE_COST,
        semconv.OTELGW_TAGS,
    },
    marker="openinference.span.kind",
)
