"""``otelgw doctor``: what it says of destinations that work, and of each way in which one does not."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelgw.cli import main
from otelgw.config.load import load
from otelgw.doctor import MODEL, Diagnosis, advice, diagnose
from otelgw.errors import ConfigError
from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.vendor import HttpVendor
from tests.servers import require
from tests.servers.answering import HttpAnswer
from tests.servers.collector import Collector
from tests.servers.otlp import HttpReceiver, spans_in
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.seaweedfs import BUCKET, KEY_ID, SECRET, SeaweedFs

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the destinations of a config, indented as they come, and returns its path."""
    monkeypatch.setenv("OTELGW_STATE_DIR", str(tmp_path / "state"))

    def run(destinations: str, more: str = "") -> str:
        path = tmp_path / "config.yaml"
        items = textwrap.indent(textwrap.dedent(destinations), "    ")
        path.write_text(f"otelgw:\n  destinations:\n{items}\n{more}")
        return str(path)

    return run


def only(path: str, seconds: float = 20) -> Diagnosis:
    (found,) = diagnose(load(path, {"HOME": str(Path(path).parent)}), seconds=seconds)
    return found


@pytest.fixture(scope="module")
def store() -> Iterator[SeaweedFs]:
    with SeaweedFs(require("seaweedfs")) as running:
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with Postgres(require("postgres")) as running:
        yield running


def s3(url: str, **changes: str) -> str:
    given = {"bucket": BUCKET, "region": "us-east-1", "access_key_id": KEY_ID, "secret_access_key": SECRET, **changes}
    return f"- {json.dumps({'name': 's3', 'endpoint_url': url, **given})}"


# What works


def test_a_destination_that_works_gets_one_marked_trace(write: Write, tmp_path: Path) -> None:
    found = only(write(f"- {{name: file, path: {tmp_path}/calls.jsonl}}"))
    assert found.ok
    assert re.fullmatch(r"delivered in \d+ ms", found.said)
    (line,) = (tmp_path / "calls.jsonl").read_text().splitlines()
    payload = json.loads(line)
    assert (payload["model"], payload["request_tags"], payload["status"]) == (MODEL, [MODEL], "success")
    assert payload["id"].startswith("otelgw-doctor-")
    assert payload["messages"][0]["content"] == "otelgw doctor: is this destination reached?"
    assert payload["response"]["choices"][0]["message"]["content"] == "If you can read this, it is."


def test_a_collector_takes_the_trace(write: Write) -> None:
    config = Path(__file__).parents[1] / "otel-collector-config.yaml"
    with Collector(require("collector"), config) as running:
        assert only(write(f"- {{name: otlp_http, endpoint: 'http://127.0.0.1:{running.http}'}}")).ok
        running.eventually(lambda: f"chat {MODEL}" in running.output)


def test_what_can_be_read_back_is(write: Write, database: Postgres, store: SeaweedFs) -> None:
    for text in (f"- {{name: postgres, dsn: '{database.dsn}'}}", s3(store.url)):
        found = only(write(text))
        assert found.ok, found
        assert found.said.endswith(" and read back")


def test_a_trace_is_looked_for_at_langfuse_until_it_is_there(write: Write) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Answer:
        asked.append(request)
        if request.method == "POST":
            return Answer(200, {"content-type": "application/x-protobuf"})
        if len(asked) < 4:  # Langfuse takes a trace first, and works it in later
            return Answer(404, {"content-type": "application/json"}, b'{"message":"Trace not found"}')
        (sent,) = spans_in([ExportTraceServiceRequest.FromString(asked[0].body)])[1:2]
        return Answer(200, {}, json.dumps({"observations": [{"id": sent.span_id.hex()}]}).encode())

    with HttpVendor(StandIn(accepted=answer)) as vendor:
        text = f"- {{name: langfuse, endpoint: '{vendor.origin}', public_key: pk-lf-1, secret_key: CANARY-sk-lf}}"
        found = only(write(text))
    assert found.said.endswith(" and read back")
    (trace,) = {span.trace_id.hex() for span in spans_in([ExportTraceServiceRequest.FromString(asked[0].body)])}
    assert {(each.method, each.path) for each in asked[1:]} == {("GET", f"/api/public/traces/{trace}")}
    assert all("content-encoding" not in each.headers and each.headers["authorization"] for each in asked[1:])


def test_no_selection_keeps_the_trace_from_arriving_but_what_is_withheld_is(write: Write, tmp_path: Path) -> None:
    text = f"- {{name: file, path: {tmp_path}/x.jsonl, on: failure, select: {{model: [other]}}, content: false}}"
    assert only(write(text)).ok
    (line,) = (tmp_path / "x.jsonl").read_text().splitlines()
    assert "is this destination reached" not in line
    assert only(write(f"- {{name: file, path: {tmp_path}/y.jsonl}}", "  content: false\n")).ok
    assert "is this destination reached" not in (tmp_path / "y.jsonl").read_text()


