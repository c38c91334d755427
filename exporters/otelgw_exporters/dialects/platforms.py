"""The words of vendors that take OpenTelemetry's own and have some of theirs beside: one table each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from otelgw_exporters import semconv
from otelgw_exporters.dialects.dialect import MESSAGES, Dialect, Value, field_of, prefixed
from otelgw_exporters.document import write
from otelgw_exporters.reading import Reading

__all__ = [
    "BRAINTRUST",
    "CONFIDENT",
    "LANGSMITH",
    "LANGTRACE",
    "LOGFIRE",
    "MLFLOW",
    "OPIK",
    "PLAIN",
    "POSTHOG",
    "SENTRY",
    "WEAVE",
]


def as_json(value: Any) -> str | None:
    """Return a value as JSON, a text in its quotation marks too; None for nothing."""
    return None if value is None or value in ({}, []) else write(value).decode()


def _json_of(name: str) -> Value:
    return lambda reading: as_json(getattr(reading, name))


def _input(reading: Reading) -> dict[str, Any] | None:
    """Return what was asked as the body of OpenAI's Chat Completions."""
    if not reading.messages:
        return None
    return {"messages": reading.messages} | ({"tools": reading.tools} if reading.tools else {})


def _cost(*names: str) -> Value:
    """Return the cost as JSON, its parts under the first two of ``names`` where they are known."""

    def read(reading: Reading) -> str | None:
        if reading.cost is None:
            return None
        parts = dict(zip(names, reading.cost_parts, strict=False)) if reading.cost_parts else {}
        return as_json(parts | {names[2]: reading.cost})

    return read


def _cost_part(part: int) -> Value:
    return lambda reading: reading.cost_parts[part] if reading.cost_parts else None


def _rate(part: int, count: str) -> Value:
    """Return the cost of a token of input or output: what the call cost, by what it used."""

    def read(reading: Reading) -> float | None:
        tokens = getattr(reading, count)
        return reading.cost_parts[part] / tokens if reading.cost_parts and tokens else None

    return read


PLAIN = Dialect()
"""The GenAI conventions 1.41, JSON in text, and nothing else."""

MLFLOW = Dialect(
    semconv="otel",
    server={"mlflow.spanType": '"CHAIN"'},
    generation={
        "mlflow.llm.cost": _cost("input_cost", "output_cost", "total_cost"),
        "mlflow.chat.tools": _json_of("tools"),
        "mlflow.message.format": '"openai"',
    },
    content={
        "mlflow.spanInputs": lambda reading: as_json(_input(reading)),
        "mlflow.spanOutputs": lambda reading: as_json({"choices": reading.choices} if reading.choices else None),
    },
    dropped=MESSAGES,
    marker="mlflow.spanType",
    failed_root=True,
)
"""Read by 3.17.2: tokens, session and user from OpenTelemetry's names; the trace's own view is its root's."""

LANGSMITH = Dialect(
    every={
        "langsmith.span.kind": "chain",
        "langsmith.span.tags": lambda reading: ",".join(reading.tags) or None,
        "langsmith.metadata.session_id": field_of("session"),
        "langsmith.metadata.user_id": field_of("user"),
    },
    more=(prefixed("langsmith.metadata."),),
    generation={"langsmith.span.kind": "llm"},
    marker="langsmith.span.kind",
)

_VENDORS = {
    "aws.bedrock": "AWS Bedrock",
    "azure.ai.inference": "Azure",
    "azure.ai.openai": "Azure",
    "gcp.gemini": "Gemini",
    "gcp.vertex_ai": "VertexAI",
    "mistral_ai": "Mistral",
    "x_ai": "XAI",
}


def _vendor(reading: Reading) -> str | None:
    """Return who Langtrace knows the provider as, and by whose prices it counts."""
    name = reading.text(semconv.GEN_AI_PROVIDER_NAME)
    return _VENDORS.get(name, name) if name else None


def _uncached(reading: Reading) -> int | None:
    """Return the input's tokens without those read from a cache, which Langtrace adds to them."""
    counted = reading.input_tokens
    return None if counted is None else max(0, counted - (reading.cache_read_tokens or 0))


def _answers(reading: Reading) -> str | None:
    return as_json([choice["message"] for choice in reading.choices])


LANGTRACE = Dialect(
    server={"user_id": field_of("user")},
    generation={
        "langtrace.service.type": "llm",
        "langtrace.service.name": _vendor,
        "gen_ai.system": lambda reading: reading.text(semconv.GEN_AI_PROVIDER_NAME),
        "gen_ai.usage.input_tokens": _uncached,
        "gen_ai.usage.cached_tokens": field_of("cache_read_tokens"),
        "gen_ai.usage.total_tokens": field_of("total_tokens"),
        # On this span only: what stands on two is shown twice.
        "llm.prompts": _json_of("messages"),
        "llm.responses": _answers,
    },
    dropped=MESSAGES - {semconv.GEN_AI_TOOL_DEFINITIONS},
    marker="langtrace.service.type",
)
"""Read by the server as of 0287ce02: texts and whole numbers only; it prices calls itself, by vendor and model."""

