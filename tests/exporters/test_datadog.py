"""Datadog Logs, held against Datadog's own client and the published schema."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from datadog_api_client import ApiClient, Configuration
from datadog_api_client.v2.api.logs_api import LogsApi
from datadog_api_client.v2.model.content_encoding import ContentEncoding
from datadog_api_client.v2.model.http_log import HTTPLog
from datadog_api_client.v2.model.http_log_item import HTTPLogItem
from jsonschema import Draft202012Validator
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.tracing.record import capture_whole
from otelgw_exporters.datadog import DatadogExporter
from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.test_file import request
from tests.exporters.test_payload import check
from tests.servers.answering import Asked, HttpAnswer
from tests.servers.otlp import HttpReceiver
from tests.tracing.records import record, scenarios
from tests.tracing.test_spans import build

Keep = Callable[[Exporter], Exporter]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/datadog"
CONTRACT = ROOT / "../shared/contracts/datadog/logs_v1_input.openapi.json"
KEY = "CANARY-datadog-key-0123456789"
FOREVER = 10**10


def deliver(exporter: Exporter, spans: Sequence[ReadableSpan]) -> Outcome:
    return exporter.deliver(spans, time.monotonic() + 10)


def logs(asked: Asked) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(asked.body)
    return found


def sent(closing: Keep, spans: Sequence[ReadableSpan], **given: Any) -> list[dict[str, Any]]:
    with HttpReceiver([HttpAnswer(202)], repeat=True) as receiver:
        given = {"api_key": KEY, "max_age": FOREVER, **given}
        outcome = deliver(closing(DatadogExporter(endpoint=receiver.origin, **given)), spans)
    assert {verdict.state for verdict in outcome.verdicts} == {"done"}
    return [log for asked in receiver.asked for log in logs(asked)]


@pytest.mark.parametrize("name", ["success", "refused_by_upstream", "stream_with_tool_calls", "embeddings"])
def test_the_log_of_a_call_is_that_of_its_golden(closing: Keep, name: str) -> None:
    given = {"env": "prod", "version": "1.2", "tags": ["owner:search"], "hostname": "gw-1"}
    (log,) = sent(closing, build(scenarios()[name]), **given)
    check(json.loads(log["message"]))
    log["message"] = f"the payload of {json.loads(log['message'])['id']}"
    path = GOLDEN / f"log_{name}.json"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(log, indent=1) + "\n")
    assert log == json.loads(path.read_text())


def test_it_satisfies_the_published_schema(closing: Keep) -> None:
    if not CONTRACT.is_file():
        pytest.skip("the contracts are not beside the repository")
    document = json.loads(CONTRACT.read_text())
    schema = {"$ref": "#/components/schemas/HTTPLog", "components": document["components"]}
    found = sent(closing, [*request(0), *request(1)])
    assert len(found) == 2
    assert list(Draft202012Validator(schema).iter_errors(found)) == []


def test_a_request_is_what_datadogs_own_client_sends(closing: Keep) -> None:
    with HttpReceiver([HttpAnswer(202, {"content-type": "application/json"}, b"{}")], repeat=True) as receiver:
        deliver(closing(DatadogExporter(endpoint=receiver.origin, api_key=KEY)), request(0))
        (ours,) = receiver.asked
        configuration = Configuration(host=receiver.origin, api_key={"apiKeyAuth": KEY})
        configuration.server_index = 1
        configuration.server_variables["protocol"], name = "http", receiver.origin.removeprefix("http://")
        configuration.server_variables["name"] = name
        items = [HTTPLogItem(**log) for log in logs(ours)]
        with ApiClient(configuration) as client:
            api = LogsApi(client)
            api._submit_log_endpoint.settings["servers"] = None
            api.submit_log(HTTPLog(items), content_encoding=ContentEncoding.GZIP)
        theirs = receiver.asked[-1]
    assert ours.path == theirs.path == "/api/v2/logs"
    assert logs(ours) == logs(theirs)
    for header in ("dd-api-key", "content-type", "content-encoding"):
        assert ours.headers[header] == theirs.headers[header]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://http-intake.logs.datadoghq.com/api/v2/logs"),
        ({"site": "us5.datadoghq.com"}, "https://http-intake.logs.us5.datadoghq.com/api/v2/logs"),
        ({"site": "datadoghq.eu"}, "https://http-intake.logs.datadoghq.eu/api/v2/logs"),
        ({"agent_host": "agent"}, "http://agent:10518/api/v2/logs"),
        ({"agent_host": "10.0.0.1", "agent_port": 9}, "http://10.0.0.1:9/api/v2/logs"),
        ({"endpoint": "https://proxy.example"}, "https://proxy.example/api/v2/logs"),
        ({"endpoint": "https://proxy.example/logs"}, "https://proxy.example/logs"),
    ],
)
def test_it_knows_where_the_site_and_the_agent_take_logs(closing: Keep, given: dict[str, Any], url: str) -> None:
    made = DatadogExporter(api_key=KEY, **given)
    closing(made)
    assert made._intake.url == url


def test_the_variables_are_datadogs(closing: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "DD_API_KEY": KEY, "DD_SERVICE": "svc", "DD_SOURCE": "litellm", "DD_ENV": "e", "DD_VERSION": "v",
        "DD_TAGS": "a:1 b:2,c:3", "HOSTNAME": "h",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with HttpReceiver([HttpAnswer(202)]) as receiver:
        monkeypatch.setenv("DD_BASE_URL", receiver.origin)
        deliver(closing(DatadogExporter()), request(0))
    (log,) = logs(receiver.asked[0])
    assert (log["service"], log["ddsource"], log["hostname"]) == ("svc", "litellm", "h")
    assert log["ddtags"].startswith("a:1,b:2,c:3,env:e,service:svc,version:v,team:blue,")
    assert receiver.asked[0].headers["dd-api-key"] == KEY


def test_an_agent_needs_no_key(closing: Keep) -> None:
    with HttpReceiver([HttpAnswer(202)]) as receiver:
        host, port = receiver.origin.removeprefix("http://").split(":")
        deliver(closing(DatadogExporter(agent_host=host, agent_port=int(port))), request(0))
    assert receiver.asked[0].path == "/api/v2/logs"
    assert "dd-api-key" not in receiver.asked[0].headers


def test_a_log_that_is_too_old_to_be_taken_gets_the_time_of_sending(closing: Keep) -> None:
    (old,) = sent(closing, build(record(start=1_700_000_000_000_000_000)), max_age=61_200)
    assert abs(datetime.fromisoformat(old["timestamp"]).timestamp() - time.time()) < 600
    assert json.loads(old["message"])["startTime"] == 1_700_000_000.0


def test_a_log_that_would_be_cut_off_goes_without_what_was_said(closing: Keep) -> None:
    said = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": "x" * 1_200_000}]}).encode()
    (log,) = sent(closing, build(record(request=capture_whole(said, "application/json"))))
    payload = json.loads(log["message"])
    assert len(log["message"]) < 100_000
    assert "are more than Datadog takes" in payload["messages"][0]["content"]
    assert payload["prompt_tokens"] == 1117
    assert payload["response"]["usage"]


def test_a_request_holds_no_more_than_datadog_takes(closing: Keep) -> None:
    text = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": "y" * 600_000}]}).encode()
    spans = [span for number in range(9) for span in request(number, request=capture_whole(text, "application/json"))]
    with HttpReceiver([HttpAnswer(202)], repeat=True) as receiver:
        deliver(closing(DatadogExporter(endpoint=receiver.origin, api_key=KEY)), spans)
    assert [len(logs(asked)) for asked in receiver.asked] == [8, 1]
    assert max(len(asked.body) for asked in receiver.asked) < 5_000_000


def test_a_wrong_key_or_site_is_told_from_each_other_as_far_as_datadog_does(closing: Keep) -> None:
    with HttpReceiver(
        [HttpAnswer(403, {}, b'{"errors":[{"detail":"Forbidden CANARY-datadog-key-0123456789"}]}')]
    ) as receiver:
        made = closing(DatadogExporter(endpoint=receiver.origin, api_key=KEY, site="datadoghq.eu"))
        outcome = deliver(made, request(0))
    assert outcome.reason == (
        "HTTP 403: Forbidden *** (the API key is not valid at datadoghq.eu: mend DD_API_KEY, or DD_SITE if the account "
        "is elsewhere)"
    )
    assert outcome.after == OPERATOR_DELAY


def test_two_threads_can_deliver_at_once(closing: Keep) -> None:
    with HttpReceiver([HttpAnswer(202)], repeat=True) as receiver:
        made = closing(DatadogExporter(endpoint=receiver.origin, api_key=KEY))
        threads = [threading.Thread(target=deliver, args=(made, request(number))) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = {json.loads(log["message"])["id"] for asked in receiver.asked for log in logs(asked)}
    assert ids == {f"call-{number}" for number in range(4)}


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({}, "api_key is missing; set it, or the variable DD_API_KEY"),
        ({"api_key": KEY, "site": "https://x"}, "is no site; write datadoghq.com"),
        ({"agent_host": "a/b"}, "is no host name"),
    ],
)
def test_what_is_missing_or_wrong_is_said(given: dict[str, Any], part: str) -> None:
    with pytest.raises(DestinationConfigError, match=part):
        DatadogExporter(**given)
