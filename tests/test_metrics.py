"""Numbers from records, as Prometheus and the other processes read them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.metrics import http_metrics
from opentelemetry.trace import SpanKind

from otelgw.config.settings import Tracing
from otelgw.exposition import exposition
from otelgw.instruments import INSTRUMENTS, Instrument, prometheus_name
from otelgw.metrics import Family, Metrics, counted, of_health
from otelgw.pipeline_main import decoder
from otelgw.report import Reporter, read_metrics, read_state
from otelgw.selection import Trace
from otelgw.tracing import record as records
from otelgw_collector.histogram import Histogram
from otelgw_collector.lane import Counters, Status
from otelgw_collector.pipeline import Health
from otelgw_exporters.layers import Layers
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


def shown(metrics: Metrics) -> dict[str, float]:
    return values(exposition(metrics.families()))


def label(text: str, name: str) -> set[str]:
    """Return the values that a label has in an exposition."""
    return set(re.findall(rf'[{{,]{name}="([^"]*)"', text))


def test_generations_are_counted_by_what_the_conventions_say() -> None:
    metrics = Metrics()
    metrics.observe(trace(record()))
    metrics.observe(trace(streamed("chat_tools.sse", first_byte=201_000_000)))
    metrics.observe(trace(record(status=500, error_type="500")))

    found = shown(metrics)

    counts = {name: value for name, value in found.items() if name.startswith("gen_ai_client_operation_duration")}
    assert sum(value for name, value in counts.items() if "_count" in name) == 3
    assert any('error_type="500"' in name for name in counts)
    assert all('gen_ai_operation_name="chat"' in name for name in counts)
    assert all('server_port="443"' in name for name in counts)
    tokens = [name for name in found if name.startswith("gen_ai_client_token_usage_sum")]
    assert any('gen_ai_token_type="input"' in name for name in tokens)
    assert any('gen_ai_token_type="output"' in name for name in tokens)
    assert not any("error_type" in name for name in found if "token_usage" in name or "first_chunk" in name)
    (waited,) = (value for name, value in found.items() if "time_to_first_chunk_seconds_sum" in name)
    assert waited == pytest.approx(0.2)


def test_requests_to_the_gateway_are_counted_too_also_those_without_a_generation() -> None:
    metrics = Metrics()
    metrics.observe(trace(record()))
    refused = record(status=401, error_type="unauthorized", generation_span_id="", target=records.Target(), attempts=[])
    metrics.observe(trace(refused))

    counts = {name: value for name, value in shown(metrics).items() if "request_duration_seconds_count" in name}

    assert sorted(counts.values()) == [1, 1]
    assert {re.findall(r'http_response_status_code="(\d+)"', name)[0] for name in counts} == {"200", "401"}
    assert all('http_route="/v1/chat/completions"' in name for name in counts)


def test_what_callers_attached_in_vain_is_counted_once_a_request() -> None:
    metrics = Metrics(lambda: {"stored": 2, "failed": 0})
    assert shown(metrics)["otelgw_labels_dropped_total"] == 0
    for _ in range(2):
        metrics.observe(trace(record(metadata={"tags": ["fine", 7, None], "session_id": ["s"]})))
    metrics.observe(trace(record()))

    found = shown(metrics)

    assert found["otelgw_labels_dropped_total"] == 6
    assert found['otelgw_content_uploads_total{outcome="stored"}'] == 2
    assert found['otelgw_content_uploads_total{outcome="failed"}'] == 0


def test_a_caller_cannot_make_up_labels_without_end() -> None:
    metrics = Metrics()
    for number in range(300):
        metrics.observe(trace(record(target=records.Target(**{**_fields(CHAT), "model": f"model-{number}"}))))
    models = label(exposition(metrics.families()), "gen_ai_request_model")

    assert len(models) == 101
    assert "other" in models


def test_failures_leave_room_for_the_names_of_models_that_work() -> None:
    metrics = Metrics()
    for number in range(300):
        target = records.Target(**{**_fields(CHAT), "model": f"made-up-{number}"})
        metrics.observe(trace(record(target=target, status=404, error_type="404")))
    metrics.observe(trace(record()))
    models = label(exposition(metrics.families()), "gen_ai_request_model")

    assert len(models) == 52
    assert {"other", "gpt-4o"} <= models


def test_a_model_that_was_other_while_it_failed_has_its_name_once_it_works() -> None:
    metrics = Metrics()
    for number in range(60):
        target = records.Target(**{**_fields(CHAT), "model": f"made-up-{number}"})
        metrics.observe(trace(record(target=target, status=404, error_type="404")))
    for status in (404, 200, 404):
        metrics.observe(trace(record(status=status, error_type="404" if status == 404 else "")))

    found = shown(metrics)

    counts = [value for name, value in found.items() if "duration_seconds_count" in name and '"gpt-4o"' in name]
    assert sum(counts) == 2


def test_attributes_of_any_shape_are_counted() -> None:
    metrics = Metrics()
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": {"a": [1]}, "gen_ai.usage.input_tokens": "x"}
    span = ReadableSpan("chat", attributes=attributes, start_time=1, end_time=2_000_000_001)
    for _ in range(2):
        metrics.observe(Trace(None, [span]))

    (count,) = (value for name, value in shown(metrics).items() if "duration_seconds_count" in name)
    assert count == 2
    assert not any("token_usage" in name for name in shown(metrics))


def test_a_long_value_is_cut_and_the_series_of_a_metric_are_bounded() -> None:
    metrics = Metrics()
    for number in range(60):
        for other in range(60):
            target = {**_fields(CHAT), "model": f"{number}" + "x" * 1000, "server_address": f"host-{other}"}
            metrics.observe(trace(record(target=records.Target(**target))))
    (duration,) = (each for each in metrics.families() if each.instrument.name == "gen_ai.client.operation.duration")

    assert len(duration.points) == 2001
    assert (("otel.metric.overflow", "true"),) in dict(duration.points)
    assert max(len(value) for labels, _ in duration.points for _, value in labels) == 200


def _fields(target: records.Target) -> dict[str, Any]:
    return {name: getattr(target, name) for name in target.__struct_fields__}


def test_every_destination_shows_how_it_does() -> None:
    text = exposition(of_health(health()))
    found = values(text)
    which = '{destination="otlp/\\"a\\""}'

    assert found[f"otelgw_destination_dropped_records_total{which}"] == 2
    assert found[f"otelgw_destination_dead_letters{which}"] == 4
    assert found[f"otelgw_destination_backlog_bytes{which}"] == 100
    assert found[f"otelgw_destination_oldest_record_age_seconds{which}"] == 1.5
    assert found[f"otelgw_destination_up{which}"] == 0
    assert found['otelgw_destination_delivery_duration_seconds_bucket{destination="otlp/\\"a\\"",le="1.0"}'] == 1
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
    assert b"otelgw_spool_undecodable_records_total 7" in read_metrics(str(tmp_path))
    assert (tmp_path / "pipeline.json").stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counters", "metrics.prom", "pipeline.json"]
    assert (tmp_path / "pipeline.json").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_takes_nothing_is_said_and_leaves_the_old_files(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Reporter(tmp_path / "missing", Metrics())(health())


# Names


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
EXPORTED = {
    *(each.instrument.name for each in of_health(health())),
    *(each.instrument.name for each in Metrics().families()),
}
ELSEWHERE = {
    name
    for name in INSTRUMENTS
    if name.startswith(("otelgw.http.", "otelgw.keys.", "otelgw.receiver.", "otelgw.tenants."))
} | {
    "otelgw.spool.unwritten_records",
    "otelgw.spool.failed_syncs",
    "otelgw.metrics.exports",
}


def test_every_instrument_is_exported_by_somebody() -> None:
    assert set(INSTRUMENTS) == EXPORTED | ELSEWHERE


@pytest.mark.parametrize("instrument", INSTRUMENTS.values(), ids=lambda each: each.name)
def test_a_name_is_as_opentelemetry_and_prometheus_want_it(instrument: Instrument) -> None:
    """semconv, "Naming", and Prometheus' "Metric and label naming"."""
    assert re.fullmatch(r"[a-z][a-z0-9]*([._][a-z0-9]+)*", instrument.name)
    assert not re.search(r"_?(total|seconds|bytes|count)$", instrument.name)  # a suffix comes from unit and kind
    assert instrument.unit in {"s", "By", ""} or re.fullmatch(r"\{[a-z]+\}", instrument.unit)
    name = prometheus_name(instrument)
    assert name.endswith("_total") == (instrument.kind == "counter")
    assert name.removesuffix("_total").endswith("_seconds") == (instrument.unit == "s")
    assert name.removesuffix("_total").endswith("_bytes") == (instrument.unit == "By")
    assert instrument.description.endswith(".")


