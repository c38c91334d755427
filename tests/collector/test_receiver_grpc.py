"""OTLP over gRPC, by the SDK's exporter and by hand."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from otelgw_exporters.delivery import Exporter
from otelgw_exporters.otlp import OtlpGrpcExporter
from tests.collector.receiving import OWN, RunningReceiver, request, span


class MoodySpool:
    """Takes what comes, after it has refused a number of times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.taken: list[bytes] = []

    def append(self, payload: bytes, kind: int = 0) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.taken.append(payload)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    with RunningReceiver(tmp_path / "spool") as running:
        yield running


def export(port: int, asked: Any, **options: Any) -> ExportTraceServiceResponse:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return TraceServiceStub(channel).Export(asked, timeout=10, **options)


def failure(port: int, asked: Any, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        export(port, asked, **options)
    return caught.value


def test_what_the_sdk_exports_is_in_the_spool(receiver: RunningReceiver) -> None:
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{receiver.grpc}", insecure=True, compression=grpc.Compression.Gzip)
    provider = TracerProvider(resource=Resource({"service.name": "app"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for number in range(700):
        with tracer.start_as_current_span(f"s{number}", attributes={"n": number}):
            pass
    provider.shutdown()
    assert sorted(each.name for each in receiver.spans()) == sorted(f"s{number}" for number in range(700))


def test_refused_spans_are_a_partial_success(receiver: RunningReceiver) -> None:
    asked = request(span(1), span(2), service_instance_id=OWN)
    asked.MergeFrom(request(span(3), span(4, span_id=b"1"), service_name="app"))
    partial = export(receiver.grpc, asked).partial_success
    assert partial.rejected_spans == 3
    assert "2 came from or through this gateway" in partial.error_message
    assert "1 have a trace id or span id that is none" in partial.error_message
    assert [each.name for each in receiver.spans()] == ["span 3"]
    assert not export(receiver.grpc, request(span(5))).HasField("partial_success")


def test_a_full_disk_answers_unavailable_with_retry_info(tmp_path: Path) -> None:
    with RunningReceiver(tmp_path, spool=MoodySpool(1)) as receiver:
        error: Any = failure(receiver.grpc, request(span(1)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert info.retry_delay.seconds == 5


@pytest.mark.parametrize("refusals", [1, 2])
def test_the_sdk_brings_again_what_a_full_disk_did_not_take(tmp_path: Path, refusals: int) -> None:
    spool = MoodySpool(refusals)
    with RunningReceiver(tmp_path, spool=spool) as receiver:
        provider = TracerProvider()
        with provider.get_tracer("test").start_as_current_span("only") as made:
            pass
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{receiver.grpc}", insecure=True, timeout=30)
        result = exporter.export([made])  # type: ignore[list-item]
        exporter.shutdown()
    assert result is SpanExportResult.SUCCESS
    assert len(spool.taken) == 1


def test_our_own_exporter_waits_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    with RunningReceiver(tmp_path, spool=MoodySpool(1)) as receiver:
        exporter: Exporter = OtlpGrpcExporter(endpoint=f"http://127.0.0.1:{receiver.grpc}")
        provider = TracerProvider()
        with provider.get_tracer("test").start_as_current_span("only") as made:
            pass
        outcome = exporter.deliver([made], 1e12)  # type: ignore[list-item]
        exporter.shutdown()
    assert (outcome.verdicts[0].state, outcome.after) == ("retry", 5.0)


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)])
def test_without_the_token_nothing_is_taken(tmp_path: Path, metadata: Any) -> None:
    with RunningReceiver(tmp_path / "spool", token="secret") as receiver:
        error: Any = failure(receiver.grpc, request(span(1)), metadata=metadata)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        export(receiver.grpc, request(span(2)), metadata=(("authorization", "Bearer secret"),))
        assert [each.name for each in receiver.spans()] == ["span 2"]


def test_what_is_no_request_is_an_invalid_argument(receiver: RunningReceiver) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc}") as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff", timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert receiver.spans() == []


def test_metrics_and_logs_are_said_not_to_be_received(receiver: RunningReceiver) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc}") as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_over_the_limit_is_refused_also_when_it_is_small_on_the_wire(
    receiver: RunningReceiver, compression: grpc.Compression
) -> None:
    large = request(span(1, name="x" * (8 * 1024 * 1024)))
    error: Any = failure(receiver.grpc, large, compression=compression)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    export(receiver.grpc, request(span(2)))
    assert [each.name for each in receiver.spans()] == ["span 2"]


def test_tls_is_spoken_where_it_is_set_up(tmp_path: Path, certificates: Any) -> None:
    pair = (certificates.server_key, certificates.server_certificate)
    with RunningReceiver(tmp_path / "spool", tls=pair) as receiver:
        exporter = OtlpGrpcExporter(
            endpoint=f"https://localhost:{receiver.grpc}", certificate=str(certificates.authority)
        )
        provider = TracerProvider()
        with provider.get_tracer("test").start_as_current_span("only") as made:
            pass
        assert exporter.export([made]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
        exporter.shutdown()
        assert [each.name for each in receiver.spans()] == ["only"]


def test_a_busy_port_is_an_error(receiver: RunningReceiver) -> None:
    server, _ = receiver._servers()
    with pytest.raises(OSError, match="cannot listen"):
        receiver.call(server.start(f"127.0.0.1:{receiver.grpc}"))


def test_a_receiver_that_stops_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with RunningReceiver(tmp_path / "spool") as receiver:
        export(receiver.grpc, request(span(1)))
        receiver.stop()
        error: Any = failure(receiver.grpc, request(span(2)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert [each.name for each in receiver.spans()] == ["span 1"]
