"""Langfuse's OTLP endpoint: all of a request or, with 400 and a reason, nothing of it."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn
from tests.exporters.stand_ins.otlp_platform import platform

__all__ = ["STAND_IN"]

STAND_IN: StandIn = platform(public_key="pk-lf-0123456789", secret_key="sk-lf-0123456789", final=(400, 422))
