"""LangSmith's batch of runs: 202 for all of it."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Answer, Request, StandIn

__all__ = ["STAND_IN"]


def _items(request: Request) -> list[str]:
    metadata = [run["extra"]["metadata"] for run in json.loads(request.body)["post"]]
    return [f"{each['otel_trace_id']}-{each['otel_span_id']}" for each in metadata]


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "lsv2-key-0123456789"},
    accepted=lambda _: Answer(202, {"content-type": "application/json"}, b"{}"),
    items=_items,
    final=(400, 422),
)
