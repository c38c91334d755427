"""Calls of the upstream client that are given up: the socket is closed, and nothing leaks."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, chunks, reused
from tests.servers.upstream import (
    Certificate,
    Script,
    ScriptedUpstream,
    Stall,
    chat,
    chat_stream,
    early,
    head_size,
    spaced,
    stall_after,
)

run = upstream_calls.run
certificate = upstream_calls.certificate


def test_a_response_closed_before_its_end_closes_the_socket(run: Run) -> None:
    async def main() -> None:
        stalling = stall_after(chat_stream(), 400)
        async with ScriptedUpstream([stalling, chat()]) as upstream, Client(upstream.url) as client:
            response = await client.send()
            await anext(chunks(response))
            await response.aclose()
            await upstream.eventually(lambda: upstream.requests[0].aborted_at)
            await response.aclose()
            assert (await client.ask())[0] == 200
            assert reused(upstream) == [1, 2]

    run(main())


def test_a_cancelled_wait_closes_the_socket_wherever_it_is(run: Run) -> None:
    script = chat_stream()

    async def forever() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    async def main() -> None:
        for stage in range(3):
            stalling = [Script((Stall(),)), stall_after(script, head_size(script) + 30), early(Script((Stall(),)))][
                stage
            ]
            async with ScriptedUpstream(stalling) as upstream, Client(upstream.url) as client:
                task = asyncio.create_task(client.ask(forever() if stage == 2 else b"{}"))
                await upstream.eventually(lambda: upstream.requests)
                await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await upstream.eventually(lambda: upstream.requests[0].aborted_at)
                assert client.connections == 0

    run(main())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_nothing_leaks_at_whatever_moment_a_call_is_cancelled(certificate: Certificate) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    async def main() -> None:
        context = ssl.create_default_context(cafile=certificate.ca)
        async with ScriptedUpstream(spaced(chat_stream(), 0.001), tls=certificate.server_context()) as upstream:
            async with Client(upstream.url, ssl_context=context) as client:
                await client.ask()
                before = descriptors()
                for step in range(60):
                    task = asyncio.create_task(client.ask(fresh=True))
                    await asyncio.sleep(step * 0.0002)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                assert client.connections < 60
            await upstream.eventually(lambda: upstream.open_connections == 0)
            assert client.connections == 0
            gc.collect()
            assert descriptors() < before

    for runner in (asyncio.run, uvloop.run):
        runner(main())
