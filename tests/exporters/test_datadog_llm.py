"""Datadog LLM Observability: the public intake as documented, an agent as Datadog's own test agent takes it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.tracing.record import Record, capture_whole
from otelgw_exporters.datadog_llm import DatadogLlmExporter
from otelgw_exporters.delivery import Exporter, Outcome
from otelgw_exporters.otlp import OtlpHttpExporter
from tests.exporters.test_file import request
from tests.servers import require
from tests.servers.answering import HttpAnswer
from tests.servers.ddapm import Ddapm
from tests.servers.otlp import HttpReceiver
from tests.tracing.records import record, scenarios
from tests.tracing.test_spans import build

Keep = Callable[[Exporter], Exporter]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/datadog"
SDK = ROOT / "../shared/contracts/datadog/llmobs_v2_golden.agent-mode.json"
EXAMPLE = ROOT / "../shared/examples/datadog_llmobs_public.json"
KEY = "CANARY-datadog-key-0123456789"
FOREVER = 10**10
# What the documentation lists of a span, and of its parts.
SPAN = {
    "name",
    "span_id",
    "trace_id",
    "parent_id",
    "start_ns",
    "duration",
    "status",
    "session_id",
    "tags",
    "meta",
    "metrics",
}
META = {"kind", "input", "output", "metadata", "error"}
METRICS = {
    *("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "reasoning_output_tokens"),
    *("input_cost", "output_cost", "total_cost", "time_to_first_token"),
}


@pytest.fixture(scope="module")
def agent() -> Iterator[Ddapm]:
    with Ddapm(require("ddapm")) as running:
        yield running


def deliver(exporter: Exporter, spans: Sequence[ReadableSpan]) -> Outcome:
    return exporter.deliver(spans, time.monotonic() + 10)


def sent(closing: Keep, spans: Sequence[ReadableSpan], **given: Any) -> dict[str, Any]:
    with HttpReceiver([HttpAnswer(202)]) as receiver:
        given = {"api_key": KEY, "max_age": FOREVER, **given}
        outcome = deliver(closing(DatadogLlmExporter(endpoint=receiver.origin, **given)), spans)
    assert {verdict.state for verdict in outcome.verdicts} == {"done"}
    (asked,) = receiver.asked
    assert asked.path == "/api/intake/llm-obs/v1/trace/spans"
    assert asked.headers["dd-api-key"] == KEY
    found: dict[str, Any] = json.loads(asked.body)
    return found


@pytest.mark.parametrize("name", ["success", "refused_by_upstream", "stream_with_tool_calls", "embeddings"])
def test_the_span_of_a_call_is_that_of_its_golden(closing: Keep, name: str) -> None:
    found = sent(closing, build(scenarios()[name]), env="prod", ml_app="Assistant of Ours")
    path = GOLDEN / f"span_{name}.json"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())
    (span,) = found["data"]["attributes"]["spans"]
    assert span.keys() <= SPAN
    assert span["meta"].keys() <= META
    assert span["metrics"].keys() <= METRICS
    messages = [*span["meta"]["input"].get("messages", []), *span["meta"].get("output", {}).get("messages", [])]
    assert all(isinstance(message["content"], str) for message in messages)
    assert all(isinstance(value, str | int | float) for value in span["meta"]["metadata"].values())


def test_it_has_the_shape_of_the_documented_example(closing: Keep) -> None:
    if not EXAMPLE.is_file():
        pytest.skip("the examples are not beside the repository")
    example = json.loads(EXAMPLE.read_text())["data"]
    found = sent(closing, build(record()))["data"]
    assert found["type"] == example["type"]
    assert found["attributes"].keys() <= example["attributes"].keys()
    (span,), (shown,) = found["attributes"]["spans"], example["attributes"]["spans"]
    assert shown.keys() - span.keys() == set()
    assert shown["meta"].keys() == span["meta"].keys()
    assert span["parent_id"] == "undefined"
    assert span["span_id"] == str(0x00F067AA0BA902B7)
    assert span["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_an_agent_takes_what_its_own_sdk_would_send(closing: Keep, agent: Ddapm) -> None:
    made = closing(DatadogLlmExporter(agent_host="127.0.0.1", agent_port=agent.port, max_age=FOREVER, ml_app="gw"))
    for scenario in (record(), scenarios()["refused_by_upstream"]):
        outcome = deliver(made, build(scenario))
        assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
    taken = [each for each in agent.requests() if each.path == "/evp_proxy/v4/api/v2/llmobs"]
    assert {each.headers["x-datadog-evp-subdomain"] for each in taken} == {"llmobs-intake"}
    assert "dd-api-key" not in taken[0].headers
    events = [event for each in taken for event in _json(each.body)]
    assert [event["spans"][0]["status"] for event in events] == ["ok", "error"]
    if not SDK.is_file():
        pytest.skip("the contracts are not beside the repository")
    theirs = {event["spans"][0]["status"]: event for event in json.loads(SDK.read_text()) if _kind(event) == "llm"}
    for event in events:
        known = theirs[event["spans"][0]["status"]]
        assert event.keys() == known.keys()
        span, shown = event["spans"][0], known["spans"][0]
        assert span.keys() | {"session_id"} == shown.keys() | {"session_id"}
        assert shown["meta"].keys() <= span["meta"].keys()
        assert isinstance(span["span_id"], str)
        assert span["span_id"].isdecimal()


def _kind(event: dict[str, Any]) -> str:
    return str(event["spans"][0]["meta"]["span"]["kind"])


def _json(body: bytes) -> list[dict[str, Any]]:
    import gzip

    found: list[dict[str, Any]] = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    return found


def test_otlp_goes_to_datadog_as_the_how_to_says(closing: Keep, agent: Ddapm) -> None:
    headers = {"dd-api-key": KEY, "dd-otlp-source": "llmobs"}
    made = closing(OtlpHttpExporter(endpoint=agent.otlp, headers=headers, compression="gzip"))
    outcome = deliver(made, build(record()))
    assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
    taken = [each for each in agent.requests() if each.path == "/v1/traces"]
    assert taken[-1].headers["dd-otlp-source"] == "llmobs"


def test_a_span_that_datadog_would_drop_for_its_age_is_a_dead_letter_and_no_other(closing: Keep) -> None:
    now = time.time_ns()
    old = request(1, start=now - 25 * 3600 * 10**9)
    young = request(2, start=now - 3600 * 10**9)
    with HttpReceiver([HttpAnswer(202)]) as receiver:
        outcome = deliver(closing(DatadogLlmExporter(endpoint=receiver.origin, api_key=KEY)), [*old, *young])
    assert [verdict.state for verdict in outcome.verdicts] == ["dead"] * 3 + ["done"] * 3
    assert outcome.reason == "it is so old that Datadog would drop it without a word"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            [{"role": "user", "content": "a\nb"}],
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}],
            [{"role": "user", "content": '[{"type":"image_url","image_url":{"url":"u"}}]'}],
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]}],
            [{"role": "assistant", "content": "", "tool_calls": [
                {"name": "f", "arguments": {"a": 1}, "tool_id": "c", "type": "function"}]}],
        ),
    ],
)  # fmt: skip
def test_the_content_of_a_message_is_text_whatever_it_was(closing: Keep, messages: Any, expected: Any) -> None:
    asked = json.dumps({"model": "gpt", "messages": messages}).encode()
    made: Record = record(request=capture_whole(asked, "application/json"))
    found = sent(closing, build(made))
    assert found["data"]["attributes"]["spans"][0]["meta"]["input"]["messages"] == expected


def test_a_span_that_is_too_large_goes_without_what_was_said(closing: Keep) -> None:
    said = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": "x" * 1_200_000}]}).encode()
    found = sent(closing, build(record(request=capture_whole(said, "application/json"))))
    (span,) = found["data"]["attributes"]["spans"]
    assert "are more than Datadog takes" in span["meta"]["input"]["messages"][0]["content"]
    assert span["metrics"]["input_tokens"] == 1117


def test_the_variables_are_datadogs(closing: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_API_KEY", KEY)
    monkeypatch.setenv("DD_SITE", "us3.datadoghq.com")
    monkeypatch.setenv("DD_LLMOBS_ML_APP", "app")
    made = DatadogLlmExporter()
    closing(made)
    assert made._intake.url == "https://api.us3.datadoghq.com/api/intake/llm-obs/v1/trace/spans"
    assert made._ml_app == "app"
    monkeypatch.setenv("LITELLM_DD_AGENT_HOST", "agent")
    agent = DatadogLlmExporter()
    closing(agent)
    assert agent._intake.url == "http://agent:8126/evp_proxy/v4/api/v2/llmobs"
    assert KEY not in repr(agent)
