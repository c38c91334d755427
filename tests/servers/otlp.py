"""Scripted OTLP receivers on loopback, one speaking gRPC, one HTTP: real servers that answer what a test says.

Answers are taken from ``answers`` one by one, after the last one everything is accepted. ``received`` holds the decoded
requests that were accepted, ``asked`` every request with its metadata or headers.
"""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers.answering import Asked, HttpAnswer, HttpServer

__all__ = ["Certificates", "Failure", "GrpcReceiver", "HttpReceiver", "partial", "spans_in"]


class Certificates(NamedTuple):
    """PEM files: a certificate authority and what it has signed."""

    authority: Path
    server_key: Path
    server_certificate: Path
    client_key: Path
    client_certificate: Path


def spans_in(requests: Sequence[ExportTraceServiceRequest]) -> list[Span]:
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def partial(rejected: int, message: str = "") -> ExportTraceServiceResponse:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return response


@dataclass(frozen=True)
class Failure:
    """A gRPC status; ``retry_after`` in seconds becomes RetryInfo, in the standard status details."""

    code: grpc.StatusCode
    details: str = ""
    retry_after: float | None = None


GrpcAnswer = Failure | ExportTraceServiceResponse | Callable[[ExportTraceServiceRequest], Any]


class GrpcReceiver(TraceServiceServicer):
    """A gRPC server. An answer is a ``Failure``, a response, or a function of the request that returns one of them."""

    def __init__(
        self,
        answers: Sequence[GrpcAnswer] = (),
        *,
        port: int = 0,
        max_bytes: int = 4 * 1024 * 1024,
        tls: Certificates | None = None,
        repeat: bool = False,
    ) -> None:
        self.answers = list(answers)
        self.repeat = repeat
        self.received: list[ExportTraceServiceRequest] = []
        self.asked: list[Asked] = []
        options = (("grpc.max_receive_message_length", max_bytes), ("grpc.so_reuseport", 0))
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        add_TraceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        if tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            pair = (tls.server_key.read_bytes(), tls.server_certificate.read_bytes())
            credentials = grpc.ssl_server_credentials([pair], tls.authority.read_bytes(), require_client_auth=True)
            self.port = self._server.add_secure_port(address, credentials)
        scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
        self.endpoint = f"{scheme}://{host}:{self.port}"

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.asked.append(Asked("", metadata, request.SerializeToString()))
        answer: Any = ExportTraceServiceResponse()
        if self.answers:
            answer = self.answers[0] if self.repeat else self.answers.pop(0)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Failure):
            if answer.retry_after is not None:
                context.set_trailing_metadata((("grpc-status-details-bin", _details(answer)),))
            context.abort(answer.code, answer.details)
        self.received.append(request)
        return answer

    @property
    def spans(self) -> list[Span]:
        return spans_in(self.received)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()


def _details(failure: Failure) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int((failure.retry_after or 0) * 1000))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(code=failure.code.value[0], details=[detail]).SerializeToString()


class HttpReceiver(HttpServer):
    """An HTTP/1.1 server for protobuf and JSON. An answer is a ``HttpAnswer`` or a function of ``Asked`` to one."""

    def __init__(
        self,
        answers: Sequence[HttpAnswer | Callable[[Asked], HttpAnswer]] = (),
        *,
        port: int = 0,
        tls: Certificates | None = None,
        repeat: bool = False,
    ) -> None:
        self.answers = list(answers)
        self.repeat = repeat
        self.accepted: list[Asked] = []
        self.asked: list[Asked] = []
        context = None
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.authority))
            context.load_cert_chain(tls.server_certificate, tls.server_key)
            context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(port=port, tls=context)
        if tls is not None:
            self.origin = f"https://localhost:{self.port}"
        self.endpoint = f"{self.origin}/v1/traces"

    @property
    def received(self) -> list[ExportTraceServiceRequest]:
        """The accepted requests that were in protobuf."""
        kind = "application/x-protobuf"
        return [
            ExportTraceServiceRequest.FromString(asked.body)
            for asked in self.accepted
            if asked.headers["content-type"] == kind
        ]

    @property
    def spans(self) -> list[Span]:
        return spans_in(self.received)

    def answer(self, asked: Asked) -> HttpAnswer:
        if asked.headers.get("content-encoding") == "gzip":
            asked = asked._replace(body=gzip.decompress(asked.body))
        self.asked.append(asked)
        answer: Any = HttpAnswer()
        if self.answers:
            answer = self.answers[0] if self.repeat else self.answers.pop(0)
        if callable(answer):
            answer = answer(asked)
        if 200 <= answer.status < 300 and not (answer.hang_up or answer.silent):
            self.accepted.append(asked)
        return answer
