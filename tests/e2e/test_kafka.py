"""The whole gateway into a real Kafka, and out of it again by the real Collector."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelgw.config.load import load
from otelgw.doctor import Diagnosis, diagnose
from otelgw_exporters.kafka import KafkaExporter
from otelgw_exporters.otlp import OtlpGrpcExporter
from tests.e2e.tree import Node, trees
from tests.exporters.samples import span
from tests.exporters.test_kafka import messages
from tests.exporters.test_payload import check
from tests.servers import require
from tests.servers.collector import Collector
from tests.servers.gateway import GatewayProcess
from tests.servers.kafka import Kafka
from tests.servers.otlp import GrpcReceiver
from tests.servers.ports import free_port

RECIPES = Path(__file__).parents[2] / "collector" / "recipes"
GATEWAY = """\
model_list:
  - {{model_name: echo, litellm_params: {{model: echo/echo}}}}
otelgw:
  destinations:
    - {{name: otlp_grpc, endpoint: "http://127.0.0.1:{straight}"}}
    - {{name: kafka, brokers: ["{brokers}"], topic: spans}}
    - {{name: kafka/payloads, brokers: "{brokers}", topic: payloads, format: payload}}
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with Kafka(require("kafka")) as running:
        for topic in ("spans", "payloads", "mixed"):
            running.create(topic, partitions=3)
        yield running


def ask(gateway: GatewayProcess, *, stream: bool) -> str:
    """Call the gateway; return the trace's id."""
    body = {"model": "echo", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-otelgw-trace-id"])


def test_what_comes_out_of_kafka_by_the_recipe_is_what_goes_straight(tmp_path: Path, kafka: Kafka) -> None:
    with GrpcReceiver() as straight, GrpcReceiver() as through:
        overrides = {"extensions.health_check.endpoint": f"127.0.0.1:{free_port()}"}
        env = {"KAFKA_BROKERS": kafka.brokers, "KAFKA_TOPIC": "spans", "BACKEND_ENDPOINT": f"127.0.0.1:{through.port}"}
        with Collector(require("collector"), RECIPES / "kafka_consumer.yaml", overrides, env) as collector:
            config = GATEWAY.format(straight=straight.port, brokers=kafka.brokers)
            with GatewayProcess(config, tmp_path) as gateway:
                traces = {ask(gateway, stream=bool(number % 2)) for number in range(10)}
                assert gateway.stop() == 0, "it ends when all is delivered"
            collector.eventually(lambda: len(through.spans) >= 3 * len(traces))

    def known(spans: list[Span]) -> dict[bytes, Span]:
        return {each.span_id: each for each in spans}

    assert known(through.spans) == known(straight.spans)
    assert {tree.server.trace_id for tree in trees(map(Node.of_otlp, known(through.spans).values()))} == traces

    payloads = [(message.key, json.loads(message.value)) for message in messages(kafka, "payloads")]
    assert {key for key, _ in payloads} == traces
    for _, read in payloads:
        check(read)


def test_a_trace_is_in_one_partition_whether_the_gateway_or_a_collector_wrote_it(tmp_path: Path, kafka: Kafka) -> None:
    given = [span(number, trace=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)) for number in range(1, 31)]
    tree = yaml.safe_load((RECIPES / "kafka.yaml").read_text())
    tree["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{free_port()}"
    tree["exporters"]["kafka"]["sending_queue"]["batch"]["flush_timeout"] = "50ms"
    config = tmp_path / "kafka.yaml"
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    env = {"KAFKA_BROKERS": kafka.brokers, "KAFKA_TOPIC": "mixed", "OTELCOL_STATE": str(tmp_path / "state")}
    with Collector(require("collector"), config, env=env) as collector:
        for made in (
            OtlpGrpcExporter(endpoint=f"http://127.0.0.1:{collector.grpc}"),
            KafkaExporter(brokers=kafka.brokers, topic="mixed"),
        ):
            outcome = made.deliver(given, time.monotonic() + 20)
            made.shutdown()
            assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
        collector.eventually(lambda: kafka.written("mixed") >= 60)

    places: dict[str, list[int]] = {}
    for message in messages(kafka, "mixed"):
        places.setdefault(message.key, []).append(message.partition)
    assert len(places) == 30
    assert {len(found) for found in places.values()} == {2}
    assert {len(set(found)) for found in places.values()} == {1}
    assert len({found[0] for found in places.values()}) == 3


def test_the_doctor_says_whether_the_broker_takes_it(tmp_path: Path, kafka: Kafka) -> None:
    def examined(brokers: str, topic: str) -> Diagnosis:
        path = tmp_path / "config.yaml"
        path.write_text(f"otelgw: {{destinations: [{{name: kafka, brokers: '{brokers}', topic: {topic}}}]}}\n")
        (found,) = diagnose(load(str(path), {"HOME": str(tmp_path)}), seconds=5)
        return found

    before = kafka.written("spans")
    taken, astray, away = (
        examined(kafka.brokers, "spans"),
        examined(kafka.brokers, "nowhere"),
        examined(f"127.0.0.1:{free_port()}", "spans"),
    )

    assert taken.ok, taken
    assert kafka.written("spans") > before
    assert not astray.ok
    assert "nowhere" in astray.said
    assert not away.ok
    assert "mend" in away.said + away.mend, away
