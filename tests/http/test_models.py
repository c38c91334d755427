"""``/v1/models``: what the config offers, in OpenAI's shape."""

from __future__ import annotations

import pytest

from otelgw.tracing.record import Price
from tests.http.caller import Caller, asked
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream

URL = "http://upstream.example"
PRICE = Price("config", input_per_token=1e-6, output_per_token=2e-6)


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_the_models_of_the_config_are_listed_once_and_sorted(path: str) -> None:
    rows = [
        deployment(URL, "b", price=PRICE),
        deployment(URL, "a"),
        deployment(URL, "a", id="second"),
        deployment(URL, "openai/*"),
        deployment(URL, "gpt-*", listed=False),
    ]
    with RunningGateway(rows) as gateway:
        got, tree = asked(gateway, path=path, method="GET")

    listed = got.json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["a", "b", "openai/*"]
    assert listed["data"][0] == {"id": "a", "object": "model", "created": 0, "owned_by": "openai"}
    assert (listed["data"][1]["input_cost_per_token"], listed["data"][1]["output_cost_per_token"]) == (1e-6, 2e-6)
    assert got.header("content-type") == "application/json"
    assert tree.server.name == "GET /v1/models"
    assert (tree.generation, list(tree.attempts)) == (None, [])
    assert tree.server.attributes["http.response.body.size"] == len(got.body)


@pytest.mark.parametrize(
    ("name", "owner"), [("gpt-4o", "openai"), ("meta-llama/Llama-3.1", "openai"), ("any/thing", "wildcard")]
)
def test_one_model_is_shown(name: str, owner: str) -> None:
    rows = [deployment(URL, "gpt-4o"), deployment(URL, "meta-llama/Llama-3.1"), deployment(URL, "any/*")]
    with RunningGateway(rows) as gateway:
        got, tree = asked(gateway, path=f"/v1/models/{name}", method="GET")

    assert (got.status, got.json()["id"], got.json()["owned_by"]) == (200, name, owner)
    assert tree.server.name == "GET /v1/models/{model}"


def test_a_head_request_has_the_headers_and_no_body(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    with Caller(gateway.port) as caller:
        caller.send("/v1/models", method="HEAD")
        got = caller.answer()
    gateway.record()

    assert (got.status, got.body) == (200, b"")
    assert int(got.header("content-length") or 0) > 0
    assert upstream.requests == []
