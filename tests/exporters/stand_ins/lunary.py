"""Lunary's ingestion: 200, and of each event what became of it."""

from __future__ import annotations

import json
from typing import Any

from tests.exporters.stand_ins import Answer, Request, StandIn

__all__ = ["STAND_IN"]


def _events(request: Request) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(request.body)["events"]
    return events


def _answer(request: Request, refused: str = "") -> Answer:
    results = [
        {"id": event["runId"], "success": event["runId"] != refused}
        | ({"error": "Invalid run"} if event["runId"] == refused else {})
        for event in _events(request)
    ]
    return Answer(200, {"content-type": "application/json"}, json.dumps({"results": results}).encode())


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "lunary-key-0123456789"},
    accepted=_answer,
    items=lambda request: [each["metadata"]["otel_id"] for each in _events(request) if each["event"] == "start"],
    partial=lambda request: _answer(request, _events(request)[0]["runId"]),
    final=(400, 422),
)
