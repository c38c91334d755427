"""How requests end: refused, given up, cut by a shutdown; and that each of them leaves one record."""

from __future__ import annotations

import errno
import hashlib
import logging
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from otelgw.config.settings import Auth, Limits
from tests.http.caller import CHAT, HELLO, STREAM, Caller, ask, asked, tree_of
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import (
    USAGE,
    Received,
    Script,
    ScriptedUpstream,
    Stall,
    answer,
    chat,
    chat_events,
    chat_stream,
    early,
    error,
    head_size,
    spaced,
    sse,
    stall_after,
)

KEY = "sk-master"
LOCKED = Auth(master_key_sha256=hashlib.sha256(KEY.encode()).hexdigest())


class Refusal(NamedTuple):
    """A request, and the status, code and part of the message that it has to get."""

    status: int
    code: str
    says: str
    body: Any = None
    path: str = CHAT
    method: str = "POST"
    headers: Sequence[tuple[str, str]] = ()


FORM = [("Content-Type", "multipart/form-data; boundary=x")]
DEEP = b'{"a":' + b"[" * 9999 + b"]" * 9999 + b"}"
REFUSALS: dict[str, Refusal] = {
    "a trailing comma": Refusal(400, "invalid_json", "; likely cause: a trailing comma", b'{"model": "a",\n}'),
    "a comment": Refusal(400, "invalid_json", "line 2, column 15; likely cause: a comment", b'{\n "model": "a" # b\n}'),
    "single quotes": Refusal(400, "invalid_json", "line 1, column 2; likely cause: single quotes", b"{'model': 'a'}"),
    "no body": Refusal(400, "invalid_json", "empty", b""),
    "an array": Refusal(400, "invalid_request", "JSON object", b"[]"),
    "deep nesting": Refusal(400, "invalid_json", "nested", DEEP),
    "no UTF-8": Refusal(400, "invalid_json", "`model`", b'{"model":"\xff"}'),
    "no model": Refusal(400, "invalid_request", "`model` is missing", {"messages": []}),
    "an odd model": Refusal(400, "invalid_request", "must be a string", {"model": 3}),
    "an unknown model": Refusal(404, "model_not_found", "Did you mean 'gpt-4o-mini'?", {"model": "gpt-4o-mimi"}),
    "an unlike model": Refusal(404, "model_not_found", "GET /v1/models", {"model": "x"}),
    "a huge model": Refusal(404, "model_not_found", "is not configured", {"model": "gpt-4o-mini" * 100_000}),
    "an unknown path": Refusal(404, "not_found", "GET /openapi.json", HELLO, "/v1/chat/completion"),
    "an unknown model by id": Refusal(404, "model_not_found", "gpt-4o-mini", None, "/v1/models/gpt-4o-mimi", "GET"),
    "the account": Refusal(404, "not_found", "", None, "/v1/organization/users", "GET"),
    "the account without v1": Refusal(404, "not_found", "", None, "/organization/admin_api_keys", "GET"),
    "the account behind dots": Refusal(400, "invalid_request", "dot", None, "/v1/files/../organization/users", "GET"),
    "behind encoded dots": Refusal(400, "invalid_request", "dot", None, "/v1/files/%2e%2e/organization", "GET"),
    "an encoded slash": Refusal(400, "invalid_request", "encoded slash", None, "/v1/models/a%2Fb", "GET"),
    "batches, not named": Refusal(404, "not_found", "general_settings.pass_through", None, "/v1/batches", "GET"),
    "a wrong method": Refusal(405, "method_not_allowed", "takes POST", None, CHAT, "GET"),
    "another wrong method": Refusal(405, "method_not_allowed", "takes POST", HELLO, CHAT, "PATCH"),
    "a wrong method of health": Refusal(404, "not_found", "No route POST /health", {}, "/health", "POST"),
    "a form": Refusal(415, "unsupported_media_type", "JSON", b"--x--", headers=FORM),
    "brotli": Refusal(415, "unsupported_media_type", "gzip", b"x", headers=[("Content-Encoding", "br")]),
    "bad gzip": Refusal(400, "invalid_request", "gzip", b"x", headers=[("Content-Encoding", "gzip")]),
    "another host": Refusal(403, "forbidden", "evil.example", HELLO, headers=[("Host", "evil.example")]),
    "another origin": Refusal(403, "forbidden", "cors_allow_origins", HELLO, headers=[("Origin", "https://a.example")]),
    "a path below health": Refusal(404, "not_found", "", None, "/health/nothing", "GET"),
}
UNTRACED = {"a path below health", "a wrong method of health"}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_is_wrong_and_is_a_whole_trace(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    refusal = REFUSALS[name]

    got = ask(gateway, refusal.body, refusal.path, refusal.headers, method=refusal.method)

    assert (got.status, got.error["code"]) == (refusal.status, refusal.code)
    assert refusal.says in got.error["message"]
    assert upstream.requests == []
    if name in UNTRACED:
        assert gateway.no_record(0.05)
        return
    tree = tree_of(gateway)
    assert tree.server.attributes["error.type"] == refusal.code
    assert tree.server.attributes["http.response.status_code"] == refusal.status
    assert tree.server.attributes["http.response.body.size"] == len(got.body)
    assert not tree.server.failed, "a client error is no error of the server"
    assert (tree.generation, list(tree.attempts)) == (None, [])


def test_a_refused_request_leaves_the_connection_usable(gateway: RunningGateway) -> None:
    with Caller(gateway.port) as caller:
        statuses = []
        for path, body in (("/v1/nothing", {"x": "y" * 100_000}), (CHAT, b"{"), (CHAT, {"model": "x"}), (CHAT, HELLO)):
            caller.send(path, body)
            statuses.append(caller.answer().status)
        assert statuses == [404, 400, 404, 200]
    for _ in statuses:
        gateway.record()


def test_an_error_inside_the_gateway_is_500_and_tells_nothing(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    broken = deployment(upstream.url, transport="no such transport")
    with RunningGateway([broken]) as gateway, caplog.at_level(logging.CRITICAL, "otelgw.http.gateway"):
        got, tree = asked(gateway, HELLO)

    assert (got.status, got.error["code"]) == (500, "internal")
    assert "no such transport" not in got.error["message"]
    assert (tree.server.failed, tree.server.attributes["error.type"]) == (True, "internal")
    assert tree.model.attributes["error.type"] == tree.attempts[0].attributes["error.type"] == "internal"


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {KEY}")],
        [("Authorization", f"bearer {KEY}")],
        [("api-key", KEY)],
        [("x-api-key", KEY)],
        [("x-goog-api-key", KEY)],
        [("x-litellm-api-key", KEY)],
        [("x-litellm-api-key", f"Bearer {KEY}")],
    ],
    ids=lambda headers: f"{headers[0][0]}: {headers[0][1].split()[0]}",
)
def test_the_master_key_is_taken_in_every_usual_header(
    upstream: ScriptedUpstream, headers: list[tuple[str, str]]
) -> None:
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        got, tree = asked(gateway, HELLO, headers=headers)

    assert got.status == 200
    assert tree.server.attributes["otelgw.key.hash"] == LOCKED.master_key_sha256
    assert KEY.encode() not in upstream.requests[0].raw_head
    assert KEY.encode() not in b"".join(gateway.spool.payloads)