class _Meter:
    """Takes note of what the conventions' own constructors ask a meter for."""

    unit = ""

    def create_histogram(self, name: str, description: str, unit: str, **_: Any) -> None:
        self.unit = unit

    create_up_down_counter = create_counter = create_histogram


def test_the_conventions_names_and_units_are_theirs() -> None:
    seen = set()
    for names in (gen_ai_metrics, http_metrics):
        for constant, name in vars(names).items():
            if constant.isupper() and name in INSTRUMENTS:
                seen.add(name)
                create = getattr(names, f"create_{constant.lower()}", None)  # stable ones have a name and no more
                meter = _Meter()
                if create is not None:
                    create(meter)
                assert INSTRUMENTS[name].unit == (meter.unit or "s")
    assert seen == {name for name in INSTRUMENTS if not name.startswith("otelgw.")}


def test_labels_are_those_that_the_instrument_names() -> None:
    metrics = Metrics()
    metrics.observe(trace(streamed("chat_tools.sse", first_byte=201_000_000)))
    metrics.observe(trace(record(status=500, error_type="500")))
    told: list[Family] = [*metrics.families(), *of_health(health())]
    for family in told:
        for labels, _ in family.points:
            assert {name for name, _ in labels} <= set(family.instrument.labels), family.instrument.name


