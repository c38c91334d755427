from __future__ import annotations

import asyncio
import socket

import pytest

from otelgw_collector.listening import stop_accepting


async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"served")
    writer.close()


@pytest.mark.parametrize("steps", range(2, 8))
def test_a_connection_that_is_accepted_as_the_server_stops_is_served(steps: int) -> None:
    """Of the loop's steps the first two are: to see the connection, and to accept it."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        (listener,) = server.sockets
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            for _ in range(steps):
                await asyncio.sleep(0)
            await stop_accepting(listener.fileno())
            server.close()
            async with asyncio.timeout(5):
                return await loop.sock_recv(client, 100)

    assert asyncio.run(main()) == b"served"


def test_a_connection_that_comes_later_is_refused_not_kept_waiting() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        (listener,) = server.sockets
        await stop_accepting(listener.fileno())
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            for _ in range(8):
                await asyncio.sleep(0)
            server.close()
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionResetError):
                    await loop.sock_recv(client, 100)

    asyncio.run(main())
