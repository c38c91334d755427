"""Request bodies of the upstream client: streamed, large, and those that an answer overtakes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, failure_of, read, reused
from tests.servers.upstream import (
    Pause,
    Script,
    ScriptedUpstream,
    Send,
    Stall,
    chat,
    chat_body,
    early,
    error,
    head_size,
    payload,
)

run = upstream_calls.run
_CHAT = chat()
_HEAD = head_size(_CHAT)


async def body_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


def test_a_streamed_body_goes_out_chunked_and_whole(run: Run) -> None:
    pieces = [b"--boundary\r\n", b"", b"x" * 300_000, b"\r\n--boundary--"]

    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            assert (await client.ask(body_of(*pieces)))[0] == 200
            assert (await client.ask())[0] == 200
            received = upstream.requests[0]
            assert received.body == b"".join(pieces)
            assert received.header("transfer-encoding") == "chunked"
            assert received.header("content-length") is None
            assert reused(upstream) == [1, 1]

    run(main())


def test_a_streamed_body_of_known_length_goes_out_plain(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            assert (await client.ask(body_of(b"abc", b"de"), length=5))[0] == 200
            received = upstream.requests[0]
            assert received.body == b"abcde"
            assert received.header("transfer-encoding") is None

    run(main())


@pytest.mark.parametrize("length", [4, 6])
def test_a_streamed_body_of_another_length_than_announced_is_never_taken_for_whole(run: Run, length: int) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            with pytest.raises(ValueError, match=f"not {length} bytes"):
                await client.ask(body_of(b"abc", b"de"), length=length)
            await upstream.eventually(lambda: upstream.open_connections == 0)
            assert not any(request.complete for request in upstream.requests)

    run(main())


def test_a_streamed_body_that_fails_fails_the_call_and_closes_the_socket(run: Run) -> None:
    async def hung_up() -> AsyncIterator[bytes]:
        yield b"part"
        raise ConnectionAbortedError("the caller left")

    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            with pytest.raises(ConnectionAbortedError, match="the caller left"):
                await client.send(hung_up())
            await upstream.eventually(lambda: upstream.requests and upstream.requests[0].aborted_at)
            assert not upstream.requests[0].complete
            assert client.connections == 0

    run(main())


def test_a_large_body_arrives_whole(run: Run) -> None:
    body = os.urandom(1 << 20) * 8

    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            assert (await client.ask(body))[0] == 200
            assert upstream.requests[0].body == body
            assert (await client.ask())[0] == 200

    run(main())


def test_an_early_refusal_ends_the_sending(run: Run) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 1000
            await asyncio.sleep(0.001)

    async def main() -> None:
        async with ScriptedUpstream(early(error(413))) as upstream, Client(upstream.url) as client:
            response = await client.send(endless())
            assert (response.status_code, len(await read(response)) > 0) == (413, True)
            before = given
            await asyncio.sleep(0.02)
            assert given == before
            await upstream.eventually(lambda: upstream.open_connections == 0)

    run(main())


def test_an_early_success_waits_for_the_body_to_be_sent(run: Run) -> None:
    given: list[int] = []

    async def slow() -> AsyncIterator[bytes]:
        for n in range(4):
            await asyncio.sleep(0.02)
            given.append(n)
            yield b"piece"

    async def main() -> None:
        script = chat()
        eager = early(Script((Send(payload(script)[:_HEAD]), Pause(0.2), Send(payload(script)[_HEAD:]))))
        async with ScriptedUpstream(eager) as upstream, Client(upstream.url) as client:
            response = await client.send(slow())
            assert given == [0, 1, 2, 3]
            assert await read(response) == chat_body()

    run(main())


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(1 << 16)
        await asyncio.sleep(0)


def test_an_early_success_that_ends_before_the_body_ends_the_sending(run: Run) -> None:
    async def main() -> None:
        eager = early(Script((Send(payload(_CHAT)[:_HEAD]), Pause(0.05), Send(payload(_CHAT)[_HEAD:]), Stall())))
        async with ScriptedUpstream(eager) as upstream, Client(upstream.url) as client:
            async with asyncio.timeout(5):
                assert await client.ask(endless()) == (200, chat_body())
            assert client.connections == 0

    run(main())


def test_a_success_without_end_to_a_body_that_nobody_takes_times_out(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            async with Client(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
                task = asyncio.create_task(client.ask(endless(), total=0.4))
                peer, _ = await asyncio.to_thread(server.accept)
                with peer:
                    await asyncio.to_thread(peer.recv, 1000)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
                    async with asyncio.timeout(5):
                        assert (await failure_of(task)).error_type == "upstream_timeout_total"

    run(main())
