"""HTTP/1.1 as callers may speak it: raw bytes against both servers."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from otelgw.config.settings import Limits
from tests.http.wire import CHAT, Wire, chat_request, chunk
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, chat_stream, close_after, head_size, reset_after

CORPUS = Path(__file__).parents[1] / "data" / "smuggling" / "http1.tsv"
SMUGGLED = b"GET /v1/models/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LAST = b"GET /v1/models/last HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
SHORT = {
    b"{H}": b"Host: 127.0.0.1\r\n",
    b"{J}": CHAT,
    b"{L}": b"%d" % len(CHAT),
    b"{K}": chunk(CHAT[:20]) + chunk(CHAT[20:]),
    b"{E}": chunk(CHAT, b';a=b;c="d"'),
    b"{S}": SMUGGLED,
}
ECHO = deployment("http://127.0.0.1:9", alias="echo", transport="echo", provider="echo")


class Vector(NamedTuple):
    name: str
    expected: str
    data: bytes


def _bytes(text: str) -> bytes:
    data = text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    for short, long in SHORT.items():
        data = data.replace(short, long)
    return re.sub(rb"\{([^{}*]+)\*(\d+)\}", lambda found: found[1] * int(found[2]), data, flags=re.DOTALL)


def _corpus() -> list[Vector]:
    lines = (line for line in CORPUS.read_text().splitlines() if line and not line.startswith("#"))
    return [Vector(name, expected, _bytes(raw)) for name, expected, raw in (line.split("\t") for line in lines)]


VECTORS = _corpus()


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def gateway(request: pytest.FixtureRequest) -> Iterator[RunningGateway]:
    with RunningGateway([ECHO], server={"kind": request.param}) as running:
        yield running


def _paths(gateway: RunningGateway) -> list[str]:
    found = []
    while not gateway.spool.records.empty():
        found.append(gateway.spool.records.get().path)
    return found


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len({vector.data for vector in VECTORS}) == len(VECTORS) >= 60


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name.replace(" ", "-"))
def test_what_can_be_read_in_two_ways_is_refused_and_the_rest_stays_in_step(
    gateway: RunningGateway, vector: Vector
) -> None:
    _paths(gateway)
    outcomes = [part.strip() for part in vector.expected.split(",")]
    in_step = all(part.startswith("served") for part in outcomes)
    with Wire(gateway.port) as wire:
        wire.send(vector.data + (LAST if in_step else b""))
        for outcome in outcomes:
            kind, _, detail = outcome.partition(" ")
            if kind == "served":
                for _ in range(int(detail)):
                    answer = wire.answer()
                    assert answer is not None
                    assert (answer.status, answer.whole) == (200, True), answer
            elif kind == "refused":
                answer = wire.answer()
                assert answer is not None
                assert answer.status >= 400, answer
                assert answer.status == int(detail or answer.status)
                assert answer.headers[b"connection"] == b"close"
                assert b'"error"' in answer.body
        if in_step:
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 404
            assert b"last" in answer.body
        assert wire.is_closed()
    assert [path for path in _paths(gateway) if "smuggled" in path] == []


def test_a_request_byte_by_byte_is_one_request(gateway: RunningGateway) -> None:
    with Wire(gateway.port) as wire:
        for byte in chat_request():
            wire.send(bytes([byte]))
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 200
        wire.send(LAST)
        assert wire.answer() is not None
        assert wire.is_closed()


def test_100_continue_is_sent_when_the_body_is_wanted(gateway: RunningGateway) -> None:
    with Wire(gateway.port) as wire:
        head, _, body = chat_request(CHAT, b"Expect: 100-continue").partition(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")
        assert wire.socket.recv(100).startswith(b"HTTP/1.1 100 ")
        wire.send(body)
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 200


def test_a_head_has_no_body_in_its_answer(gateway: RunningGateway) -> None:
    with Wire(gateway.port) as wire:
        wire.send(b"HEAD /health/liveliness HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + LAST)
        while b"\r\n\r\n" not in wire._buffer:
            assert wire._more()
        head, _, wire._buffer = wire._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"content-length" in head.lower()
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 404


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
def test_an_answer_cut_upstream_is_cut_for_the_caller(kind: str) -> None:
    script = chat_stream("one two three")
    with (
        ScriptedUpstream(reset_after(script, head_size(script) + 400)) as upstream,
        RunningGateway([deployment(upstream.url, alias="echo")], server={"kind": kind}) as gateway,
        Wire(gateway.port) as wire,
    ):
        wire.send(chat_request(CHAT[:-1] + b',"stream":true}'))
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 200
        assert answer.body.startswith(b"data: ")
        assert not answer.whole
        assert wire.is_closed()
        assert gateway.record().error_type in {"upstream_reset", "upstream_truncated"}


def test_an_http_1_0_caller_can_tell_a_cut_answer_from_a_whole_one() -> None:
    script = chat_stream("one two three")
    request = chat_request(CHAT[:-1] + b',"stream":true}').replace(b"HTTP/1.1", b"HTTP/1.0")
    answers = [close_after(script, head_size(script) + 400), script]
    with ScriptedUpstream(answers) as upstream, RunningGateway([deployment(upstream.url, alias="echo")]) as gateway:
        with Wire(gateway.port) as wire:
            wire.send(request)
            with pytest.raises(ConnectionResetError):
                wire.answer()
        with Wire(gateway.port) as wire:
            wire.send(request)
            answer = wire.answer()
            assert answer is not None
            assert b"transfer-encoding" not in answer.headers
            assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
@pytest.mark.parametrize("target", [b"/nowhere", b"/v1/chat/completions"], ids=["404", "413"])
def test_an_early_answer_reaches_a_caller_that_is_still_sending(kind: str, target: bytes) -> None:
    """A socket that is closed with unread data takes the end of the answer with it."""
    size = 8 * 1024 * 1024
    with (
        RunningGateway([ECHO], server={"kind": kind}, limits=Limits(body=1024 * 1024)) as gateway,
        Wire(gateway.port) as wire,
    ):
        wire.send(b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (target, size))

        def upload() -> None:
            try:
                for _ in range(size // 65536):
                    wire.send(b" " * 65536)
            except OSError:
                return

        sender = threading.Thread(target=upload)
        sender.start()
        answer = wire.answer()
        assert answer is not None
        assert answer.status in {404, 413}
        assert answer.whole
        wire.socket.close()
        sender.join(10)
        assert not sender.is_alive()
        with Wire(gateway.port) as other:
            other.send(LAST)
            assert other.answer() is not None


def test_a_chunked_body_above_the_limit_leaves_no_connection_behind(gateway: RunningGateway) -> None:
    """More arrives than the application reads: whoever waits for it to be read waits in vain."""
    with Wire(gateway.port) as wire:
        wire.send(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(200):
                wire.send(chunk(b" " * 8192))
        except OSError:
            pass
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 404


def test_a_caller_that_asks_for_an_upgrade_and_leaves_is_noticed() -> None:
    with (
        ScriptedUpstream(chat_stream("hello")) as upstream,
        RunningGateway([deployment(upstream.url, alias="echo")]) as gateway,
    ):
        from tests.servers.upstream import stall_after

        upstream.answer_with(stall_after(chat_stream("hello"), 0))
        with Wire(gateway.port) as wire:
            wire.send(chat_request(CHAT, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"))
            upstream.wait_until(lambda: upstream.requests)
        upstream.wait_until(lambda: upstream.requests[0].aborted_at)
        assert gateway.record().error_type == "client_disconnect"


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
def test_headers_are_taken_up_to_their_limit_and_not_beyond(kind: str) -> None:
    limit = 2000
    with RunningGateway([ECHO], server={"kind": kind}, limits=Limits(headers=limit)) as gateway:
        fixed = len(b"/v1/models") + len(b"Host127.0.0.1") + 4 + len(b"X") + 4
        for size, status in ((limit - fixed, 200), (limit - fixed + 1, 431)):
            with Wire(gateway.port) as wire:
                wire.send(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX: %b\r\n\r\n" % (b"a" * size))
                answer = wire.answer()
                assert answer is not None
                assert answer.status == status


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def test_no_connection_is_left_behind(gateway: RunningGateway) -> None:
    """Whatever was sent, and however soon the caller left."""
    before = gateway.call(_tasks())
    for vector in VECTORS:
        with Wire(gateway.port) as wire:
            wire.send(vector.data)
    deadline = time.monotonic() + 10
    while gateway.call(_tasks()) > before:
        assert time.monotonic() < deadline, f"{gateway.call(_tasks()) - before} tasks are left"
        time.sleep(0.05)
