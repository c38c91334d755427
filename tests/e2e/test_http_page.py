"""docs/reference/http.md says what the gateway does: its tables and its lists of headers, tried on a running one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import openai
import pytest

from otelgw.errors import ANSWERS
from otelgw.http.routes import ANY, GATED_GROUPS, ROUTES, Route
from tests.e2e.conftest import Take
from tests.servers import upstream as scripts
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway
from tests.servers.upstream import ScriptedUpstream

PAGE = (Path(__file__).parents[2] / "docs/reference/http.md").read_text()
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
WRITTEN_ANEW = {"host", "content-length", "accept-encoding", "connection", "authorization", "date"}
LOCAL = {"/health", "/health/liveliness", "/health/liveness", "/health/readiness", "/metrics", "/openapi.json"}


def section(heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    return re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(heading: str) -> list[list[str]]:
    lines = [line for line in section(heading).splitlines() if line.startswith("| `") or re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def up_and_down() -> tuple[set[str], set[str]]:
    """Return the headers that the page says stop on the way up, and on the way down."""
    up, down = section("Headers that stop at the gateway").split("On the way down")
    down = down.split("come through")[0].rsplit("\n\n", 1)[0]
    hop_by_hop = {"keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade"}
    names = {name for name in quoted(up) if re.fullmatch(r"[a-z0-9-]+", name)}
    assert hop_by_hop <= names
    return names - {"none"}, {name for name in quoted(down) if re.fullmatch(r"[a-z0-9-]+", name)} | hop_by_hop


def test_every_route_is_listed_with_its_methods_and_none_besides() -> None:
    listed = {path: cells[1] for cells in rows("Routes") for path in quoted(cells[0])}
    assert listed.keys() == {route.template for route in ROUTES} | LOCAL
    for route in ROUTES:
        wanted = "all" if route.methods == ANY else ", ".join(sorted(route.methods, key=_in_order))
        assert listed[route.template] == wanted, route.template


def _in_order(method: str) -> int:
    return ("GET", "HEAD", "POST", "DELETE").index(method)


def test_every_gated_group_is_named() -> None:
    text = section("Routes")
    assert all(f"`{group}`" in text for group in GATED_GROUPS)


def test_every_status_of_the_gateway_is_listed_and_none_besides() -> None:
    listed = {(int(cells[0]), quoted(cells[1])[0]) for cells in rows("Statuses that the gateway gives itself")}
    assert listed == {(answer.status, answer.code) for answer in ANSWERS.values()}
    renamed = {kind: answer.code for kind, answer in ANSWERS.items() if kind != answer.code}
    exceptions = section("Statuses that the gateway gives itself").split("with three exceptions")[1]
    assert all(f"`{kind}` for `{code}`" in exceptions for kind, code in renamed.items())


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.group], ids=lambda route: route.template)
def test_every_route_is_there_also_without_v1(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, route: Route
) -> None:
    upstream.answer_with(scripts.chat())
    path = re.sub(r"\{\w+\}", "impatient", route.template)
    method = next(iter(route.methods - {"HEAD"}))
    for spelling in (path, path.removeprefix("/v1")):
        answer = httpx.request(method, gateway.url + spelling, json={"model": "impatient"}, trust_env=False)
        assert answer.status_code == 200, (spelling, answer.text)
        assert tree().server.attributes["http.route"] == route.template


def test_the_headers_that_stop_on_the_way_up_stop(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take
) -> None:
    names, _ = up_and_down()
    sent = dict.fromkeys(names - {"host", "content-length", "connection", "te", "origin"}, "otelgw-sent")
    # These are understood by the gateway, so they need values that can be.
    sent |= {name: "false" for name in names if name.endswith("-redaction")}
    sent |= {name: "console" for name in names if name.endswith("-disable-callbacks")}
    sent |= {"x-passes": "yes", "x-named": "no", "connection": "keep-alive, x-named", "te": "trailers"}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=sent, trust_env=False)
    assert answer.status_code == 200, answer.text
    asked = upstream.requests[0]
    arrived = {name.decode().lower() for name, _ in asked.headers}
    assert not (names | {"x-named"}) - WRITTEN_ANEW & arrived
    assert b"otelgw-sent" not in asked.raw_head
    assert (asked.header("x-passes"), asked.header("accept-encoding")) == ("yes", "identity")
    assert asked.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    tree()


def test_the_headers_that_stop_on_the_way_down_stop(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take
) -> None:
    _, names = up_and_down()
    passing = {"retry-after": "3", "x-ratelimit-remaining-tokens": "5", "x-request-id": "req_1", "x-passes": "yes"}
    told = [(name.encode(), b"otelgw-told") for name in names] + [(k.encode(), v.encode()) for k, v in passing.items()]
    upstream.answer_with(scripts.answer(body=scripts.chat_body(), headers=told))
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=CHAT, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert "otelgw-told" not in str(answer.headers)
    assert passing.items() <= answer.headers.items()
    tree()


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/v1/nothing", "/v1/../x", "/health", "/openapi.json"]
)
def test_the_headers_of_every_answer_are_there(gateway: RunningGateway, upstream: ScriptedUpstream, path: str) -> None:
    always = section("Headers on answers").split("belong to no trace")[0]
    names = {name for name in quoted(always) if re.fullmatch(r"(?:x-|trace|server)[a-z-]+", name)}
    assert len(names) == 7
    chat = path.endswith("completions")
    with httpx.Client(base_url=gateway.url, trust_env=False) as client:
        answer = client.post(path, json=CHAT) if chat else client.get(path)
    own = {name for name in names if name.startswith("x-litellm-")}
    expected = own if path in LOCAL else names
    expected |= {name.replace("x-litellm-", "x-otelgw-") for name in own}
    assert expected <= answer.headers.keys()
    if chat:
        held = section("Headers on answers").split("Where it is known")[1]
        known = {name for name in quoted(held) if re.fullmatch(r"x-litellm-[a-z-]*[a-z]", name)} - {"x-litellm-call-id"}
        assert known <= answer.headers.keys()


def test_a_caller_may_choose_the_call_id(client: openai.OpenAI, tree: Take) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "hello"}],
        extra_headers={"x-litellm-call-id": "chosen-1"},
    )
    assert raw.headers["x-otelgw-call-id"] == "chosen-1"
    assert {span.attributes["otelgw.call_id"] for span in tree().spans} == {"chosen-1"}


def test_the_description_lists_the_routes_that_are_served(gateway: RunningGateway) -> None:
    found = json.loads(httpx.get(f"{gateway.url}/openapi.json", trust_env=False).content)["paths"]
    served = {route.template for route in ROUTES if not route.group or route.group in gateway.settings.pass_through}
    assert found.keys() == served | LOCAL - {"/openapi.json"}