# What does not


def test_a_delivery_that_does_not_arrive_is_found_out(write: Write, database: Postgres) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        only(write(f"- {{name: postgres, dsn: '{database.dsn}', table: lost}}"))
        connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
            "CREATE TRIGGER lose BEFORE INSERT ON lost FOR EACH ROW EXECUTE FUNCTION lose()"
        )
    found = only(write(f"- {{name: postgres, dsn: '{database.dsn}', table: lost}}"), seconds=1.5)
    assert not found.ok
    assert found.said.endswith("but not to be found there: 0 of 1 rows are there")


def test_documents_that_are_taken_and_not_kept_are_found_out(write: Write) -> None:
    def answer(request: Request) -> Answer:
        found: object = {"acknowledged": True}
        if "/_bulk" in request.path:
            found = {"errors": False}
        elif request.path.endswith("/_count"):
            found = {"count": 1}
        return Answer(200, {"x-elastic-product": "Elasticsearch"}, json.dumps(found).encode())

    with HttpVendor(StandIn(accepted=answer)) as vendor:
        found = only(write(f"- {{name: elasticsearch, endpoint: '{vendor.origin}'}}"), seconds=1)
    assert not found.ok
    assert found.said.endswith("but not to be found there: 1 of 3 documents are there")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key(write: Write, status: int) -> None:
    answer = HttpAnswer(status, {}, b'{"message":"no such key: CANARY-key-0123456789"}')
    with HttpReceiver([answer], repeat=True) as receiver:
        for text in (
            f"- {{name: generic_api, endpoint: '{receiver.origin}/x', headers: {{x-key: CANARY-key-0123456789}}}}",
            f"- {{name: otlp_http, endpoint: '{receiver.origin}', headers: {{x-key: CANARY-key-0123456789}}}}",
            f"- {{name: datadog, endpoint: '{receiver.origin}', api_key: CANARY-key-0123456789}}",
        ):
            found = only(write(text))
            assert not found.ok
            assert "mend" in found.said + found.mend
            assert found.said.startswith(f"HTTP {status}: ")
            assert "no such key: ***" in found.said
            assert "CANARY" not in str(found)


def test_a_destination_that_wants_failures_only_is_sent_the_test_trace_too(write: Write) -> None:
    with HttpReceiver([HttpAnswer(200)], repeat=True) as receiver:
        found = only(write(f"- {{name: generic_api, endpoint: '{receiver.origin}/x', event_types: [llm_api_failure]}}"))
        assert found.ok
        assert MODEL.encode() in receiver.asked[0].body


def test_a_wrong_key_of_a_database_and_of_a_bucket(write: Write, database: Postgres, store: SeaweedFs) -> None:
    wrong = database.dsn.replace("postgres-canary", "CANARY-wrong")
    found = only(write(f"- {{name: postgres, dsn: '{wrong}'}}"))
    assert "mend the user or the password in the destination's dsn" in found.said
    assert "CANARY" not in str(found)
    found = only(write(s3(store.url, secret_access_key="CANARY-wrong-secret")))
    assert "the secret does not belong to the access key: mend secret_access_key" in found.said
    found = only(write(s3(store.url, access_key_id="nobody")))
    assert "there is no such access key: mend the destination's access_key_id" in found.said


def test_a_wrong_host(write: Write) -> None:
    for text in (
        "- {name: generic_api, endpoint: 'http://no-such-host.invalid/x'}",
        "- {name: otlp_http, endpoint: 'https://no-such-host.invalid'}",
        "- {name: otlp_grpc, endpoint: 'http://no-such-host.invalid:4317'}",
        "- {name: postgres, dsn: 'postgresql://u:p@no-such-host.invalid/x'}",
    ):
        found = only(write(text), seconds=5)
        assert not found.ok
        assert found.mend.startswith(("the host name does not exist: mend the endpoint", "nothing answers")), found
    for text in (
        f"- {{name: generic_api, endpoint: 'http://127.0.0.1:{free_port()}/x'}}",
        f"- {{name: otlp_grpc, endpoint: 'http://127.0.0.1:{free_port()}'}}",
        f"- {{name: postgres, dsn: 'postgresql://u:p@127.0.0.1:{free_port()}/x'}}",
    ):
        assert only(write(text)).mend == "nobody listens there: mend host and port, or start the server"


def test_a_host_that_says_nothing(write: Write) -> None:
    with HttpReceiver([HttpAnswer(silent=30)], repeat=True) as receiver:
        found = only(write(f"- {{name: generic_api, endpoint: '{receiver.origin}/x'}}"), seconds=0.5)
    assert found.mend == "nothing answers: mend the host, or open the firewall or proxy"


