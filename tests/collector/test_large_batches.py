"""Batches that are larger than a destination takes, on their way through the whole pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.pipeline import Batching, Destination
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.otlp import OtlpGrpcExporter
from tests.collector.destinations import QUICK, RESOURCE, Spool, decode, eventually, running
from tests.servers.otlp import GrpcReceiver

MIB = 1024 * 1024


def prompted(payload: bytes) -> Sequence[ReadableSpan]:
    """Decode to a span with a prompt of 12 KB."""
    (span,) = decode(payload)
    attributes = {"gen_ai.input.messages": "x" * 12_000}
    return [ReadableSpan(span.name, context=span.context, attributes=attributes, resource=RESOURCE)]


@pytest.mark.parametrize("own_limit", [4 * MIB, 64 * MIB], ids=["split before", "refused and halved"])
def test_prompts_of_12_kb_in_batches_of_512_reach_a_grpc_server_with_its_4_mib(tmp_path: Path, own_limit: int) -> None:
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0")
    for number in range(1, 2049):
        writer.append(b"%08d" % number)
    writer.close()
    with GrpcReceiver() as server:
        exporter = OtlpGrpcExporter(endpoint=server.endpoint, max_request_bytes=own_limit)
        batching = Batching(records=512, size=64 * MIB)
        destination = Destination("one", exporter, lambda spans: spans, batching, QUICK)
        with running(spool.pipeline(destination, decode=prompted)) as pipeline:
            eventually(lambda: pipeline.status()[0].counters.delivered == 2048)
            counters = pipeline.status()[0].counters

        assert sorted(span.name for span in server.spans) == [f"{number:08d}" for number in range(1, 2049)]
        assert (counters.dead, counters.dropped, counters.rejected) == (0, 0, 0)
        assert all(len(asked.body) <= 4 * MIB for asked in server.asked)
        assert len(server.asked) <= 16
