"""OpenMeter's events: 204 for a batch."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Answer, StandIn

__all__ = ["STAND_IN"]

STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "om-key-0123456789"},
    accepted=lambda _: Answer(204),
    items=lambda request: [event["id"] for event in json.loads(request.body)],
)
