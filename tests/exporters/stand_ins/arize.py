"""Arize AX, as any OTLP receiver: its answers are not documented."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn
from tests.exporters.stand_ins.otlp_platform import platform

__all__ = ["STAND_IN"]

STAND_IN: StandIn = platform(api_key="arize-key-0123456789", space_id="arize-space-0123456789")
