"""A scripted OTLP metrics receiver over gRPC, on loopback; ``answers`` are used up one by one, then all is accepted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.servers.otlp import Failure

__all__ = ["MetricsReceiver", "metrics_in"]


def metrics_in(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    """Return the metrics of a request by their names."""
    return {
        metric.name: metric
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


class MetricsReceiver(MetricsServiceServicer):
    """``received`` are the requests that were accepted. ``silent``: it answers nothing until it is closed."""

    def __init__(self, answers: Sequence[Failure | ExportMetricsServiceResponse] = (), *, silent: bool = False) -> None:
        self.answers = list(answers)
        self.received: list[ExportMetricsServiceRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self._silent = silent
        self._closing = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        add_MetricsServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        if self._silent:
            self._closing.wait(60)
        answer = self.answers.pop(0) if self.answers else ExportMetricsServiceResponse()
        if isinstance(answer, Failure):
            context.abort(answer.code, answer.details)
            raise AssertionError
        self.received.append(request)
        return answer

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.stop(None).wait()
