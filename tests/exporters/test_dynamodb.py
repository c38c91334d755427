from __future__ import annotations

import gzip
import json
import os
import random
import string
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.validate import ParamValidator

from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter, Outcome
from otelgw_exporters.dynamodb import DynamoDbExporter
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.objects import deliver, request, states
from tests.exporters.samples import generation, span
from tests.exporters.test_payload import check
from tests.servers import require
from tests.servers.amazon import client
from tests.servers.dynalite import Dynalite
from tests.servers.faults import LOST, SILENT, Faults, Status
from tests.servers.moto import Moto
from tests.servers.ports import free_port
from tests.servers.process import Process

GOLDEN = Path(__file__).parents[1] / "golden" / "dynamodb" / "item.json"
KEYS = {"access_key_id": "AKIATESTS0123456789", "secret_access_key": "canary-secret-0123456789", "region": "eu-west-1"}
Build = Callable[..., DynamoDbExporter]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto(require("moto")) as running:
        yield running


@pytest.fixture(scope="module")
def dynalite() -> Iterator[Dynalite]:
    with Dynalite(require("dynalite")) as running:
        yield running


class Table:
    """A table of an emulator."""

    def __init__(self, server: Process, *, sort: bool = False) -> None:
        self._db = client("dynamodb", server.url)
        self.url = server.url
        self.name = "t" + "".join(random.choices(string.ascii_lowercase, k=12))
        keys = [("id", "HASH"), *([("at", "RANGE")] if sort else [])]
        self._db.create_table(
            TableName=self.name,
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
            BillingMode="PAY_PER_REQUEST",
        )
        deadline = time.monotonic() + 20
        while self._db.describe_table(TableName=self.name)["Table"]["TableStatus"] != "ACTIVE":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def items(self) -> list[dict[str, Any]]:
        """Return everything that is in it, by the time of the calls, without DynamoDB's types."""
        found: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"TableName": self.name, "ConsistentRead": True}
        while True:
            got = self._db.scan(**asked)
            found += [{name: next(iter(value.values())) for name, value in item.items()} for item in got["Items"]]
            if "LastEvaluatedKey" not in got:
                return sorted(found, key=lambda item: str(item["call_id"]))
            asked["ExclusiveStartKey"] = got["LastEvaluatedKey"]


@pytest.fixture(params=["dynalite", "moto"])
def table(request: pytest.FixtureRequest) -> Table:
    return Table(request.getfixturevalue(request.param))


@pytest.fixture
def plain(dynalite: Dynalite) -> Table:
    return Table(dynalite)


@pytest.fixture
def proxy(dynalite: Dynalite) -> Iterator[Faults]:
    with Faults(dynalite.url) as running:
        yield running


@pytest.fixture
def build(closing: Callable[[Exporter], Exporter]) -> Build:
    def made(place: Table, **given: Any) -> DynamoDbExporter:
        exporter = DynamoDbExporter(**{"table": place.name, "endpoint_url": place.url, **KEYS, **given})
        closing(exporter)
        return exporter

    return made


def many(count: int) -> list[Any]:
    return [span for number in range(count) for span in request(number)]


def noise(count: int) -> str:
    return "".join(random.Random(1).choices(string.printable, k=count))


@pytest.mark.parametrize("write", ["put", "batch"])
def test_a_call_is_an_item_with_its_numbers_and_its_payload(build: Build, table: Table, write: str) -> None:
    outcome = deliver(build(table, write=write), [*many(30), span(77)])
    assert states(outcome) == ["done"] * 91
    items = table.items()
    assert len(items) == 30
    first = next(item for item in items if item["call_id"] == "call-0")
    payload = json.loads(first["payload"])
    check(payload)
    assert first["id"] == f"{payload['trace_id']}-{10_001:016x}"
    assert (first["model"], first["prompt_tokens"], first["status"]) == ("gpt-4o", "1117", "success")
    assert Decimal(first["startTime"]) == Decimal("1800000000.0")
    assert Decimal(first["response_cost"]) == Decimal(repr(payload["response_cost"]))
    assert (first["user_api_key_team_alias"], first["user_api_key_alias"]) == ("blue", "search")


