from __future__ import annotations

import base64
import gzip
import json
import random
import string
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.sqs import SqsExporter
from tests.exporters.objects import deliver, request, states
from tests.exporters.samples import generation, span
from tests.servers import require
from tests.servers.amazon import client
from tests.servers.faults import LOST, SILENT, Faults, Status
from tests.servers.moto import Moto
from tests.servers.ports import free_port

KEYS = {"access_key_id": "AKIATESTS0123456789", "secret_access_key": "canary-secret-0123456789", "region": "eu-west-1"}
Build = Callable[..., SqsExporter]


@pytest.fixture(scope="module")
def server() -> Iterator[Moto]:
    with Moto(require("moto")) as running:
        yield running


class Queue:
    """A queue of the emulator."""

    def __init__(self, server: Moto, name: str, **attributes: str) -> None:
        self._sqs = client("sqs", server.url)
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        self.url: str = self._sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def messages(self) -> list[dict[str, Any]]:
        """Receive everything that is in it, and delete it."""
        found: list[dict[str, Any]] = []
        while True:
            asked = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "AttributeNames": ["All"]}
            got = self._sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=0, **asked).get("Messages", [])
            if not got:
                return found
            found += got
            for each in got:
                self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"])

    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(message["Body"]) for message in self.messages()]


@pytest.fixture
def queue(server: Moto) -> Queue:
    return Queue(server, "q" + "".join(random.choices(string.ascii_lowercase, k=12)))


@pytest.fixture
def fifo(server: Moto) -> Queue:
    return Queue(server, "q" + "".join(random.choices(string.ascii_lowercase, k=12)) + ".fifo")


@pytest.fixture
def proxy(server: Moto) -> Iterator[Faults]:
    with Faults(server.url) as running:
        yield running


@pytest.fixture
def build(queue: Queue, closing: Callable[[Exporter], Exporter]) -> Build:
    def made(**given: Any) -> SqsExporter:
        exporter = SqsExporter(**{"queue_url": queue.url, **KEYS, **given})
        closing(exporter)
        return exporter

    return made


def many(count: int, **changes: Any) -> list[Any]:
    return [span for number in range(count) for span in request(number, **changes)]


def ids(payloads: list[dict[str, Any]]) -> list[str]:
    return sorted((payload["id"] for payload in payloads), key=lambda name: int(name.removeprefix("call-")))


def test_calls_are_sent_ten_at_a_time(build: Build, queue: Queue, proxy: Faults) -> None:
    outcome = deliver(build(endpoint_url=proxy.url), [*many(23), span(77)])
    assert states(outcome) == ["done"] * 70
    sizes = [len(json.loads(each.body)["Entries"]) for each in proxy.requests]
    assert sizes == [10, 10, 3]
    assert ids(queue.payloads()) == [f"call-{number}" for number in range(23)]


def test_a_request_stays_below_the_limit_of_its_size(build: Build, queue: Queue, proxy: Faults) -> None:
    spans = [generation(number, text=f"{number}" * 300_000) for number in range(2, 7)]
    outcome = deliver(build(endpoint_url=proxy.url), spans)
    assert states(outcome) == ["done"] * 5
    assert len(proxy.requests) > 1
    for each in proxy.requests:
        assert sum(len(entry["MessageBody"]) for entry in json.loads(each.body)["Entries"]) <= 1_048_576
    assert len(queue.messages()) == 5


def test_batch_size_and_flush_interval_are_what_the_pipeline_is_asked_for(build: Build) -> None:
    assert build().batching[::2] == (10, 30.0)
    assert build(batch_size=40, flush_interval=5).batching[::2] == (40, 5.0)


def test_a_lost_acknowledgement_is_one_message_in_a_fifo_queue(build: Build, fifo: Queue, proxy: Faults) -> None:
    made = build(queue_url=fifo.url, endpoint_url=proxy.url)
    proxy.next(LOST, LOST)
    assert states(deliver(made, many(3))) == ["retry"] * 9
    assert states(deliver(made, many(3))) == ["done"] * 9
    assert ids(fifo.payloads()) == ["call-0", "call-1", "call-2"]


