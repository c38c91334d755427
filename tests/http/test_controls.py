"""What a caller may say about the recording of its request."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination, Limits, LoggingPolicy, Settings, Tracing
from otelgw.errors import RequestRefused
from otelgw.http.controls import Controls
from otelgw.http.exchange import Exchange
from otelgw.keys.grant import grant
from otelgw.keys.schema import Callback, Key
from otelgw.pipeline_main import decoder
from otelgw.selection import selector
from tests.e2e.tree import Node, Tree, trees
from tests.http.caller import CHAT, ask
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, openai

PAGE = Path(__file__).parents[2] / "docs/reference/logging-controls.md"
CANARY = "CANARYcontrols"
SAID = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": CANARY}]}
THIS, ANOTHER = "console/this", "console/another"

CONFIG: dict[str, dict[str, Any]] = {
    "turn_off_message_logging": {"content": False},
    "global_disable_no_log_param": {"allow_no_log": False},
}
KEY: dict[str, dict[str, Any]] = {
    "content off": {"content": False},
    "logging off": {"enabled": False},
    "only this": {"destinations": (THIS,)},
    "only another": {"destinations": ("Console/Another",)},
    "may relax": {"may_relax": True},
}
HEADERS: dict[str, tuple[str, str]] = {
    "header enable": ("x-litellm-enable-message-redaction", "true"),
    "header disable": ("LiteLLM-Disable-Message-Redaction", "true"),
    "disable this": ("x-litellm-disable-callbacks", THIS),
    "disable another": ("x-litellm-disable-callbacks", ANOTHER),
    "disable both": ("x-litellm-disable-callbacks", f"{THIS}, {ANOTHER}"),
}
BODY: dict[str, dict[str, Any]] = {
    "body off": {"turn_off_message_logging": True},
    "body on": {"turn_off_message_logging": False},
    "`no-log`": {"no-log": True},
}


def rows() -> list[tuple[str, ...]]:
    """Return the rows of the page's table of precedence."""
    section = PAGE.read_text().partition("## Precedence")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def words(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(",") if word.strip()]


def merged(cell: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for word in words(cell) for key, value in table[word.strip("` ")].items()}


class Keyed(Controls):
    """Controls of a gateway whose every caller has the same key."""

    def __init__(self, settings: Settings, policy: LoggingPolicy) -> None:
        super().__init__(settings)
        self._key = policy

    def begin(self, exchange: Exchange, policy: LoggingPolicy) -> RequestRefused | None:
        return super().begin(exchange, self._key)


@pytest.fixture(scope="module")
def upstream() -> Any:
    with ScriptedUpstream(openai) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Any:
    with RunningGateway([deployment(upstream.url)]) as running:
        yield running


def tree_of(gateway: RunningGateway) -> Tree:
    (found,) = trees(map(Node.of_sdk, gateway.spans()))
    return found


def seen_by(gateway: RunningGateway, destination: Destination) -> Sequence[ReadableSpan]:
    """Return what a destination gets of the last request; nothing where there is no record of it."""
    try:
        gateway.spool.records.get(timeout=0.1)
    except queue.Empty:
        return ()
    return selector(destination)(decoder(Tracing(), "state")(gateway.spool.payloads[-1]))


def test_the_table_is_there_and_says_each_thing_once() -> None:
    assert len(rows()) >= 45
    assert len({row[:5] for row in rows()}) == len(rows())
    assert {row[5:] for row in rows()} == {("yes", "yes"), ("yes", "no"), ("no", "no")}


