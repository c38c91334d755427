"""Datadog's intake of logs, API v2: docs.datadoghq.com/api/latest/logs."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.generic_api import identity

__all__ = ["STAND_IN", "error"]


def _items(request: Request) -> list[str]:
    return [identity(json.loads(log["message"])) for log in json.loads(request.body)]


def error(status: int, words: str) -> Answer:
    """Return a failure as Datadog's API tells it."""
    document = {"errors": [{"status": str(status), "title": "Error", "detail": words}]}
    return Answer(status, {"content-type": "application/json"}, json.dumps(document).encode())


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "api_key": "datadog-key-0123456789abcdef", "max_age": 10**10},
    accepted=lambda _: Answer(202, {"content-type": "application/json"}, b"{}"),
    items=_items,
    error=error,
)