@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer sk-wrong")], [("Authorization", f"Basic {KEY}")]])
@pytest.mark.parametrize(
    ("path", "method"), [(CHAT, "POST"), ("/v1/models", "GET"), ("/v1/nothing", "POST"), (CHAT, "GET")]
)
def test_without_the_key_nothing_is_told_and_no_body_is_recorded(
    upstream: ScriptedUpstream, headers: list[tuple[str, str]], path: str, method: str
) -> None:
    body = {**HELLO, "messages": [{"role": "user", "content": "CANARY"}]} if method == "POST" else None
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        got, tree = asked(gateway, body, path, method=method, headers=headers)

    assert (got.status, got.error["code"]) == (401, "unauthorized")
    assert upstream.requests == []
    assert tree.server.attributes["error.type"] == "unauthorized"
    assert b"CANARY" not in b"".join(gateway.spool.payloads)
    assert b"sk-wrong" not in b"".join(gateway.spool.payloads)


# Callers that leave


def test_a_caller_that_leaves_before_the_answer_cancels_the_upstream(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer_with(stall_after(chat(), 0))
    with Caller(gateway.port) as caller:
        caller.send(CHAT, HELLO)
        upstream.wait_until(lambda: upstream.requests)
        caller.hang_up()
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    tree = tree_of(gateway)
    for node in tree.spans:
        assert (node.failed, node.attributes["error.type"]) == (True, "client_disconnect")
    assert "http.response.status_code" not in tree.server.attributes


def test_a_caller_that_leaves_while_its_answer_is_held_cancels_the_upstream(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    script = chat("hello there")
    upstream.answer_with(stall_after(script, head_size(script) + 100))
    with Caller(gateway.port) as caller:
        caller.send(CHAT, HELLO)
        upstream.wait_until(lambda: upstream.requests)
        caller.hang_up()
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    tree = tree_of(gateway)
    assert [node.attributes["error.type"] for node in tree.spans] == ["client_disconnect"] * 3


@pytest.mark.parametrize("politely", [False, True], ids=["RST", "FIN"])
def test_a_caller_that_leaves_a_stream_cancels_the_upstream_and_what_is_known_stays(
    gateway: RunningGateway, upstream: ScriptedUpstream, politely: bool
) -> None:
    stream = sse(chat_events("hello there", include_usage=True))
    upto = sum(len(step.data) for step in stream.steps[:4])  # type: ignore[union-attr]
    upstream.answer_with(stall_after(stream, upto))
    with Caller(gateway.port) as caller:
        caller.send(CHAT, STREAM)
        caller.read_until(b"there")
        if politely:
            caller.socket.close()
        else:
            caller.hang_up()
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    tree = tree_of(gateway)
    assert [node.attributes["error.type"] for node in tree.spans] == ["client_disconnect"] * 3
    assert all(node.failed for node in tree.spans)
    assert tree.server.attributes["http.response.status_code"] == 200
    assert tree.said() == "hello there"
    assert tree.model.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert "gen_ai.usage.output_tokens" not in tree.model.attributes
    assert tree.model.attributes["otelgw.usage.source"] == "none"


def test_a_caller_that_leaves_while_sending_is_recorded(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    with Caller(gateway.port) as caller:
        caller.send(CHAT, b'{"model": "gpt-', length=1000)
        upstream.wait_until(lambda: gateway.gateway.inflight)
        caller.hang_up()

    tree = tree_of(gateway)
    assert (tree.server.failed, tree.server.attributes["error.type"]) == (True, "client_disconnect")
    assert tree.generation is None
    assert upstream.requests == []


def test_a_caller_that_does_not_read_and_then_leaves_is_noticed(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer_with(answer(body=b"x" * 50_000_000, content_type=b"text/plain"))
    with Caller(gateway.port) as caller:
        caller.send(CHAT, HELLO)
        caller.read_until(b"xxx")
        caller.hang_up()
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    assert tree_of(gateway).server.attributes["error.type"] == "client_disconnect"


# Once


def test_every_request_of_a_mixed_load_leaves_one_record(upstream: ScriptedUpstream) -> None:
    def mixed(request: Received) -> Script:
        kind = request.header("x-kind") or ""
        return {
            "ok": chat(),
            "stream": chat_stream(include_usage=True),
            "error": error(500),
            "cut": sse(chat_events(), done=False, ended=False),
            "stall": Script((Stall(),)),
        }[kind]

    upstream.answer_with(mixed)
    kinds = ["ok", "stream", "error", "cut", "stall", "refused"] * 8

    def call(number: int, kind: str) -> None:
        with Caller(gateway.port) as caller:
            call_id = [("x-litellm-call-id", f"call-{number}"), ("x-kind", kind)]
            body = {"model": "x"} if kind == "refused" else STREAM if kind in {"stream", "cut"} else HELLO
            caller.send(CHAT, body, call_id)
            if kind != "stall":
                caller.answer()

    with RunningGateway([deployment(upstream.url)]) as gateway:
        threads = [threading.Thread(target=call, args=pair) for pair in enumerate(kinds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        found = {gateway.record().call_id for _ in kinds}
        assert gateway.no_record(0.1)

    assert found == {f"call-{number}" for number in range(len(kinds))}


# A disk that takes no record


@pytest.mark.parametrize("body", [HELLO, STREAM, {"model": "x"}, b"{"], ids=["whole", "stream", "unknown", "no json"])
def test_a_full_disk_costs_the_record_and_never_the_answer(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        expected = ask(gateway, body)
        gateway.record()
        gateway.spool.failing = OSError(errno.ENOSPC, "No space left on device")
        with caplog.at_level(logging.ERROR, "otelgw.http.gateway"):
            answers = [ask(gateway, body) for _ in range(5)]
        assert gateway.gateway.unspooled == 5
        gateway.spool.failing = None
        ask(gateway, body)
        gateway.record()

    assert [(got.status, got.complete) for got in answers] == [(expected.status, True)] * 5
    written = [record for record in caplog.records if "record not written" in record.message]
    assert [record.message.endswith(f"({n} so far)") for record, n in zip(written, (1, 2, 4), strict=True)] == [
        True
    ] * 3
    assert all("No space left" in record.message for record in written)


def test_numbers_that_the_record_has_no_room_for_cost_nothing(upstream: ScriptedUpstream) -> None:
    huge = {"number": 10**40, "list": [-(10**40)], "small": 7}
    padding = {"role": "user", "content": "x" * 2000}
    with RunningGateway([deployment(upstream.url)], limits=Limits(capture=1000)) as gateway:
        got, tree = asked(gateway, {**HELLO, "messages": [padding], "metadata": huge})

    assert got.status == 200
    assert tree.server.attributes["otelgw.metadata.number"] == str(10**40)
    assert tree.server.attributes["otelgw.metadata.small"] == 7


# Shutdown


def drain(gateway: RunningGateway, seconds: float) -> threading.Thread:
    """Begin to drain; the thread returned ends when that is done."""
    thread = threading.Thread(target=lambda: gateway.call(gateway.gateway.drain(seconds)))
    thread.start()
    return thread


def test_while_draining_new_requests_are_refused_and_streams_finish(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(spaced(sse(chat_events("hello there", include_usage=True)), 0.05))
    with RunningGateway([deployment(upstream.url)]) as gateway, Caller(gateway.port) as running:
        running.send(CHAT, STREAM)
        running.read_until(b"assistant")
        draining = drain(gateway, 10)
        upstream.wait_until(lambda: gateway.gateway.draining)
        with Caller(gateway.port) as late:
            late.send(CHAT, HELLO)
            refused = late.answer()

        finished = running.answer()
        draining.join(10)
        assert not draining.is_alive()
        trees = sorted((tree_of(gateway), tree_of(gateway)), key=lambda tree: tree.server.start)

    assert (refused.status, refused.error["code"]) == (503, "draining")
    assert (refused.header("retry-after"), refused.header("connection")) == ("1", "close")
    assert (finished.complete, finished.body.endswith(b"data: [DONE]\n\n")) == (True, True)
    assert [tree.server.attributes.get("error.type") for tree in trees] == [None, "shutdown"]
    assert (trees[0].model.failed, trees[1].server.failed) == (False, True)
    assert trees[0].usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])


CUT: dict[str, tuple[Any, Script, int]] = {
    "a stream": (STREAM, stall_after(chat_stream("hello"), head_size(chat_stream("hello")) + 300), 200),
    "an answer that is held": (HELLO, stall_after(chat("hello"), head_size(chat("hello")) + 100), 503),
    "an answer that has not begun": (HELLO, Script((Stall(),)), 503),
}


@pytest.mark.parametrize("name", CUT)
def test_what_does_not_end_in_time_is_cut_and_says_so(upstream: ScriptedUpstream, name: str) -> None:
    body, script, status = CUT[name]
    upstream.answer_with(script)
    with RunningGateway([deployment(upstream.url)]) as gateway, Caller(gateway.port) as running:
        running.send(CHAT, body)
        upstream.wait_until(lambda: upstream.requests)
        if status == 200:
            running.read_until(b"assistant")
        drain(gateway, 0.05).join(10)
        got = running.answer()
        tree = tree_of(gateway)
        assert gateway.no_record(0.05)
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    assert (got.status, got.complete) == (status, status == 503)
    if got.complete:
        assert (got.error["code"], got.header("retry-after"), got.header("connection")) == ("draining", "1", "close")
    for node in tree.spans:
        assert (node.failed, node.attributes["error.type"]) == (True, "shutdown")


def test_a_worker_that_retires_goes_on_serving_what_reaches_it(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        gateway.call(gateway.gateway.drain(0.05, refuse=False))

        assert ask(gateway, HELLO).status == 200


# Bodies that nobody wants any more


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
@pytest.mark.parametrize(
    ("path", "status"),
    [(CHAT, 413), ("/v1/nothing", 404), ("/v1/models", 405)],
    ids=["too large", "no route", "method"],
)
def test_a_caller_that_is_still_sending_gets_its_refusal(
    upstream: ScriptedUpstream, kind: str, path: str, status: int
) -> None:
    """A connection closed on unread bytes is reset, and the reset takes the answer with it."""
    body = b'{"model":"gpt-4o-mini","x":"' + b"x" * 20_000_000 + b'"}'
    with RunningGateway([deployment(upstream.url)], limits=Limits(body=1_000_000), server={"kind": kind}) as gateway:
        got, tree = asked(gateway, body, path)

    assert (got.status, got.complete, got.header("connection")) == (status, True, "close")
    assert tree.server.attributes["http.response.status_code"] == status


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
def test_an_upstream_that_answers_before_the_end_of_an_upload_is_heard(upstream: ScriptedUpstream, kind: str) -> None:
    upstream.answer_with(early(error(413, "too big for us")))
    form = [("Content-Type", "multipart/form-data; boundary=B")]
    head = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4o-mini\r\n--B\r\n'
    head += b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with RunningGateway([deployment(upstream.url)], server={"kind": kind}) as gateway:
        with Caller(gateway.port) as caller:
            caller.send("/v1/audio/transcriptions", head + b"x" * 100_000, form, length=100_000_000)
            got = caller.answer()
        tree = tree_of(gateway)

    assert (got.status, got.error["message"]) == (413, "too big for us")
    assert tree.attempts[0].attributes["http.response.status_code"] == 413