@pytest.mark.parametrize(("group", "expected"), [("team", {"blue", "otelgw"}), ("all", {"otelgw"})])
def test_a_fifo_queue_keeps_the_order_within_a_group(build: Build, fifo: Queue, group: str, expected: set[str]) -> None:
    spans = [generation(number, **({"otelgw.team.id": "blue"} if number % 2 else {})) for number in range(2, 6)]
    assert states(deliver(build(queue_url=fifo.url, message_group=group), spans)) == ["done"] * 4
    messages = fifo.messages()
    assert {message["Attributes"]["MessageGroupId"] for message in messages} == expected
    assert len({message["Attributes"]["MessageDeduplicationId"] for message in messages}) == 4


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text())
def test_a_group_is_named_as_amazon_allows(build: Build, team: str) -> None:
    from otelgw_exporters import payload

    made = build(queue_url="http://127.0.0.1:1/1/q.fifo")
    (call,) = payload.calls([generation(**{"otelgw.team.id": team})])
    named = made._ordered(call)["MessageGroupId"]
    assert 1 <= len(named) <= 128
    assert all("!" <= letter <= "~" for letter in named)


def entry(number: int, code: str, *, sender: bool) -> dict[str, Any]:
    return {"Id": str(number), "Code": code, "Message": f"told with {KEYS['secret_access_key']}", "SenderFault": sender}


def test_of_a_request_that_is_taken_in_part_each_message_has_a_fate_of_its_own(build: Build, proxy: Faults) -> None:
    failed = [
        entry(0, "InvalidMessageContents", sender=True),
        entry(1, "InternalError", sender=False),
        entry(2, "RequestThrottled", sender=True),
        entry(3, "KMS.DisabledException", sender=True),
    ]
    told = {"Successful": [{"Id": "4", "MessageId": "m", "MD5OfMessageBody": "x"}], "Failed": failed}
    proxy.next(Status(200, json.dumps(told).encode()))

    outcome = deliver(build(endpoint_url=proxy.url), many(5))

    assert states(outcome)[::3] == ["dead", "retry", "retry", "retry", "done"]
    assert "InvalidMessageContents" in outcome.verdicts[0].reason
    assert outcome.verdicts[3].after is None
    assert outcome.verdicts[9].after == OPERATOR_DELAY
    assert "canary" not in repr(outcome)


def test_a_message_that_is_refused_takes_no_other_along(build: Build, queue: Queue, proxy: Faults) -> None:
    body = b'{"__type": "com.amazonaws.sqs#InvalidMessageContents", "message": "no"}'
    proxy.next(Status(400, body), Status(400, body), Status(400, body))
    outcome = deliver(build(endpoint_url=proxy.url), many(4))
    assert states(outcome)[::3] == ["dead", "done", "done", "done"]
    assert ids(queue.payloads()) == ["call-1", "call-2", "call-3"]


def test_what_is_too_large_is_packed(build: Build, queue: Queue) -> None:
    assert states(deliver(build(), [generation(text="long " * 300_000)])) == ["done"]
    (message,) = queue.messages()
    assert message["MessageAttributes"]["content-encoding"]["StringValue"] == "gzip"
    told = json.loads(gzip.decompress(base64.b64decode(message["Body"])))
    assert told["messages"][0]["content"].startswith("long long")


def test_a_queue_that_takes_less_is_sent_less(build: Build, server: Moto) -> None:
    small = Queue(server, f"small{random.randrange(10**9)}", MaximumMessageSize="30000")
    made = build(queue_url=small.url)
    spans = [generation(text="long " * 10_000), *request(0)]
    first = deliver(made, spans)
    assert "dead" not in states(first)
    assert "the queue takes 30000 bytes at most" in first.reason
    left = [span for span, state in zip(spans, states(first), strict=True) if state == "retry"]
    assert set(states(deliver(made, left))) == {"done"}
    assert len(small.messages()) == 2


@pytest.mark.parametrize(
    "said",
    [
        (
            b'{"__type": "com.amazonaws.sqs#BatchRequestTooLong", '
            b'"message": "Batch requests cannot be longer than 5000 bytes. You have sent 9999 bytes."}'
        ),
        b'{"__type": "InvalidParameterValue", "message": "Reason: Message must be shorter than 5000 bytes."}',
    ],
)
def test_amazons_words_for_that_are_understood(build: Build, queue: Queue, proxy: Faults, said: bytes) -> None:
    made = build(endpoint_url=proxy.url)
    proxy.next(Status(400, said))
    assert states(deliver(made, many(4))) == ["retry"] * 12
    assert states(deliver(made, many(4))) == ["done"] * 12
    assert len(proxy.requests) == 5
    assert len(queue.messages()) == 4


