"""Into a real Elasticsearch and a real OpenSearch: from the gateway, from the exporter, by the Collector."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.load import load
from otelgw.doctor import MODEL as DOCTOR
from otelgw.doctor import Diagnosis, diagnose
from otelgw_exporters.calls import identity
from otelgw_exporters.elasticsearch import ElasticsearchExporter, document_of
from otelgw_exporters.elasticsearch_template import template
from otelgw_exporters.otlp import OtlpGrpcExporter
from tests.e2e.kibana import Board, boards
from tests.e2e.recipes import ask, gateway, recipe
from tests.exporters.samples import generation, span
from tests.servers import require
from tests.servers.collector import Collector
from tests.servers.elasticsearch import ADDER, PASSWORD, USER, Elasticsearch, SearchNode
from tests.servers.gateway import GatewayProcess
from tests.servers.opensearch import OpenSearch
from tests.servers.ports import free_port
from tests.servers.process import Process
from tests.servers.upstream import ScriptedUpstream, error

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "collector" / "recipes" / "elastic.yaml"
MASTER = "sk-master-canary-0123456789"
MODEL = "gpt-4o-mini"
BOARDS = boards(ROOT / "deploy" / "kibana")

GATEWAY = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: sk-upstream}}
general_settings: {{master_key: {master}}}
otelgw:
  destinations:
    - name: elasticsearch
      endpoint: "{url}"
      username: {user}
      password: os.environ/ELASTIC_SECRET
"""


@pytest.fixture(scope="module")
def elasticsearch() -> Iterator[Elasticsearch]:
    with Elasticsearch(require("elasticsearch")) as running:
        yield running


@pytest.fixture(scope="module")
def opensearch() -> Iterator[OpenSearch]:
    with OpenSearch(require("opensearch")) as running:
        yield running


@pytest.fixture(params=["elasticsearch", "opensearch"])
def node(request: pytest.FixtureRequest) -> SearchNode:
    found: SearchNode = request.getfixturevalue(request.param)
    return found


def exporter(node: SearchNode, dataset: str, **more: Any) -> ElasticsearchExporter:
    user = {"username": USER, "password": PASSWORD} if isinstance(node, Elasticsearch) else {}
    return ElasticsearchExporter(endpoint=node.url, dataset=dataset, **{**user, **more})


def deliver(made: ElasticsearchExporter, spans: list[ReadableSpan]) -> list[str]:
    try:
        outcome = made.deliver(spans, time.monotonic() + 30)
        return [f"{verdict.state} {verdict.reason}".strip() for verdict in outcome.verdicts]
    finally:
        made.shutdown()


def test_a_span_is_a_document_in_a_data_stream(node: SearchNode) -> None:
    sent = [span(1), generation(2, text="quetzal")]

    assert deliver(exporter(node, "kept"), sent) == ["done", "done"]

    stored = {each.pop("_id"): each for each in node.documents("traces-kept.otel-default")}
    assert stored.keys() == {identity(each) for each in sent}
    stream = {"type": "traces", "dataset": "kept.otel", "namespace": "default"}
    assert stored[identity(sent[0])] == json.loads(json.dumps(document_of(sent[0], sent[0].attributes or {}, stream)))
    (index,) = node.ask("GET", "/traces-kept.otel-default/_mapping")
    assert index.startswith(".ds-traces-kept.otel-default-")
    query = {"query": {"match": {"attributes.gen_ai.input.messages": "quetzal"}}}
    assert node.ask("POST", "/traces-kept.otel-default/_search", query)["hits"]["total"]["value"] == 1


def test_a_span_that_is_sent_twice_is_stored_once(node: SearchNode) -> None:
    for spans in ([span(1), span(2)], [span(2), span(3)], [span(1)]):
        assert set(deliver(exporter(node, "twice"), spans)) == {"done"}

    assert len(node.documents("traces-twice.otel-default")) == 3


def test_a_value_of_another_type_than_the_first_is_stored_all_the_same(node: SearchNode) -> None:
    first = [span(1, {"otelgw.metadata.run": 7, "gen_ai.usage.cost": 0})]
    other = [span(2, {"otelgw.metadata.run": "seven", "gen_ai.usage.cost": 0.25}), span(3, {"n": [1, 2]})]
    for spans in (first, other):
        assert set(deliver(exporter(node, "types"), spans)) == {"done"}

    totals = {"size": 0, "aggs": {"cost": {"sum": {"field": "attributes.gen_ai.usage.cost"}}}}
    assert len(node.documents("traces-types.otel-default")) == 3
    found = node.ask("POST", "/traces-types.otel-default/_search", totals)
    assert found["aggregations"]["cost"]["value"] == 0.25


