"""A backend that speaks OTLP over gRPC: opentelemetry-proto's collector/trace/v1/trace_service.proto."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.servers.otlp import partial, spans_in

__all__ = ["STAND_IN", "generations"]


def generations(body: bytes) -> list[str]:
    """Return the ids of the generation spans in a request in protobuf."""
    return [
        f"{span.trace_id.hex()}-{span.span_id.hex()}"
        for span in spans_in([ExportTraceServiceRequest.FromString(body)])
        if any(attribute.key == "gen_ai.operation.name" for attribute in span.attributes)
    ]


def _items(request: Request) -> list[str]:
    return generations(request.body)


def _partial(_request: Request) -> Answer:
    return Answer(body=partial(1, "one span is too old").SerializeToString())


def _error(status: int, words: str) -> Answer:
    return Answer(status, body=words.encode())


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "headers": {"authorization": "Bearer otlp-token-0123456789"}},
    items=_items,
    partial=_partial,
    names_refused=False,
    error=_error,
    failing=(503, 504),  # the specification has INTERNAL as final
    transport="grpc",
)
