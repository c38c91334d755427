"""OTLP over HTTP, by the SDK's exporter, by our own and by hand."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from otelgw_collector.receiver_http import decompressed
from otelgw_exporters.otlp import OtlpHttpExporter
from otelgw_exporters.otlp_wire import to_json
from tests.collector.receiving import OWN, RunningReceiver, request, span
from tests.collector.test_receiver_grpc import MoodySpool

PROTOBUF, JSON = "application/x-protobuf", "application/json"
BODY = request(span(1)).SerializeToString()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    with RunningReceiver(tmp_path / "spool") as running:
        yield running


def post(receiver: RunningReceiver, body: bytes = BODY, kind: str = PROTOBUF, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"http://127.0.0.1:{receiver.http}/v1/traces"
    return httpx.post(url, content=body, headers={"content-type": kind, **named}, timeout=10)


def said(response: httpx.Response) -> Message:
    """Return the error in an answer."""
    return status_pb2.Status.FromString(response.content)


def raw(receiver: RunningReceiver, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send bytes as they are; return everything that comes back until the end."""
    with socket.create_connection(("127.0.0.1", receiver.http), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while data := connection.recv(65536):
            found += data
    return found


def names(receiver: RunningReceiver) -> list[str]:
    return [each.name for each in receiver.spans()]


def made_span() -> Any:
    with TracerProvider().get_tracer("test").start_as_current_span("only") as made:
        return made


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_the_sdk_exports_is_in_the_spool(receiver: RunningReceiver, compression: str) -> None:
    sdk = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="the SDK's HTTP exporter is not installed"
    )
    from opentelemetry.exporter.otlp.proto.http import Compression  # type: ignore[import-not-found,unused-ignore]

    exporter = sdk.OTLPSpanExporter(f"http://127.0.0.1:{receiver.http}/v1/traces", compression=Compression(compression))
    assert exporter.export([made_span()]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert names(receiver) == ["only"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_our_own_exporter_sends_is_in_the_spool(
    receiver: RunningReceiver, protocol: str, compression: str
) -> None:
    exporter = OtlpHttpExporter(
        endpoint=f"http://127.0.0.1:{receiver.http}/v1/traces", protocol=protocol, compression=compression
    )
    assert exporter.export([made_span()]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert names(receiver) == ["only"]


@pytest.mark.parametrize(("kind", "empty"), [(PROTOBUF, b""), (f"{JSON}; charset=utf-8", b"{}")])
def test_the_answer_has_the_form_of_the_request(receiver: RunningReceiver, kind: str, empty: bytes) -> None:
    body = b'{"resourceSpans": []}' if kind.startswith(JSON) else BODY
    response = post(receiver, body, kind)
    assert response.status_code == 200
    assert response.headers["content-type"] == kind.partition(";")[0]
    assert response.content == empty


def test_refused_spans_are_a_partial_success(receiver: RunningReceiver) -> None:
    asked = request(span(1), service_instance_id=OWN)
    asked.MergeFrom(request(span(2)))
    answer = ExportTraceServiceResponse.FromString(post(receiver, asked.SerializeToString()).content)
    assert answer.partial_success.rejected_spans == 1
    assert "this gateway" in answer.partial_success.error_message
    body = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "00", "spanId": "00"}]}]}]}'
    found = json.loads(post(receiver, body, JSON).content)
    assert found["partialSuccess"]["rejectedSpans"] == "1"
    assert names(receiver) == ["span 2"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("GZIP", gzip.compress(BODY[:5], mtime=0) + gzip.compress(BODY[5:], mtime=0)),
    ],
)
def test_bodies_come_compressed(receiver: RunningReceiver, coding: str, body: bytes) -> None:
    assert post(receiver, body, content_encoding=coding).status_code == 200
    assert names(receiver) == ["span 1"]


@pytest.mark.parametrize(
    ("status", "body", "kind", "headers"),
    [
        (400, b"\xff\xff", PROTOBUF, {}),
        (400, b"{", JSON, {}),
        (400, BODY, PROTOBUF, {"content_encoding": "gzip"}),
        (400, gzip.compress(BODY, mtime=0)[:-9], PROTOBUF, {"content_encoding": "gzip"}),
        (413, gzip.compress(b"\0" * (64 * 1024 * 1024), mtime=0), PROTOBUF, {"content_encoding": "gzip"}),
        (413, b"\0" * (2 * 1024 * 1024), PROTOBUF, {}),
        (415, BODY, PROTOBUF, {"content_encoding": "zstd"}),
        (415, BODY, "text/plain", {}),
    ],
)
def test_what_can_never_be_taken_is_refused_for_good(
    receiver: RunningReceiver, status: int, body: bytes, kind: str, headers: dict[str, str]
) -> None:
    response = post(receiver, body, kind, **headers)
    assert response.status_code == status
    assert "retry-after" not in response.headers
    if kind == JSON:
        assert json.loads(response.content)["message"]
    else:
        assert said(response).message  # type: ignore[attr-defined]
    assert names(receiver) == []
    assert post(receiver).status_code == 200