BRAINTRUST = Dialect(
    every={
        "braintrust.tags": field_of("tags"),
        "braintrust.metadata": lambda reading: as_json(
            reading.metadata
            | {key: value for key, value in (("user_id", reading.user), ("session_id", reading.session)) if value}
        ),
    },
    generation={
        "braintrust.metrics": lambda reading: as_json(
            {
                name: value
                for name, value in (
                    ("prompt_tokens", reading.input_tokens),
                    ("completion_tokens", reading.output_tokens),
                    ("tokens", reading.total_tokens),
                    ("prompt_cached_tokens", reading.cache_read_tokens),
                    ("completion_reasoning_tokens", reading.reasoning_tokens),
                    ("time_to_first_token", reading.first_token_seconds),
                    ("estimated_cost", reading.cost),
                )
                if value is not None
            }
        ),
    },
    content={"braintrust.input_json": _json_of("messages"), "braintrust.output_json": _json_of("answer")},
    dropped=MESSAGES - {semconv.GEN_AI_TOOL_DEFINITIONS},
    marker="braintrust.input_json",
)

CONFIDENT = Dialect(
    every={
        "confident.trace.name": lambda reading: reading.text(f"{semconv.OTELGW_METADATA}trace_name"),
        "confident.trace.thread_id": field_of("session"),
        "confident.trace.user_id": field_of("user"),
        "confident.trace.tags": field_of("tags"),
        "confident.trace.metadata": _json_of("metadata"),
        "confident.span.name": lambda reading: reading.span.name,
    },
    generation={
        "confident.span.type": "llm",
        "confident.llm.model": field_of("model"),
        "confident.llm.input_token_count": field_of("input_tokens"),
        "confident.llm.output_token_count": field_of("output_tokens"),
        "confident.llm.cost_per_input_token": _rate(0, "input_tokens"),
        "confident.llm.cost_per_output_token": _rate(1, "output_tokens"),
        "confident.trace.input": field_of("input_text"),
        "confident.trace.output": field_of("output_text"),
    },
    content={"confident.span.input": field_of("input_text"), "confident.span.output": field_of("output_text")},
    dropped=MESSAGES,
    marker="confident.span.type",
)

_STRUCTURED = (
    semconv.GEN_AI_INPUT_MESSAGES,
    semconv.GEN_AI_OUTPUT_MESSAGES,
    semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
    semconv.GEN_AI_TOOL_DEFINITIONS,
)


def _logfire_schema(reading: Reading) -> Iterator[tuple[str, Any]]:
    """Yield which attributes are JSON, without which Logfire shows them as text."""
    held = [name for name in _STRUCTURED if name in reading.held]
    if held:
        properties = {name: {"type": "array"} for name in held}
        yield "logfire.json_schema", as_json({"type": "object", "properties": properties})


LOGFIRE = Dialect(
    semconv="otel",
    every={"logfire.msg": lambda reading: reading.span.name, "logfire.tags": field_of("tags")},
    generation={"operation.cost": field_of("cost")},
    generation_more=(_logfire_schema,),
    marker="logfire.msg",
)

SENTRY = Dialect(
    semconv="otel",
    every={"gen_ai.conversation.id": field_of("session")},
    server={"sentry.op": "http.server"},
    generation={
        "sentry.op": lambda reading: f"gen_ai.{reading.get(semconv.GEN_AI_OPERATION_NAME)}",
        "gen_ai.cost.total_tokens": field_of("cost"),
        "gen_ai.cost.input_tokens": _cost_part(0),
        "gen_ai.cost.output_tokens": _cost_part(1),
        "gen_ai.usage.total_tokens": field_of("total_tokens"),
        # Sentry takes no lists, and a seed as text.
        "gen_ai.response.finish_reasons": lambda reading: as_json(
            list(reading.get(semconv.GEN_AI_RESPONSE_FINISH_REASONS) or ())
        ),
        "gen_ai.request.seed": lambda reading: reading.text(semconv.GEN_AI_REQUEST_SEED),
    },
    attempt={"sentry.op": "http.client"},
    marker="sentry.op",
)

POSTHOG = Dialect(
    generation={
        "posthog.distinct_id": field_of("user"),
        "$ai_session_id": field_of("session"),
        "$ai_total_cost_usd": field_of("cost"),
        "$ai_time_to_first_token": field_of("first_token_seconds"),
    },
    marker="posthog.distinct_id",
)
"""What PostHog has no mapping for becomes a property of its event: its own properties, too."""

OPIK = Dialect(
    every={"thread_id": field_of("session"), "opik.tags": _json_of("tags"), "opik.metadata": _json_of("metadata")},
    content={"input": field_of("input_text"), "output": field_of("output_text")},
    dropped=MESSAGES,
    marker="opik.tags",
)

WEAVE = Dialect(
    every={"wandb.thread_id": field_of("session")},
    # A request is a turn of its thread.
    server={"wandb.is_turn": lambda reading: True if reading.session else None},
    content={"input.value": field_of("input_text"), "output.value": field_of("output_text")},
    dropped=MESSAGES,
    marker="wandb.thread_id",
)
