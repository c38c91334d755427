"""Langfuse's OTLP endpoint: all of a request or, with 400 and a reason, nothing of it; and its ingestion of events."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.otlp_platform import generations, platform

__all__ = ["STAND_IN"]

_JSON = {"content-type": "application/json"}


def _accepted(request: Request) -> Answer:
    if not request.path.endswith("/ingestion"):
        return Answer(200, _JSON, b"{}")
    successes = [{"id": event["id"], "status": 201} for event in json.loads(request.body)["batch"]]
    return Answer(207, _JSON, json.dumps({"successes": successes, "errors": []}).encode())


def _items(request: Request) -> list[str]:
    if not request.path.endswith("/ingestion"):
        return generations(request)
    bodies = [event["body"] for event in json.loads(request.body)["batch"] if event["type"] == "generation-create"]
    return [f"{body['traceId']}-{body['id']}" for body in bodies]


STAND_IN: StandIn = replace(
    platform(public_key="pk-lf-0123456789", secret_key="sk-lf-0123456789", final=(400, 422)),
    accepted=_accepted,
    items=_items,
)
