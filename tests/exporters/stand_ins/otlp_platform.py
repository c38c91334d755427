"""What stands in for the platforms that take OTLP over HTTP: no row of its own, but a maker for theirs."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.servers.otlp import spans_in

__all__ = ["generations", "platform"]

_PROTOBUF = {"content-type": "application/x-protobuf"}


def generations(request: Request) -> list[str]:
    """Return the ids of the generations in an OTLP request: of the spans that are named as one is."""
    spans = spans_in([ExportTraceServiceRequest.FromString(request.body)])
    return [f"{span.trace_id.hex()}-{span.span_id.hex()}" for span in spans if span.name.startswith("chat ")]


def platform(*, final: tuple[int, ...] = (400,), denied: tuple[int, ...] = (401, 403), **options: Any) -> StandIn:
    """Return the stand-in of a platform whose exporter takes ``options`` beside its endpoint."""
    return StandIn(
        options=lambda origin: {"endpoint": origin, **options},
        accepted=lambda _: Answer(200, _PROTOBUF),
        items=generations,
        final=final,
        denied=denied,
    )