def test_a_chunked_body_is_bounded_too(receiver: RunningReceiver) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield b"\0" * 65536

    headers = {"content-type": PROTOBUF}
    url = f"http://127.0.0.1:{receiver.http}/v1/traces"
    try:
        response = httpx.post(url, content=pieces(), headers=headers, timeout=10)
    except httpx.WriteError:  # it may be refused while the rest is still being sent
        pass
    else:
        assert response.status_code == 413
    assert post(receiver).status_code == 200


def test_a_full_disk_answers_503_with_retry_after(tmp_path: Path) -> None:
    spool = MoodySpool(1)
    with RunningReceiver(tmp_path, spool=spool) as receiver, httpx.Client() as client:
        url = f"http://127.0.0.1:{receiver.http}/v1/traces"
        first = client.post(url, content=BODY, headers={"content-type": PROTOBUF})
        assert (first.status_code, first.headers["retry-after"]) == (503, "5")
        assert client.post(url, content=BODY, headers={"content-type": PROTOBUF}).status_code == 200
    assert spool.taken == [BODY]


@pytest.mark.parametrize("given_token", ["", "Bearer wrong", "secret"])
def test_without_the_token_nothing_is_taken(tmp_path: Path, given_token: str) -> None:
    with RunningReceiver(tmp_path / "spool", token="secret") as receiver:
        refused = post(receiver, authorization=given_token)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert post(receiver, authorization="Bearer secret").status_code == 200
        assert names(receiver) == ["span 1"]


def test_other_paths_and_methods_are_told_where_to_go(receiver: RunningReceiver) -> None:
    base = f"http://127.0.0.1:{receiver.http}"
    assert httpx.post(f"{base}/v1/metrics", content=b"").status_code == 404
    assert httpx.get(f"{base}/v1/traces").status_code == 405
    assert httpx.post(f"{base}/v1/traces?x=1", content=BODY, headers={"content-type": PROTOBUF}).status_code == 200


def test_a_large_body_in_json_is_taken_like_a_small_one(receiver: RunningReceiver) -> None:
    large = request(*(span(number) for number in range(1, 2000)))
    assert post(receiver, to_json(large.SerializeToString()), JSON).status_code == 200
    assert len(names(receiver)) == 1999
    assert post(receiver, b"[" * 100_000, JSON).status_code == 400


def test_many_requests_go_over_one_connection(receiver: RunningReceiver) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n"
    answer = raw(receiver, (head % len(BODY) + BODY) * 3)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert names(receiver) == ["span 1"] * 3


def test_a_sender_that_asks_whether_to_go_on_is_told_so(receiver: RunningReceiver) -> None:
    head = (
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\nexpect: 100-continue\r\n"
        b"content-length: %d\r\n\r\n" % len(BODY)
    )
    answer = raw(receiver, head, BODY, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200" in answer


@pytest.mark.parametrize(
    "pieces",
    [
        (b"\x16\x03\x01\x02\x00\x01",),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",),
        (b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",),
        (b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-length: nonsense\r\n\r\n",),
        (b"POST /v1/traces HTTP/1.1\r\n" + b"a: " + b"x" * 200_000 + b"\r\n\r\n",),
    ],
)
def test_what_is_no_http_gets_a_400_and_the_end(receiver: RunningReceiver, pieces: tuple[bytes, ...]) -> None:
    assert raw(receiver, *pieces).startswith(b"HTTP/1.1 400 ")
    assert post(receiver).status_code == 200


@pytest.mark.parametrize(
    "piece", [b"", b"POST /v1/tr", b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\nabc"]
)
def test_a_sender_that_goes_away_leaves_nothing_behind(receiver: RunningReceiver, piece: bytes) -> None:
    raw(receiver, piece)
    assert post(receiver).status_code == 200
    assert names(receiver) == ["span 1"]


def test_tls_is_spoken_where_it_is_set_up(tmp_path: Path, certificates: Any) -> None:
    pair = (certificates.server_key, certificates.server_certificate)
    with RunningReceiver(tmp_path / "spool", tls=pair) as receiver:
        exporter = OtlpHttpExporter(
            endpoint=f"https://localhost:{receiver.http}/v1/traces", certificate=str(certificates.authority)
        )
        assert exporter.export([made_span()]) is SpanExportResult.SUCCESS
        exporter.shutdown()
        assert names(receiver) == ["only"]


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_no_compressed_body_breaks_the_receiver(body: bytes, coding: str) -> None:
    with contextlib.suppress(ValueError, OverflowError):
        assert len(decompressed(body, coding, 1000)) <= 1000


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_the_limit_of_a_compressed_body_is_exact(body: bytes, limit: int) -> None:
    if len(body) > limit:
        with pytest.raises(OverflowError):
            decompressed(gzip.compress(body), "gzip", limit)
    else:
        assert decompressed(gzip.compress(body), "gzip", limit) == body
