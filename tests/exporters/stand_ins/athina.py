"""Athina's log of inferences, one a request."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Answer, Request, StandIn

__all__ = ["STAND_IN"]


def _items(request: Request) -> list[str]:
    return [json.loads(request.body)["external_reference_id"]]


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "athina-key-0123456789"},
    accepted=lambda _: Answer(200, {"content-type": "application/json"}, b'{"status": "success"}'),
    items=_items,
)
