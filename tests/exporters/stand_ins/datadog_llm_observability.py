"""Datadog's public intake of LLM Observability: docs.datadoghq.com/llm_observability/instrumentation/api."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.datadog import error

__all__ = ["STAND_IN"]


def _items(request: Request) -> list[str]:
    spans = json.loads(request.body)["data"]["attributes"]["spans"]
    return [f"{span['trace_id']}-{int(span['span_id']):016x}" for span in spans]


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "datadog-key-0123456789abcdef", "max_age": 10**10},
    accepted=lambda _: Answer(202),
    items=_items,
    error=error,
)
