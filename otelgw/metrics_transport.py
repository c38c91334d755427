"""How metrics get to an OTLP endpoint: over gRPC, or over HTTP in protobuf or JSON."""

from __future__ import annotations

import contextlib
import time
import zlib
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otelgw import __version__
from otelgw.config.settings import MetricsExport
from otelgw_exporters import http

__all__ = ["Transport", "transport"]

_METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_AGENT = f"OTel-OTLP-Exporter-Python/otelgw-{__version__}"
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class Transport(Protocol):
    """``send`` takes an ``ExportMetricsServiceRequest`` in protobuf and returns why it was not taken, else nothing."""

    def send(self, request: bytes, timeout: float) -> str: ...
    def close(self) -> None: ...


def transport(settings: MetricsExport) -> Transport:
    """Return the way that ``settings`` say.

    Raises:
        DestinationConfigError: a TLS file cannot be used.
    """
    return _Grpc(settings) if settings.protocol == "grpc" else _Http(settings)


def _tls(settings: MetricsExport) -> http.Tls:
    tls = http.Tls(settings.certificate, settings.client_key, settings.client_certificate)
    tls.check("metrics")
    return tls


def _masked(settings: MetricsExport) -> http.Masked:
    return http.Masked({**settings.headers, "": urlsplit(settings.endpoint).password or ""})


class _Grpc:
    def __init__(self, settings: MetricsExport) -> None:
        parts = urlsplit(settings.endpoint)
        tls = _tls(settings)
        options = (("grpc.primary_user_agent", _AGENT), *_RECONNECT)
        gzip = settings.compression == "gzip"
        packing = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        if parts.scheme == "http":
            self._channel = grpc.insecure_channel(parts.netloc, options, packing)
        else:
            roots, key, chain = (Path(path).read_bytes() if path else None for path in tls)
            credentials = grpc.ssl_channel_credentials(roots, key, chain)
            self._channel = grpc.secure_channel(parts.netloc, credentials, options, packing)
        self._call = self._channel.unary_unary(
            _METHOD, request_serializer=bytes, response_deserializer=ExportMetricsServiceResponse.FromString
        )
        self._metadata = tuple(settings.headers.items())
        self._mask = _masked(settings)
        self._origin = http.origin(settings.endpoint)

    def send(self, request: bytes, timeout: float) -> str:
        try:
            response = self._call(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            return f"{self._origin}: gRPC {error.code().name}: {self._mask(error.details() or '')}"
        except ValueError as error:  # the channel is closed
            return f"{self._origin}: {error}"
        return self._mask(_rejected(response))

    def close(self) -> None:
        self._channel.close()


class _Http:
    def __init__(self, settings: MetricsExport) -> None:
        self._endpoint = settings.endpoint
        self._json = settings.protocol == "http/json"
        self._gzip = settings.compression == "gzip"
        content = {"content-type": "application/json" if self._json else "application/x-protobuf"}
        if self._gzip:
            content["content-encoding"] = "gzip"
        headers = {"user-agent": _AGENT, "accept-encoding": "identity"} | dict(settings.headers) | content
        self._http = http.client("metrics", headers=headers, tls=_tls(settings))
        self._mask = _masked(settings)

    def send(self, request: bytes, timeout: float) -> str:
        body = request
        if self._json:
            # Metrics without exemplars hold no ids, which OTLP's JSON would have in hex.
            message = ExportMetricsServiceRequest.FromString(request)
            body = MessageToJson(message, use_integers_for_enums=True, indent=None).encode()
        if self._gzip:
            packer = zlib.compressobj(level=1, wbits=31)
            body = packer.compress(body) + packer.flush()
        answer = http.send(self._http, self._endpoint, body, time.monotonic() + timeout, self._mask)
        if not isinstance(answer, http.Answer):
            return answer.reason
        said = self._mask(answer.body[:300].decode("utf-8", "replace"))
        reply = http.classify(answer, said)
        if reply.kind != "accepted":
            return f"{http.origin(self._endpoint)}: {reply.reason}"
        response = ExportMetricsServiceResponse()
        if not self._json:
            with contextlib.suppress(DecodeError):
                response.ParseFromString(answer.body)
        return self._mask(_rejected(response))

    def close(self) -> None:
        self._http.close()


def _rejected(response: ExportMetricsServiceResponse) -> str:
    """Return why some of the metrics were not taken; empty if all were."""
    partial = response.partial_success
    if not partial.rejected_data_points:
        return ""
    return f"{partial.rejected_data_points} data points are not taken: {partial.error_message}"