def noise(count: int) -> str:
    return "".join(random.Random(1).choices(string.printable, k=count))


def test_what_is_too_large_even_then_goes_to_s3_and_the_message_points_there(
    build: Build, queue: Queue, server: Moto
) -> None:
    s3 = client("s3", server.url)
    s3.create_bucket(Bucket="overflow", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    made = build(overflow_bucket="overflow", overflow_endpoint_url=server.url)
    for _ in range(2):
        assert states(deliver(made, [generation(text=noise(2_000_000))])) == ["done"]
    first, second = (json.loads(message["Body"]) for message in queue.messages())
    assert first == second
    kind, place = first
    assert kind == "software.amazon.payloadoffloading.PayloadS3Pointer"
    told = json.loads(s3.get_object(Bucket=place["s3BucketName"], Key=place["s3Key"])["Body"].read())
    assert told["messages"][0]["content"] == noise(2_000_000)
    assert s3.list_objects_v2(Bucket="overflow")["KeyCount"] == 1


def test_without_a_bucket_what_is_too_large_is_dead_and_it_is_said_why(build: Build, queue: Queue) -> None:
    outcome = deliver(build(), [generation(text=noise(2_000_000)), *request(0)])
    assert states(outcome) == ["dead", "done", "done", "done"]
    assert "set the destination's overflow_bucket" in outcome.reason
    assert ids(queue.payloads()) == ["call-0"]


def test_a_bucket_that_cannot_be_reached_loses_nothing(build: Build) -> None:
    made = build(overflow_bucket="overflow", overflow_endpoint_url=f"http://127.0.0.1:{free_port()}")
    outcome = deliver(made, [generation(text=noise(2_000_000)), *request(0)])
    assert states(outcome) == ["retry", "done", "done", "done"]
    assert "s3://overflow" in outcome.reason


@pytest.mark.parametrize("text", ["a\x00b", "a\ufffe\uffffb", "\ud800", "\u2028é🦀", "]]>&<"])
def test_every_text_arrives_as_a_message(build: Build, queue: Queue, text: str) -> None:
    assert states(deliver(build(), [generation(text=text)])) == ["done"]
    (message,) = queue.messages()
    assert "\ufffe" not in message["Body"]
    assert json.loads(message["Body"])["messages"][0]["content"] == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    "fault",
    [
        Status(503),
        Status(500, b'{"__type": "InternalFailure"}'),
        Status(400, b'{"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow down"}'),
        Status(429, headers={"retry-after": "7"}),
    ],
)
def test_a_service_that_asks_for_patience_gets_it(build: Build, queue: Queue, proxy: Faults, fault: Status) -> None:
    made = build(endpoint_url=proxy.url)
    proxy.always(fault)
    outcome = deliver(made, many(25))
    assert states(outcome) == ["retry"] * 75
    assert len(proxy.requests) == 1
    assert outcome.after == (7.0 if fault.headers else None)
    proxy.always(None)
    assert states(deliver(made, many(25))) == ["done"] * 75
    assert len(queue.messages()) == 25


def test_a_dead_or_silent_endpoint_loses_nothing(build: Build, proxy: Faults) -> None:
    dead = deliver(build(endpoint_url=f"http://127.0.0.1:{free_port()}"), request(0))
    assert states(dead) == ["retry"] * 3
    proxy.always(SILENT)
    silent = deliver(build(endpoint_url=proxy.url), request(0), seconds=0.5)
    assert states(silent) == ["retry"] * 3
    assert "no answer in time" in silent.reason


