"""Code of one's own: reached over no network."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn

__all__ = ["STAND_IN"]

STAND_IN = StandIn(
    options=lambda _: {"target": "opentelemetry.sdk.trace.export.in_memory_span_exporter.InMemorySpanExporter"},
    transport="local",
)
