"""Sentry's ingestion: OTLP, and envelopes with the events of failed calls."""

from __future__ import annotations

from dataclasses import replace

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.otlp_platform import generations, platform

__all__ = ["STAND_IN"]


def _items(request: Request) -> list[str]:
    return generations(request) if request.path.endswith("/otlp/v1/traces") else []


STAND_IN: StandIn = replace(
    platform(),
    options=lambda origin: {"dsn": origin.replace("://", "://0123456789abcdef0123456789abcdef@") + "/42"},
    accepted=lambda _: Answer(200),
    items=_items,
)