def test_another_versions_counts_are_left_out() -> None:
    assert list(counted({("otelgw.of.the.future", ()): 1})) == []


def test_the_reference_page_names_exactly_what_is_exported() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)

    assert len(rows) == len({row[0] for row in rows})
    told = {(name, prom, kind, unit.strip(" `"), labels.strip()) for name, prom, kind, unit, labels in rows}
    assert told == {
        (each.name, prometheus_name(each), each.kind, each.unit, ", ".join(f"`{name}`" for name in each.labels))
        for each in INSTRUMENTS.values()
    }


SHARED: list[dict[str, Any]] = [
    {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "server.port": 443},
    {"http.request.method": "POST", "http.route": "/v1/chat/completions"},
    {"gen_ai.operation.name": "embeddings", "gen_ai.usage.input_tokens": 7},
    {},
]
OWN = st.fixed_dictionaries(
    {},
    optional={
        "error.type": st.sampled_from(["500", "timeout"]),
        "gen_ai.response.model": st.sampled_from([f"model-{number}" for number in range(120)]),
        "http.response.status_code": st.sampled_from([200, 500]),
        "gen_ai.usage.output_tokens": st.sampled_from([3, 3.5, "no number", True, None]),
        "gen_ai.response.time_to_first_chunk": st.just(0.25),
        "gen_ai.operation.name": st.just("chat"),
        "otelgw.labels.dropped": st.just(2),
        "server.address": st.sampled_from(["a", ["a", "list"]]),
    },
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(range(4)), OWN, OWN, st.sampled_from([SpanKind.SERVER, SpanKind.CLIENT]), st.booleans()
        ),
        max_size=40,
    )
)
def test_attributes_in_layers_are_counted_as_those_in_one_mapping_are(
    drawn: list[tuple[int, dict[str, Any], dict[str, Any], SpanKind, bool]],
) -> None:
    layered, plain = Metrics(), Metrics()
    for shared, own, common, kind, gateways in drawn:
        layers = Layers.of((SHARED[shared], SHARED[3]), dict(own), common)
        for metrics, attributes in ((layered, layers), (plain, dict(layers))):
            made = ReadableSpan("span", kind=kind, start_time=10**9, end_time=2 * 10**9)
            made._attributes = attributes
            known = Trace(None, [made])
            known.record = record() if gateways else None
            metrics.observe(known)

    assert shown(layered) == shown(plain)
