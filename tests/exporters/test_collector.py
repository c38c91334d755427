"""Against the real OpenTelemetry Collector, with the configuration that is handed out."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otelgw_exporters.delivery import Exporter
from otelgw_exporters.otlp import OtlpGrpcExporter, OtlpHttpExporter
from tests.exporters.samples import generation, span
from tests.servers import require
from tests.servers.collector import Collector

CONFIG = Path(__file__).parents[2] / "otel-collector-config.yaml"
Keep = Callable[[Exporter], Exporter]


def test_the_configuration_is_valid_as_it_stands() -> None:
    subprocess.run([require("collector"), "validate", "--config", CONFIG], check=True)


def test_spans_arrive_over_every_transport_and_encoding(closing: Keep) -> None:
    with Collector(require("collector"), CONFIG) as collector:
        grpc, http = f"http://127.0.0.1:{collector.grpc}", f"http://127.0.0.1:{collector.http}"
        exporters = [
            closing(OtlpGrpcExporter(endpoint=grpc)),
            closing(OtlpGrpcExporter(endpoint=grpc, compression="gzip")),
            closing(OtlpHttpExporter(endpoint=http)),
            closing(OtlpHttpExporter(endpoint=http, protocol="http/json", compression="gzip")),
        ]
        for trace, exporter in enumerate(exporters, 1):
            spans = [span(1, trace=trace), generation(2, text=f"over transport {trace}")]
            outcome = exporter.deliver(spans, time.monotonic() + 10)
            assert [verdict.state for verdict in outcome.verdicts] == ["done", "done"], outcome

        collector.eventually(lambda: len(collector.spans) == 8)
        output = collector.output
        for trace in range(1, 5):
            assert re.search(rf"Trace ID\s*: {trace:032x}", output)
            assert f"over transport {trace}" in output
        assert output.count("service.name: Str(tests)") == 4
        assert output.count("gen_ai.usage.output_tokens: Int(34)") == 4


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_a_collector_with_a_small_limit_still_gets_every_span(kind: str, closing: Keep) -> None:
    overrides = {
        "receivers.otlp.protocols.grpc.max_recv_msg_size_mib": "1",
        "receivers.otlp.protocols.http.max_request_body_size": str(1024 * 1024),
    }
    with Collector(require("collector"), CONFIG, overrides) as collector:
        exporter: Any = (
            OtlpGrpcExporter(endpoint=f"http://127.0.0.1:{collector.grpc}")
            if kind == "grpc"
            else OtlpHttpExporter(endpoint=f"http://127.0.0.1:{collector.http}")
        )
        closing(exporter)
        spans = [generation(number, text="x" * 100_000) for number in range(1, 31)]

        outcome = exporter.deliver(spans, time.monotonic() + 20)

        assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
        collector.eventually(lambda: len(collector.spans) == 30)