@pytest.mark.parametrize("write", ["put", "batch"])
def test_a_lost_acknowledgement_leads_to_one_item(build: Build, plain: Table, proxy: Faults, write: str) -> None:
    made = build(plain, endpoint_url=proxy.url, write=write)
    proxy.next(LOST, LOST)
    assert states(deliver(made, request(0))) == ["retry"] * 3
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert len(plain.items()) == 1


def test_an_item_that_is_there_is_left_as_it_is(build: Build, table: Table) -> None:
    made = build(table)
    deliver(made, request(0))
    assert states(deliver(made, request(0, status=500))) == ["done"] * 3
    assert [item["status"] for item in table.items()] == ["success"]


def test_a_sort_key_is_the_time_and_the_call(build: Build, dynalite: Dynalite) -> None:
    sorted_table = Table(dynalite, sort=True)
    made = build(sorted_table, sort_key="at")
    for _ in range(2):
        assert states(deliver(made, request(0))) == ["done"] * 3
    (item,) = sorted_table.items()
    assert item["at"] == f"2027-01-15T08:00:00.090000+00:00#{item['id']}"


def test_items_have_a_time_to_live_where_it_is_asked_for(build: Build, plain: Table) -> None:
    deliver(build(plain, ttl_days=30, ttl_attribute="expires"), request(0))
    deliver(build(plain), request(1))
    first, second = plain.items()
    assert int(first["expires"]) == 1_800_000_000 + 30 * 86_400
    assert "expires" not in second


def test_what_is_too_large_is_packed(build: Build, table: Table) -> None:
    assert states(deliver(build(table), [generation(text="long " * 300_000)])) == ["done"]
    (item,) = table.items()
    assert "payload" not in item
    assert json.loads(gzip.decompress(item["payload_gzip"]))["messages"][0]["content"].startswith("long long")


@pytest.mark.parametrize("write", ["put", "batch"])
@pytest.mark.parametrize("size", [395_000, 403_000, 409_000, 500_000])
def test_no_size_is_refused_by_the_table(build: Build, table: Table, write: str, size: int) -> None:
    """Around the limit of 400 KB, where one more byte of counting would matter."""
    outcome = deliver(build(table, write=write), [generation(text=noise(size))])
    assert states(outcome) == ["done"] or "overflow_bucket" in outcome.reason


