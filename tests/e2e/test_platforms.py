"""The whole gateway into the real servers of platforms, read back by their own APIs, field by field."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from otelgw.config.load import load
from otelgw.doctor import diagnose
from tests.servers import mlflow, phoenix, require
from tests.servers.gateway import GatewayProcess
from tests.servers.process import Process
from tests.servers.upstream import Received, Script, ScriptedUpstream, chat, chat_stream, error

MODEL = "gpt-4o-mini"
TRACE = "0af7651916cd43dd8448eb211c80319c"
USAGE = {
    "prompt_tokens": 21,
    "completion_tokens": 7,
    "total_tokens": 28,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]
CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: sk-upstream, num_retries: 1}}
litellm_settings:
  callbacks: ["{callback}"]
"""


class Platform(NamedTuple):
    """A gateway in front of a scripted provider, and the platform that it sends to."""

    gateway: GatewayProcess
    upstream: ScriptedUpstream
    server: Process

    def ask(self, script: Script | list[Script], **fields: Any) -> str:
        """Make one call; return the id of its trace."""
        self.upstream.answer_with(script)
        with openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key="sk-none", max_retries=0) as client:
            create: Any = client.chat.completions.with_raw_response.create
            try:
                raw = create(model=MODEL, messages=MESSAGES, tools=[TOOL], temperature=0.2, seed=7, **fields)
            except openai.APIStatusError as failed:
                return failed.response.headers["x-otelgw-trace-id"]
            if fields.get("stream"):
                list(raw.parse())
            trace: str = raw.headers["x-otelgw-trace-id"]
            return trace


