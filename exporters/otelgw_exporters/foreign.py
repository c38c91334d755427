"""Spans that other instrumentations made, understood as generations: their attributes in the newest GenAI vocabulary.

The vocabularies are OpenInference's, OpenLLMetry's (Traceloop) and the older ones of OpenTelemetry's own
instrumentations. The tables below say which of their names means what; messages are put together in
``foreign_messages``. What a span has is kept, and what it has in the newest vocabulary already is believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Status

from otelgw_exporters import foreign_messages, semconv

__all__ = ["IDENTITY", "is_content", "is_generation", "translated", "without_content"]

_TRACELOOP_PROPERTIES = "traceloop.association.properties."
_KIND = "openinference.span.kind"


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _signed(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) and value else None


def _truth(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _texts(value: Any) -> Any:
    """Return a list of texts; a single one may come alone, or as JSON."""
    if isinstance(value, str):
        listed = _json(value) if value.startswith("[") else None
        value = listed if isinstance(listed, list) else [value]
    return [str(item) for item in value] if isinstance(value, Sequence) and value else None


def _provider(value: Any) -> Any:
    """Return the conventions' name of a provider; instrumentations capitalise as they like."""
    name = _text(value)
    return _PROVIDERS.get(name.lower(), name.lower()) if name else None


def _operation(value: Any) -> Any:
    return _OPERATIONS.get(str(value).lower())


def _output_type(value: Any) -> Any:
    return _OUTPUT_TYPES.get(str(value).lower())


_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_OPERATIONS = {
    "chat": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
    "rerank": "rerank",
    # Kinds of OpenInference.
    "llm": "chat",
    "reranker": "rerank",
    "retriever": "retrieval",
    "agent": "invoke_agent",
    "tool": "execute_tool",
}
_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}

