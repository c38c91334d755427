"""The metrics by OTLP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.resources import Resource

from otelgw.config.settings import MetricsExport
from otelgw.instruments import INSTRUMENTS
from otelgw.metrics import Family
from otelgw.metrics_push import Push
from otelgw.report import pushing
from otelgw_collector.histogram import Histogram
from otelgw_exporters.errors import DestinationConfigError
from tests.servers import require
from tests.servers.answering import HttpAnswer
from tests.servers.collector import Collector
from tests.servers.otlp import Failure, HttpReceiver
from tests.servers.otlp_metrics import MetricsReceiver, metrics_in
from tests.servers.ports import free_port

SECRET = "sk-canary-0123456789"
SINCE = 1_700_000_000_000_000_000
RESOURCE = Resource({"service.name": "otelgw", "service.instance.id": "one"})
SPANS = INSTRUMENTS["otelgw.destination.spans"]
DURATION = INSTRUMENTS["gen_ai.client.operation.duration"]
UP = INSTRUMENTS["otelgw.destination.up"]
USAGE = INSTRUMENTS["otelgw.spool.usage"]
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def push(clock: Clock) -> Iterator[Callable[..., Push]]:
    """Makes what sends, and ends it."""
    made: list[Push] = []

    def make(endpoint: str, **changes: Any) -> Push:
        made.append(Push(MetricsExport(endpoint, **changes), RESOURCE, clock))
        return made[-1]

    yield make
    for each in made:
        each.stop(5.0)


Make = Callable[..., Push]


def families(delivered: int = 5) -> list[Family]:
    taken = Histogram(DURATION.bounds)
    for seconds in (0.005, 0.5, 1000.0):
        taken.observe(seconds)
    labels = (("gen_ai.request.model", "gpt-4o"), ("server.port", "443"))
    return [
        Family(SPANS, [((("destination", "otlp"), ("outcome", "delivered")), delivered)]),
        Family(DURATION, [(labels, taken)]),
        Family(UP, [((("destination", "otlp"),), 1)]),
        Family(USAGE, [((), 1234)]),
        Family(INSTRUMENTS["otelgw.http.refusals"], []),
    ]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_counted_arrives_in_the_standard_types(push: Make, clock: Clock) -> None:
    before = time.time_ns()
    with MetricsReceiver() as receiver:
        sending = push(receiver.endpoint, headers={"api-key": SECRET})
        clock.now += 60
        sending.offer(families(), SINCE)
        eventually(lambda: receiver.received)

        (request,) = receiver.received
        found = metrics_in(request)
        (resource,) = request.resource_metrics
        assert {item.key: item.value.string_value for item in resource.resource.attributes} == dict(RESOURCE.attributes)
        assert resource.scope_metrics[0].scope.name == "otelgw"
        assert set(found) == {SPANS.name, DURATION.name, UP.name, USAGE.name}
        assert receiver.metadata[0]["api-key"] == SECRET

    spans, up, usage = found[SPANS.name], found[UP.name], found[USAGE.name]
    assert (spans.unit, spans.sum.is_monotonic, spans.sum.aggregation_temporality) == ("{span}", True, CUMULATIVE)
    (point,) = spans.sum.data_points
    assert (point.as_int, point.start_time_unix_nano) == (5, SINCE)
    assert before <= point.time_unix_nano <= time.time_ns()
    assert {item.key: item.value.string_value for item in point.attributes} == {
        "destination": "otlp",
        "outcome": "delivered",
    }
    assert up.gauge.data_points[0].as_int == 1
    assert (usage.sum.is_monotonic, usage.sum.data_points[0].as_int, usage.unit) == (False, 1234, "By")
    duration = found[DURATION.name].histogram
    assert duration.aggregation_temporality == CUMULATIVE
    (held,) = duration.data_points
    assert (held.count, held.sum) == (3, 1000.505)
    assert list(held.explicit_bounds) == list(DURATION.bounds)
    assert list(held.bucket_counts) == [1, *[0] * 5, 1, *[0] * 7, 1]
    assert not held.HasField("min")
    assert held.start_time_unix_nano >= before
    assert {item.key: item.value.WhichOneof("value") for item in held.attributes} == {
        "gen_ai.request.model": "string_value",
        "server.port": "int_value",
    }


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_http_takes_them_in_either_form(push: Make, clock: Clock, protocol: str, compression: str) -> None:
    with HttpReceiver() as receiver:
        endpoint = f"{receiver.origin}/v1/metrics"
        sending = push(endpoint, protocol=protocol, compression=compression, headers={"api-key": SECRET})
        clock.now += 60
        sending.offer(families(), SINCE)
        eventually(lambda: receiver.asked)

        (asked,) = receiver.asked

    assert (asked.path, asked.headers["api-key"]) == ("/v1/metrics", SECRET)
    assert asked.headers.get("content-encoding", "none") == compression
    if protocol == "http/protobuf":
        assert set(metrics_in(ExportMetricsServiceRequest.FromString(asked.body))) >= {SPANS.name, DURATION.name}
        return
    (metric, *_) = json.loads(asked.body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert metric["sum"]["aggregationTemporality"] == 2
    assert metric["sum"]["dataPoints"][0]["asInt"] == "5"
    assert metric["sum"]["dataPoints"][0]["startTimeUnixNano"] == str(SINCE)


def test_grpc_compresses(push: Make, clock: Clock) -> None:
    with MetricsReceiver() as receiver:
        sending = push(receiver.endpoint, compression="gzip")
        clock.now += 60
        sending.offer(families(), SINCE)
        eventually(lambda: receiver.received)


def test_between_two_exports_lies_the_interval(push: Make, clock: Clock) -> None:
    with MetricsReceiver() as receiver:
        sending = push(receiver.endpoint, interval=15.0)
        for delivered in range(1, 46):
            clock.now += 1
            sending.offer(families(delivered), SINCE)
            eventually(lambda count=delivered: sum(sending.outcomes.values()) == count // 15)

    assert [metrics_in(each)[SPANS.name].sum.data_points[0].as_int for each in receiver.received] == [15, 30, 45]


def test_the_last_numbers_are_sent_at_the_end(push: Make) -> None:
    with MetricsReceiver() as receiver:
        sending = push(receiver.endpoint)
        sending.offer(families(1), SINCE)
        sending.offer(families(2), SINCE)
        sending.stop()

    assert [metrics_in(each)[SPANS.name].sum.data_points[0].as_int for each in receiver.received] == [2]


def test_failures_are_counted_and_logged_once_a_minute_without_the_key(
    push: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure(grpc.StatusCode.UNAUTHENTICATED, f"the key {SECRET} is not known")
    with MetricsReceiver([failure] * 3) as receiver:
        sending = push(receiver.endpoint, interval=40.0, headers={"api-key": SECRET})
        for number in (1, 2, 3, 4):
            clock.now += 40
            sending.offer(families(number), SINCE)
            eventually(lambda count=number: sum(sending.outcomes.values()) == count)

    assert sending.outcomes == {"success": 1, "failure": 3}
    (told,) = sending.families()
    assert dict(told.points) == {(("outcome", "success"),): 1, (("outcome", "failure"),): 3}
    said = [record.getMessage() for record in caplog.records if "metrics" in record.getMessage()]
    assert len(said) == 2
    assert "gRPC UNAUTHENTICATED: the key *** is not known" in said[0]
    assert SECRET not in caplog.text + repr(sending)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HttpAnswer(503, {}, f"busy {SECRET}".encode()), "HTTP 503: busy ***"),
        (HttpAnswer(404), "HTTP 404"),
        (HttpAnswer(hang_up=True), "127.0.0.1"),
    ],
)
def test_a_failure_over_http_is_told_too(
    push: Make, clock: Clock, caplog: pytest.LogCaptureFixture, answer: HttpAnswer, words: str
) -> None:
    with HttpReceiver([answer], repeat=True) as receiver:
        sending = push(f"{receiver.origin}/v1/metrics", protocol="http/protobuf", headers={"api-key": SECRET})
        clock.now += 60
        sending.offer(families(), SINCE)
        eventually(lambda: sending.outcomes["failure"])

    assert words in caplog.text
    assert SECRET not in caplog.text


def test_data_points_that_are_dropped_by_the_other_side_count_as_a_failure(
    push: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = 2
    response.partial_success.error_message = "too many series"
    with MetricsReceiver([response]) as receiver:
        sending = push(receiver.endpoint)
        clock.now += 60
        sending.offer(families(), SINCE)
        eventually(lambda: sending.outcomes["failure"])

    assert "2 data points are not taken: too many series" in caplog.text


def test_an_endpoint_that_says_nothing_holds_up_nobody(clock: Clock) -> None:
    with MetricsReceiver(silent=True) as receiver:
        sending = Push(MetricsExport(receiver.endpoint, timeout=50.0), RESOURCE, clock)
        started = time.monotonic()
        for _ in range(5):
            clock.now += 60
            sending.offer(families(), SINCE)
        eventually(lambda: receiver.metadata)
        sending.stop(0.5)

        assert time.monotonic() - started < 30


def test_nobody_there_is_a_failure_like_any_other(push: Make, clock: Clock) -> None:
    sending = push(f"http://127.0.0.1:{free_port()}")
    clock.now += 60
    sending.offer(families(), SINCE)
    eventually(lambda: sending.outcomes["failure"])


def test_a_tls_file_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    settings = MetricsExport("https://127.0.0.1:1", certificate=str(tmp_path / "none.pem"))

    with pytest.raises(DestinationConfigError, match="destination metrics: certificate: there is no file"):
        pushing(settings, RESOURCE)
    assert pushing(None, RESOURCE) is None


CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:4317}, http: {endpoint: 127.0.0.1:4318}}}}
exporters: {debug: {verbosity: detailed}}
service: {pipelines: {metrics: {receivers: [otlp], exporters: [debug]}}}
"""


def test_the_real_collector_takes_them_over_every_transport(push: Make, clock: Clock, tmp_path: Path) -> None:
    config = tmp_path / "collector.yaml"
    config.write_text(CONFIG)
    with Collector(require("collector"), config) as collector:
        http = f"http://127.0.0.1:{collector.http}/v1/metrics"
        ways = [
            push(f"http://127.0.0.1:{collector.grpc}", compression="gzip"),
            push(http, protocol="http/protobuf", compression="gzip"),
            push(http, protocol="http/json"),
        ]
        clock.now += 60
        for number, sending in enumerate(ways, 71):
            sending.offer(families(number), SINCE)
        for number, sending in enumerate(ways, 71):
            eventually(lambda sent=sending: sum(sent.outcomes.values()))
            assert sending.outcomes == {"success": 1, "failure": 0}
            collector.eventually(lambda value=number: f"Value: {value}\n" in collector.output)
        output = collector.output

    assert output.count("-> Name: gen_ai.client.operation.duration") == 3
    assert output.count("-> AggregationTemporality: Cumulative") >= 6
    assert output.count("-> server.port: Int(443)") == 3
    assert "-> Unit: {span}" in output
    assert "service.instance.id: Str(one)" in output
