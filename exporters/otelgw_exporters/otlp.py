"""OTLP over gRPC and over HTTP, as OpenTelemetry's protocol specification has it.

Deviations, both for the sake of losing nothing: credentials and endpoints that are refused are retried slowly instead
of dropped, because only the operator can mend them; RESOURCE_EXHAUSTED without RetryInfo is retried unless it speaks of
the message's size.
"""

from __future__ import annotations

import re
import time
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import msgspec
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, http, options
from otelgw_exporters.delivery import (
    OPERATOR_DELAY,
    Exporter,
    Outcome,
    Reply,
    Verdict,
    deliver_in_parts,
    to_outcome,
)
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.otlp_wire import EncodedSpan, Encoder, Singly, assemble, split, to_json
from otelgw_exporters.semconv import BODIES, DIALECTS, FORMS, Profile, profile_of

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
        try:
            self._options = options.resolve(catalog.row(type_name), given)
        except DestinationConfigError as error:
            raise DestinationConfigError(f"destination {name}: {error}") from None
        super().__init__(name, self._options["timeout"])
        self._endpoint: str = self._options["endpoint"]
        self._headers: Mapping[str, str] = self._options["headers"] or {}
        password = urlsplit(self._endpoint).password or ""
        self._mask = http.Masked({**self._headers, "": password})
        self._max_bytes: int = self._options["max_request_bytes"]
        self._encode = _encoder(profile_of(self._options)).shared()

    def _tls(self) -> http.Tls:
        paths = ("certificate", "client_key", "client_certificate")
        tls = http.Tls(*(self._options[path] or "" for path in paths))
        tls.check(self.name)
        return tls

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        encoded: list[EncodedSpan] = []
        verdicts: list[Verdict | None] = []
        for span in spans:
            try:
                encoded.append(self._encode(span))
                verdicts.append(None)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                verdicts.append(Verdict("dead", f"the span cannot be encoded ({type(error).__name__})"))

        def send(part: Sequence[EncodedSpan]) -> Reply:
            return self._send(assemble(part), deadline)

        decided = deliver_in_parts(split(encoded, self._max_bytes), send, deadline)
        outcome = to_outcome(decided)
        sent = iter(outcome.verdicts)
        return Outcome(
            tuple(verdict or next(sent) for verdict in verdicts), outcome.rejected, self._mask(outcome.message)
        )

    @abstractmethod
    def _send(self, request: bytes, deadline: float) -> Reply:
        """Send one assembled request."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {http.origin(self._endpoint)}>"


@lru_cache(maxsize=32)
def _encoder(profile: Profile) -> Encoder:
    """Return the encoder that all destinations of a profile share."""
    dialect = DIALECTS[profile.semconv]
    singly = Singly(
        form=FORMS[profile.form],
        dropped=frozenset() if profile.bodies else BODIES,
        special=frozenset(dialect.renames) | frozenset(dialect.values) | dialect.doubles,
        merged=frozenset(dialect.renames.values()),
    )
    return Encoder(profile.attributes, singly)


def _agent() -> str:
    try:
        return f"OTel-OTLP-Exporter-Python/otelgw-{version('otelgw')}"
    except PackageNotFoundError:
        return "OTel-OTLP-Exporter-Python/otelgw"


def _partial(response: ExportTraceServiceResponse) -> Reply:
    partial = response.partial_success
    return Reply("accepted", partial.error_message, rejected=max(0, partial.rejected_spans))


class OtlpGrpcExporter(_OtlpExporter):
    """OTLP/gRPC. Keywords are the options of the catalog row ``otlp_grpc``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    def __init__(self, *, name: str = "otlp_grpc", **given: Any) -> None:
        super().__init__("otlp_grpc", name, given)
        parts = urlsplit(self._endpoint if "://" in self._endpoint else f"//{self._endpoint}")
        settings = (("grpc.primary_user_agent", _agent()), *_RECONNECT)
        gzip = self._options["compression"] == "gzip"
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        tls = self._tls()
        if parts.scheme == "http" or (not parts.scheme and self._options["insecure"]):
            self._channel = grpc.insecure_channel(parts.netloc, settings, compression)
        else:
            self._channel = grpc.secure_channel(parts.netloc, _credentials(tls), settings, compression)
        self._call = self._channel.unary_unary(
            _METHOD, request_serializer=bytes, response_deserializer=ExportTraceServiceResponse.FromString
        )
        self._metadata = tuple(self._headers.items())

    def _send(self, request: bytes, deadline: float) -> Reply:
        left = min(self.timeout, deadline - time.monotonic())
        try:
            response = self._call(request, timeout=max(left, 0.001), metadata=self._metadata)
        except grpc.RpcError as error:
            return self._classify(error)
        except ValueError as error:  # the channel was closed by shutdown
            return Reply("again", str(error))
        return _partial(response)

    def _classify(self, error: grpc.RpcError) -> Reply:
        """Return what a failed call means for its spans."""
        code, details = error.code(), error.details() or ""
        reason = f"{http.origin(self._endpoint)}: gRPC {code.name}: {self._mask(details)}"
        if _TOO_LARGE.search(details):
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
# As the C, Go, Java, .NET and Rust gRPC servers say it, under various statuses, and the Collector by HTTP, with 400; a
# proxy in between says it with 413.
_TOO_LARGE = re.compile(r"larger than max|exceeds (the )?max|too large|status(:| code) 413", re.IGNORECASE)
_HINTS = {
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: write http:// before the endpoint, or set insecure: true",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted: set certificate to its authority's",
    "Expected SETTINGS frame": "HTTP/1 is spoken there: use the destination otlp_http, or the receiver's gRPC port",
}
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
        headers = {"user-agent": _agent(), "accept-encoding": "identity"} | dict(self._headers) | content
        self._http = http.client(name, headers=headers, tls=self._tls())

    def _send(self, request: bytes, deadline: float) -> Reply:
        body = to_json(request) if self._json else request
        if self._gzip:
            packer = zlib.compressobj(level=1, wbits=31)
            body = packer.compress(body) + packer.flush()
        deadline = min(deadline, time.monotonic() + self.timeout)
        answer = http.send(self._http, self._endpoint, body, deadline, self._mask)
        if isinstance(answer, Reply):
            return answer
        said = self._mask(_said(answer))
        reply = http.classify(answer, said)
        if reply.kind == "refused" and _TOO_LARGE.search(said):
            return Reply("too_large", reply.reason)
        return _partial(_response(answer)) if reply.kind == "accepted" else reply

    def shutdown(self) -> None:
        super().shutdown()
        self._http.close()


def _is_json(answer: http.Answer) -> bool:
    kind: str = answer.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/json"


def _said(answer: http.Answer) -> str:
    """Return the explanation in an error answer: the message of a google.rpc.Status, or text."""
    if answer.headers.get("content-type", "").startswith("application/x-protobuf"):
        return str(_parsed(answer.body, Status()).message)
    if _is_json(answer):
        try:
            tree = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            tree = None
        if isinstance(tree, dict) and isinstance(tree.get("message"), str):
            return str(tree["message"])
    return answer.body[:300].decode("utf-8", "replace")


def _response(answer: http.Answer) -> ExportTraceServiceResponse:
    """Return the partial success in an answer; whatever cannot be read counts as a full one, as it was accepted."""
    response = ExportTraceServiceResponse()
    if not _is_json(answer):
        return _parsed(answer.body, response)
    try:
        partial = msgspec.json.decode(answer.body)["partialSuccess"]
        response.partial_success.rejected_spans = int(partial.get("rejectedSpans", 0))
        response.partial_success.error_message = str(partial.get("errorMessage", ""))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError):
        response.Clear()
    return response


def _parsed(body: bytes, message: M) -> M:
    try:
        message.ParseFromString(body)
    except DecodeError:
        message.Clear()
    return message