# (their name, ours, what a usable value becomes). Of several names for one of ours the first that has a value counts.
_NAMES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    # OpenTelemetry before 1.37, and what was never in the conventions but is widely sent.
    ("gen_ai.system", semconv.GEN_AI_PROVIDER_NAME, _provider),
    ("gen_ai.usage.prompt_tokens", semconv.GEN_AI_USAGE_INPUT_TOKENS, _number),
    ("gen_ai.usage.completion_tokens", semconv.GEN_AI_USAGE_OUTPUT_TOKENS, _number),
    ("gen_ai.usage.cache_creation.input_tokens", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, _number),
    ("gen_ai.usage.cache_creation_input_tokens", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, _number),
    ("gen_ai.usage.cache_read_input_tokens", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, _number),
    ("gen_ai.usage.reasoning_tokens", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, _number),
    ("gen_ai.response.finish_reason", semconv.GEN_AI_RESPONSE_FINISH_REASONS, _texts),
    ("gen_ai.openai.request.seed", semconv.GEN_AI_REQUEST_SEED, _number),
    ("gen_ai.openai.request.response_format", semconv.GEN_AI_OUTPUT_TYPE, _output_type),
    ("gen_ai.openai.request.service_tier", semconv.OPENAI_REQUEST_SERVICE_TIER, _text),
    ("gen_ai.openai.response.service_tier", semconv.OPENAI_RESPONSE_SERVICE_TIER, _text),
    ("gen_ai.openai.response.system_fingerprint", semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT, _text),
    # OpenLLMetry.
    ("gen_ai.openai.system_fingerprint", semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT, _text),
    ("gen_ai.is_streaming", semconv.GEN_AI_REQUEST_STREAM, _truth),
    ("gen_ai.user", semconv.USER_ID, _text),
    ("llm.request.type", semconv.GEN_AI_OPERATION_NAME, _operation),
    ("llm.vendor", semconv.GEN_AI_PROVIDER_NAME, _provider),
    ("llm.request.model", semconv.GEN_AI_REQUEST_MODEL, _text),
    ("llm.response.model", semconv.GEN_AI_RESPONSE_MODEL, _text),
    ("llm.request.max_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, _number),
    ("llm.temperature", semconv.GEN_AI_REQUEST_TEMPERATURE, _number),
    ("llm.top_p", semconv.GEN_AI_REQUEST_TOP_P, _number),
    ("llm.top_k", semconv.GEN_AI_REQUEST_TOP_K, _number),
    ("llm.frequency_penalty", semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, _signed),
    ("llm.presence_penalty", semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, _signed),
    ("llm.chat.stop_sequences", semconv.GEN_AI_REQUEST_STOP_SEQUENCES, _texts),
    ("llm.is_streaming", semconv.GEN_AI_REQUEST_STREAM, _truth),
    ("llm.user", semconv.USER_ID, _text),
    ("llm.response.finish_reason", semconv.GEN_AI_RESPONSE_FINISH_REASONS, _texts),
    ("llm.response.stop_reason", semconv.GEN_AI_RESPONSE_FINISH_REASONS, _texts),
    ("llm.usage.prompt_tokens", semconv.GEN_AI_USAGE_INPUT_TOKENS, _number),
    ("llm.usage.completion_tokens", semconv.GEN_AI_USAGE_OUTPUT_TOKENS, _number),
    (f"{_TRACELOOP_PROPERTIES}session_id", semconv.SESSION_ID, _text),
    (f"{_TRACELOOP_PROPERTIES}user_id", semconv.USER_ID, _text),
    # OpenInference.
    (_KIND, semconv.GEN_AI_OPERATION_NAME, _operation),
    ("llm.provider", semconv.GEN_AI_PROVIDER_NAME, _provider),
    ("llm.system", semconv.GEN_AI_PROVIDER_NAME, _provider),
    ("llm.request.model_name", semconv.GEN_AI_REQUEST_MODEL, _text),
    ("llm.response.model_name", semconv.GEN_AI_RESPONSE_MODEL, _text),
    ("llm.model_name", semconv.GEN_AI_REQUEST_MODEL, _text),
    ("llm.model_name", semconv.GEN_AI_RESPONSE_MODEL, _text),
    ("embedding.model_name", semconv.GEN_AI_REQUEST_MODEL, _text),
    ("reranker.model_name", semconv.GEN_AI_REQUEST_MODEL, _text),
    ("llm.finish_reason", semconv.GEN_AI_RESPONSE_FINISH_REASONS, _texts),
    ("llm.token_count.prompt", semconv.GEN_AI_USAGE_INPUT_TOKENS, _number),
    ("llm.token_count.completion", semconv.GEN_AI_USAGE_OUTPUT_TOKENS, _number),
    ("llm.token_count.prompt_details.cache_read", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, _number),
    ("llm.token_count.prompt_details.cache_input", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, _number),
    ("llm.token_count.prompt_details.cache_write", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, _number),
    ("llm.token_count.prompt_details.audio", semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS, _number),
    ("llm.token_count.completion_details.audio", semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS, _number),
    ("llm.token_count.completion_details.reasoning", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, _number),
    ("llm.cost.total", semconv.GEN_AI_USAGE_COST, _number),
    ("tag.tags", semconv.OTELGW_TAGS, _texts),
)
# Keys of a request as the provider's API has them, in OpenInference's llm.invocation_parameters.
_PARAMETERS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("model", semconv.GEN_AI_REQUEST_MODEL, _text),
    ("temperature", semconv.GEN_AI_REQUEST_TEMPERATURE, _number),
    ("top_p", semconv.GEN_AI_REQUEST_TOP_P, _number),
    ("top_k", semconv.GEN_AI_REQUEST_TOP_K, _number),
    ("max_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, _number),
    ("max_completion_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, _number),
    ("max_output_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS, _number),
    ("frequency_penalty", semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, _signed),
    ("presence_penalty", semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, _signed),
    ("seed", semconv.GEN_AI_REQUEST_SEED, _number),
    ("stop", semconv.GEN_AI_REQUEST_STOP_SEQUENCES, _texts),
    ("stream", semconv.GEN_AI_REQUEST_STREAM, _truth),
    ("n", semconv.GEN_AI_REQUEST_CHOICE_COUNT, _number),
    ("user", semconv.USER_ID, _text),
)
_FOREIGN = ("gen_ai.", "llm.", "openinference.", "traceloop.", "embedding.", "reranker.", "input.", "output.")
_OTHERS = frozenset(
    {"create_agent", "invoke_agent", "invoke_workflow", "execute_tool", "retrieval", "search_memory", "update_memory"}
)

# What was said stands under these names, or under names that begin so. gen_ai.prompt.name and .version say which
# template was used, not what it became.
_CONTENT_NAMES = semconv.CONTENT | {
    *("input.value", "output.value", "traceloop.entity.input", "traceloop.entity.output", "tool.parameters"),
    *("gen_ai.prompt", "gen_ai.completion", "gen_ai.event.content", "gen_ai.tool.call.arguments"),
    *("gen_ai.tool.call.result", "gen_ai.retrieval.query.text", "gen_ai.retrieval.documents", "gen_ai.memory.records"),
    *("llm.prompts", "llm.completions", "llm.content.completion.chunk", "reranker.query", "content", "message"),
    *("mcp.request.argument", "mcp.response.value", "exception.message", "exception.stacktrace", "tool_calls"),
    *("otelgw.request.body", "otelgw.response.body", "pydantic_ai.all_messages", "all_messages_events", "events"),
    # What platforms' own SDKs and agent frameworks write.
    *("langfuse.observation.input", "langfuse.observation.output", "langfuse.trace.input", "langfuse.trace.output"),
    *("langfuse.observation.status_message", "mlflow.spanInputs", "mlflow.spanOutputs", "prompt", "completion"),
    *("braintrust.input", "braintrust.output", "braintrust.input_json", "braintrust.output_json"),
    *("logfire.msg", "request_data", "response_data", "gen_ai.evaluation.explanation"),
    *("http.request.body.content", "http.response.body.content"),
}
_CONTENT_PREFIXES = (
    *("llm.input_messages", "llm.output_messages", "llm.prompts.", "llm.completions.", "llm.choices", "llm.tools"),
    *("llm.request.functions", "llm.function_call", "llm.prompt_template", "llm.invocation_parameters"),
    *("gen_ai.prompt.", "gen_ai.completion.", "embedding.embeddings", "embedding.text", "embedding.vector"),
    *("retrieval.documents", "document.", "reranker.input_documents", "reranker.output_documents"),
    *("traceloop.prompt.template", "ai.prompt", "ai.response.text", "ai.response.object", "ai.response.toolCalls"),
    *("ai.toolCall.args", "ai.toolCall.result", "ai.value", "ai.values", "ai.embedding"),
    *("gcp.vertex.agent.llm_", "gcp.vertex.agent.tool_", "gcp.vertex.agent.data", "lk.input_text", "lk.user_input"),
    *("lk.chat_ctx", "lk.response.text", "lk.response.function_calls", "lk.function_tool.arguments"),
    *("lk.function_tool.output", "lk.user_transcript", "crewai.crew.tasks", "crewai.crew.agents"),
    *("crewai.agent.goal", "crewai.agent.backstory", "crewai.agent.result", "crewai.task.description"),
    *("crewai.task.expected_output", "crewai.task.result", "crewai.crew.result"),
)
IDENTITY = frozenset(
    {
        *("user.id", "user.email", "user.name", "user.full_name", "enduser.id", "enduser.pseudo.id", "llm.user"),
        *("gen_ai.user", f"{_TRACELOOP_PROPERTIES}user_id", "langfuse.user.id"),
    }
)
"""Attributes of any of the vocabularies that say who called."""

_KEPT = frozenset({semconv.GEN_AI_PROMPT_NAME, semconv.GEN_AI_PROMPT_VERSION, "document.id", "document.score"})


def translated(span: ReadableSpan) -> ReadableSpan:
    """Return ``span`` with what it says in the newest vocabulary too; the same span where there is nothing to add."""
    attributes: Mapping[str, Any] = span.attributes or {}
    if semconv.OTELGW_CALL_ID in attributes or not any(key.startswith(_FOREIGN) for key in attributes):
        return span
    found = _understood(attributes)
    found |= {
        key: value
        for key, value in foreign_messages.content(attributes, span.events, found).items()
        if value and (key not in attributes or isinstance(attributes[key], str))
    }
    return semconv.with_attributes(span, {**attributes, **found}) if found else span


def is_generation(span: ReadableSpan) -> bool:
    """Say whether a translated span is one call of a model."""
    operation = (span.attributes or {}).get(semconv.GEN_AI_OPERATION_NAME)
    return isinstance(operation, str) and operation not in _OTHERS


def is_content(name: str) -> bool:
    """Say whether an attribute of any of the vocabularies carries what was said, may quote it, or says where it is."""
    name = name.removesuffix(semconv.REF)
    return name in _CONTENT_NAMES or (name.startswith(_CONTENT_PREFIXES) and name not in _KEPT)


def without_content(span: ReadableSpan) -> ReadableSpan:
    """Return a copy without what was said: attributes, attributes of events, and the text of an error."""
    changed = semconv.with_attributes(span, _without(span.attributes))
    if any(is_content(name) for event in span.events for name in event.attributes or ()):
        bare = [Event(event.name, _without(event.attributes), event.timestamp) for event in span.events]
        events: Any = BoundedList.from_seq(None, bare)
        events.dropped = span.dropped_events
        changed._events = events
    if span.status.description:
        changed._status = Status(span.status.status_code)
    return changed


def _without(attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if not is_content(name)}


def _understood(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tables make of ``attributes``, apart from messages."""
    found: dict[str, Any] = {}

    def put(held: Mapping[str, Any], table: tuple[tuple[str, str, Callable[[Any], Any]], ...]) -> None:
        for theirs, ours, convert in table:
            if theirs in held and ours not in attributes and ours not in found:
                value = convert(held[theirs])
                if value is not None:
                    found[ours] = value

    put(attributes, _NAMES)
    parameters = _json(attributes.get("llm.invocation_parameters", attributes.get("embedding.invocation_parameters")))
    if isinstance(parameters, dict):
        put(parameters, _PARAMETERS)
    if semconv.GEN_AI_OPERATION_NAME not in attributes and _is_completion(attributes):
        found[semconv.GEN_AI_OPERATION_NAME] = "text_completion"
    elif semconv.GEN_AI_OPERATION_NAME not in found | dict(attributes) and semconv.GEN_AI_REQUEST_MODEL in attributes:
        found[semconv.GEN_AI_OPERATION_NAME] = "chat"
    for key, value in _metadata(attributes).items():
        if (name := semconv.OTELGW_METADATA + key) not in attributes:
            found[name] = value
    return found


def _is_completion(attributes: Mapping[str, Any]) -> bool:
    return attributes.get(_KIND) == "LLM" and any(key.startswith("llm.prompts.") for key in attributes)


def _metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    size = len(_TRACELOOP_PROPERTIES)
    found = {key[size:]: value for key, value in attributes.items() if key.startswith(_TRACELOOP_PROPERTIES)}
    given = _json(attributes.get("metadata")) if _KIND in attributes else None
    return {**(given if isinstance(given, dict) else {}), **found}


def _json(value: Any) -> Any:
    """Return JSON text's value; None for what is none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
