"""The health routes: no trace, no tokens, no details for strangers."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from otelgw.config.settings import Auth, Destination
from tests.http.caller import Answer, ask
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import Received, ScriptedUpstream, chat, embeddings, error, refused_port

KEY = "sk-master"
LOCKED = Auth(master_key_sha256=hashlib.sha256(KEY.encode()).hexdigest())
WITH_KEY = [("Authorization", f"Bearer {KEY}")]
PATHS = ("/health", "/health/liveliness", "/health/liveness", "/health/readiness", "/openapi.json")


def get(gateway: RunningGateway, path: str, headers: Any = ()) -> Answer:
    return ask(gateway, path=path, headers=headers, method="GET")


@pytest.mark.parametrize("path", PATHS)
def test_a_health_check_is_no_trace_and_costs_nothing(
    gateway: RunningGateway, upstream: ScriptedUpstream, path: str
) -> None:
    got = get(gateway, path)

    assert got.status == 200
    assert got.header("x-otelgw-call-id")
    assert got.header("x-litellm-version")
    assert got.header("traceresponse") is None
    assert gateway.no_record(0.05)
    assert upstream.requests == []


def test_readiness_names_models_and_destinations(upstream: ScriptedUpstream) -> None:
    rows = [deployment(upstream.url), deployment(upstream.url, "gpt-*", listed=False)]
    with RunningGateway(rows, destinations=(Destination("otlp_grpc/dead", "otlp_grpc"),)) as gateway:
        found = get(gateway, "/health/readiness").json()

    assert (found["status"], found["models"], found["destinations"]) == (
        "healthy",
        ["gpt-4o-mini"],
        [{"name": "otlp_grpc/dead", "state": "unknown"}],
    )
    assert (found["in_flight"], found["records_not_written"]) == (0, 0)


def test_readiness_is_503_while_draining_and_liveness_is_not(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        gateway.call(gateway.gateway.drain(0.1))
        ready, alive = get(gateway, "/health/readiness"), get(gateway, "/health/liveness")

    assert (ready.status, ready.json()["status"], ready.header("retry-after")) == (503, "draining", "1")
    assert alive.status == 200


def test_the_models_are_probed_only_when_that_is_asked_for(upstream: ScriptedUpstream) -> None:
    def answered(request: Received) -> Any:
        if request.target.endswith("/embeddings"):
            return embeddings()
        return error(401) if request.json()["model"] == "refused" else chat()

    upstream.answer_with(answered)
    rows = [
        deployment(upstream.url, "good"),
        deployment(upstream.url, "refused"),
        deployment(upstream.url, "vectors", model_info={"mode": "embedding"}),
        deployment(f"http://127.0.0.1:{refused_port()}", "unreachable"),
        deployment(upstream.url, "mocked", mock_response="hi"),
        deployment(upstream.url, "any/*"),
    ]
    with RunningGateway(rows) as gateway:
        listed = get(gateway, "/health").json()
        assert upstream.requests == []
        probed = get(gateway, "/health?probe=1").json()
        assert gateway.no_record(0.05)

    assert (listed["count"], listed["probed"]) == (5, False)
    assert {each["model"] for each in probed["healthy_endpoints"]} == {"good", "mocked", "vectors"}
    assert {each["model"]: each["error"] for each in probed["unhealthy_endpoints"]} == {
        "refused": "401",
        "unreachable": "upstream_connect",
    }
    assert (probed["healthy_count"], probed["unhealthy_count"]) == (3, 2)
    assert {request.header("authorization") for request in upstream.requests} == {"Bearer sk-upstream-canary"}
    assert len(upstream.requests) == 3


def test_a_model_that_thinks_is_probed_in_its_own_words(upstream: ScriptedUpstream) -> None:
    """OpenAI's reasoning models answer 400 to `max_tokens`; others do to what they do not know."""

    def answered(request: Received) -> Any:
        asked = request.json()
        wanted = {"thinks": "max_completion_tokens", "plain": "max_tokens"}.get(asked["model"])
        return chat() if wanted in asked else error(422 if asked["model"] == "picky" else 400)

    upstream.answer_with(answered)
    rows = [deployment(upstream.url, name) for name in ("thinks", "plain", "broken", "picky")]
    with RunningGateway(rows) as gateway:
        probed = get(gateway, "/health?probe=1").json()

    assert {each["model"] for each in probed["healthy_endpoints"]} == {"thinks", "plain"}
    assert {each["model"]: each["error"] for each in probed["unhealthy_endpoints"]} == {"broken": "400", "picky": "422"}
    limits = [request.json().get("max_tokens") for request in upstream.requests if request.json()["model"] == "plain"]
    assert limits == [1]


@pytest.mark.parametrize(
    "headers",
    [
        [("Host", "rebound.example")],
        [("Origin", "https://evil.example")],
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        [("Sec-Fetch-Site", "same-site")],
    ],
    ids=["a rebound name", "a foreign page", "an image of a foreign page", "a neighbour's page"],
)
@pytest.mark.parametrize("auth", [Auth(), LOCKED], ids=["open", "locked"])
def test_a_web_page_can_neither_look_nor_spend(
    upstream: ScriptedUpstream, headers: list[tuple[str, str]], auth: Auth
) -> None:
    with RunningGateway([deployment(upstream.url)], auth=auth) as gateway:
        probed = get(gateway, "/health?probe=1", headers)
        ready = get(gateway, "/health/readiness", headers)

    assert probed.status in {401, 403}
    assert probed.error["message"]
    assert (ready.status, ready.json()) == (200, {"status": "healthy"})
    assert upstream.requests == []


def test_the_keys_owner_may_look_from_anywhere(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        got = get(gateway, "/health/readiness", [*WITH_KEY, ("Host", "gateway.example")])

    assert got.json()["models"] == ["gpt-4o-mini"]


@pytest.mark.parametrize("auth", [Auth(), LOCKED], ids=["open", "locked"])
def test_beyond_loopback_details_need_the_key(upstream: ScriptedUpstream, auth: Auth) -> None:
    with RunningGateway([deployment(upstream.url)], auth=auth, server={"host": "0.0.0.0"}) as gateway:
        without = get(gateway, "/health/readiness")
        refused = get(gateway, "/health?probe=1")
        with_key = get(gateway, "/health/readiness", WITH_KEY)

    assert without.json() == {"status": "healthy"}
    assert (refused.status, refused.error["code"]) == (401, "unauthorized")
    assert ("models" in with_key.json()) is (auth is LOCKED)
    assert upstream.requests == []
