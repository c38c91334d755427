"""Web pages: those that the config names may call, no other."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from otelgw.config.settings import Auth
from tests.http.caller import CHAT, HELLO, Answer, ask, asked
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, chat

PAGE = "https://app.example"
KEY = "sk-master"
OPEN = Auth(cors_allow_origins=(PAGE,))
LOCKED = Auth(master_key_sha256=hashlib.sha256(KEY.encode()).hexdigest(), cors_allow_origins=(PAGE,))
PREFLIGHT = [
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization,content-type"),
]


def preflight(gateway: RunningGateway, origin: str, *more: tuple[str, str]) -> Answer:
    return ask(gateway, path=CHAT, method="OPTIONS", headers=[("Origin", origin), *PREFLIGHT, *more])


@pytest.mark.parametrize("auth", [OPEN, LOCKED], ids=["open", "locked"])
def test_a_preflight_of_a_named_page_is_allowed_without_a_key(upstream: ScriptedUpstream, auth: Auth) -> None:
    with RunningGateway([deployment(upstream.url)], auth=auth) as gateway:
        got = preflight(gateway, PAGE)
        record = gateway.record()

    assert (got.status, got.body) == (204, b"")
    assert got.header("access-control-allow-origin") == PAGE
    assert "POST" in (got.header("access-control-allow-methods") or "")
    assert got.header("access-control-allow-headers") == "authorization,content-type"
    assert got.header("access-control-allow-credentials") is None
    assert got.header("vary") == "origin"
    assert (record.method, record.status, record.route) == ("OPTIONS", 204, "")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil.example", "null", "http://app.example"]
)
def test_a_preflight_of_another_page_gets_no_permission(upstream: ScriptedUpstream, origin: str) -> None:
    with RunningGateway([deployment(upstream.url)], auth=OPEN) as gateway:
        got = preflight(gateway, origin)

    assert [name for name, _ in got.headers if name.startswith("access-control-")] == []


def test_a_preflight_cannot_join_a_trace_where_keys_are_in_use(upstream: ScriptedUpstream) -> None:
    parent = ("traceparent", "00-80e1afed08e019fc1110464cfa66635c-7a085853722dc6d2-01")
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        preflight(gateway, PAGE, parent)
        record = gateway.record()

    assert record.trace_id != "80e1afed08e019fc1110464cfa66635c"
    assert record.parent_span_id == ""


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (HELLO, [("Authorization", f"Bearer {KEY}")], 200),
        (HELLO, [], 401),
        ({"model": "x"}, [("Authorization", f"Bearer {KEY}")], 404),
    ],
)
def test_a_named_page_can_read_every_answer(
    upstream: ScriptedUpstream, body: Any, headers: list[tuple[str, str]], status: int
) -> None:
    """A page that cannot read the 401 cannot tell its user what is wrong."""
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        got, _ = asked(gateway, body, headers=[("Origin", PAGE), *headers])

    assert got.status == status
    assert got.header("access-control-allow-origin") == PAGE
    assert got.header("access-control-expose-headers") == "*"


def test_an_upstreams_own_permission_does_not_reach_the_page(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(chat(headers=[(b"Access-Control-Allow-Origin", b"*"), (b"Vary", b"x-a")]))
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        got, _ = asked(gateway, HELLO, headers=[("Origin", "https://x.example"), ("Authorization", f"Bearer {KEY}")])

    assert got.status == 200
    assert got.header("access-control-allow-origin") is None


def test_without_a_named_page_options_is_no_method(gateway: RunningGateway) -> None:
    got, _ = asked(gateway, path=CHAT, method="OPTIONS", headers=PREFLIGHT)

    assert (got.status, got.error["code"]) == (405, "method_not_allowed")