def test_a_document_that_cannot_be_stored_is_dead_alone_and_its_values_are_not_repeated(node: SearchNode) -> None:
    shape = template("strict.otel", "elasticsearch" if isinstance(node, Elasticsearch) else "opensearch")
    shape["index_patterns"], shape["priority"] = ["traces-strict.otel-*"], 300
    shape["template"]["settings"] = {}
    shape["template"]["mappings"]["properties"]["attributes"]["properties"]["number"] = {"type": "long"}
    node.ask("PUT", "/_index_template/strict", shape)

    fates = deliver(exporter(node, "strict"), [span(1), span(2, {"number": "canary of a value"}), span(3)])

    assert [fate.partition(" ")[0] for fate in fates] == ["done", "dead", "done"]
    assert "attributes.number" in fates[1]
    assert "canary" not in fates[1]
    assert len(node.documents("traces-strict.otel-default")) == 2


def test_wrong_credentials_lose_nothing_and_are_not_shown(elasticsearch: Elasticsearch) -> None:
    fates = deliver(exporter(elasticsearch, "denied", password="wrong-canary-0815"), [span(1)])
    assert fates[0].startswith("retry")
    assert "401" in fates[0]
    assert "mend" in fates[0]
    assert "wrong-canary-0815" not in fates[0]


def test_a_stream_without_its_template_takes_nothing(elasticsearch: Elasticsearch) -> None:
    """A plain index of that name would be in the way of the data stream for ever."""
    made = exporter(elasticsearch, "bare")
    made._prepare(time.monotonic() + 10)
    elasticsearch.ask("DELETE", "/_index_template/otelgw-traces-bare.otel")

    fates = deliver(made, [span(1)])

    assert fates[0].startswith("retry HTTP 404")
    assert elasticsearch.documents("traces-bare.otel-default") == []


def test_the_collector_writes_the_same_documents_into_the_same_stream(
    elasticsearch: Elasticsearch, tmp_path: Path
) -> None:
    sent = [span(1, trace=0xC011), generation(2)]
    elasticsearch.ask("PUT", "/_index_template/otelgw-traces-llm_gateway.otel", template("llm_gateway.otel"))
    overrides = {
        "extensions.health_check.endpoint": f"127.0.0.1:{free_port()}",
        "exporters.elasticsearch.sending_queue.batch.flush_timeout": "50ms",
        "exporters.elasticsearch.user": USER,
        "exporters.elasticsearch.password": PASSWORD,
    }
    env = {"ELASTICSEARCH_URL": elasticsearch.url, "OTELCOL_STATE": str(tmp_path / "state")}
    with Collector(require("collector"), RECIPE, overrides, env) as collector:
        otlp = OtlpGrpcExporter(endpoint=f"http://127.0.0.1:{collector.grpc}")
        for _ in range(2):  # sent twice, stored once
            outcome = otlp.deliver(sent, time.monotonic() + 30)
            assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
        otlp.shutdown()
        ids = {identity(each) for each in sent}

        def stored() -> dict[str, dict[str, Any]]:
            found = elasticsearch.documents("traces-llm_gateway.otel-default")
            return {each.pop("_id"): each for each in found if each["_id"] in ids}

        collector.eventually(lambda: len(stored()) == 2)
        by_collector = stored()
        assert PASSWORD not in collector.output
    assert deliver(exporter(elasticsearch, "llm_gateway"), sent) == ["done", "done"]  # they are there already: 409
    for each in sent:
        own = document_of(each, each.attributes or {}, {"type": "traces", "dataset": "x", "namespace": "default"})
        told = by_collector[identity(each)]
        assert told.keys() == own.keys()
        assert {key: told[key] for key in ("trace_id", "span_id", "name", "kind", "duration", "status", "scope")} == {
            key: own[key] for key in ("trace_id", "span_id", "name", "kind", "duration", "status", "scope")
        }


