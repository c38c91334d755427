"""From a model's name to the upstream that serves it, and what may redirect a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otelgw.config.settings import Deployment, Timeouts
from otelgw.errors import RequestRefused
from otelgw.http.routing import Router
from tests.http.caller import CHAT, HELLO, STREAM, ask, asked
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, answer, chat, stall_after

URL = "http://upstream.example"


def router(*aliases: str, **changes: Any) -> Router:
    return Router([deployment(URL, alias, **changes) for alias in aliases])


# Names


def test_a_name_that_is_nearly_right_is_answered_with_the_right_ones() -> None:
    with pytest.raises(RequestRefused, match=r"Did you mean 'gpt-4o' or 'gpt-4o-mini'\?") as refused:
        router("gpt-4o", "gpt-4o-mini", "claude").resolve("gpt4o")

    assert (refused.value.error_type, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("name", ["x" * 10_000_000, "*" * 1000, "\x00", "é" * 300, "gpt-4o\n"])
def test_no_name_takes_long_to_refuse(name: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        router("gpt-4o", "a*b*c", "openai/*").resolve(name)

    assert len(refused.value.message) < 500


def test_what_a_caller_puts_for_the_star_stays_one_segment_of_the_url() -> None:
    urls = {"chat/completions": f"{URL}/openai/deployments/*/chat/completions?api-version=1"}

    (found,) = router("azure/*", model="*", urls=urls).resolve("azure/a?b=c&d#e")

    expected = f"{URL}/openai/deployments/a%3Fb%3Dc%26d%23e/chat/completions?api-version=1"
    assert found.deployment.urls["chat/completions"] == expected


def test_an_alias_stands_for_the_upstreams_name(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, "fast", model="gpt-4o-2024")]) as gateway:
        got, tree = asked(gateway, {**HELLO, "model": "fast"})

    assert upstream.requests[0].body == json.dumps({**HELLO, "model": "gpt-4o-2024"}).encode()
    assert tree.model.name == "chat gpt-4o-2024"
    assert tree.server.attributes["otelgw.model.alias"] == "fast"
    assert got.header("x-otelgw-model-group") == "fast"


@pytest.mark.parametrize(
    ("asked_for", "sent"),
    [("openai/gpt-4o", "gpt-4o"), ("openai/o1/x", "o1/x"), ("local-7b-chat", "llama-7b"), ("exact", "the-exact-one")],
)
def test_a_star_stands_for_the_same_text_upstream(upstream: ScriptedUpstream, asked_for: str, sent: str) -> None:
    rows = [
        deployment(upstream.url, "openai/*", model="*"),
        deployment(upstream.url, "local-*-chat", model="llama-*"),
        deployment(upstream.url, "exact", model="the-exact-one"),
        deployment(upstream.url, "*", model="anything/*"),
    ]
    with RunningGateway(rows) as gateway:
        got, tree = asked(gateway, {**HELLO, "model": asked_for})

    assert upstream.requests[0].json()["model"] == sent
    assert got.header("x-otelgw-model-group") == asked_for
    assert tree.model.attributes["gen_ai.request.model"] == sent


def test_the_longest_pattern_wins() -> None:
    found = Router([deployment(URL, "*", id="any"), deployment(URL, "gpt-*", id="gpt")])

    assert found.resolve("gpt-4o")[0].deployment.id == "gpt"
    assert found.resolve("claude")[0].deployment.id == "any"


def test_callers_cannot_fill_the_memory_with_names() -> None:
    found = router("openai/*", model="*")
    for number in range(5000):
        found.resolve(f"openai/{number}")

    assert len(found._expanded) <= 1024


def test_a_wildcards_price_is_that_of_the_model_asked_for() -> None:
    found = router("openai/*", model="*")

    assert found.resolve("openai/gpt-4o")[0].deployment.price is not None
    assert found.resolve("openai/nobody-knows-this-one")[0].deployment.price is None


def test_deployments_of_one_name_share_its_load(upstream: ScriptedUpstream) -> None:
    rows = [deployment(upstream.url, id=name) for name in ("a", "b", "c")]
    with RunningGateway(rows) as gateway:
        served = {ask(gateway, HELLO).header("x-otelgw-model-id") for _ in range(60)}

    assert served == {"a", "b", "c"}


def test_default_fields_are_added_where_the_caller_says_nothing(upstream: ScriptedUpstream) -> None:
    defaults = {"temperature": 0.1, "max_tokens": 5}
    with RunningGateway([deployment(upstream.url, defaults=defaults)]) as gateway:
        ask(gateway, {**HELLO, "max_tokens": 9})

    assert upstream.requests[0].json() == {**HELLO, "max_tokens": 9, "temperature": 0.1}


@pytest.mark.parametrize("forwarded", [False, True])
def test_metadata_is_for_the_spans_unless_the_config_says_otherwise(
    upstream: ScriptedUpstream, forwarded: bool
) -> None:
    body = {**HELLO, "metadata": {"feature": "x"}, "tags": ["a"], "no-log": False, "user": "u"}
    with RunningGateway([deployment(upstream.url, forward_metadata=forwarded)]) as gateway:
        _, tree = asked(gateway, body)

    expected = {**HELLO, "user": "u"} | ({"metadata": {"feature": "x"}} if forwarded else {})
    assert upstream.requests[0].json() == expected
    assert tree.server.attributes["otelgw.metadata.feature"] == "x"
    assert tree.server.attributes["otelgw.tags"] == ["a"]
    assert tree.server.attributes["user.id"] == "u"


def test_a_streams_own_timeout_holds_for_streams(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(stall_after(chat(), 0))
    patience = Timeouts(first_byte=30, idle=30, stream_first_byte=0.2)
    with RunningGateway([deployment(upstream.url, timeouts=patience)]) as gateway:
        got = ask(gateway, STREAM)

    assert (got.status, got.error["code"]) == (504, "upstream_timeout_first_byte")


@pytest.mark.parametrize(
    ("base", "urls", "query", "expected"),
    [
        ("/v1", {}, "", "/v1/chat/completions"),
        ("/v1/", {}, "", "/v1/chat/completions"),
        ("", {}, "", "/chat/completions"),
        ("/v1", {"chat/completions": "/openai/deployments/x/chat/completions"}, "api-version=1", ""),
    ],
)
def test_where_a_deployment_is_called(
    upstream: ScriptedUpstream, base: str, urls: dict[str, str], query: str, expected: str
) -> None:
    full = {path: upstream.url + url for path, url in urls.items()}
    row = deployment(upstream.url, base_url=upstream.url + base, urls=full, query=query)
    with RunningGateway([row]) as gateway:
        ask(gateway, HELLO, f"{CHAT}?x=1&key=canary")

    wanted = f"{expected}?x=1" if expected else "/openai/deployments/x/chat/completions?api-version=1&x=1"
    assert upstream.requests[0].target == wanted


# Fields that redirect a call

REDIRECTING = [
    ({"api_base": "http://evil.example"}, []),
    ({"base_url": "http://evil.example"}, []),
    ({"api_key": "sk-canary"}, []),
    ({"organization": "org-1"}, []),
    ({"langfuse_host": "http://evil.example"}, []),
    ({"user_config": {}}, []),
    ({"custom_llm_provider": "other"}, []),
    ({"aws_secret_access_key": "canary"}, []),
    ({}, [("x-litellm-api-base", "http://evil.example")]),
    ({}, [("x-otelgw-api-base", "http://evil.example")]),
    ({}, [("api_base", "http://evil.example")]),
    ({}, [("api-base", "http://evil.example")]),
    ({}, [("langfuse_host", "http://evil.example")]),
    ({}, [("langfuse_public_key", "canary")]),
    ({}, [("langfuse-secret-key", "canary")]),
]


@pytest.mark.parametrize(("fields", "headers"), REDIRECTING, ids=lambda given: str(given)[:40])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_what_would_redirect_a_call_is_refused(
    gateway: RunningGateway,
    upstream: ScriptedUpstream,
    fields: dict[str, Any],
    headers: list[tuple[str, str]],
    path: str,
) -> None:
    got, tree = asked(gateway, {**HELLO, **fields}, path, headers=headers)

    assert (got.status, got.error["code"]) == (400, "invalid_request")
    assert "allow_client_params" in got.error["message"]
    assert upstream.requests == []
    assert tree.server.attributes["error.type"] == "invalid_request"
    assert b"canary" not in gateway.spool.payloads[-1]


def test_a_caller_may_bring_its_own_key_where_the_deployment_lets_it(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, allow_client_params=("api_key",))]) as gateway:
        got = ask(gateway, {**HELLO, "api_key": "sk-mine-canary"})
        refused = ask(gateway, {**HELLO, "api_key": "sk-mine-canary", "api_base": "http://evil.example"})

    assert (got.status, refused.status) == (200, 400)
    assert upstream.requests[0].header("authorization") == "Bearer sk-mine-canary"
    assert upstream.requests[0].json() == HELLO
    assert b"sk-mine-canary" not in b"".join(gateway.spool.payloads)


@pytest.mark.parametrize("where", ["body", "header"])
def test_a_call_to_the_callers_own_address_goes_without_the_deployments_key(
    upstream: ScriptedUpstream, where: str
) -> None:
    row = deployment("http://127.0.0.1:9", allow_client_params=("api_base",))
    field = {"api_base": f"{upstream.url}/theirs"} if where == "body" else {}
    headers = [("x-litellm-api-base", f"{upstream.url}/theirs")] if where == "header" else []
    with RunningGateway([row]) as gateway:
        got, tree = asked(gateway, {**HELLO, **field}, headers=headers)

    assert got.status == 200
    assert upstream.requests[0].target == "/theirs/chat/completions"
    assert upstream.requests[0].header("authorization") is None
    assert UPSTREAM_KEY.encode() not in upstream.requests[0].raw_head
    assert tree.attempts[0].attributes["server.port"] == upstream.port


@pytest.mark.parametrize("base", ["ftp://x", "file:///etc/passwd", "//x", "x"])
def test_an_address_that_is_no_web_address_is_refused(upstream: ScriptedUpstream, base: str) -> None:
    with RunningGateway([deployment(upstream.url, allow_client_params=("api_base",))]) as gateway:
        got = ask(gateway, {**HELLO, "api_base": base})

    assert (got.status, got.error["param"]) == (400, "api_base")


def test_what_else_a_deployment_allows_is_not_sent_upstream(upstream: ScriptedUpstream) -> None:
    allowed = ("langfuse_secret_key", "organization")
    with RunningGateway([deployment(upstream.url, allow_client_params=allowed)]) as gateway:
        ask(gateway, {**HELLO, "langfuse_secret_key": "canary", "organization": "org-1"})

    assert upstream.requests[0].json() == HELLO
    assert upstream.requests[0].header("openai-organization") == "org-1"
    assert b"canary" not in b"".join(gateway.spool.payloads)


def test_redirected_calls_do_not_stick(upstream: ScriptedUpstream) -> None:
    row: Deployment = deployment(upstream.url, allow_client_params=("api_key",))
    with RunningGateway([row]) as gateway:
        ask(gateway, {**HELLO, "api_key": "sk-mine"})
        ask(gateway, HELLO)

    assert [request.header("authorization") for request in upstream.requests] == [
        "Bearer sk-mine",
        f"Bearer {UPSTREAM_KEY}",
    ]


def test_an_answer_from_a_redirect_is_not_followed(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(answer(302, b"", headers=[(b"Location", b"http://127.0.0.1:1/")]))

    got, _ = asked(gateway, HELLO)

    assert (got.status, got.header("location"), len(upstream.requests)) == (302, "http://127.0.0.1:1/", 1)
