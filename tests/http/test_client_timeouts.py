"""The deadlines of an upstream call, each under its name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from otelgw.config.settings import Limits
from otelgw.http.client import build_request
from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, failure_of, read
from tests.servers.upstream import (
    Script,
    ScriptedUpstream,
    Send,
    Stall,
    answer,
    chat,
    chat_stream,
    head_size,
    spaced,
    stall_after,
)

run = upstream_calls.run
_CHAT = chat()
_HEAD = head_size(_CHAT)

TIMEOUTS: dict[str, tuple[Script, dict[str, float], str]] = {
    "connect": (Script((Stall(),)), {"connect": 0.05}, "connect"),
    "first byte": (Script((Stall(),)), {"first_byte": 0.05}, "first_byte"),
    "first byte, head begun": (stall_after(chat(), 20), {"first_byte": 0.05}, "first_byte"),
    "first byte after 100": (Script((Send(b"HTTP/1.1 100 C\r\n\r\n"), Stall())), {"first_byte": 0.05}, "first_byte"),
    "idle": (stall_after(chat(), _HEAD + 9), {"idle": 0.05}, "idle"),
    "idle is shorter than first byte": (
        spaced(stall_after(chat(), _HEAD + 9), 0.08),
        {"idle": 0.15, "first_byte": 2.0},
        "idle",
    ),
    "total": (spaced(chat_stream("one two three four five six"), 0.04), {"total": 0.15, "idle": 1.0}, "total"),
    "total before the head": (Script((Stall(),)), {"total": 0.05}, "total"),
    "httpx's read": (Script((Stall(),)), {"read": 0.05}, "first_byte"),
}


@pytest.mark.parametrize("case", TIMEOUTS)
def test_each_timeout_ends_the_call_under_its_name(run: Run, case: str) -> None:
    script, timeout, name = TIMEOUTS[case]

    async def main() -> None:
        limits = Limits(upstream_connections=1)
        async with ScriptedUpstream(script) as upstream, Client(upstream.url, limits) as client:
            if case == "httpx's read":
                request = build_request("POST", httpx.URL(upstream.url), [], b"", timeout=timeout)
                failure = await failure_of(client.transport.handle_async_request(request))
            elif case == "connect":  # the only connection is busy
                busy = asyncio.create_task(client.send())
                await upstream.eventually(lambda: upstream.requests)
                failure = await failure_of(client.ask(**timeout))
                busy.cancel()
                await asyncio.gather(busy, return_exceptions=True)
            else:
                failure = await failure_of(client.ask(**timeout))
            assert failure.error_type == f"upstream_timeout_{name}"
            assert f"{next(iter(timeout.values())):g} s" in failure.message
            await upstream.eventually(lambda: upstream.open_connections == 0)
            assert client.connections == 0

    run(main())


def test_silence_that_is_the_readers_fault_is_not_the_upstreams(run: Run) -> None:
    body = bytes(8 << 20)

    async def main() -> None:
        async with ScriptedUpstream(answer(body=body)) as upstream, Client(upstream.url) as client:
            response = await client.send(idle=0.25)
            await asyncio.sleep(0.5)
            assert len(await read(response)) == len(body)

    run(main())


def test_an_upstream_that_takes_no_more_of_the_body_is_idle(run: Run) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 18)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with Client(f"http://127.0.0.1:{silent.getsockname()[1]}") as client:
                failure = await failure_of(client.send(endless(), idle=0.1))
                assert failure.error_type == "upstream_timeout_idle"

    run(main())