@pytest.mark.parametrize("row", rows(), ids=lambda row: " · ".join(filter(None, row)))
def test_every_row_of_the_table_of_precedence_is_true(upstream: ScriptedUpstream, row: tuple[str, ...]) -> None:
    config, model, key, request, destination, record, content = row
    tokens = words(destination)
    required = "`required`" in tokens
    shown = "`content: true`" in tokens or (not required and "`content: false`" not in tokens)
    this = Destination(THIS, "console", content=shown, required=required)
    headers = [HEADERS[word] for word in words(request) if word in HEADERS]
    body = SAID | {k: v for word in words(request) if word in BODY for k, v in BODY[word].items()}
    upstream.requests.clear()
    with RunningGateway(
        [deployment(upstream.url, content="`turn_off_message_logging`" not in words(model))],
        tracing=Tracing(**merged(config, CONFIG)),
        destinations=(this, Destination(ANOTHER, "console")),
    ) as gateway:
        policy = LoggingPolicy(**merged(key, KEY))
        gateway.gateway.controls = gateway.gateway.relay._controls = Keyed(gateway.settings, policy)
        got = ask(gateway, body, headers=headers)
        assert CANARY.encode() in got.body
        spans = seen_by(gateway, this)

    assert upstream.requests[0].json() == SAID, "none of it goes upstream"
    assert bool(spans) == (record == "yes")
    text = repr([(span.attributes, span.status.description) for span in spans])
    assert (CANARY in text) == (content == "yes")
    if record == "yes":
        assert "gen_ai.usage.input_tokens" in text
    if not any("another" in word or "this" in word for word in (*words(key), *words(request))) and not destination:
        assert (CANARY.encode() in b"".join(gateway.spool.payloads)) == (content == "yes"), "nor is it in the spool"


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ([("x-litellm-enable-message-redaction", "maybe")], {}),
        ([("LiteLLM-Disable-Message-Redaction", "2")], {}),
        ([("x-litellm-disable-callbacks", "lanfguse")], {}),
        ([], {"no-log": "maybe"}),
        ([], {"no-log": [True]}),
        ([], {"turn_off_message_logging": {}}),
        ([], {"x-litellm-disable-callbacks": ["console", 5]}),
        ([], {"x-litellm-disable-callbacks": "nobody-knows"}),
        ([], {"metadata": {"log_raw_request": "perhaps"}}),
    ],
)
def test_a_control_that_cannot_be_understood_is_refused_and_its_request_traced_without_content(
    gateway: RunningGateway, upstream: ScriptedUpstream, headers: list[tuple[str, str]], fields: dict[str, Any]
) -> None:
    upstream.requests.clear()
    got = ask(gateway, SAID | fields, headers=headers)
    assert (got.status, got.error["code"]) == (400, "invalid_request")
    assert tree_of(gateway).server.attributes["error.type"] == "invalid_request"
    assert CANARY.encode() not in gateway.spool.payloads[-1]
    assert upstream.requests == []


@pytest.mark.parametrize("last", ["first", "second"])
def test_of_a_control_that_comes_twice_the_strictest_counts(upstream: ScriptedUpstream, last: str) -> None:
    order = 1 if last == "second" else -1
    redact = [("x-litellm-enable-message-redaction", value) for value in ("true", "false")][::order]
    show = [("litellm-disable-message-redaction", value) for value in ("true", "false")][::order]
    disable = [("x-litellm-disable-callbacks", value) for value in (THIS, ANOTHER)][::order]
    destinations = (Destination(THIS, "console"), Destination(ANOTHER, "console"))
    with RunningGateway([deployment(upstream.url)], destinations=destinations) as gateway:
        assert ask(gateway, SAID, headers=disable).status == 200
        assert gateway.no_record(0.05)
        assert ask(gateway, SAID, headers=redact).status == 200
        tree_of(gateway)
        assert CANARY.encode() not in gateway.spool.payloads[-1]
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(content=False)) as gateway:
        policy = LoggingPolicy(may_relax=True)
        gateway.gateway.controls = gateway.gateway.relay._controls = Keyed(gateway.settings, policy)
        ask(gateway, SAID, headers=show)
        tree_of(gateway)
        assert CANARY.encode() not in gateway.spool.payloads[-1]
        ask(gateway, SAID, headers=show[:1] * 2 if show[0][1] == "true" else show[1:] * 2)
        tree_of(gateway)
        assert CANARY.encode() in gateway.spool.payloads[-1]


