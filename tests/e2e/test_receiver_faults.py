"""The receiver and the SDK's own exporters: what the SDK calls a success arrives, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.collector.receiving import RunningReceiver
from tests.collector.test_receiver_grpc import MoodySpool
from tests.e2e.test_collect import CollectProcess, eventually, names
from tests.servers.otlp import GrpcReceiver

Build = Callable[[int, int], SpanExporter]
WAYS: dict[str, Build] = {
    "grpc": lambda grpc, _: GrpcSpanExporter(f"http://127.0.0.1:{grpc}", insecure=True, timeout=30),
    "http": lambda _, http: HttpSpanExporter(f"http://127.0.0.1:{http}/v1/traces", timeout=30),
}


def span(name: str) -> Any:
    with TracerProvider().get_tracer("test").start_as_current_span(name) as made:
        assert isinstance(made, ReadableSpan)
        return made


@pytest.mark.parametrize("way", WAYS)
def test_the_sdk_brings_again_what_a_full_disk_did_not_take(tmp_path: Path, way: str) -> None:
    spool = MoodySpool(1)
    with RunningReceiver(tmp_path, spool=spool) as receiver:
        exporter = WAYS[way](receiver.grpc, receiver.http)
        assert exporter.export([span("only")]) is SpanExportResult.SUCCESS
        exporter.shutdown()
    assert len(spool.taken) == 1


@pytest.mark.parametrize("way", WAYS)
def test_what_the_sdk_was_told_is_taken_arrives_though_the_receiver_is_killed_twice(tmp_path: Path, way: str) -> None:
    taken: list[str] = []
    stopped = threading.Event()
    with GrpcReceiver() as destination, CollectProcess(tmp_path, destination.port) as collect:

        def send() -> None:
            exporter = WAYS[way](collect.grpc, collect.http)
            number = 0
            while not stopped.is_set():
                number += 1
                if exporter.export([span(f"s{number}")]) is SpanExportResult.SUCCESS:
                    taken.append(f"s{number}")
            exporter.shutdown()

        sender = threading.Thread(target=send)
        sender.start()
        for wanted in (50, 100):
            eventually(lambda wanted=wanted: len(taken) >= wanted)
            collect.kill()
            collect.start()
        eventually(lambda: len(taken) >= 150)
        stopped.set()
        sender.join(40)
        eventually(lambda: set(taken) <= names(destination))
        assert collect.stop() == 0, collect.log()
