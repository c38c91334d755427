"""Helicone's custom log, one call a request."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Request, StandIn

__all__ = ["STAND_IN"]


def _items(request: Request) -> list[str]:
    return [json.loads(request.body)["providerRequest"]["meta"]["Helicone-Property-OtelId"]]


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "helicone-key-0123456789"},
    items=_items,
)
