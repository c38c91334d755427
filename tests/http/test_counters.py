"""What ends before it reaches the application leaves no trace, and is counted."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from otelgw.config.settings import Limits
from otelgw.http.counters import Counters
from tests.servers.gateway import RunningGateway, deployment

ECHO = deployment("http://127.0.0.1:1", alias="echo", transport="echo")
SERVERS = pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def said(gateway: RunningGateway, text: bytes) -> bytes:
    """Return the first of what is answered to ``text``."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as caller:
        caller.sendall(text)
        return caller.recv(65536)


@SERVERS
def test_what_is_no_http_is_counted_once_each(kind: str) -> None:
    with RunningGateway([ECHO], server={"kind": kind}) as gateway:
        for text in (b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"):
            assert said(gateway, text).startswith(b"HTTP/1.1 400")

        eventually(lambda: gateway.gateway.counters == Counters(refused=2))
        assert gateway.spool.records.empty()


@SERVERS
def test_a_head_that_comes_too_slowly_is_a_timeout_and_no_refusal(kind: str) -> None:
    with RunningGateway([ECHO], server={"kind": kind}, limits=Limits(request_head=0.2)) as gateway:
        assert said(gateway, b"GET / HTTP/1.1\r\nHost: a\r\n").startswith(b"HTTP/1.1 408")

        eventually(lambda: gateway.gateway.counters == Counters(timeouts=1))


@SERVERS
def test_a_request_that_the_gateway_answers_is_not_among_them(kind: str) -> None:
    with RunningGateway([ECHO], server={"kind": kind}) as gateway:
        assert said(gateway, b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").startswith(b"HTTP/1.1 404")
        assert gateway.record().status == 404
        assert gateway.gateway.counters == Counters()