def eventually(ask: Callable[[], Any]) -> Any:
    """Return the first answer that is something."""
    deadline = time.monotonic() + 30
    while not (found := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def _unused(_: Received) -> Script:
    return error(500)


def _platform(server: Process, callback: str, env: dict[str, str], directory: Path) -> Iterator[Platform]:
    with ScriptedUpstream(_unused) as upstream:
        config = CONFIG.format(model=MODEL, upstream=upstream.url, callback=callback)
        with GatewayProcess(config, directory, env=env) as gateway:
            yield Platform(gateway, upstream, server)


@pytest.fixture(scope="module")
def to_phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with phoenix.running(require("phoenix"), tmp_path_factory.mktemp("phoenix")) as server:
        env = {"PHOENIX_COLLECTOR_HTTP_ENDPOINT": f"{server.url}/v1/traces", "PHOENIX_PROJECT": "gw"}
        yield from _platform(server, "arize_phoenix", env, tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def to_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with mlflow.running(require("mlflow"), tmp_path_factory.mktemp("mlflow")) as server:
        env = {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_EXPERIMENT_NAME": "gw's"}
        yield from _platform(server, "mlflow", env, tmp_path_factory.mktemp("gateway"))


def phoenix_spans(platform: Platform, trace: str, count: int) -> dict[str, dict[str, Any]]:
    """Return a trace's spans by their names, attempts by their number."""

    def ask() -> Any:
        url = f"{platform.server.url}/v1/projects/gw/spans"
        got = httpx.get(url, params={"trace_id": trace, "limit": 100})
        data = got.json()["data"] if got.status_code == 200 else []  # there is no project before its first span
        spans = [each for each in data if each["context"]["trace_id"] == trace]
        return spans if len(spans) >= count else None

    spans = eventually(ask)
    assert len(spans) == count
    return {f"{span['name']}{span['attributes'].get('otelgw.attempt.number', '')}": span for span in spans}


LABELS = {
    "user": "u-1",
    "extra_body": {"metadata": {"session_id": "s-1", "tags": ["a", "b"], "team": "blue"}},
    "extra_headers": {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
}


def test_phoenix_shows_a_call_with_everything_about_it_as_one_llm_span(to_phoenix: Platform) -> None:
    trace = to_phoenix.ask([error(429), chat("rain it is", usage=USAGE)], **LABELS)

    spans = phoenix_spans(to_phoenix, trace, 4)

    assert trace == TRACE
    server, llm = spans["POST /v1/chat/completions"], spans[f"chat {MODEL}"]
    assert [span["span_kind"] for span in spans.values()].count("LLM") == 1
    assert {spans["POST1"]["span_kind"], spans["POST2"]["span_kind"], server["span_kind"]} == {"CHAIN"}
    assert server["parent_id"] == "b7ad6b7169203331"
    assert llm["parent_id"] == server["context"]["span_id"]
    told = llm["attributes"]
    assert (told["llm.token_count.prompt"], told["llm.token_count.completion"]) == (21, 7)
    assert told["llm.token_count.prompt_details.cache_read"] == 5
    assert told["llm.token_count.completion_details.reasoning"] == 3
    assert told["llm.model_name"] == "gpt-4o-2024-08-06"
    assert (told["llm.provider"], told["session.id"], told["user.id"]) == ("openai", "s-1", "u-1")
    assert told["llm.input_messages.0.message.content"] == "Be brief."
    assert told["llm.input_messages.1.message.contents.1.message_content.image.image.url"] == IMAGE["image_url"]["url"]
    called = "llm.input_messages.2.message.tool_calls.0.tool_call.function"
    assert (told[f"{called}.name"], json.loads(told[f"{called}.arguments"])) == ("weather", {"city": "Oslo"})
    assert told["llm.input_messages.3.message.tool_call_id"] == "call_1"
    assert told["llm.output_messages.0.message.content"] == "rain it is"
    assert json.loads(told["llm.tools.0.tool.json_schema"])["function"]["name"] == "weather"
    assert json.loads(told["llm.invocation_parameters"])["temperature"] == 0.2
    assert "rain it is" in server["attributes"]["output.value"]
    assert not [name for name in server["attributes"] if name.startswith("llm.")]
    assert server["attributes"]["tag.tags"] in (["a", "b"], '["a", "b"]')
    assert server["attributes"]["metadata.team"] == "blue"


def test_phoenix_shows_a_streamed_call_and_a_failed_one(to_phoenix: Platform) -> None:
    streamed = to_phoenix.ask(chat_stream("rain it is", usage=USAGE, include_usage=True), stream=True)
    failed = to_phoenix.ask(error(400, "the model is not amused"))

    llm = phoenix_spans(to_phoenix, streamed, 3)[f"chat {MODEL}"]
    assert llm["attributes"]["llm.output_messages.0.message.content"] == "rain it is"
    assert llm["attributes"]["llm.token_count.completion"] == 7
    wrong = phoenix_spans(to_phoenix, failed, 3)[f"chat {MODEL}"]
    assert (wrong["status_code"], wrong["status_message"]) == ("ERROR", "the model is not amused")


def mlflow_trace(platform: Platform, trace: str) -> dict[str, Any]:
    """Return a finished trace, its spans among it."""

    def ask() -> Any:
        url = f"{platform.server.url}/api/3.0/mlflow/traces/get"
        got = httpx.get(url, params={"trace_id": f"tr-{trace}", "allow_partial": "false"})
        return got.json().get("trace") if got.status_code == 200 else None

    found: dict[str, Any] = eventually(ask)
    return found


def _plain(value: Any) -> Any:
    """Return an OTLP JSON value as Python has it."""
    if not value:
        return None
    ((kind, held),) = value.items()
    if kind == "array_value":
        return [_plain(each) for each in held.get("values", [])]
    if kind == "kvlist_value":
        return {each["key"]: _plain(each.get("value")) for each in held.get("values", [])}
    return held


def test_mlflow_shows_a_call_with_everything_about_it_as_one_chat_model_span(to_mlflow: Platform) -> None:
    trace = to_mlflow.ask([error(429), chat("rain it is", usage=USAGE)], **LABELS)

    found = mlflow_trace(to_mlflow, trace)

    info = found["trace_info"]
    assert info["state"] == "OK"
    assert json.loads(info["trace_metadata"]["mlflow.trace.tokenUsage"])["total_tokens"] == 28
    assert info["trace_metadata"]["mlflow.trace.session"] == "s-1"
    assert info["trace_metadata"]["mlflow.trace.user"] == "u-1"
    assert "What is this?" in info["request_preview"]
    assert "rain it is" in info["response_preview"]
    spans = {}
    for span in found["spans"]:
        held = {each["key"]: _plain(each["value"]) for each in span["attributes"]}
        spans[f"{span['name']}{held.get('otelgw.attempt.number', '')}"] = (span, held)
    assert len(spans) == len(found["spans"]) == 4
    server, told = spans["POST /v1/chat/completions"]
    assert not server.get("parent_span_id")
    assert told["otelgw.caller.span_id"] == "b7ad6b7169203331"
    assert told["mlflow.spanType"] == "CHAIN"
    _, told = spans[f"chat {MODEL}"]
    assert told["mlflow.spanType"] == "CHAT_MODEL"
    usage = told["mlflow.chat.tokenUsage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cache_read_input_tokens"]) == (21, 7, 5)
    assert told["mlflow.llm.cost"]["total_cost"] > 0
    assert told["mlflow.spanInputs"]["messages"][2]["tool_calls"][0]["function"]["name"] == "weather"
    assert told["mlflow.spanOutputs"]["choices"][0]["message"]["content"] == "rain it is"
    assert [each for each, (_, held) in spans.items() if "mlflow.chat.tokenUsage" in held] == [f"chat {MODEL}"]


def test_mlflow_shows_that_a_trace_failed_and_which_span_and_why(to_mlflow: Platform) -> None:
    trace = to_mlflow.ask(error(400, "the model is not amused"))

    found = mlflow_trace(to_mlflow, trace)

    statuses = {span["name"]: span["status"] for span in found["spans"]}
    assert statuses[f"chat {MODEL}"]["code"] == "STATUS_CODE_ERROR"
    assert statuses[f"chat {MODEL}"]["message"] == "the model is not amused"
    assert found["trace_info"]["state"] == "ERROR"


@pytest.mark.parametrize("name", ["phoenix", "mlflow"])
def test_the_doctor_finds_its_trace_there(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    platform: Platform = request.getfixturevalue(f"to_{name}")
    config = tmp_path / "config.yaml"
    config.write_text(f"otelgw: {{destinations: [{{name: {name}, endpoint: '{platform.server.url}'}}]}}\n")

    (found,) = diagnose(load(str(config), {"HOME": str(tmp_path)}))

    assert found.ok, found
    assert found.said.endswith(" and read back")
