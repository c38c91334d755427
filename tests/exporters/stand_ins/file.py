"""Files are reached over no network."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn

__all__ = ["STAND_IN"]

STAND_IN = StandIn(transport="local")