@pytest.mark.parametrize(
    ("disabled", "recorded"),
    [("", True), ("console", True), ("otel", True), ("console, otel", False), ("console, OTLP_HTTP", False)],
)
def test_what_neither_the_config_nor_the_key_has_a_destination_for_is_not_recorded(
    disabled: str, recorded: bool
) -> None:
    settings = Settings(destinations=(Destination("console", "console"),))

    async def settled() -> Exchange:
        headers = [(b"x-litellm-disable-callbacks", disabled.encode())]
        exchange = Exchange({"headers": headers, "method": "POST", "path": CHAT})
        exchange.grant = grant(Key(hash="k", logging=(Callback("otlp_http"),)), None)
        assert Controls(settings).begin(exchange, LoggingPolicy()) is None
        return exchange

    exchange = asyncio.run(settled())
    assert (exchange.content, exchange.no_log) == (recorded, not recorded)


def test_tags_in_several_headers_are_joined(gateway: RunningGateway) -> None:
    ask(gateway, SAID, headers=[("x-litellm-tags", "a,b"), ("x-litellm-tags", "c")])
    assert list(tree_of(gateway).server.attributes["otelgw.tags"]) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["no-log", "turn_off_message_logging", "x-litellm-disable-callbacks"])
def test_a_body_that_is_no_json_and_names_a_control_is_not_recorded(gateway: RunningGateway, name: str) -> None:
    got = ask(gateway, f'{{"{name}": true, "messages": "{CANARY}",}}'.encode())
    assert (got.status, got.error["code"]) == (400, "invalid_json")
    assert tree_of(gateway).server.attributes["error.type"] == "invalid_json"
    assert CANARY.encode() not in gateway.spool.payloads[-1]


@pytest.mark.parametrize("value", ["true", "True", "1", 1, True])
def test_a_truth_is_understood_however_it_is_written(gateway: RunningGateway, value: Any) -> None:
    assert ask(gateway, SAID | {"no-log": value}).status == 200
    assert gateway.no_record(0.05)
    assert ask(gateway, SAID | {"no-log": None}).status == 200
    tree_of(gateway)


def test_callbacks_that_are_not_configured_here_may_be_disabled_all_the_same(gateway: RunningGateway) -> None:
    assert ask(gateway, SAID, headers=[("x-litellm-disable-callbacks", "LangSmith,s3_v2,otel")]).status == 200
    assert CANARY in str(tree_of(gateway).model.attributes["gen_ai.input.messages"])


ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, SAID),
    "stream": (CHAT, SAID | {"stream": True}),
    "completions": ("/v1/completions", {"model": "gpt-4o-mini", "prompt": CANARY}),
    "embeddings": ("/v1/embeddings", {"model": "gpt-4o-mini", "input": CANARY}),
    "responses": ("/v1/responses", {"model": "gpt-4o-mini", "input": CANARY}),
    "images": ("/v1/images/generations", {"model": "gpt-4o-mini", "prompt": CANARY}),
    "moderations": ("/v1/moderations", {"model": "gpt-4o-mini", "input": CANARY}),
    "batches": ("/v1/batches", {"model": "gpt-4o-mini", "input_file_id": "f"}),
    "unknown model": (CHAT, SAID | {"model": "unknown"}),
    "large": (CHAT, {"model": "gpt-4o-mini", "pad": "x" * 3000, "messages": SAID["messages"], "pad2": "x" * 3000}),
}
LABELS = {
    "user": "u-1",
    "metadata": {"session_id": "body", "tags": ["b"], "generation_name": "g", "generation_id": "i", "nested": {"a": 1}},
}
LABEL_HEADERS = [
    ("x-litellm-tags", "h1, h2"),
    ("x-litellm-session-id", "header"),
    ("x-litellm-trace-id", "t-1"),
    ("x-litellm-spend-logs-metadata", '{"cost-centre": "c-7", "api_key": "sk-CANARYsecret"}'),
    ("langfuse_trace_name", "name"),
    ("langfuse_tags", '["h3"]'),
    ("langfuse-release", "r"),
    ("x-tenant", "acme"),
    ("x-who", "somebody"),
]


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("route", ROUTES)
def test_labels_are_the_same_on_every_route_and_every_span(
    upstream: ScriptedUpstream, route: str, content: bool
) -> None:
    path, body = ROUTES[route]
    tracing = Tracing(content=content, header_attributes=(("x-tenant", "tenant.id"), ("x-who", "otelgw.metadata.who")))
    upstream.requests.clear()
    with RunningGateway(
        [deployment(upstream.url)], tracing=tracing, limits=Limits(capture=4096), pass_through=("batches",)
    ) as gateway:
        ask(gateway, body | LABELS, path, headers=LABEL_HEADERS)
        tree = tree_of(gateway)
        assert b"CANARYsecret" not in gateway.spool.payloads[-1]
    for node in tree.spans:
        found = node.attributes
        assert list(found["otelgw.tags"]) == ["b", "h3", "h1", "h2"]
        assert (found["user.id"], found["session.id"]) == ("u-1", "header")
        assert (found["otelgw.metadata.generation_name"], found["otelgw.metadata.generation_id"]) == ("g", "i")
        assert json.loads(found["otelgw.metadata.nested"]) == {"a": 1}
        assert (found["otelgw.metadata.trace_name"], found["otelgw.metadata.release"]) == ("name", "r")
        assert found["otelgw.metadata.trace_id"] == "t-1" != node.trace_id
        spent = json.loads(found["otelgw.metadata.spend_logs_metadata"])
        assert spent == {"cost-centre": "c-7", "api_key": "REDACTED"}
        assert (found["tenant.id"], found["otelgw.metadata.who"]) == ("acme", "somebody")
        assert "otelgw.labels.dropped" not in found
    for request in upstream.requests:
        assert "metadata" not in request.json()
        assert not {name.lower() for name, _ in request.headers} & {name.encode() for name, _ in LABEL_HEADERS[:7]}