def test_what_is_too_large_even_then_goes_to_s3_and_the_item_says_where(build: Build, plain: Table, moto: Moto) -> None:
    s3 = client("s3", moto.url)
    s3.create_bucket(Bucket="overflow", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    made = build(plain, overflow_bucket="overflow", overflow_endpoint_url=moto.url)
    for _ in range(2):
        assert states(deliver(made, [generation(text=noise(900_000))])) == ["done"]
    (item,) = plain.items()
    bucket, _, key = item["payload_s3"].removeprefix("s3://").partition("/")
    told = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert told["messages"][0]["content"] == noise(900_000)
    assert s3.list_objects_v2(Bucket="overflow")["KeyCount"] == 1


def test_without_a_bucket_what_is_too_large_is_dead_and_it_is_said_why(build: Build, plain: Table) -> None:
    outcome = deliver(build(plain), [generation(text=noise(900_000)), *request(0)])
    assert states(outcome) == ["dead", "done", "done", "done"]
    assert "set the destination's overflow_bucket" in outcome.reason


def test_items_that_were_not_processed_come_again_and_the_others_do_not(
    build: Build, plain: Table, proxy: Faults
) -> None:
    made = build(plain, endpoint_url=proxy.url, write="batch")
    spans = many(3)
    key = f"0af7651916cd43dd8448eb211c80319c-{10_002:016x}"
    put = {"PutRequest": {"Item": {"id": {"S": key}}}}
    proxy.next(Status(200, json.dumps({"UnprocessedItems": {plain.name: [put]}}).encode()))

    outcome = deliver(made, spans)

    assert states(outcome)[::3] == ["done", "retry", "done"]
    assert "UnprocessedItems" in outcome.reason
    assert states(deliver(made, spans[3:6])) == ["done"] * 3
    assert [item["call_id"] for item in plain.items()] == ["call-1"]  # the first answer was not the table's


def test_of_a_batch_that_is_refused_only_the_item_at_fault_is_dead(build: Build, plain: Table, proxy: Faults) -> None:
    refused = Status(400, b'{"__type": "x#ValidationException", "message": "Item size has exceeded"}')
    proxy.next(refused, refused)
    outcome = deliver(build(plain, endpoint_url=proxy.url, write="batch"), many(3))
    assert states(outcome)[::3] == ["dead", "done", "done"]
    assert "Item size has exceeded" in outcome.reason
    assert len(plain.items()) == 2


THROTTLED = b'{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow"}'


@pytest.mark.parametrize("write", ["put", "batch"])
@pytest.mark.parametrize(
    "fault", [Status(400, THROTTLED), Status(503), Status(500, b'{"__type": "InternalServerError"}')]
)
def test_a_table_that_asks_for_patience_gets_it(
    build: Build, plain: Table, proxy: Faults, fault: Status, write: str
) -> None:
    made = build(plain, endpoint_url=proxy.url, write=write)
    proxy.always(fault)
    outcome = deliver(made, many(60))
    assert states(outcome) == ["retry"] * 180
    assert len(proxy.requests) < 10  # when one is asked to wait, the others are not begun
    assert outcome.after is None
    proxy.always(None)
    assert states(deliver(made, many(60))) == ["done"] * 180
    assert len(plain.items()) == 60


def test_a_dead_or_silent_endpoint_loses_nothing(build: Build, plain: Table, proxy: Faults) -> None:
    dead = deliver(build(plain, endpoint_url=f"http://127.0.0.1:{free_port()}"), many(2))
    assert states(dead) == ["retry"] * 6
    proxy.always(SILENT)
    silent = deliver(build(plain, endpoint_url=proxy.url), many(2), seconds=0.5)
    assert states(silent) == ["retry"] * 6
    assert "no answer in time" in silent.reason


def test_a_shutdown_ends_what_is_under_way(build: Build, plain: Table, proxy: Faults) -> None:
    proxy.always(SILENT)
    made = build(plain, endpoint_url=proxy.url, timeout=100.0)
    outcomes: list[Outcome] = []
    delivery = threading.Thread(target=lambda: outcomes.append(deliver(made, many(20), seconds=100)))
    delivery.start()
    while not proxy.requests:
        time.sleep(0.01)
    made.shutdown()
    delivery.join(20)
    assert [set(states(outcome)) for outcome in outcomes] == [{"retry"}]


def test_a_table_that_is_not_there_is_said(build: Build, plain: Table) -> None:
    outcome = deliver(build(plain, table="not-there"), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "mend the destination's table or region" in outcome.reason


@pytest.mark.parametrize("write", ["put", "batch"])
def test_a_table_with_other_keys_is_said(build: Build, table: Table, write: str) -> None:
    outcome = deliver(build(table, partition_key="pk", write=write), many(2))
    assert states(outcome) == ["retry"] * 6
    assert outcome.after == OPERATOR_DELAY
    assert "mend the destination's partition_key and sort_key" in outcome.reason


def test_a_wrong_clock_is_said_with_how_wrong_it_is(build: Build, plain: Table, proxy: Faults) -> None:
    body = b'{"__type": "com.amazon.coral.service#InvalidSignatureException", "message": "Signature expired"}'
    proxy.always(Status(400, body, {"date": "Fri, 15 Jan 2027 08:00:00 GMT"}))
    outcome = deliver(build(plain, endpoint_url=proxy.url), request(0))
    assert states(outcome) == ["retry"] * 3
    assert "the clock of this machine is " in outcome.reason


def test_credentials_that_are_refused_are_said_and_not_shown(build: Build, plain: Table, proxy: Faults) -> None:
    for code, hint in (
        ("UnrecognizedClientException", "mend the destination's access_key_id"),
        ("InvalidSignatureException", "mend secret_access_key"),
        ("ExpiredTokenException", "the session token has expired"),
        ("AccessDeniedException", "mend the policy"),
    ):
        told = {"__type": f"com.amazon#{code}", "message": f"with {KEYS['secret_access_key']}"}
        proxy.next(Status(400, json.dumps(told).encode()))
        outcome = deliver(build(plain, endpoint_url=proxy.url), request(0))
        assert states(outcome) == ["retry"] * 3
        assert outcome.after == OPERATOR_DELAY
        assert hint in outcome.reason
        assert "canary" not in outcome.reason


POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "dynamodb:Query", "Resource": "*"}]}


