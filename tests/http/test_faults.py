"""Upstreams that fail at every stage: what the caller sees, and what the trace says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otelgw.config.settings import Timeouts
from tests.e2e.tree import Tree
from tests.http.caller import CHAT, HELLO, STREAM, Answer, Caller, asked, tree_of
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import (
    USAGE,
    Close,
    Received,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    answer,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    close_after,
    error,
    head_size,
    make_certificate,
    on_accept,
    payload,
    refused_port,
    reset_after,
    sse,
    stall_after,
)

BIG = chat_body("x" * 2_000_000)
QUICK = Timeouts(connect=0.5, first_byte=0.25, idle=0.25, total=5)


class Fault(NamedTuple):
    """What an upstream does, and what has to come of it.

    ``status`` is the caller's, ``cut`` says that the answer does not end; ``error_type`` is that of the generation, of
    the attempt and, but for a client error, of SERVER.
    """

    script: Script
    body: Any
    status: int
    error_type: str
    cut: bool = False


def _in_body(script: Script, size: int = 300) -> int:
    return head_size(script) + size


WHOLE, STREAMED, LARGE = chat("hello there"), chat_stream("hello there", include_usage=True), answer(body=BIG)
FAULTS: dict[str, Fault] = {
    "reset after the request": Fault(Script((Reset(),)), HELLO, 502, "upstream_reset"),
    "closed after the request": Fault(Script((Close(),)), HELLO, 502, "upstream_reset"),
    "reset in the head": Fault(reset_after(WHOLE, 20), HELLO, 502, "upstream_reset"),
    "closed in the head": Fault(close_after(WHOLE, 20), HELLO, 502, "upstream_reset"),
    "reset in a held body": Fault(reset_after(WHOLE, _in_body(WHOLE)), HELLO, 502, "upstream_reset"),
    "closed in a held body": Fault(close_after(WHOLE, _in_body(WHOLE)), HELLO, 502, "upstream_truncated"),
    "stall before the head": Fault(stall_after(WHOLE, 0), HELLO, 504, "upstream_timeout_first_byte"),
    "stall in a held body": Fault(stall_after(WHOLE, _in_body(WHOLE)), HELLO, 504, "upstream_timeout_idle"),
    "a head that is none": Fault(Script((Send(b"SSH-2.0-x\r\n\r\n"), Close())), HELLO, 502, "upstream_bad_response"),
    "a head with two lengths": Fault(
        answer(body=b"{}", headers=[(b"Content-Length", b"9")]), HELLO, 502, "upstream_bad_response"
    ),
    "switching protocols": Fault(answer(101, b"", framing="none"), HELLO, 502, "upstream_bad_response"),
    "reset in a big body": Fault(reset_after(LARGE, 1_500_000), HELLO, 200, "upstream_reset", cut=True),
    "closed in a big body": Fault(close_after(LARGE, 1_500_000), HELLO, 200, "upstream_truncated", cut=True),
    "stall in a big body": Fault(stall_after(LARGE, 1_500_000), HELLO, 200, "upstream_timeout_idle", cut=True),
    "stream: reset in the head": Fault(reset_after(STREAMED, 20), STREAM, 502, "upstream_reset"),
    "stream: stall before the head": Fault(stall_after(STREAMED, 0), STREAM, 504, "upstream_timeout_first_byte"),
    "stream: reset": Fault(reset_after(STREAMED, _in_body(STREAMED)), STREAM, 200, "upstream_reset", cut=True),
    "stream: closed": Fault(close_after(STREAMED, _in_body(STREAMED)), STREAM, 200, "upstream_truncated", cut=True),
    "stream: closed between events": Fault(
        sse(chat_events("hello there")[:3], done=False, ended=False), STREAM, 200, "upstream_truncated", cut=True
    ),
    "stream: stall": Fault(stall_after(STREAMED, _in_body(STREAMED)), STREAM, 200, "upstream_timeout_idle", cut=True),
    "stream: an empty one cut": Fault(
        close_after(STREAMED, head_size(STREAMED)), STREAM, 200, "upstream_truncated", cut=True
    ),
    "429": Fault(error(429, headers=[(b"Retry-After", b"7")]), HELLO, 429, "429"),
    "stream: 429": Fault(error(429, headers=[(b"Retry-After", b"7")]), STREAM, 429, "429"),
    "500": Fault(error(500), HELLO, 500, "500"),
    "stream: 500": Fault(error(500), STREAM, 500, "500"),
    "503 without json": Fault(answer(503, b"<html>", content_type=b"text/html"), HELLO, 503, "503"),
    "an error that is cut": Fault(
        close_after(answer(500, b"x" * 999, content_type=b"text/plain"), 600), HELLO, 500, "500", cut=True
    ),
}


@pytest.fixture(scope="module")
def gateway(standing_upstream: ScriptedUpstream) -> Iterator[RunningGateway]:
    with RunningGateway([deployment(standing_upstream.url, timeouts=QUICK)]) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_reaches_the_caller_as_it_is_and_the_trace_says_which(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    fault = FAULTS[name]
    upstream.answer_with(fault.script)

    got, tree = asked(gateway, fault.body)

    assert (got.status, got.complete) == (fault.status, not fault.cut)
    assert_failed(tree, fault)
    assert gateway.spool.records.empty()
    if fault.error_type.startswith("upstream_") and not fault.cut:
        assert got.error["code"] == fault.error_type
        assert f"127.0.0.1:{upstream.port}" in got.error["message"]
    assert_nothing_invented(got, fault)


def assert_failed(tree: Tree, fault: Fault) -> None:
    """SERVER, one generation and its attempts tell the same story."""
    last = tree.attempts[-1]
    for node in (tree.model, last):
        assert node.failed
        assert node.attributes["error.type"] == fault.error_type
    client_error = 400 <= fault.status < 500
    assert tree.server.failed is not client_error
    assert tree.server.attributes["error.type"] == fault.error_type
    assert tree.server.attributes["http.response.status_code"] == fault.status
    assert tree.model.attributes.get("gen_ai.request.stream", False) is (fault.body is STREAM)


def assert_nothing_invented(got: Answer, fault: Fault) -> None:
    """What the caller has of a cut answer is a beginning of what the upstream sent."""
    if not fault.cut:
        return
    sent = payload(fault.script)[head_size(fault.script) :]
    if b"chunked" in payload(fault.script):
        sent = b"".join(event + b"\n\n" for event in re.findall(rb"data: [^\n]*", sent)).replace(b',"usage":null', b"")
    assert sent.startswith(got.body)
    assert b"[DONE]" not in got.body


def test_an_upstream_that_refuses_connections_is_502() -> None:
    port = refused_port()
    with RunningGateway([deployment(f"http://127.0.0.1:{port}")]) as gateway:
        got, tree = asked(gateway, HELLO)
        streamed, _ = asked(gateway, STREAM)

    assert (got.status, streamed.status) == (502, 502)
    assert got.error["code"] == "upstream_connect"
    assert tree.attempts[0].attributes["error.type"] == tree.model.attributes["error.type"] == "upstream_connect"
    assert tree.attempts[0].attributes["server.port"] == port
    assert "http.response.status_code" not in tree.attempts[0].attributes


@pytest.mark.parametrize("ending", [Reset(), Close()], ids=["reset", "closed"])
@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
def test_a_connection_that_ends_as_soon_as_it_is_accepted_is_502(
    gateway: RunningGateway, upstream: ScriptedUpstream, ending: Close | Reset, body: Any
) -> None:
    """Whether it was open for a moment is a matter of luck."""
    upstream.answer_with(on_accept(ending))

    got, tree = asked(gateway, body)

    assert got.status == 502
    found = tree.attempts[-1].attributes["error.type"]
    assert found in {"upstream_connect", "upstream_reset"}
    assert found == got.error["code"] == tree.model.attributes["error.type"] == tree.server.attributes["error.type"]
    assert len([node for node in tree.spans if "gen_ai.operation.name" in node.attributes]) == 1


def test_a_name_that_does_not_resolve_is_502() -> None:
    with RunningGateway([deployment("http://no-such-host.invalid")]) as gateway:
        got, tree = asked(gateway, HELLO)

    assert (got.status, got.error["code"]) == (502, "upstream_dns")
    assert "no-such-host.invalid" in got.error["message"]
    assert tree.attempts[0].attributes["error.type"] == "upstream_dns"
    assert tree.attempts[0].attributes["server.address"] == "no-such-host.invalid"


def test_a_certificate_that_is_not_trusted_is_502(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with (
        ScriptedUpstream(tls=certificate.server_context()) as upstream,
        RunningGateway([deployment(upstream.url)]) as gateway,
    ):
        got, tree = asked(gateway, HELLO)

    assert (got.status, got.error["code"]) == (502, "upstream_tls")
    assert tree.attempts[0].attributes["error.type"] == "upstream_tls"
    assert upstream.requests == []


def test_json_that_is_none_is_passed_on_and_has_no_usage(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(answer(body=b'{"id":"x","choices":['))

    got, tree = asked(gateway, HELLO)

    assert (got.status, got.body, got.complete) == (200, b'{"id":"x","choices":[', True)
    assert tree.model.attributes["otelgw.usage.source"] == "none"
    assert "gen_ai.usage.input_tokens" not in tree.model.attributes


def test_a_stream_without_its_end_is_no_success(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """As HTTP it is complete; as a stream of events it is not."""
    upstream.answer_with(sse(chat_events("hello there")[:2], done=False))

    got, tree = asked(gateway, STREAM)

    assert got.complete
    assert tree.model.attributes["error.type"] == "upstream_truncated"
    assert tree.model.attributes["gen_ai.response.finish_reasons"] == ["error"]


def test_a_cut_stream_keeps_what_is_known_of_it(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    events = chat_events("hello there")[:3]
    upstream.answer_with(sse(events, done=False, ended=False))

    got, tree = asked(gateway, STREAM)

    assert got.body == b"".join(events)
    assert tree.said() == "hello there"
    assert tree.model.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert tree.model.attributes["gen_ai.response.id"] == "chatcmpl-scripted"


# Connections that the upstream has closed meanwhile


def reluctant() -> Callable[[Received], Script]:
    """Answer once a connection, and close it without a word when it is used again."""
    seen: set[int] = set()

    def answered(request: Received) -> Script:
        if request.connection in seen:
            return Script((Close(),))
        seen.add(request.connection)
        body = request.json()
        return chat_stream("again") if body.get("stream") else chat("again")

    return answered


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
def test_a_connection_that_went_stale_is_replaced_at_once(upstream: ScriptedUpstream, body: Any) -> None:
    upstream.answer_with(reluctant())
    with RunningGateway([deployment(upstream.url)]) as gateway:
        first, _ = asked(gateway, body)
        second, tree = asked(gateway, body)

    assert (first.status, second.status, second.body) == (200, 200, first.body)
    stale, good = tree.attempts
    assert stale.attributes["error.type"] == "upstream_reset"
    assert good.attributes["otelgw.attempt.retry_reason"] == "stale_connection"
    assert good.attributes["http.request.resend_count"] == 1
    assert not tree.model.failed
    assert second.header("x-otelgw-attempted-retries") == "0"


# Retries


def test_attempts_are_children_of_one_generation(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([error(429, headers=[(b"Retry-After", b"0")]), error(500), chat("at last")])
    with RunningGateway([deployment(upstream.url, retries=2)]) as gateway:
        got, tree = asked(gateway, HELLO)

    assert (got.status, got.json()["choices"][0]["message"]["content"]) == (200, "at last")
    assert got.header("x-litellm-attempted-retries") == "2"
    facts = [
        (
            node.attributes["http.response.status_code"],
            node.attributes.get("http.request.resend_count"),
            node.attributes.get("otelgw.attempt.retry_reason"),
            node.attributes["otelgw.attempt.number"],
            node.attributes.get("error.type"),
        )
        for node in tree.attempts
    ]
    assert facts == [(429, None, None, 1, "429"), (500, 1, "429", 2, "500"), (200, 2, "500", 3, None)]
    assert tree.model.attributes["otelgw.attempts"] == 3
    assert not tree.model.failed
    assert not tree.server.failed
    assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert [request.body for request in upstream.requests] == [json.dumps(HELLO).encode()] * 3


def test_the_last_answer_is_the_callers_when_retries_are_used_up(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([error(500), error(503, "the last one", headers=[(b"Retry-After", b"3")])])
    with RunningGateway([deployment(upstream.url, retries=1)]) as gateway:
        got, tree = asked(gateway, STREAM)

    assert (got.status, got.error["message"], got.header("retry-after")) == (503, "the last one", "3")
    assert [node.attributes["error.type"] for node in tree.attempts] == ["500", "503"]
    assert tree.model.attributes["error.type"] == "503"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_an_error_of_the_caller_is_not_repeated(upstream: ScriptedUpstream, status: int) -> None:
    upstream.answer_with([error(status), chat()])
    with RunningGateway([deployment(upstream.url, retries=3)]) as gateway:
        got, tree = asked(gateway, HELLO)

    assert got.status == status
    assert len(tree.attempts) == 1


def test_an_upstream_that_asks_for_a_long_wait_is_not_asked_again(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([error(429, headers=[(b"Retry-After", b"3600")]), chat()])
    with RunningGateway([deployment(upstream.url, retries=3)]) as gateway:
        got, tree = asked(gateway, HELLO)

    assert (got.status, got.header("retry-after"), len(tree.attempts)) == (429, "3600", 1)


def test_another_deployment_of_the_model_is_asked_in_place_of_one_that_is_busy(upstream: ScriptedUpstream) -> None:
    """Whichever is asked first, the wait that it names does not hold up the other."""
    with (
        ScriptedUpstream(error(429, headers=[(b"Retry-After", b"3600")])) as busy,
        RunningGateway(
            [
                deployment(busy.url, id="busy", retries=1),
                deployment(upstream.url, id="free", retries=1),
            ]
        ) as gateway,
    ):
        answers = [asked(gateway, HELLO) for _ in range(12)]

    assert {got.status for got, _ in answers} == {200}
    assert {got.header("x-otelgw-model-id") for got, _ in answers} == {"free"}
    assert {len(tree.attempts) for _, tree in answers} == {1, 2}
    ports = {tuple(node.attributes["server.port"] for node in tree.attempts) for _, tree in answers}
    assert ports == {(busy.port, upstream.port), (upstream.port,)}


def test_a_deployment_that_cannot_be_reached_is_replaced(upstream: ScriptedUpstream) -> None:
    dead = f"http://127.0.0.1:{refused_port()}"
    with RunningGateway([deployment(dead, retries=1), deployment(upstream.url, retries=1)]) as gateway:
        answers = [asked(gateway, STREAM) for _ in range(12)]

    assert {got.status for got, _ in answers} == {200}
    reasons = {node.attributes.get("otelgw.attempt.retry_reason") for _, tree in answers for node in tree.attempts}
    assert reasons == {None, "upstream_connect"}


@pytest.mark.parametrize(
    "script",
    [
        close_after(STREAMED, _in_body(STREAMED)),
        reset_after(LARGE, 1_500_000),
        close_after(WHOLE, _in_body(WHOLE)),
        stall_after(WHOLE, 0),
    ],
    ids=["a cut stream", "a cut big answer", "a cut held answer", "silence"],
)
def test_what_may_have_been_answered_already_is_not_repeated(upstream: ScriptedUpstream, script: Script) -> None:
    upstream.answer_with([script, chat()])
    with RunningGateway([deployment(upstream.url, retries=3, timeouts=QUICK)]) as gateway:
        _, tree = asked(gateway, STREAM)

    assert len(tree.attempts) == len(upstream.requests) == 1


def test_nobody_is_asked_again_after_the_caller_left(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([error(503, headers=[(b"Retry-After", b"9")]), chat()])
    with RunningGateway([deployment(upstream.url, retries=1)]) as gateway:
        with Caller(gateway.port) as caller:
            caller.send(CHAT, HELLO)
            upstream.wait_until(lambda: upstream.requests and upstream.requests[0].answered_at)
            caller.hang_up()
        tree = tree_of(gateway)

    assert len(upstream.requests) == 1
    assert tree.model.attributes["error.type"] == "client_disconnect"
    assert tree.attempts[0].attributes["error.type"] == "503"