def test_a_queue_that_is_not_there_is_said(build: Build, queue: Queue) -> None:
    outcome = deliver(build(queue_url=f"{queue.url}-not"), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "mend the destination's queue_url or region" in outcome.reason


def test_a_wrong_clock_is_said_with_how_wrong_it_is(build: Build, proxy: Faults) -> None:
    body = b'{"__type": "InvalidSignatureException", "message": "Signature expired"}'
    proxy.always(Status(400, body, {"date": "Fri, 15 Jan 2027 08:00:00 GMT"}))
    outcome = deliver(build(endpoint_url=proxy.url), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "the clock of this machine is " in outcome.reason
    assert "mend it (NTP)" in outcome.reason


def test_without_credentials_nothing_is_lost_and_it_is_said_what_to_do(build: Build) -> None:
    outcome = deliver(build(access_key_id=None, secret_access_key=None), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "no AWS credentials were found" in outcome.reason


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.us-west-2.amazonaws.com/123456789012/my-queue", "us-west-2"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/my-queue", "cn-north-1"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/my-queue", "us-gov-west-1"),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/my-queue", "eu-west-1"),
        ("https://vpce-0a-1.sqs.ap-southeast-2.vpce.amazonaws.com/123456789012/my-queue", "ap-southeast-2"),
    ],
)
def test_the_region_is_the_queues(build: Build, url: str, region: str) -> None:
    assert build(queue_url=url)._service.region == region


def test_a_url_without_a_queue_is_refused(build: Build) -> None:
    with pytest.raises(DestinationConfigError, match="destination aws_sqs: queue_url: names no queue"):
        build(queue_url="https://sqs.eu-west-1.amazonaws.com")
    with pytest.raises(DestinationConfigError, match="queue_url is missing"):
        build(queue_url=None)


def test_the_environment_alone_is_enough(
    queue: Queue, closing: Callable[[Exporter], Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTELGW_SQS_QUEUE_URL", queue.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.setenv("AWS_REGION_NAME", "eu-west-1")
    assert states(deliver(closing(SqsExporter()), request(0))) == ["done"] * 3
    assert ids(queue.payloads()) == ["call-0"]


POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["sqs:GetQueueUrl", "dynamodb:DescribeTable"], "Resource": "*"}],
}


def test_iam_refuses_what_no_policy_allows_and_it_is_said(closing: Callable[[Exporter], Exporter]) -> None:
    with Moto(require("moto"), unchecked=4) as server:
        iam, sqs = client("iam", server.url), client("sqs", server.url)
        iam.create_user(UserName="writer")
        key = iam.create_access_key(UserName="writer")["AccessKey"]
        iam.put_user_policy(UserName="writer", PolicyName="p", PolicyDocument=json.dumps(POLICY))
        url = sqs.create_queue(QueueName="q")["QueueUrl"]
        own = {"queue_url": url, "region": "eu-west-1", "access_key_id": key["AccessKeyId"]}
        cases = [
            ({"secret_access_key": "wrong-secret-canary"}, "SignatureDoesNotMatch", "mend secret_access_key"),
            ({"access_key_id": "AKIANOBODY", "secret_access_key": "x" * 20}, "InvalidClientTokenId", "access_key_id"),
            ({"secret_access_key": key["SecretAccessKey"]}, "AccessDenied", "mend the policy"),
        ]
        for options, code, hint in cases:
            outcome = deliver(closing(SqsExporter(**{**own, **options})), request(0))
            assert states(outcome) == ["retry"] * 3
            assert outcome.after == OPERATOR_DELAY
            assert code in outcome.reason, outcome.reason
            assert hint in outcome.reason
            assert "canary" not in outcome.reason


def test_a_session_token_is_signed_with(build: Build, proxy: Faults) -> None:
    deliver(build(endpoint_url=proxy.url, session_token="token-0123456789"), request(0))
    (seen,) = proxy.requests
    assert seen.headers["x-amz-security-token"] == "token-0123456789"
    assert "x-amz-security-token" in seen.headers["authorization"]


def test_a_request_is_one_that_amazons_own_model_of_the_service_allows(
    build: Build, fifo: Queue, server: Moto, proxy: Faults
) -> None:
    made = build(queue_url=fifo.url, endpoint_url=proxy.url)
    deliver(made, [*many(2), generation(text="long " * 300_000)])
    model = client("sqs", server.url).meta.service_model.operation_model("SendMessageBatch")
    for each in proxy.requests:
        assert each.headers["x-amz-target"] == "AmazonSQS.SendMessageBatch"
        report = ParamValidator().validate(json.loads(each.body), model.input_shape)
        assert not report.has_errors(), report.generate_report()
