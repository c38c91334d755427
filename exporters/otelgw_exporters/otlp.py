"""OTLP over gRPC and over HTTP, as OpenTelemetry's protocol specification has it.

Deviations, both for the sake of losing nothing: credentials and endpoints that are refused are retried slowly instead
of dropped, because only the operator can mend them; RESOURCE_EXHAUSTED without RetryInfo is retried unless it speaks of
the message's size.
"""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, confinement, http, options
from otelgw_exporters.delivery import (
    OPERATOR_DELAY,
    Exporter,
    Outcome,
    Reply,
)
from otelgw_exporters.direct import direct
from otelgw_exporters.errors import naming
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_post import TOO_LARGE, agent, deliver_encoded, packed, partial, post, understood
from otelgw_exporters.otlp_wire import EncodedSpan, laid_out, to_json
from otelgw_exporters.semconv import profile_of
from otelgw_exporters.sheaf import gathered

__all__ = ["OtlpGrpcExporter", "OtlpHttpExporter"]

M = TypeVar("M", bound=Message)

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5000),  # gRPC's default lets a channel rest for two minutes
)


class _OtlpExporter(Exporter):
    """What both transports have in common: encode, split by size, halve what is refused."""

    def __init__(self, type_name: str, name: str, given: Mapping[str, Any]) -> None:
        with naming(name):
            self._options = options.resolve(catalog.row(type_name), given)
        super().__init__(name, self._options["timeout"])
        self._endpoint: str = self._options["endpoint"]
        self._headers: Mapping[str, str] = self._options["headers"] or {}
        password = urlsplit(self._endpoint).password or ""
        self._mask = http.Masked({**self._headers, "": password})
        self._max_bytes: int = self._options["max_request_bytes"]
        self._encode = self.encoder = encoder(profile_of(self._options)).shared()
        self.ahead = self._encode.ready
        self.gather = gathered

    def _tls(self) -> http.Tls:
        paths = ("certificate", "client_key", "client_certificate")
        tls = http.Tls(*(self._options[path] or "" for path in paths))
        tls.check(self.name)
        return tls

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        def send(part: Sequence[EncodedSpan]) -> Reply:
            return self._send(laid_out(part), deadline)

        outcome = deliver_encoded(spans, self._encode, send, self._max_bytes, deadline)
        return Outcome(outcome.verdicts, outcome.rejected, self._mask(outcome.message))

    @abstractmethod
    def _send(self, request: Sequence[bytes], deadline: float) -> Reply:
        """Send one request, which comes in pieces."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {http.origin(self._endpoint)}>"


class OtlpGrpcExporter(_OtlpExporter):
    """OTLP/gRPC. Keywords are the options of the catalog row ``otlp_grpc``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    def __init__(self, *, name: str = "otlp_grpc", **given: Any) -> None:
        super().__init__("otlp_grpc", name, given)
        parts = urlsplit(self._endpoint if "://" in self._endpoint else f"//{self._endpoint}")
        settings: tuple[tuple[str, Any], ...] = (("grpc.primary_user_agent", agent()), *_RECONNECT)
        target, within = parts.netloc, confinement.bounds()
        if within is not None:
            target, pinned = confinement.grpc_target(target, within)
            settings = (*settings, *pinned)
        gzip = self._options["compression"] == "gzip"
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        tls = self._tls()
        if parts.scheme == "http" or (not parts.scheme and self._options["insecure"]):
            self._channel = grpc.insecure_channel(target, settings, compression)
        else:
            self._channel = grpc.secure_channel(target, _credentials(tls), settings, compression)
        self._call = self._channel.unary_unary(
            _METHOD, request_serializer=bytes, response_deserializer=ExportTraceServiceResponse.FromString
        )
        self._metadata = tuple(self._headers.items())

    def _send(self, request: Sequence[bytes], deadline: float) -> Reply:
        left = min(self.timeout, deadline - time.monotonic())
        try:
            response = self._call(b"".join(request), timeout=max(left, 0.001), metadata=self._metadata)
        except grpc.RpcError as error:
            return self._classify(error)
        except ValueError as error:  # the channel was closed by shutdown
            return Reply("again", str(error))
        return partial(response)

    def _classify(self, error: grpc.RpcError) -> Reply:
        """Return what a failed call means for its spans."""
        code, details = error.code(), error.details() or ""
        reason = f"{http.origin(self._endpoint)}: gRPC {code.name}: {self._mask(details)}"
        if TOO_LARGE.search(details):
            return Reply("too_large", reason)
        after = _retry_delay(error.trailing_metadata() or ())
        if code in _AGAIN or _CUT.search(details):
            hint = next((f" ({hint})" for sign, hint in _HINTS.items() if sign in details), "")
            return Reply("again", f"{reason}{hint}", after)
        if code in _OPERATOR:
            return Reply("again", f"{reason} ({_OPERATOR[code]})", OPERATOR_DELAY)
        return Reply("refused", reason)

    def shutdown(self) -> None:
        super().shutdown()
        self._channel.close()