def test_plain_text_where_tls_is_meant(write: Write) -> None:
    with HttpReceiver() as receiver:
        found = only(write(f"- {{name: otlp_http, endpoint: 'https://127.0.0.1:{receiver.port}'}}"))
    assert found.mend.startswith("no TLS is spoken there: write http://")


def xml(status: int, code: str, words: str) -> Callable[[Request], Answer]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
    return lambda _: Answer(status, {"content-type": "application/xml"}, body)


@pytest.mark.parametrize(
    ("status", "code", "words", "part"),
    [
        (
            400,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
            "the bucket is in another region: mend the destination's region",
        ),
        (400, "ExpiredToken", "The provided token has expired.", "the session token has expired: mend session_token"),
        (403, "RequestTimeTooSkewed", "The difference is too large.", "the clock of this machine is wrong"),
    ],
)
def test_a_wrong_region_an_expired_token_and_a_wrong_clock(
    write: Write, status: int, code: str, words: str, part: str
) -> None:
    with HttpVendor(StandIn(accepted=xml(status, code, words))) as vendor:
        found = only(write(s3(vendor.origin)))
    assert not found.ok
    assert part in found.said


def test_a_wrong_site_of_datadog_is_named(write: Write) -> None:
    with HttpReceiver([HttpAnswer(403, {}, b'{"errors":[{"detail":"Forbidden"}]}')]) as receiver:
        text = f"- {{name: datadog, endpoint: '{receiver.origin}', api_key: k-0123456789, site: datadoghq.eu}}"
        found = only(write(text))
    assert "not valid at datadoghq.eu: mend DD_API_KEY, or DD_SITE if the account is elsewhere" in found.said


def test_a_bucket_that_is_not_there(write: Write, store: SeaweedFs) -> None:
    found = only(write(s3(store.url, bucket="missing")))
    assert not found.ok
    assert "mend the destination's bucket or region, or create it" in found.said


def test_a_library_that_is_missing(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    found = only(write("- {name: postgres, dsn: 'postgresql://h/x'}"))
    assert (found.ok, found.mend) == (False, "")
    assert "pip install 'otelgw[postgres]'" in found.said


def test_a_callback_that_raises_and_one_that_is_not_there(write: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def handler(*_): raise KeyError('x')\n")
    found = only(write("- {name: callback, target: mine.handler}"))
    assert (found.ok, found.said) == (False, "mine.handler: handler raised KeyError (mine.py:1)")
    found = only(write("- {name: callback, target: mine.other}"))
    assert "module mine has no 'other'" in found.said


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("HTTP 401: The security token included in the request is expired", "has expired"),
        ("Server failed to authenticate: Lifetime validation failed. The token is expired.", "has expired"),
        ("HTTP 301: PermanentRedirect", "mend `region`"),
        ("HTTP 404: The specified bucket does not exist", "make the bucket"),
        ("dns error: failed to lookup address information", "mend the endpoint"),
        ("gRPC UNAUTHENTICATED: bad key", "mend it"),
        ("http://127.0.0.1:4317: illegal request line", "otlp_grpc"),
        ("HTTP 403: nope (the credentials lack the right to write: mend the destination's headers or key)", ""),
        ("out of cheese", ""),
    ],
)
def test_advice_is_given_where_the_reason_gives_none(reason: str, part: str) -> None:
    assert part in advice(reason)
    assert bool(part) == bool(advice(reason))


# The command


def test_the_command_says_all_and_its_status_tells(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(
        f"""\
        - {{name: file/one, path: {tmp_path}/one.jsonl}}
        - {{name: file/two, path: {tmp_path}/two.jsonl}}
        - {{name: generic_api, endpoint: 'http://127.0.0.1:{free_port()}/x'}}
        """
    )
    assert main(["doctor", "-c", path]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "sending one trace of the model otelgw-doctor to each destination"
    assert [line.split(":")[:2] for line in printed[1:4]] == [
        ["ok", " file/one"],
        ["ok", " file/two"],
        ["error", " generic_api"],
    ]
    assert printed[4] == "  nobody listens there: mend host and port, or start the server"
    assert main(["doctor", "file/one", "-c", path]) == 0
    assert main(["doctor", "file", "-c", path]) == 0
    assert [len((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in ("one", "two")] == [3, 2]


def test_a_name_that_is_not_configured_is_a_usage_error(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("- console")
    assert main(["doctor", "langfuse", "-c", path]) == 2
    assert "no destination 'langfuse' is configured; there are: console" in capsys.readouterr().err


def test_without_a_destination_there_is_nothing_to_examine(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model_list: []\n")
    settings: Any = load(str(path), {})
    with pytest.raises(ConfigError, match="no destination is configured"):
        list(diagnose(settings))
