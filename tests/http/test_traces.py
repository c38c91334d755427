"""Every request as a trace: what stands on it, on every route and outcome, and what must not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from otelgw.config.settings import Auth, Destination, Limits, Tracing
from otelgw.tracing.record import Price
from tests.e2e.tree import Tree
from tests.http.caller import CHAT, HELLO, STREAM, Caller, ask, asked, tree_of
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import (
    USAGE,
    Script,
    ScriptedUpstream,
    answer,
    chat,
    chat_events,
    chat_stream,
    close_after,
    error,
    head_size,
    payload,
    sse,
    stall_after,
)

CANARY = "CANARY-content"
TOOLS = [{"type": "function", "function": {"name": "weather", "description": CANARY, "parameters": {"type": "object"}}}]
SECRET: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "system", "content": CANARY}, {"role": "user", "content": CANARY}],
    "tools": TOOLS,
    "temperature": 0.5,
    "user": "u-1",
    "metadata": {"feature": "search"},
}
CONTENT = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions")


def assert_whole(tree: Tree, status: int) -> None:
    """What holds of every generation, beside what ``trees`` asserts already."""
    server, model = tree.server, tree.model
    assert server.attributes["http.request.method"] == "POST"
    assert server.attributes["url.scheme"] == "http"
    assert server.attributes["network.protocol.version"] == "1.1"
    assert server.attributes["client.address"] == "127.0.0.1"
    assert server.attributes["http.response.status_code"] == status
    assert model.kind == "CLIENT"
    assert model.attributes["gen_ai.provider.name"] == "openai"
    assert model.attributes["otelgw.attempts"] == len(tree.attempts)
    for number, attempt in enumerate(tree.attempts, 1):
        assert attempt.name == "POST"
        assert attempt.attributes["otelgw.attempt.number"] == number
        assert attempt.attributes["server.address"] == "127.0.0.1"
        assert attempt.attributes["url.full"].startswith("http://127.0.0.1:")


ROUTES: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions": (HELLO, "chat"),
    "/v1/completions": ({"model": "gpt-4o-mini", "prompt": "hello"}, "text_completion"),
    "/v1/embeddings": ({"model": "gpt-4o-mini", "input": "hello"}, "embeddings"),
    "/v1/responses": ({"model": "gpt-4o-mini", "input": "hello"}, "chat"),
}


@pytest.mark.parametrize("version", ["/v1", ""])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_every_route_has_one_generation(
    gateway: RunningGateway, upstream: ScriptedUpstream, version: str, route: str, stream: bool, status: int
) -> None:
    body, operation = ROUTES[route]
    if status != 200:
        upstream.answer_with(error(status))

    got, tree = asked(gateway, {**body, "stream": True} if stream else body, version + route.removeprefix("/v1"))

    assert got.status == status
    assert_whole(tree, status)
    assert tree.server.name == f"POST {route}"
    assert tree.server.attributes["url.path"] == version + route.removeprefix("/v1")
    assert tree.model.name == f"{operation} gpt-4o-mini"
    assert tree.model.failed is (status != 200)
    assert tree.server.failed is (status == 500)
    assert tree.model.attributes.get("gen_ai.request.stream", False) is stream


def test_times_are_in_order(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(chat_stream("hello there", include_usage=True))
    ask(gateway, STREAM)
    record = gateway.record()

    (attempt,) = record.attempts
    times = [
        0, record.upstream_start, attempt.start, attempt.first_byte, record.first_byte, record.first_chunk,
        attempt.end, record.generation_end, record.end,
    ]  # fmt: skip
    assert times == sorted(times)
    assert record.upstream_start > 0
    assert attempt.end == record.generation_end


def test_a_held_answer_is_first_sent_after_its_last_byte_came(gateway: RunningGateway) -> None:
    ask(gateway, HELLO)
    record = gateway.record()

    assert 0 < record.first_byte <= record.attempts[0].end <= record.first_chunk <= record.end


def test_the_first_chunk_is_timed_from_the_call(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(chat_stream("hello", include_usage=True))

    _, tree = asked(gateway, STREAM)

    first = tree.model.attributes["gen_ai.response.time_to_first_chunk"]
    assert 0 < first <= (tree.model.end - tree.model.start) / 1e9


def test_labels_stand_on_every_span(gateway: RunningGateway) -> None:
    _, tree = asked(gateway, {**HELLO, "user": "u-1", "metadata": {"session_id": "s-1", "tags": ["a"], "feature": "x"}})

    for node in tree.spans:
        assert node.attributes["user.id"] == "u-1"
        assert node.attributes["session.id"] == "s-1"
        assert node.attributes["otelgw.tags"] == ["a"]
        assert node.attributes["otelgw.metadata.feature"] == "x"
        assert node.attributes["otelgw.model.alias"] == "gpt-4o-mini"


def test_headers_are_recorded_only_where_they_are_listed(upstream: ScriptedUpstream) -> None:
    tracing = Tracing(
        capture_request_headers=("x-tenant", "authorization", "cookie"),
        capture_response_headers=("x-otelgw-model-id", "content-type"),
        capture_upstream_request_headers=("openai-beta", "authorization"),
        capture_upstream_response_headers=("x-request-id", "set-cookie"),
    )
    upstream.answer_with(chat(headers=[(b"Set-Cookie", b"a=canary")]))
    headers = [("X-Tenant", "acme"), ("Authorization", "Bearer canary"), ("Cookie", "a=canary"), ("OpenAI-Beta", "b")]
    with RunningGateway([deployment(upstream.url)], tracing=tracing) as gateway:
        _, tree = asked(gateway, HELLO, headers=headers)

    assert tree.server.attributes["http.request.header.x-tenant"] == ["acme"]
    assert tree.server.attributes["http.response.header.x-otelgw-model-id"] == ["id-gpt-4o-mini"]
    assert tree.server.attributes["http.response.header.content-type"] == ["application/json"]
    assert tree.attempts[0].attributes["http.request.header.openai-beta"] == ["b"]
    assert tree.attempts[0].attributes["http.response.header.x-request-id"] == ["req_scripted"]
    assert b"canary" not in b"".join(gateway.spool.payloads)


def test_no_credential_is_in_the_record(gateway: RunningGateway) -> None:
    """Wherever a caller may put one."""
    body = {
        **HELLO,
        "metadata": {"api_key": "canary-1", "deep": [{"Authorization": "canary-2"}]},
        "x": {"token": "canary-3"},
    }
    headers = [("Authorization", "Bearer canary-4"), ("Cookie", "canary-5"), ("x-api-key", "canary-6")]
    asked(gateway, body, f"{CHAT}?key=canary-7&api_key=canary-8", headers=headers)
    asked(gateway, b'{"api_key": "canary-9",}')
    asked(gateway, b"{'api_key': 'canary-10'}")
    asked(gateway, b'{"model":"x","metadata":{"secret":"canary-11\xff"}}')
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    asked(gateway, b"model=gpt-4o-mini&api_key=canary-12", "/v1/moderations", headers=form)

    written = b"".join(gateway.spool.payloads)
    assert b"gpt-4o-mini" in written
    assert b"canary" not in written


def test_a_no_log_request_is_answered_and_leaves_no_record(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    got = ask(gateway, {**HELLO, "no-log": True})
    refused = ask(gateway, {"model": "unknown", "no-log": True})

    assert (got.status, refused.status) == (200, 404)
    assert upstream.requests[0].json() == HELLO
    assert gateway.no_record(0.05)


def test_no_log_is_ignored_where_the_config_says_so(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(allow_no_log=False)) as gateway:
        _, tree = asked(gateway, {**HELLO, "no-log": True})

    assert tree.model.name == "chat gpt-4o-mini"


# Content


def nowhere(payloads: Sequence[bytes]) -> bool:
    return CANARY.encode() not in b"".join(payloads)


OFF: dict[str, dict[str, Any]] = {
    "globally": {"tracing": Tracing(content=False)},
    "because no destination wants it": {"destinations": (Destination("a", "console", content=False),)},
    "of the model": {},
    "by the caller's body": {},
    "by the caller's header": {},
}
ANSWERS: dict[str, tuple[bool, Script, int]] = {
    "whole": (False, chat(CANARY), 200),
    "stream": (True, chat_stream(CANARY, include_usage=True), 200),
    "tools": (True, chat_stream("", tool_calls=[("weather", json.dumps({"q": CANARY}))], include_usage=True), 200),
    "error": (False, error(400, CANARY), 400),
    "error in plain text": (False, answer(500, CANARY.encode(), content_type=b"text/plain"), 500),
    "cut": (True, sse(chat_events(CANARY)[:3], done=False, ended=False), 200),
}


@pytest.mark.parametrize("how", OFF)
@pytest.mark.parametrize("name", ANSWERS)
def test_where_content_is_off_it_is_nowhere_and_all_else_is_there(
    upstream: ScriptedUpstream, how: str, name: str
) -> None:
    stream, script, status = ANSWERS[name]
    upstream.answer_with(script)
    row = deployment(upstream.url, price=Price("config", input_per_token=1e-6), content=how != "of the model")
    body = {**SECRET, "stream": stream} | ({"turn_off_message_logging": True} if how == "by the caller's body" else {})
    headers = [("x-litellm-enable-message-redaction", "true")] if how == "by the caller's header" else []
    with RunningGateway([row], **OFF[how]) as gateway:
        got, tree = asked(gateway, body, headers=headers)

    assert got.status == status
    assert name == "tools" or CANARY.encode() in got.body
    assert nowhere(gateway.spool.payloads)
    assert not any(name in tree.model.attributes for name in CONTENT)
    found = tree.model.attributes
    assert found["gen_ai.request.temperature"] == 0.5
    assert found["user.id"] == "u-1"
    assert found["otelgw.metadata.feature"] == "search"
    if name in {"whole", "stream", "tools"}:
        assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
        assert found["gen_ai.response.model"] == "gpt-4o-2024-08-06"
        assert found["gen_ai.response.id"] == "chatcmpl-scripted"
        assert "error" not in found["gen_ai.response.finish_reasons"]
        assert found["otelgw.cost.amount"] == pytest.approx(USAGE["prompt_tokens"] * 1e-6)
    else:
        assert tree.model.failed
        assert found["error.type"] == {"cut": "upstream_truncated"}.get(name, str(status))


@pytest.mark.parametrize("name", ANSWERS)
def test_where_content_is_on_it_is_on_the_generation_only(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    stream, script, _ = ANSWERS[name]
    upstream.answer_with(script)

    _, tree = asked(gateway, {**SECRET, "stream": stream})

    assert CANARY in str(tree.model.attributes["gen_ai.input.messages"])
    assert CANARY in str(tree.model.attributes["gen_ai.tool.definitions"])
    if name in {"whole", "stream", "tools", "cut"}:
        assert CANARY in str(tree.model.attributes["gen_ai.output.messages"])
    for node in (tree.server, *tree.attempts):
        assert CANARY not in str(node.attributes)


@pytest.mark.parametrize(
    "body", [b'{"messages": "CANARY-content",}', {**SECRET, "model": "x"}, {**SECRET, "model": None}]
)
def test_a_refused_body_is_not_recorded_where_content_is_off(upstream: ScriptedUpstream, body: Any) -> None:
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(content=False)) as gateway:
        got, tree = asked(gateway, body)

    assert got.status in {400, 404}
    assert nowhere(gateway.spool.payloads)
    assert tree.server.attributes["error.type"] == got.error["code"]


def test_a_request_given_up_halfway_has_no_content_either(upstream: ScriptedUpstream) -> None:
    script = chat_stream(CANARY, include_usage=True)
    upstream.answer_with(stall_after(script, payload(script).index(CANARY.encode()) + 150))
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(content=False)) as gateway:
        with Caller(gateway.port) as caller:
            caller.send(CHAT, {**SECRET, "stream": True})
            caller.read_until(CANARY.encode())
            caller.hang_up()
        tree = tree_of(gateway)

    assert nowhere(gateway.spool.payloads)
    assert tree.model.attributes["error.type"] == "client_disconnect"


def test_a_callers_word_never_turns_content_on(upstream: ScriptedUpstream) -> None:
    headers = [("litellm-disable-message-redaction", "true"), ("x-litellm-enable-message-redaction", "false")]
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(content=False)) as gateway:
        asked(gateway, {**SECRET, "turn_off_message_logging": False}, headers=headers)

    assert nowhere(gateway.spool.payloads)


def test_content_withheld_by_one_deployment_is_withheld_when_it_was_asked_second(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([error(500), chat(CANARY)] * 4)
    rows = [deployment(upstream.url, id="a", retries=1), deployment(upstream.url, id="b", retries=1, content=False)]
    with RunningGateway(rows) as gateway:
        for _ in range(4):
            _, tree = asked(gateway, SECRET)
            assert len(tree.attempts) == 2

    assert nowhere(gateway.spool.payloads)


def test_an_unauthorized_body_is_never_recorded(upstream: ScriptedUpstream) -> None:
    auth = Auth(master_key_sha256=hashlib.sha256(b"k").hexdigest())
    with RunningGateway([deployment(upstream.url)], auth=auth) as gateway:
        got, tree = asked(gateway, SECRET)

    assert got.status == 401
    assert nowhere(gateway.spool.payloads)
    assert tree.generation is None


def test_with_tracing_off_requests_are_served_all_the_same(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        gateway.gateway.spool = None
        answers = [ask(gateway, body) for body in (HELLO, STREAM, b"{")]
        assert gateway.no_record(0.05)
        assert gateway.gateway.relay._budget.used == 0

    assert [got.status for got in answers] == [200, 200, 400]


# What is kept of large and of other bodies


def test_of_a_large_body_head_tail_size_and_hash_are_kept(upstream: ScriptedUpstream) -> None:
    body = {**HELLO, "messages": [{"role": "user", "content": "first " + "x" * 5000}], "user": "at-the-end"}
    events = b"".join(chat_events("word " * 500, include_usage=True)) + b"data: [DONE]\n\n"
    upstream.answer_with(answer(body=events, content_type=b"text/event-stream"))
    with RunningGateway([deployment(upstream.url)], limits=Limits(capture=2000)) as gateway:
        ask(gateway, {**body, "stream": True})
        record = gateway.record()
        (tree,) = [tree_from(gateway, record)]
        assert gateway.gateway.relay._budget.used == 0

    sent = json.dumps({**body, "stream": True}).encode()
    for capture, whole in ((record.request, sent), (record.response, events)):
        assert capture.size == len(whole)
        assert capture.sha256 == hashlib.sha256(whole).hexdigest()
        assert whole.startswith(capture.head)
        assert whole.endswith(capture.tail)
        assert len(capture.head) == len(capture.tail) == 1000
    assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert tree.server.attributes["user.id"] == "at-the-end"


def tree_from(gateway: RunningGateway, record: Any) -> Tree:
    gateway.spool.records.put(record)
    return tree_of(gateway)


def test_of_media_only_type_size_and_hash_are_kept(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    audio = b"RIFF" + bytes(range(256)) * 50
    upstream.answer_with(answer(body=audio, content_type=b"audio/wav"))
    ask(gateway, {"model": "gpt-4o-mini", "input": "say it", "voice": "x"}, "/v1/audio/speech")

    response = gateway.record().response
    assert (response.content_type, response.size) == ("audio/wav", len(audio))
    assert (response.head, response.tail) == (b"", b"")
    assert response.sha256 == hashlib.sha256(audio).hexdigest()


def test_captures_share_one_budget(upstream: ScriptedUpstream) -> None:
    """Beyond it a capture keeps a short tail; the answer itself is not touched."""
    big = answer(body=b"x" * 300_000 + b"end", content_type=b"text/plain", framing="chunked")
    upstream.answer_with(stall_after(big, 250_000))
    limits = Limits(capture=1_000_000, capture_memory=400_000)
    with RunningGateway([deployment(upstream.url)], limits=limits) as gateway:
        callers = [Caller(gateway.port) for _ in range(6)]
        for caller in callers:
            caller.send(CHAT, HELLO)
        for caller in callers:
            seen = 0
            while seen < 200_000:
                seen += len(caller.socket.recv(65536))
        assert gateway.gateway.relay._budget.used <= 400_000 + 6 * 3 * 64 * 1024
        for caller in callers:
            caller.hang_up()
        records = [gateway.record() for _ in callers]
        assert gateway.gateway.relay._budget.used == 0

    assert all(record.response.size >= 200_000 for record in records)
    assert sum(len(record.response.head) + len(record.response.tail) for record in records) < 6 * 200_000


def test_an_early_end_of_an_upstream_is_on_the_record_as_far_as_it_came(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    script = chat("hello there")
    upstream.answer_with(close_after(script, head_size(script) + 200))
    ask(gateway, HELLO)

    record = gateway.record()
    assert record.response.head == script.steps[1].data[:200]  # type: ignore[union-attr]
    assert (record.status, record.error_type, record.attempts[0].status) == (502, "upstream_truncated", 200)
