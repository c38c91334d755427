"""OTLP over gRPC into an ``Intake``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otelgw_collector.receiver import Answer, Intake, is_allowed

__all__ = ["GrpcReceiver"]

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_AT_ONCE = 16  # messages that are being read; the others wait in the network
_READ_WITHIN = 30.0  # seconds for one message
_CODES: Mapping[str, grpc.StatusCode] = {
    "unreadable": grpc.StatusCode.INVALID_ARGUMENT,
    "too_large": grpc.StatusCode.INVALID_ARGUMENT,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}


class GrpcReceiver:
    """A server for OTLP's trace service; it lives on the event loop that it is started on.

    ``max_bytes`` bounds a message, on the wire and decompressed. ``pair`` is a TLS key and certificate chain in PEM.
    """

    def __init__(
        self, intake: Intake, *, max_bytes: int, token_sha256: str = "", pair: tuple[bytes, bytes] | None = None
    ) -> None:
        self._intake = intake
        self._token_sha256 = token_sha256
        self._pair = pair
        self._max_bytes = max_bytes
        self._reading = asyncio.Semaphore(_AT_ONCE)
        self._server: Any = None

    async def start(self, address: str) -> int:
        """Listen on ``host:port``; return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        options: Sequence[tuple[str, Any]] = (
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.so_reuseport", 0),  # a port that is in use is an error
            ("grpc.max_concurrent_streams", 128),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # exporters keep idle connections alive
            ("grpc.keepalive_permit_without_calls", 1),
        )
        self._server = grpc.aio.server(options=options)
        # Received as a stream of one message, so that nothing is read from a sender without the token.
        handler = grpc.stream_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
        try:
            if self._pair is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([self._pair]))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        await self._server.start()
        return int(port)

    async def stop(self, limit: float) -> None:
        """Take no new requests; those under way have ``limit`` seconds."""
        if self._server is not None:
            await self._server.stop(limit)

    async def _export(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        answer = await self._answered(messages, context)
        self._intake.note("grpc", answer.kind)
        if answer.kind != "accepted":
            await _refuse(context, answer)
        response = ExportTraceServiceResponse()
        if answer.rejected:
            response.partial_success.rejected_spans = answer.rejected
            response.partial_success.error_message = answer.message
        return response.SerializeToString()

    async def _answered(self, messages: AsyncIterator[bytes], context: Any) -> Answer:
        if not is_allowed(_authorization(context), self._token_sha256):
            return Answer("unauthorized", "a bearer token is asked for in authorization")
        async with self._reading:
            try:
                body = await asyncio.wait_for(anext(messages), _READ_WITHIN)
            except StopAsyncIteration:
                return Answer("unreadable", "there is no message")
            except TimeoutError:
                return Answer("unavailable", "the message took too long", retry_after=1.0)
            return await self._intake.receive(body)


def _authorization(context: Any) -> str:
    return next((value for key, value in context.invocation_metadata() or () if key == "authorization"), "")


async def _refuse(context: Any, answer: Answer) -> NoReturn:
    code = _CODES[answer.kind]
    metadata: tuple[tuple[str, bytes], ...] = ()
    if answer.retry_after:
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=Duration(nanos=0, seconds=max(1, round(answer.retry_after)))))
        status = Status(code=code.value[0], message=answer.message, details=[detail])
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, answer.message, trailing_metadata=metadata)
    raise AssertionError("abort raises")