@pytest.mark.parametrize(
    ("headers", "fields", "dropped"),
    [
        ([("x-litellm-spend-logs-metadata", "no json")], {}, 1),
        ([("x-litellm-spend-logs-metadata", "[1]")], {"metadata": "text"}, 2),
        ([], {"metadata": {"tags": [f"{number}" + "t" * 1000 for number in range(1000)]}}, 936),
        ([("x-litellm-tags", ",".join(f"t{number}" for number in range(100)))], {"tags": {"a": 1}, "user": 5}, 38),
    ],
)
def test_labels_that_are_too_many_or_of_the_wrong_type_never_cost_the_trace(
    gateway: RunningGateway, headers: list[tuple[str, str]], fields: dict[str, Any], dropped: int
) -> None:
    assert ask(gateway, SAID | fields, headers=headers).status == 200
    for node in tree_of(gateway).spans:
        assert node.attributes["otelgw.labels.dropped"] == dropped
        assert len(node.attributes.get("otelgw.tags", ())) <= 64


@pytest.mark.parametrize("stream", [False, True])
def test_the_raw_request_is_a_curl_command_without_keys(
    gateway: RunningGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.requests.clear()
    body = SAID | {"stream": stream, "metadata": {"log_raw_request": True}, "password": "sk-CANARYkey1234567"}
    headers = [("x-kept", "it's kept"), ("authorization", "Bearer sk-CANARYcaller12345")]
    assert ask(gateway, body, headers=headers).status == 200
    tree = tree_of(gateway)
    raw = tree.model.attributes["otelgw.raw_request"]
    assert raw.startswith(f"curl -X POST {upstream.url}/v1/chat/completions")
    assert "-H 'authorization: REDACTED'" in raw
    assert '"password":"REDACTED"' in raw
    assert CANARY in raw
    assert "x-kept" in raw
    assert "sk-" not in raw
    assert "log_raw_request" not in raw
    assert all("otelgw.raw_request" not in node.attributes for node in (tree.server, *tree.attempts))


@pytest.mark.parametrize("how", ["off", "by header", "not asked for"])
def test_there_is_no_raw_request_where_content_is_off(upstream: ScriptedUpstream, how: str) -> None:
    wants = how != "not asked for"
    headers = [("x-litellm-enable-message-redaction", "true")] if how == "by header" else []
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(content=how != "off")) as gateway:
        ask(gateway, SAID | {"metadata": {"log_raw_request": wants}}, headers=headers)
        assert b"curl -X" not in gateway.spool.payloads[-1]
        assert "otelgw.raw_request" not in tree_of(gateway).model.attributes
