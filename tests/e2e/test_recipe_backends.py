"""A request through the gateway and the Collector of a recipe into the real backend, read back by its own API."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from otelgw.doctor import MODEL as DOCTOR
from tests.e2e.recipes import ask, examine, gateway, recipe, send
from tests.exporters.samples import span
from tests.servers import phoenix, require
from tests.servers.ddapm import Ddapm
from tests.servers.tempo import Tempo
from tests.servers.zipkin import Zipkin

SERVER, GENERATION, ATTEMPT = "POST /v1/chat/completions", "chat echo", "POST"
TENANT = "team-a"
SECRET = "phoenix-canary-0123456789-of-the-admin"
WRONG = "another-canary-0123456789"


def eventually(find: Callable[[], list[Any]], count: int = 3) -> list[Any]:
    """Return what ``find`` finds once it is ``count`` items."""
    deadline = time.monotonic() + 30
    while len(found := find()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert len(found) == count
    return found


def test_zipkin_shows_the_tree_with_its_times_and_tags(tmp_path: Path) -> None:
    with Zipkin(require("zipkin")) as zipkin:
        env = {"ZIPKIN_ENDPOINT": zipkin.endpoint}
        with recipe("zipkin", tmp_path / "zipkin", env) as collector, gateway(collector, tmp_path / "gw") as running:
            began = time.time_ns() // 1000
            answered, refused = ask(running, "hello zipkin"), ask(running, "hello", model="nobody")
            told = {span["name"]: span for span in eventually(lambda: zipkin.trace(answered))}
            (failed,) = eventually(lambda: zipkin.trace(refused), 1)
            (found,) = eventually(lambda: zipkin.search("gen_ai.request.model=echo"), 1)
            examine(collector, tmp_path)
            eventually(lambda: zipkin.search(f"gen_ai.request.model={DOCTOR}"), 1)

    server, generation, attempt = (told[name.lower()] for name in (SERVER, GENERATION, ATTEMPT))
    assert {span["traceId"] for span in (*told.values(), *found)} == {answered}
    assert "parentId" not in server
    assert (generation["parentId"], attempt["parentId"]) == (server["id"], generation["id"])
    assert [span["kind"] for span in (server, generation, attempt)] == ["SERVER", "CLIENT", "CLIENT"]
    assert {span["localEndpoint"]["serviceName"] for span in told.values()} == {"otelgw"}
    assert began <= server["timestamp"] <= generation["timestamp"] <= attempt["timestamp"]  # microseconds
    assert server["duration"] >= generation["duration"] >= attempt["duration"] > 0
    assert generation["tags"]["gen_ai.usage.output_tokens"].isdecimal()
    messages = json.loads(generation["tags"]["gen_ai.input.messages"])
    assert messages[0]["parts"][0]["content"] == "hello zipkin"
    assert (failed["tags"]["http.response.status_code"], failed["tags"]["error.type"]) == ("404", "model_not_found")


def test_tempo_keeps_the_trace_for_its_tenant_alone(tmp_path: Path) -> None:
    with Tempo(require("tempo")) as tempo:
        env = {"TEMPO_ENDPOINT": f"127.0.0.1:{tempo.grpc}", "TEMPO_TENANT": TENANT}
        with recipe("tempo", tmp_path / "tempo", env) as collector, gateway(collector, tmp_path / "gateway") as running:
            trace = ask(running, "hello tempo")
            told = {span["name"]: span for span in eventually(lambda: tempo.trace(trace, TENANT))}
            others = tempo.trace(trace, "team-b")

    server, generation, attempt = (told[name] for name in (SERVER, GENERATION, ATTEMPT))
    assert others == []
    assert (generation["parentSpanId"], attempt["parentSpanId"]) == (server["spanId"], generation["spanId"])
    assert server["kind"] == "SPAN_KIND_SERVER"
    assert int(server["startTimeUnixNano"]) <= int(generation["startTimeUnixNano"])
    assert _facts(generation["resource"])["service.name"] == "otelgw"
    facts = _facts(generation)
    assert (facts["gen_ai.operation.name"], facts["gen_ai.request.model"]) == ("chat", "echo")
    assert int(facts["gen_ai.usage.output_tokens"]) > 0
    assert json.loads(facts["gen_ai.input.messages"])[0]["parts"][0]["content"] == "hello tempo"


def _facts(holder: dict[str, Any]) -> dict[str, Any]:
    """Return OTLP JSON's attributes by their names."""
    return {each["key"]: next(iter(each["value"].values())) for each in holder["attributes"]}