_AGAIN = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_OPERATOR = {
    grpc.StatusCode.UNAUTHENTICATED: "the credentials are not accepted: mend the destination's headers",
    grpc.StatusCode.PERMISSION_DENIED: "the credentials lack the right to write: mend the destination's headers",
    grpc.StatusCode.UNIMPLEMENTED: "no OTLP trace service is there: mend the destination's endpoint",
    grpc.StatusCode.NOT_FOUND: "no OTLP trace service is there: mend the destination's endpoint",
}
_HINTS = {
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: write http:// before the endpoint, or set insecure: true",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted: set certificate to its authority's",
    "Expected SETTINGS frame": "HTTP/1 is spoken there: use the destination otlp_http, or the receiver's gRPC port",
}
_HTTP_AGAIN = frozenset({408, 425, 429, 502, 503, 504})  # the specification has 500 as final
_CUT = re.compile(r"RST_STREAM|Stream removed|GOAWAY|Socket closed")


def _retry_delay(metadata: Sequence[tuple[str, Any]]) -> float | None:
    """Return the seconds that a RetryInfo among the status details asks for."""
    for key, value in metadata:
        info = RetryInfo()
        try:
            if key == "google.rpc.retryinfo-bin":
                info.ParseFromString(value)
                return _seconds(info)
            if key == "grpc-status-details-bin":
                for detail in Status.FromString(value).details:
                    if detail.Unpack(info):
                        return _seconds(info)
        except DecodeError:
            continue
    return None


def _seconds(info: RetryInfo) -> float:
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return max(0.0, seconds)


def _credentials(tls: http.Tls) -> grpc.ChannelCredentials:
    roots, key, chain = (_read(path) for path in tls)
    return grpc.ssl_channel_credentials(root_certificates=roots, private_key=key, certificate_chain=chain)


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


class OtlpHttpExporter(_OtlpExporter):
    """OTLP/HTTP. Keywords are the options of the catalog row ``otlp_http``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    def __init__(self, *, name: str = "otlp_http", **given: Any) -> None:
        super().__init__("otlp_http", name, given)
        self._json = self._options["protocol"] == "http/json"
        self._gzip = self._options["compression"] == "gzip"
        content = {"content-type": "application/json" if self._json else "application/x-protobuf"}
        if self._gzip:
            content["content-encoding"] = "gzip"
        headers = {"user-agent": agent(), "accept-encoding": "identity"} | dict(self._headers) | content
        tls = self._tls()
        self._http = http.client(name, headers=headers, tls=tls)
        self._direct = direct(self._http, self._endpoint, tls, name)

    def _send(self, request: Sequence[bytes], deadline: float) -> Reply:
        if self._json:
            request = [to_json(b"".join(request))]
        if self._gzip:
            request = [packed(b"".join(request))]
        deadline = min(deadline, time.monotonic() + self.timeout)
        if self._direct is None:
            return post(self._http, self._endpoint, b"".join(request), deadline, self._mask, _HTTP_AGAIN)
        return understood(self._direct.post(request, deadline, self._mask), self._mask, _HTTP_AGAIN)

    def shutdown(self) -> None:
        super().shutdown()
        self._http.close()
        if self._direct is not None:
            self._direct.close()
