"""Callers that send or read too slowly are cut; those that are merely slow get everything."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from otelgw.config.settings import Limits
from tests.http.wire import CHAT, Wire, chat_request
from tests.servers.gateway import GatewayProcess, RunningGateway, deployment
from tests.servers.upstream import Script, ScriptedUpstream, Send, answer

ECHO = deployment("http://127.0.0.1:9", alias="echo", transport="echo", provider="echo")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
FAST = Limits(request_head=0.4, request_body_idle=0.4, request_body_rate=1000, response_idle=0.4)
BIG = 64 * 1024 * 1024


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def gateway(request: pytest.FixtureRequest) -> Iterator[RunningGateway]:
    with RunningGateway([ECHO], server={"kind": request.param, "keep_alive": 1.0}, limits=FAST) as running:
        yield running


def _drip(wire: Wire, first: bytes, drop: bytes) -> None:
    wire.send(first)
    with contextlib.suppress(OSError):
        while True:
            time.sleep(0.05)
            wire.send(drop)


SLOW: dict[str, Callable[[Wire], None]] = {
    "nothing": lambda wire: None,
    "half-a-request-line": lambda wire: wire.send(b"POST /v1"),
    "half-a-head": lambda wire: wire.send(HEAD),
    "dripping-head": lambda wire: _drip(wire, HEAD, b"X: y\r\n"),
    "no-body": lambda wire: wire.send(HEAD + b"Content-Length: 10\r\n\r\n"),
    "half-a-body": lambda wire: wire.send(HEAD + b"Content-Length: 100\r\n\r\n" + CHAT[:50]),
    "dripping-body": lambda wire: _drip(wire, HEAD + b"Content-Length: 100\r\n\r\n", b" "),
    "dripping-chunks": lambda wire: _drip(wire, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "idle-after-an-answer": lambda wire: (wire.send(chat_request()), wire.answer(), None)[-1],
    "half-a-head-after-an-answer": lambda wire: (wire.send(chat_request() + HEAD), wire.answer(), None)[-1],
    "half-the-preface": lambda wire: wire.send(b"PRI * HTTP/2.0\r\n"),
    "only-the-preface": lambda wire: wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
}


def _received(port: int, shape: str) -> bytes:
    """Return what came on a connection, but for the answer to a whole request, until it was closed."""
    with Wire(port) as wire:
        sender = threading.Thread(target=SLOW[shape], args=(wire,), daemon=True)
        sender.start()
        if shape.endswith("after-an-answer"):
            sender.join()
        received = wire.rest()
        wire.socket.close()
        sender.join(5)
        assert not sender.is_alive()
        return received


@pytest.fixture(scope="module")
def outcomes(gateway: RunningGateway) -> dict[str, bytes]:
    """All shapes at once, so that the tests wait for the slowest only."""
    with futures.ThreadPoolExecutor(len(SLOW)) as pool:
        return dict(zip(SLOW, pool.map(lambda shape: _received(gateway.port, shape), SLOW), strict=True))


@pytest.mark.parametrize("shape", SLOW)
def test_a_caller_that_sends_too_slowly_is_cut(outcomes: dict[str, bytes], shape: str) -> None:
    received = outcomes[shape]
    if "head" in shape or "body" in shape or "chunks" in shape:
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in received.lower()
    else:
        assert not received.startswith(b"HTTP/1.1 2")


def _stalled(kind: str, limits: Limits, check: Callable[[RunningGateway, ScriptedUpstream, Wire], Any]) -> None:
    body = answer(body=b"x" * BIG, content_type=b"text/plain")
    with (
        ScriptedUpstream(body) as upstream,
        RunningGateway([deployment(upstream.url, alias="echo")], server={"kind": kind}, limits=limits) as gateway,
        Wire(gateway.port, receive_buffer=16 * 1024) as wire,
    ):
        wire.send(chat_request())
        check(gateway, upstream, wire)


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
def test_a_caller_that_does_not_read_stops_the_upstream_and_is_cut(kind: str) -> None:
    def check(gateway: RunningGateway, upstream: ScriptedUpstream, _wire: Wire) -> None:
        upstream.wait_until(lambda: upstream.requests and upstream.requests[0].aborted_at)
        record = gateway.record()
        assert record.error_type == "client_disconnect"
        assert 0 < record.sent_bytes < BIG / 4

    _stalled(kind, FAST, check)


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
def test_a_caller_that_reads_slowly_gets_everything(kind: str) -> None:
    """Also the end of it, which is still in buffers when the gateway wants to close the connection."""
    size = 3 * 1024 * 1024 // 2
    script = answer(body=b"y" * size, content_type=b"text/plain")
    with (
        ScriptedUpstream(script) as upstream,
        RunningGateway([deployment(upstream.url, alias="echo")], server={"kind": kind}, limits=FAST) as gateway,
        Wire(gateway.port, receive_buffer=16 * 1024) as wire,
    ):
        wire.send(chat_request(CHAT, b"Connection: close"))
        received = 0
        while data := wire.socket.recv(64 * 1024):
            received += len(data)
            time.sleep(0.01)
        assert received > size
        assert gateway.record().error_type == ""


@contextlib.contextmanager
def _many_descriptors(wanted: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < wanted:
        pytest.skip(f"only {before[1]} file descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _rss(pid: int) -> int:
    """Return a process' resident memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


CONFIG = """
model_list:
  - model_name: big
    litellm_params: {{model: openai/big, api_base: "{url}/v1", api_key: sk-canary}}
otelgw:
  destinations: [console]
  server: {{drain: 0}}
"""
STREAMS = 500
BOUND = 1280 * 1024  # bytes of one stream whose caller does not read; docs/reference/limits.md says so


def test_500_streams_whose_callers_do_not_read_take_bounded_memory(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    event = b"data: " + b"z" * 8000 + b"\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    endless = Script((Send(head), *(Send(event * 8) for _ in range(1000))))
    request = chat_request(CHAT.replace(b'"echo"', b'"big","stream":true'))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_many_descriptors(4 * STREAMS))
        upstream = stack.enter_context(ScriptedUpstream(endless))
        with GatewayProcess(CONFIG.format(url=upstream.url), tmp_path) as gateway:
            (worker,) = gateway.children("otelgw.worker")
            before = _rss(worker)
            sockets = []
            for _ in range(STREAMS):
                sock = socket.socket()
                stack.callback(sock.close)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", gateway.port))
                sock.sendall(request)
                sockets.append(sock)
            gateway.wait_until(lambda: len(upstream.requests) == STREAMS, 60)
            grown = [0, 1]
            while grown[-1] > grown[-2]:
                # Until no more fits anywhere.
                time.sleep(0.5)
                grown.append(_rss(worker) - before)
            assert max(grown) < Limits().capture_memory + STREAMS * BOUND, f"{max(grown) >> 20} MiB"
            with Wire(gateway.port) as wire:
                wire.send(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                reply = wire.answer()
                assert reply is not None
                assert reply.status == 200
