"""An endpoint of somebody's own that takes a list of standard payloads."""

from __future__ import annotations

import json
from typing import Any

from tests.exporters.stand_ins import Request, StandIn

__all__ = ["STAND_IN", "identity"]


def identity(payload: dict[str, Any]) -> str:
    """Return the id of what a payload is about, as the suite has it."""
    return f"{payload['otelgw']['trace_id']}-{payload['otelgw']['span_id']}"


def _items(request: Request) -> list[str]:
    return [identity(payload) for payload in json.loads(request.body)]


STAND_IN = StandIn(
    options=lambda origin: {
        "endpoint": f"{origin}/ingest",
        "headers": {"authorization": "Bearer generic-token-0123456789"},
        "signing_secret": "signing-secret-0123456789",
    },
    items=_items,
)
