"""Numbers from records, as Prometheus and the other processes read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from otelgw.config.settings import Tracing
from otelgw.metrics import Metrics, exposition
from otelgw.pipeline_main import decoder
from otelgw.report import Reporter, read_metrics, read_state
from otelgw.selection import Trace
from otelgw.tracing import record as records
from otelgw_collector.histogram import Histogram
from otelgw_collector.lane import Counters, Status
from otelgw_collector.pipeline import Health
from tests.tracing.records import CHAT, record, streamed


def trace(made: records.Record) -> Trace:
    return decoder(Tracing(), "state")(records.encode(made))


def health(**changes: Any) -> Health:
    latency = Histogram((1.0,))
    latency.observe(0.5)
    counters = Counters(delivered=5, dropped=2)
    status = Status('otlp/"a"', "retrying", "down", 3, counters, 100, 1.5, latency)
    return Health([status], **{"spool_size": 10, "spool_cap": 20, "dead": {'otlp/"a"': 4}, **changes})


def values(text: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_generations_are_counted_by_what_the_conventions_say() -> None:
    metrics = Metrics()
    metrics.observe(trace(record()))
    metrics.observe(trace(streamed("chat_tools.sse", first_byte=201_000_000)))
    metrics.observe(trace(record(status=500, error_type="500")))

    found = values("\n".join(metrics.lines()))

    counts = {name: value for name, value in found.items() if name.startswith("gen_ai_client_operation_duration")}
    assert sum(value for name, value in counts.items() if "_count" in name) == 3
    assert any('error_type="500"' in name for name in counts)
    assert all('gen_ai_operation_name="chat"' in name for name in counts)
    tokens = [name for name in found if name.startswith("gen_ai_client_token_usage_sum")]
    assert any('gen_ai_token_type="input"' in name for name in tokens)
    assert any('gen_ai_token_type="output"' in name for name in tokens)
    (waited,) = (value for name, value in found.items() if "time_to_first_chunk_seconds_sum" in name)
    assert waited == pytest.approx(0.2)


def test_a_caller_cannot_make_up_labels_without_end() -> None:
    metrics = Metrics()
    for number in range(300):
        metrics.observe(trace(record(target=records.Target(**{**_fields(CHAT), "model": f"model-{number}"}))))
    models = {line.split('gen_ai_request_model="')[1].split('"')[0] for line in metrics.lines() if "_count" in line}

    assert len(models) == 101
    assert "other" in models


def _fields(target: records.Target) -> dict[str, Any]:
    return {name: getattr(target, name) for name in target.__struct_fields__}


def test_every_destination_shows_how_it_does() -> None:
    text = exposition(health(), Metrics())
    found = values(text)
    label = '{destination="otlp/\\"a\\""}'

    assert found[f"otelgw_destination_dropped_records_total{label}"] == 2
    assert found[f"otelgw_destination_dead_letters{label}"] == 4
    assert found[f"otelgw_destination_backlog_bytes{label}"] == 100
    assert found[f"otelgw_destination_up{label}"] == 0
    assert found['otelgw_destination_delivery_seconds_bucket{destination="otlp/\\"a\\"",le="1.0"}'] == 1
    assert found['otelgw_destination_spans_total{destination="otlp/\\"a\\"",outcome="delivered"}'] == 5
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_the_others_read_it_from_files_that_are_always_whole(tmp_path: Path) -> None:
    assert read_state(str(tmp_path)) is None
    assert read_metrics(str(tmp_path)) == b""
    reporter = Reporter(tmp_path, Metrics())
    reporter(health())
    before = (tmp_path / "pipeline.json").stat().st_ino
    reporter(health(undecodable=7))

    state = read_state(str(tmp_path))
    assert state is not None
    assert state["undecodable"] == 7
    assert state["destinations"][0]["state"] == "retrying"
    assert state["pid"] == os.getpid()
    assert b"otelgw_undecodable_records_total 7" in read_metrics(str(tmp_path))
    assert (tmp_path / "pipeline.json").stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.prom", "pipeline.json"]
    assert (tmp_path / "pipeline.json").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_takes_nothing_is_said_and_leaves_the_old_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Reporter(tmp_path / "missing", Metrics())(health())
