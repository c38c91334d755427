"""A backend that speaks OTLP over HTTP, as opentelemetry.io/docs/specs/otlp/#otlphttp has it."""

from __future__ import annotations

from google.rpc.status_pb2 import Status

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.otlp_grpc import generations
from tests.servers.otlp import partial

__all__ = ["STAND_IN"]

_PROTOBUF = {"content-type": "application/x-protobuf"}


def _accepted(_request: Request) -> Answer:
    return Answer(200, _PROTOBUF)


def _items(request: Request) -> list[str]:
    return generations(request.body)


def _partial(_request: Request) -> Answer:
    return Answer(200, _PROTOBUF, partial(1, "one span is too old").SerializeToString())


def _error(status: int, words: str) -> Answer:
    return Answer(status, _PROTOBUF, Status(message=words).SerializeToString())


STAND_IN = StandIn(
    options=lambda origin: {"endpoint": origin, "headers": {"authorization": "Bearer otlp-token-0123456789"}},
    accepted=_accepted,
    items=_items,
    partial=_partial,
    names_refused=False,
    error=_error,
    failing=(502, 503, 504),  # the specification has every other 5xx as final
)
