"""Logfire, as any OTLP receiver."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn
from tests.exporters.stand_ins.otlp_platform import platform

__all__ = ["STAND_IN"]

STAND_IN: StandIn = platform(token="pylf_v1_us_0123456789abcdef")
