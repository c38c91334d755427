"""Athina: one request a call, with the provider's answer as it came."""

from __future__ import annotations

from typing import Any

from otelgw_exporters import content, semconv
from otelgw_exporters.calls import Call
from otelgw_exporters.json_vendor import JsonVendor
from otelgw_exporters.reading import Reading

__all__ = ["AthinaExporter", "inference"]

_OPTIONS = ("temperature", "max_tokens", "stop", "top_p")
_NAMED = ("environment", "prompt_slug", "customer_id", "customer_user_id", "user_query", "context", "expected_response")


class AthinaExporter(JsonVendor):
    """Athina. Keywords are the options of the catalog row ``athina``; what is missing is read from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the key is missing.
    """

    ROW = "athina"

    def document_of(self, call: Call, reading: Reading) -> dict[str, Any]:
        return inference(call, reading)


def inference(call: Call, reading: Reading) -> dict[str, Any]:
    """Return a call as an inference. Some metadata has names of Athina's own, as in LiteLLM."""
    metadata = dict(reading.metadata)
    own = {name: metadata.pop(name, None) for name in _NAMED}
    parameters = reading.parameters
    options = {name: parameters[name] for name in _OPTIONS if name in parameters}
    if "max_tokens" in options:
        options["max_completion_tokens"] = options.pop("max_tokens")
    body = content.read_bodies(reading.held)[1]
    answer = reading.answer if isinstance(reading.answer, dict) else None
    made = {
        "language_model_id": reading.text(semconv.GEN_AI_REQUEST_MODEL) or reading.span.name,
        "prompt": reading.messages or None,
        "response": dict(body) or ({"choices": reading.choices} if reading.choices else None),
        "prompt_tokens": reading.input_tokens,
        "completion_tokens": reading.output_tokens,
        "total_tokens": reading.total_tokens,
        "response_time": (reading.end - reading.start) // 1_000_000,
        "cost": reading.cost,
        "session_id": reading.session,
        "external_reference_id": call.identity,
        "model_options": options or None,
        "tools": reading.tools or None,
        "tool_calls": answer.get("tool_calls") if answer else None,
        "status_code": None,
        "custom_attributes": metadata | ({"error": reading.error} if reading.error else {}) or None,
        **{name: str(value) if value is not None and name.endswith("_id") else value for name, value in own.items()},
    }
    made["customer_user_id"] = made["customer_user_id"] or reading.user
    return {name: value for name, value in made.items() if value is not None}