def test_the_collector_reaches_opensearch_through_otelgw_collect(opensearch: OpenSearch, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "collect.yaml"
    config.write_text(
        f"otelgw:\n  state_dir: {tmp_path}/state\n  receiver: {{grpc: '127.0.0.1:{port}', http: 'off'}}\n"
        f"  destinations: [{{name: elasticsearch, endpoint: '{opensearch.url}', dataset: collected}}]\n"
    )
    collect = Process([sys.executable, "-m", "otelgw.cli", "collect", "--config", str(config)], port)
    passing = recipe("opensearch", tmp_path / "recipe", {"DATA_PREPPER_ENDPOINT": f"127.0.0.1:{port}"})
    with collect, passing, gateway(passing, tmp_path / "gateway") as running:
        trace = ask(running, "hello opensearch")
        passing.eventually(lambda: len(opensearch.documents("traces-collected.otel-default")) == 3)
    found = {each["name"]: each for each in opensearch.documents("traces-collected.otel-default")}

    server, model, attempt = (found[name] for name in ("POST /v1/chat/completions", "chat echo", "POST"))
    assert {each["_id"] for each in found.values()} == {f"{trace}-{each['span_id']}" for each in found.values()}
    assert (model["parent_span_id"], attempt["parent_span_id"]) == (server["span_id"], model["span_id"])
    facts = model["attributes"]
    assert (facts["gen_ai.request.model"], facts["gen_ai.usage.output_tokens"]) == ("echo", 2)
    assert json.loads(facts["gen_ai.input.messages"])[0]["parts"][0]["content"] == "hello opensearch"


@pytest.fixture(scope="module")
def indexed(
    elasticsearch: Elasticsearch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Elasticsearch, str]]:
    """A node that holds what a gateway with keys and teams has sent it; and what the gateway printed and wrote."""
    directory = tmp_path_factory.mktemp("gateway")
    with ScriptedUpstream() as upstream:
        written = GATEWAY.format(model=MODEL, upstream=upstream.url, master=MASTER, url=elasticsearch.url, user=USER)
        with GatewayProcess(written, directory, env={"ELASTIC_SECRET": PASSWORD}) as gateway:
            admin = httpx.Client(
                base_url=gateway.url, headers={"authorization": f"Bearer {MASTER}"}, trust_env=False, timeout=20
            )
            team = admin.post("/team/new", json={"team_alias": "research"}).raise_for_status().json()["team_id"]
            key = {"key_alias": "notebook", "team_id": team}
            token = admin.post("/key/generate", json=key).raise_for_status().json()["key"]
            caller = {"authorization": f"Bearer {token}"}
            ask = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
            ids = []
            for body in (ask, ask | {"stream": True}, ask | {"model": "unknown"}):
                answer = admin.post("/v1/chat/completions", json=body, headers=caller)
                ids.append(answer.headers["x-otelgw-trace-id"])
            upstream.answer_with(error(500))
            ids.append(admin.post("/v1/chat/completions", json=ask, headers=caller).headers["x-otelgw-trace-id"])
            admin.close()

            def arrived() -> bool:
                found = {each["trace_id"] for each in elasticsearch.documents("traces-llm_gateway.otel-default")}
                return found >= set(ids)

            gateway.wait_until(arrived)
        yield elasticsearch, gateway.errors.read_text() + gateway.output.read_text()


def test_the_gateway_keeps_the_password_to_itself(indexed: tuple[Elasticsearch, str]) -> None:
    node, printed = indexed
    stored = json.dumps(node.documents("traces-llm_gateway.otel-default"))
    for secret in (PASSWORD, MASTER):
        assert secret not in printed
        assert secret not in stored


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_field_of_a_dashboard_is_indexed_as_it_needs_it(board: Board, indexed: tuple[Elasticsearch, str]) -> None:
    node, _ = indexed
    names = sorted({use.field for panel in board.panels for use in panel.fields})
    told = node.ask("GET", f"/{board.pattern}/_field_caps?fields={','.join(names)}")["fields"]
    wrong = []
    for panel in board.panels:
        for use in panel.fields:
            kinds = told.get(use.field, {})
            if not kinds or not all(use.fits(kind, caps) for kind, caps in kinds.items()):
                wrong.append(f"{panel.title}: {use.field} ({use.need}) is {sorted(kinds) or 'not indexed'}")
    assert wrong == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_panel_of_a_dashboard_has_something_to_show(board: Board, indexed: tuple[Elasticsearch, str]) -> None:
    node, _ = indexed
    for panel in board.panels:
        answer = node.ask("POST", f"/{board.pattern}/_search", panel.search)
        assert answer["hits"]["total"]["value"] > 0, f"{panel.title}: nothing is found by {panel.query}"
        assert panel.numbers(answer.get("aggregations", {})), f"{panel.title}: no numbers"


def doctor(directory: Path, node: SearchNode, **more: str) -> Diagnosis:
    """Return what the doctor says of the destination, as the user's config has it."""
    user = {"username": USER, "password": PASSWORD} if isinstance(node, Elasticsearch) else {}
    destination = {"name": "elasticsearch", "endpoint": node.url, "dataset": "doctor", **user, **more}
    path = directory / "config.yaml"
    path.write_text(json.dumps({"otelgw": {"destinations": [destination]}}))
    (found,) = diagnose(load(str(path), {"HOME": str(directory)}))
    return found


def test_the_doctor_finds_its_trace_there(node: SearchNode, tmp_path: Path) -> None:
    found = doctor(tmp_path, node)

    assert found.ok, found
    assert found.said.endswith(" and read back")
    told = {each["name"]: each for each in node.documents("traces-doctor.otel-default")}
    assert told[f"chat {DOCTOR}"]["attributes"]["gen_ai.request.model"] == DOCTOR


def test_the_doctor_believes_the_server_where_its_key_may_only_write(
    elasticsearch: Elasticsearch, tmp_path: Path
) -> None:
    doctor(tmp_path, elasticsearch)  # which puts the template

    found = doctor(tmp_path, elasticsearch, username=ADDER)

    assert found.ok, found
    assert found.said.endswith("; not looked for: the key or user may not read there")


def test_the_doctor_says_what_to_mend_of_credentials_that_may_not_write(
    elasticsearch: Elasticsearch, tmp_path: Path
) -> None:
    found = doctor(tmp_path, elasticsearch, password="wrong-canary-0815")
    assert not found.ok
    assert "the credentials are not accepted: mend api_key, or username and password" in found.said
    assert "wrong-canary" not in str(found)
    denied = doctor(tmp_path, elasticsearch, username=ADDER, dataset="others")
    assert not denied.ok
    assert "mend its rights (create_doc and auto_configure on traces-*)" in denied.said
