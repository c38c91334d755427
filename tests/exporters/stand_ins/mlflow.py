"""MLflow's tracking server: the lookup of an experiment, and OTLP."""

from __future__ import annotations

from dataclasses import replace

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.otlp_platform import generations, platform

__all__ = ["STAND_IN"]

_JSON = {"content-type": "application/json"}


def _accepted(request: Request) -> Answer:
    if request.path.endswith("/search"):
        return Answer(200, _JSON, b'{"experiments": [{"experiment_id": "7", "name": "otelgw"}]}')
    return Answer(200, _JSON, b"{}")


def _items(request: Request) -> list[str]:
    return generations(request) if request.path == "/v1/traces" else []


STAND_IN: StandIn = replace(
    platform(username="user", password="mlflow-password-0123456789", final=(400, 422)),
    accepted=_accepted,
    items=_items,
)