def test_phoenix_reads_a_generation_as_an_llm_call_and_refuses_a_wrong_key(tmp_path: Path) -> None:
    auth = {"PHOENIX_ENABLE_AUTH": "true", "PHOENIX_SECRET": "s1" * 20, "PHOENIX_ADMIN_SECRET": SECRET}
    (tmp_path / "phoenix").mkdir()
    with phoenix.running(require("phoenix"), tmp_path / "phoenix", auth) as server:

        def spans(trace: str) -> list[dict[str, Any]]:
            url, key = f"{server.url}/v1/projects/gw/spans", {"authorization": f"Bearer {SECRET}"}
            answer = httpx.get(url, params={"trace_id": trace}, headers=key, trust_env=False)
            data: list[dict[str, Any]] = answer.json()["data"] if answer.is_success else []  # none before a first span
            return [span for span in data if span["context"]["trace_id"] == trace]

        env = {"PHOENIX_ENDPOINT": server.url, "PHOENIX_API_KEY": WRONG, "PHOENIX_PROJECT": "gw"}
        with recipe("phoenix", tmp_path / "denied", env) as denied:
            send(denied, [span(1, trace=0xBAD)])
            denied.eventually(lambda: "401" in denied.output)
            assert "Dropping data" in denied.output
            assert WRONG not in denied.output
        env["PHOENIX_API_KEY"] = SECRET
        with recipe("phoenix", tmp_path / "recipe", env) as collector, gateway(collector, tmp_path / "gw") as running:
            trace = ask(running, "hello phoenix")
            told = {span["name"]: span for span in eventually(lambda: spans(trace))}
            assert SECRET not in collector.output
        assert spans(f"{0xBAD:032x}") == []

    server_span, generation, attempt = (told[name] for name in (SERVER, GENERATION, ATTEMPT))
    assert generation["parent_id"] == server_span["context"]["span_id"]
    assert attempt["parent_id"] == generation["context"]["span_id"]
    assert [span["span_kind"] for span in told.values()].count("LLM") == 1
    assert generation["span_kind"] == "LLM"
    facts = generation["attributes"]
    assert (facts["llm.model_name"], facts["llm.token_count.completion"]) == ("echo", 2)
    assert facts["llm.input_messages.0.message.content"] == "hello phoenix"
    assert facts["llm.output_messages.0.message.content"] == "hello phoenix"


def test_datadogs_agent_takes_the_spans_for_llm_observability(tmp_path: Path) -> None:
    with Ddapm(require("ddapm")) as agent:

        def to_the_agent(tree: dict[str, Any]) -> None:  # its address is made of the site's name, by https
            tree["exporters"]["otlp_http/datadog"]["traces_endpoint"] = f"{agent.otlp}/v1/traces"

        def taken() -> list[dict[str, Any]]:
            return [each._asdict() for each in agent.requests() if each.path == "/v1/traces"]

        env = {"DD_API_KEY": WRONG}
        with recipe("datadog", tmp_path / "datadog", env, to_the_agent) as collector:
            with gateway(collector, tmp_path / "gateway") as running:
                trace = ask(running, "hello datadog")
                (asked,) = eventually(taken, 1)
            assert WRONG not in collector.output
        (batch,) = agent.otlp_spans()

    assert asked["headers"]["dd-api-key"] == WRONG
    assert asked["headers"]["dd-otlp-source"] == "llmobs"
    (resource,) = batch["resource_spans"]
    told = {span["name"]: span for scope in resource["scope_spans"] for span in scope["spans"]}
    server, generation, attempt = (told[name] for name in (SERVER, GENERATION, ATTEMPT))
    assert {base64.b64decode(span["trace_id"]).hex() for span in told.values()} == {trace}
    assert (generation["parent_span_id"], attempt["parent_span_id"]) == (server["span_id"], generation["span_id"])
    assert _facts(resource["resource"])["service.name"] == "otelgw"
    facts = _facts(generation)
    assert (facts["gen_ai.operation.name"], facts["gen_ai.usage.output_tokens"]) == ("chat", "2")
    assert json.loads(facts["gen_ai.output.messages"])[0]["parts"][0]["content"] == "hello datadog"
