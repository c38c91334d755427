"""What an OTLP receiver's answers mean, and sending to it over HTTP: for OTLP itself and for vendors that take it."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Container, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import http
from otelgw_exporters.delivery import UNUSABLE, Outcome, Reply, Verdict, deliver_in_parts, to_outcome
from otelgw_exporters.otlp_wire import EncodedSpan, split
from otelgw_exporters.sheaf import Sheaves

__all__ = ["TOO_LARGE", "agent", "deliver_encoded", "packed", "partial", "post", "understood"]

M = TypeVar("M", bound=Message)

# As the C, Go, Java, .NET and Rust gRPC servers say it, under various statuses, and the Collector by HTTP, with 400; a
# proxy in between says it with 413.
TOO_LARGE = re.compile(r"larger than max|exceeds (the )?max|too large|status(:| code) 413", re.IGNORECASE)


def agent() -> str:
    """Return the User-Agent of OTLP requests; some receivers want to see in it that they are OpenTelemetry's."""
    try:
        return f"OTel-OTLP-Exporter-Python/otelgw-{version('otelgw')}"
    except PackageNotFoundError:
        return "OTel-OTLP-Exporter-Python/otelgw"


def partial(response: ExportTraceServiceResponse) -> Reply:
    """Return what a response says of the request that it accepted."""
    told = response.partial_success
    return Reply("accepted", told.error_message, rejected=max(0, told.rejected_spans))


def post(
    client: http.Client,
    url: str,
    body: bytes,
    deadline: float,
    mask: Callable[[str], str],
    again: Container[int] = http.AGAIN,
) -> Reply:
    """Send an encoded request; ``again`` are the statuses after which it is to be tried again."""
    return understood(http.send(client, url, body, deadline, mask), mask, again)


def understood(answer: http.Answer | Reply, mask: Callable[[str], str], again: Container[int] = http.AGAIN) -> Reply:
    """Return what an answer to an encoded request means for its spans; ``again`` as in ``post``."""
    if isinstance(answer, Reply):
        return answer
    said = mask(_said(answer))
    reply = http.classify(answer, said, again)
    if reply.kind == "refused" and TOO_LARGE.search(said):
        return Reply("too_large", reply.reason)
    return partial(_response(answer)) if reply.kind == "accepted" else reply


def packed(body: bytes) -> bytes:
    """Return ``body`` compressed with gzip, the same bytes for the same body."""
    packer = zlib.compressobj(level=1, wbits=31)
    return packer.compress(body) + packer.flush()


def deliver_encoded(
    spans: Sequence[ReadableSpan],
    encode: Callable[[ReadableSpan], EncodedSpan],
    send: Callable[[Sequence[EncodedSpan]], Reply],
    max_bytes: int,
    deadline: float,
    cut: Callable[[Sequence[EncodedSpan], int], list[Sequence[EncodedSpan]]] = split,
) -> Outcome:
    """Encode ``spans``, send them in requests of at most ``max_bytes`` and return what became of each.

    ``cut`` makes requests of the encoded spans.
    """
    if isinstance(spans, Sheaves):
        return _deliver_sheaves(spans, encode, send, max_bytes, deadline, cut)
    verdicts: list[Verdict | None] = []
    try:
        encoded = [encode(span) for span in spans]
    except UNUSABLE:
        encoded, verdicts = _encodable(spans, encode)
    decided = deliver_in_parts(cut(encoded, max_bytes), send, deadline)
    outcome = to_outcome(decided)
    if not verdicts:
        return outcome
    sent = iter(outcome.verdicts)
    return Outcome(tuple(verdict or next(sent) for verdict in verdicts), outcome.rejected, outcome.message)


def _deliver_sheaves(
    spans: Sheaves,
    encode: Callable[[ReadableSpan], EncodedSpan],
    send: Callable[[Sequence[EncodedSpan]], Reply],
    max_bytes: int,
    deadline: float,
    cut: Callable[[Sequence[EncodedSpan], int], list[Sequence[EncodedSpan]]],
) -> Outcome:
    """Send all of it in one request if it may be one; what is not taken so is delivered as any other spans are."""
    try:
        encoded, size = spans.encoded(encode)
    except UNUSABLE:
        size = max_bytes + 1
    if not spans or size > max_bytes or time.monotonic() >= deadline:
        return deliver_encoded(list(spans), encode, send, max_bytes, deadline, cut)
    reply = send(encoded)
    if reply.kind in {"accepted", "again"}:
        return to_outcome([(spans, reply)])
    answered = [reply]  # to the whole, which the first part is

    def go_on(part: Sequence[EncodedSpan]) -> Reply:
        return answered.pop() if answered else send(part)

    return deliver_encoded(list(spans), encode, go_on, max_bytes, deadline, cut)


def _encodable(
    spans: Sequence[ReadableSpan], encode: Callable[[ReadableSpan], EncodedSpan]
) -> tuple[list[EncodedSpan], list[Verdict | None]]:
    """Return what can be encoded, and of every span the verdict if it cannot."""
    encoded: list[EncodedSpan] = []
    verdicts: list[Verdict | None] = []
    for span in spans:
        try:
            encoded.append(encode(span))
            verdicts.append(None)
        except UNUSABLE as error:
            verdicts.append(Verdict("dead", f"the span cannot be encoded ({type(error).__name__})"))
    return encoded, verdicts


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
        told = msgspec.json.decode(answer.body)["partialSuccess"]
        response.partial_success.rejected_spans = int(told.get("rejectedSpans", 0))
        response.partial_success.error_message = str(told.get("errorMessage", ""))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError):
        response.Clear()
    return response


def _parsed(body: bytes, message: M) -> M:
    try:
        message.ParseFromString(body)
    except DecodeError:
        message.Clear()
    return message