def test_iam_refuses_what_no_policy_allows_and_it_is_said(closing: Callable[[Exporter], Exporter]) -> None:
    with Moto(require("moto"), unchecked=3) as server:
        iam = client("iam", server.url)
        iam.create_user(UserName="writer")
        key = iam.create_access_key(UserName="writer")["AccessKey"]
        iam.put_user_policy(UserName="writer", PolicyName="p", PolicyDocument=json.dumps(POLICY))
        own = {"table": "t", "endpoint_url": server.url, "region": "eu-west-1", "access_key_id": key["AccessKeyId"]}
        for secret, hint in ((key["SecretAccessKey"], "mend the policy"), ("wrong-secret-canary", "mend")):
            outcome = deliver(closing(DynamoDbExporter(**own, secret_access_key=secret)), request(0))
            assert states(outcome) == ["retry"] * 3
            assert outcome.after == OPERATOR_DELAY
            assert hint in outcome.reason, outcome.reason
            assert "canary" not in outcome.reason


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "é🦀" * 2000, "a\ufffeb"])
def test_every_text_is_kept(build: Build, table: Table, text: str) -> None:
    assert states(deliver(build(table), [generation(text=text, **{"user.id": text})])) == ["done"]
    (item,) = table.items()
    assert json.loads(item["payload"])["messages"][0]["content"] == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("tokens", [2**62, -(2**62), 0])
def test_every_number_is_one_for_the_table(build: Build, table: Table, tokens: int) -> None:
    made = generation(**{"gen_ai.usage.input_tokens": tokens, "gen_ai.usage.cost": 2.85e-05})
    assert states(deliver(build(table), [made])) == ["done"]
    (item,) = table.items()
    assert Decimal(item["response_cost"]) == Decimal("0.0000285")


def test_the_endpoint_is_the_regions(closing: Callable[[Exporter], Exporter]) -> None:
    for region, host in (
        ("eu-west-1", "https://dynamodb.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://dynamodb.cn-north-1.amazonaws.com.cn"),
    ):
        assert f"litellm-server-logs at {host}" in repr(closing(DynamoDbExporter(**{**KEYS, "region": region})))


def test_half_a_key_is_refused_at_once() -> None:
    with pytest.raises(DestinationConfigError, match="destination dynamodb: access_key_id and secret_access_key"):
        DynamoDbExporter(access_key_id="a", region="eu-west-1")


@pytest.mark.parametrize(("write", "operation"), [("put", "PutItem"), ("batch", "BatchWriteItem")])
def test_a_request_is_one_that_amazons_own_model_of_the_service_allows(
    build: Build, plain: Table, proxy: Faults, write: str, operation: str
) -> None:
    deliver(
        build(plain, endpoint_url=proxy.url, write=write, ttl_days=7), [*many(2), generation(text="long " * 90_000)]
    )
    model = client("dynamodb", plain.url).meta.service_model.operation_model(operation)
    assert proxy.requests
    for each in proxy.requests:
        assert each.headers["x-amz-target"] == f"DynamoDB_20120810.{operation}"
        report = ParamValidator().validate(json.loads(each.body), model.input_shape)
        assert not report.has_errors(), report.generate_report()


def test_an_item_is_that_of_its_golden(build: Build, plain: Table, proxy: Faults) -> None:
    deliver(build(plain, endpoint_url=proxy.url, table="calls", ttl_days=7), request(0))
    text = json.dumps(json.loads(proxy.requests[0].body)["Item"], indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
