"""A real Kafka broker: what is in the topic, what stands in the way, what it costs nobody."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.kafka import KafkaExporter
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import assemble
from otelgw_exporters.semconv import Profile
from tests.exporters.objects import deliver, request, states
from tests.exporters.samples import generation, span
from tests.exporters.test_payload import check
from tests.servers import require
from tests.servers.kafka import PASSWORD, USER, Kafka
from tests.servers.otlp import Certificates
from tests.servers.ports import free_port

Make = Callable[..., KafkaExporter]
CANARY = "CANARY-0123456789"


class Found(NamedTuple):
    """A message of a topic."""

    partition: int
    key: str
    value: bytes

    @property
    def span_ids(self) -> list[int]:
        read = TracesData.FromString(self.value)
        scopes = [scope for each in read.resource_spans for scope in each.scope_spans]
        return [int.from_bytes(each.span_id, "big") for scope in scopes for each in scope.spans]


def messages(kafka: Kafka, topic: str) -> list[Found]:
    """Return everything that is in a topic, by partition."""
    settings = {"group.id": "reader", "enable.auto.commit": False, "fetch.wait.max.ms": 20}
    consumer = Consumer({"bootstrap.servers": kafka.brokers, **settings})
    try:
        found: list[Found] = []
        for partition in consumer.list_topics(topic, timeout=20).topics[topic].partitions:
            place = TopicPartition(topic, partition, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=20)
            consumer.assign([place])
            for offset in range(end):
                message = consumer.poll(20)
                assert message is not None, f"{topic}/{partition}: nothing at {offset}, of {end}"
                assert message.error() is None, message.error()
                found.append(Found(partition, (message.key() or b"").decode(), message.value() or b""))
        return found
    finally:
        consumer.close()


def spans_in(kafka: Kafka, topic: str) -> list[int]:
    return sorted(each for message in messages(kafka, topic) for each in message.span_ids)


@pytest.fixture(scope="module")
def kafka(certificates: Certificates) -> Iterator[Kafka]:
    with Kafka(require("kafka"), certificates) as running:
        yield running


@pytest.fixture
def topic(kafka: Kafka, request: pytest.FixtureRequest) -> str:
    name = f"{request.node.originalname[:60]}-{random.randrange(1 << 32):08x}"
    kafka.create(name, partitions=3)
    return name


@pytest.fixture
def make(kafka: Kafka, topic: str, closing: Callable[[Exporter], Exporter]) -> Make:
    def run(**given: Any) -> KafkaExporter:
        made = KafkaExporter(**{"brokers": kafka.brokers, "topic": topic, **given})
        closing(made)
        return made

    return run


def only(outcome: Outcome) -> str:
    (state,) = set(states(outcome))
    return state


def noise(size: int) -> str:
    """Return text that no compression makes smaller than half."""
    return random.Random(size).randbytes(size // 2).hex()


def traces(count: int, **more: Any) -> list[ReadableSpan]:
    """Return two spans of each of ``count`` traces, the span ids all different."""
    return [
        span(number * 2 + second, more or None, trace=0xABC000 + number)
        for second in (0, 1)
        for number in range(1, count + 1)
    ]


def test_a_message_holds_the_spans_of_a_trace_as_otlp_and_its_key_is_the_trace(
    make: Make, kafka: Kafka, topic: str
) -> None:
    given = traces(20)
    assert only(deliver(make(), given)) == "done"

    found = {message.key: message for message in messages(kafka, topic)}

    assert len(found) == 20
    assert {message.partition for message in found.values()} == {0, 1, 2}
    own = encoder(Profile())
    for number in range(1, 21):
        of_trace = [each for each in given if each.context is not None and each.context.trace_id == 0xABC000 + number]
        assert found[f"{0xABC000 + number:032x}"].value == assemble(map(own, of_trace))


def test_the_standard_payload_is_a_message_a_call(make: Make, kafka: Kafka, topic: str) -> None:
    assert only(deliver(make(format="payload"), [*request(0), *request(1)])) == "done"
    found = messages(kafka, topic)
    assert len(found) == 2
    for message in found:
        read = json.loads(message.value)
        check(read)
        assert message.key == read["otelgw"]["trace_id"]


def test_the_topic_without_a_word_is_the_one_that_the_collector_reads(kafka: Kafka, make: Make) -> None:
    kafka.create("otlp_spans")
    kafka.create("otelgw_calls")
    assert only(deliver(make(topic=None), request(0))) == "done"
    assert only(deliver(make(topic=None, format="payload"), request(0))) == "done"
    assert len(spans_in(kafka, "otlp_spans")) == 3
    assert len(messages(kafka, "otelgw_calls")) == 1


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_can_be_read(make: Make, kafka: Kafka, topic: str, compression: str) -> None:
    assert only(deliver(make(compression=compression), traces(10))) == "done"
    assert len(spans_in(kafka, topic)) == 20


def test_a_message_that_the_topic_finds_too_large_takes_no_other_along(make: Make, kafka: Kafka) -> None:
    small = f"small-{random.randrange(1 << 32):08x}"
    kafka.create(small, max_message_bytes="20000")
    # Together they are one batch, which is refused as a whole.
    given = [*traces(10), generation(7, parent=6, text=noise(40_000)), *traces(12)[-2:]]
    outcome = deliver(make(topic=small), given)
    assert states(outcome) == ["done"] * 20 + ["dead"] + ["done"] * 2
    assert "raise the topic's max.message.bytes" in outcome.reason
    assert len(spans_in(kafka, small)) == 22


def test_a_trace_that_is_too_large_for_a_message_is_several(make: Make, kafka: Kafka, topic: str) -> None:
    large = [generation(number, text=noise(9_000)) for number in range(1, 9)]
    assert only(deliver(make(max_message_bytes=20_000), large)) == "done"
    assert spans_in(kafka, topic) == list(range(1, 9))
    assert len(messages(kafka, topic)) == 4

    small = f"small-{random.randrange(1 << 32):08x}"
    kafka.create(small, max_message_bytes="20000")
    assert only(deliver(make(topic=small), large)) == "done"
    assert spans_in(kafka, small) == list(range(1, 9))


def test_what_is_larger_than_any_message_may_be_is_dead_at_once(make: Make, kafka: Kafka, topic: str) -> None:
    outcome = deliver(make(max_message_bytes=5_000), [span(1), generation(2, text=noise(9_000)), span(3)])
    assert states(outcome) == ["done", "dead", "done"]
    assert spans_in(kafka, topic) == [1, 3]
    outcome = deliver(make(max_message_bytes=1_000, format="payload"), request(0))
    assert only(outcome) == "dead"


def test_a_broker_that_is_not_there_is_tried_again_and_said(make: Make) -> None:
    made = make(brokers=f"127.0.0.1:{free_port()}")
    for _ in range(2):
        outcome = deliver(made, request(0), 30)
        assert (only(outcome), outcome.after) == ("retry", None)
        assert "refused" in outcome.reason


def test_a_name_that_nobody_knows_is_tried_again_and_said(make: Make) -> None:
    outcome = deliver(make(brokers="nowhere.invalid:9092"), request(0), 30)
    assert only(outcome) == "retry"
    assert "nowhere.invalid" in outcome.reason


def test_a_broker_that_says_nothing_costs_no_more_than_the_deadline(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = make(brokers=f"127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        outcome = deliver(made, request(0), 1)
        assert (only(outcome), outcome.after) == ("retry", None)
        assert time.monotonic() - started < 10


def test_a_broker_that_stops_answering_loses_nothing(make: Make, kafka: Kafka, topic: str) -> None:
    made = make()
    assert only(deliver(made, [span(1)])) == "done"
    kafka.pause()
    try:
        assert only(deliver(made, [span(2)], 0.5)) == "retry"
    finally:
        kafka.resume()
    assert only(deliver(made, [span(2), span(3)])) == "done"
    assert set(spans_in(kafka, topic)) == {1, 2, 3}


def test_a_broker_that_is_restarted_meanwhile_has_every_message_once(make: Make, kafka: Kafka, topic: str) -> None:
    made = make(client={"linger.ms": 0})
    assert only(deliver(made, [span(1)])) == "done"
    outcomes: list[Outcome] = []
    kafka.stop()
    thread = threading.Thread(target=lambda: outcomes.append(deliver(made, traces(100), 60)))
    thread.start()
    kafka.start()
    thread.join(90)
    assert only(outcomes[0]) == "done"
    found = spans_in(kafka, topic)
    assert sorted(set(found)) == found
    assert len(found) == 201


def test_a_topic_that_is_not_there_waits_for_the_operator(make: Make, kafka: Kafka) -> None:
    missing = f"missing-{random.randrange(1 << 32):08x}"
    made = make(topic=missing)
    outcome = deliver(made, request(0), 30)
    assert (only(outcome), outcome.after) == ("retry", OPERATOR_DELAY)
    assert "there is no such topic: make it" in outcome.reason
    kafka.create(missing)
    assert only(deliver(made, request(0))) == "done"


@pytest.fixture
def secured(make: Make, kafka: Kafka, certificates: Certificates) -> Make:
    """Makes an exporter that logs in, by TLS."""
    login = {"brokers": kafka.secured, "certificate": str(certificates.authority)}
    return lambda **given: make(**{**login, "username": USER, "password": PASSWORD, **given})


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-512"])
def test_it_logs_in_over_tls(secured: Make, kafka: Kafka, topic: str, mechanism: str) -> None:
    made = secured(sasl_mechanism=mechanism)
    assert only(deliver(made, request(0))) == "done"
    assert len(spans_in(kafka, topic)) == 3
    assert PASSWORD not in repr(made)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"password": CANARY}, "mend the destination's username, password or sasl_mechanism"),
        ({"sasl_mechanism": "scram-sha-256"}, "mend the destination's username, password or sasl_mechanism"),
        ({"password": CANARY, "sasl_mechanism": "scram-sha-512"}, "mend the destination's username, password"),
        ({"certificate": None}, "mend the destination's certificate or security_protocol"),
    ],
)
def test_what_only_the_operator_can_mend_is_tried_again_slowly_and_said(
    secured: Make, given: dict[str, Any], hint: str
) -> None:
    outcome = deliver(secured(**given), request(0), 30)
    assert (only(outcome), outcome.after) == ("retry", OPERATOR_DELAY)
    assert hint in outcome.reason
    assert CANARY not in outcome.reason
    assert PASSWORD not in outcome.reason


def test_the_variables_are_enough(monkeypatch: pytest.MonkeyPatch, kafka: Kafka, topic: str) -> None:
    monkeypatch.setenv("OTELGW_KAFKA_BROKERS", f"{kafka.brokers}, {kafka.brokers}")
    monkeypatch.setenv("OTELGW_KAFKA_TOPIC", topic)
    made = KafkaExporter()
    try:
        assert only(deliver(made, request(0))) == "done"
    finally:
        made.shutdown()
    assert len(spans_in(kafka, topic)) == 3


def test_a_shutdown_ends_a_delivery_that_waits(make: Make, kafka: Kafka) -> None:
    made = make()
    assert only(deliver(made, request(0))) == "done"
    kafka.pause()
    try:
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(deliver(made, request(1), 60)))
        thread.start()
        made.shutdown()
        thread.join(20)
        assert not thread.is_alive()
    finally:
        kafka.resume()
    assert only(outcomes[0]) == "retry"


def test_deliveries_of_several_threads_do_not_take_each_other_back(make: Make, kafka: Kafka, topic: str) -> None:
    made = make()
    outcomes: list[Outcome] = []

    def run(numbers: Sequence[int]) -> None:
        outcomes.extend(deliver(made, [span(number)]) for number in numbers)

    threads = [threading.Thread(target=run, args=(range(start, 41, 4),)) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [only(outcome) for outcome in outcomes] == ["done"] * 40
    assert spans_in(kafka, topic) == list(range(1, 41))


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"brokers": None}, "brokers is missing; set it, or the variable OTELGW_KAFKA_BROKERS or KAFKA_BROKERS"),
        ({"brokers": ["127.0.0.1:9092", "http://u:CANARY@x"]}, "brokers: entry 2 is not host:port"),
        ({"username": "u"}, "username and password go together"),
        ({"username": "u", "password": CANARY, "security_protocol": "ssl"}, "ssl has no login; write sasl_ssl"),
        ({"certificate": "/nowhere/ca.pem"}, "certificate: there is no file /nowhere/ca.pem"),
        ({"client": {"no.such.thing": CANARY}}, "No such configuration property"),
        ({"client": {"acks": "0"}}, "the client cannot be used"),
        ({"max_message_bytes": 10}, "the client cannot be used"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(given: dict[str, Any], part: str) -> None:
    with pytest.raises(DestinationConfigError, match=r"^destination mine: ") as caught:
        KafkaExporter(**{"name": "mine", "brokers": "127.0.0.1:1", **given})
    assert part in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(DestinationConfigError, match=r"pip install 'otelgw\[kafka\]'"):
        KafkaExporter(brokers="127.0.0.1:1")


def test_a_password_goes_over_a_line_in_plain_text_only_where_that_was_asked_for() -> None:
    login = {"brokers": "127.0.0.1:1", "username": USER, "password": PASSWORD}
    assert KafkaExporter(**login)._client._settings["security.protocol"] == "sasl_ssl"
    plain = KafkaExporter(**login, security_protocol="sasl_plaintext")
    assert plain._client._settings["security.protocol"] == "sasl_plaintext"
