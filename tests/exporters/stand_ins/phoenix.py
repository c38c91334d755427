"""Phoenix, as it answers OTLP: nothing on success, 422 for what it cannot read."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn
from tests.exporters.stand_ins.otlp_platform import platform

__all__ = ["STAND_IN"]

STAND_IN: StandIn = platform(api_key="phoenix-key-0123456789", final=(422, 415))
