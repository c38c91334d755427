"""Langtrace: 404 is its answer to every error, credentials that it does not know among them."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn
from tests.exporters.stand_ins.otlp_platform import platform

__all__ = ["STAND_IN"]

STAND_IN: StandIn = platform(api_key="langtrace-key-0123456789", denied=(401, 403, 404))
