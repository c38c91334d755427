"""LangSmith: runs by its own API, which keeps cost and the first token's time, or OTLP, which does not.

A call is one run of the type ``llm`` and the root of its trace: LangSmith drops a run whose parent never comes.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import http, semconv
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import Outcome, Reply
from otelgw_exporters.json_vendor import JsonVendor
from otelgw_exporters.otlp_vendor import VendorExporter, joined, regional
from otelgw_exporters.posting import Piece
from otelgw_exporters.reading import Reading, iso_time

__all__ = ["LangsmithExporter", "run"]

_NAMESPACE = uuid.UUID("8f1c5f0a-9b0e-5c9b-8d53-7f6d4f9d2a11")
_BATCH = "/runs/batch"
_DUPLICATE = 409


class _Runs(JsonVendor):
    ROW = "langsmith"
    CALLS = 100

    def __init__(self, *, name: str = "", **given: Any) -> None:
        super().__init__(name=name, **given)
        self.url = joined(self.options["endpoint"] or regional(self.wire, self.options), _BATCH)

    def document_of(self, call: Call, reading: Reading) -> dict[str, Any]:
        return run(call, reading, self.options["project"], self.options["run_name"])

    def body(self, part: Sequence[Piece]) -> bytes:
        return b'{"post":' + super().body(part) + b"}"

    def judge(self, answer: http.Answer, part: Sequence[Piece]) -> Reply:
        if answer.status == _DUPLICATE:
            # One of them is there already; which one shows when they come one by one.
            return Reply("accepted") if len(part) == 1 else Reply("too_large", "HTTP 409")
        return super().judge(answer, part)


def run(call: Call, reading: Reading, project: str, run_name: str | None = None) -> dict[str, Any]:
    """Return a call as a run."""
    identifier = str(uuid.uuid5(_NAMESPACE, call.identity))
    start, end = iso_time(reading.start), iso_time(reading.end)
    stamp = start.replace("-", "").replace(":", "").replace(".", "")
    trace, _, span = call.identity.partition("-")
    labels = {
        "session_id": reading.session,
        "user_id": reading.user,
        "ls_provider": reading.text(semconv.GEN_AI_PROVIDER_NAME),
        "ls_model_name": reading.text(semconv.GEN_AI_REQUEST_MODEL),
        "ls_model_type": "chat",
        "attempts": reading.get(semconv.OTELGW_ATTEMPTS),
        "otel_trace_id": trace,
        "otel_span_id": span,
    }
    known = {name: value for name, value in labels.items() if value is not None}
    made: dict[str, Any] = {
        "id": identifier,
        "trace_id": identifier,
        "dotted_order": f"{stamp}{identifier}",
        "name": reading.text(f"{semconv.OTELGW_METADATA}run_name") or run_name or reading.span.name,
        "run_type": "embedding" if reading.get(semconv.GEN_AI_OPERATION_NAME) == "embeddings" else "llm",
        "session_name": project,
        "start_time": start,
        "end_time": end,
        "inputs": {"messages": reading.messages} | ({"tools": reading.tools} if reading.tools else {}),
        "outputs": _outputs(reading),
        "extra": {"metadata": reading.metadata | known, "invocation_params": _parameters(reading)},
        "tags": reading.tags,
    }
    if reading.first_token_ns is not None:
        made["events"] = [{"name": "new_token", "time": iso_time(reading.first_token_ns)}]
    if reading.error is not None:
        made["error"] = reading.error or "error"
    return made


def _parameters(reading: Reading) -> dict[str, Any]:
    model = reading.text(semconv.GEN_AI_REQUEST_MODEL)
    return reading.parameters | ({"model": model} if model else {})


def _outputs(reading: Reading) -> dict[str, Any]:
    answer = reading.answer
    made: dict[str, Any] = {} if answer is None else {"messages": answer if isinstance(answer, list) else [answer]}
    usage = {
        "input_tokens": reading.input_tokens,
        "output_tokens": reading.output_tokens,
        "total_tokens": reading.total_tokens,
        "input_cost": reading.cost_parts[0] if reading.cost_parts else None,
        "output_cost": reading.cost_parts[1] if reading.cost_parts else None,
        "total_cost": reading.cost,
    }
    found: dict[str, Any] = {name: value for name, value in usage.items() if value is not None}
    for name, parts in (
        (
            "input_token_details",
            {"cache_read": reading.cache_read_tokens, "cache_creation": reading.cache_write_tokens},
        ),
        ("output_token_details", {"reasoning": reading.reasoning_tokens}),
    ):
        details = {part: count for part, count in parts.items() if count is not None}
        if details:
            found[name] = details
    return made | ({"usage_metadata": found} if found else {})


class LangsmithExporter(VendorExporter):
    """LangSmith. Keywords are the options of the catalog row ``langsmith``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the key is missing.
    """

    ROW = "langsmith"

    def __init__(self, *, name: str = "", **given: Any) -> None:
        super().__init__(name=name, **given)
        self._runs = _Runs(name=self.name, **self.options) if self.options["api"] == "runs" else None

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        return self._runs.deliver(spans, deadline) if self._runs else super().deliver(spans, deadline)

    def shutdown(self) -> None:
        super().shutdown()
        if self._runs:
            self._runs.shutdown()
