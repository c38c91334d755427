"""How long an upstream may take for what, and that none of it holds up anything else."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from otelgw.config.settings import Limits, Timeouts
from tests.http.caller import CHAT, HELLO, STREAM, Answer, Caller, ask, asked
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import (
    Received,
    Script,
    ScriptedUpstream,
    Stall,
    answer,
    chat,
    chat_body,
    chat_events,
    spaced,
    split_every,
    sse,
)


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
def test_a_slow_answer_within_its_time_is_no_failure(upstream: ScriptedUpstream, body: Any) -> None:
    """More time in all than between two pieces."""
    script = sse(chat_events("one two three four")) if body is STREAM else answer(body=chat_body("x" * 100))
    upstream.answer_with(spaced(split_every(script, 150) if body is HELLO else script, 0.05))
    patience = Timeouts(first_byte=0.3, idle=0.3, total=10)
    with RunningGateway([deployment(upstream.url, timeouts=patience)]) as gateway:
        got, tree = asked(gateway, body)

    assert (got.status, got.complete) == (200, True)
    assert not tree.server.failed


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_whole_may_not_take_longer_than_its_total(upstream: ScriptedUpstream, stream: bool) -> None:
    script = sse(chat_events("word " * 100)) if stream else answer(body=chat_body("word " * 100))
    upstream.answer_with(spaced(script if stream else split_every(script, 10), 0.02))
    patience = Timeouts(first_byte=5, idle=5, total=0.3)
    with RunningGateway([deployment(upstream.url, timeouts=patience)]) as gateway:
        got, tree = asked(gateway, STREAM if stream else HELLO)

    assert (got.status, got.complete) == ((200, False) if stream else (504, True))
    for node in tree.spans:
        assert node.attributes["error.type"] == "upstream_timeout_total"
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)


def test_a_connection_that_is_not_to_be_had_is_504(upstream: ScriptedUpstream) -> None:
    """All connections of a small pool are taken."""
    upstream.answer_with(Script((Stall(),)))
    patience = Timeouts(connect=0.2, first_byte=0.8, idle=5)
    limits = Limits(upstream_connections=1)
    with RunningGateway([deployment(upstream.url, timeouts=patience)], limits=limits) as gateway:
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(gateway, HELLO))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        trees = [gateway.record() for _ in threads]

    assert sorted(got.error["code"] for got in answers) == [
        "upstream_timeout_connect",
        "upstream_timeout_connect",
        "upstream_timeout_first_byte",
    ]
    assert {got.status for got in answers} == {504}
    assert sorted(record.attempts[0].error_type for record in trees) == sorted(record.error_type for record in trees)
    assert len(upstream.requests) == 1


def test_requests_that_wait_do_not_hold_up_others(upstream: ScriptedUpstream) -> None:
    def answered(request: Received) -> Script:
        return Script((Stall(),)) if request.header("x-stall") else chat("quick")

    upstream.answer_with(answered)
    with RunningGateway([deployment(upstream.url)]) as gateway:
        slow = [Caller(gateway.port) for _ in range(20)]
        for caller in slow:
            caller.send(CHAT, HELLO, [("x-stall", "1")])
        upstream.wait_until(lambda: len(upstream.requests) == 20)
        quick = [ask(gateway, HELLO) for _ in range(10)]
        upstream.wait_until(lambda: len(gateway.gateway.inflight) == 20)
        for caller in slow:
            caller.hang_up()
        records = [gateway.record() for _ in range(30)]

    assert [got.status for got in quick] == [200] * 10
    assert sorted(record.error_type for record in records) == [""] * 10 + ["client_disconnect"] * 20
