"""An answer's body as it is taken: whole, or pumped into a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from otelgw.errors import UpstreamError
from otelgw.http.roundtrip import BUFFER, RoundTrip
from tests.http.test_connection import LIMIT, ask, connected

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def begun(trip: RoundTrip, *ways: Callable[[bytes], bool | None]) -> asyncio.Future[bool]:
    """Return the pump into a sink, and the short way where one is given, which waits for what comes."""
    pumping = asyncio.ensure_future(trip.pump(*ways))
    await asyncio.sleep(0)
    return pumping


def test_a_sink_gets_each_chunk_in_the_read_that_brought_it() -> None:
    async def main() -> None:
        connection, _, lender = connected()
        trip = ask(connection)
        connection.data_received(HEAD + chunk(b"before"))
        seen: list[bytes] = []
        pumping = await begun(trip, lambda data: bool(seen.append(data)))
        for part in (b"one", b"two"):
            connection.data_received(chunk(part))
            assert seen[-1] == part
        connection.data_received(b"0\r\n\r\n")
        assert await pumping is False
        assert seen == [b"before", b"one", b"two"]
        assert lender.events == ["released"]

    asyncio.run(main())


def test_a_sink_that_wants_to_wait_misses_nothing_and_the_socket_is_paused_meanwhile() -> None:
    async def main() -> None:
        connection, sock, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)
        seen: list[bytes] = []

        def sink(data: bytes) -> bool:
            seen.append(data)
            return len(seen) == 1

        pumping = await begun(trip, sink)
        connection.data_received(chunk(b"first"))
        connection.data_received(chunk(b"x" * (BUFFER + 1)))
        assert await pumping is True
        assert seen == [b"first"]
        assert not sock.reading
        pumping = await begun(trip, sink)
        assert sock.reading
        connection.data_received(b"0\r\n\r\n")
        assert await pumping is False
        assert b"".join(seen) == b"first" + b"x" * (BUFFER + 1)

    asyncio.run(main())


def test_what_a_sink_raises_ends_the_pump_and_not_the_connection() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)

        def sink(_: bytes) -> bool:
            raise ConnectionResetError("the caller has gone")

        pumping = await begun(trip, sink)
        connection.data_received(chunk(b"first"))
        assert not connection.closed
        with pytest.raises(ConnectionResetError, match="the caller has gone"):
            await pumping
        trip.close()
        assert connection.closed

    asyncio.run(main())


def test_a_pumped_body_that_is_cut_gives_what_came_and_then_the_error() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)
        seen: list[bytes] = []
        pumping = await begun(trip, lambda data: bool(seen.append(data)))
        connection.data_received(chunk(b"first"))
        connection.eof_received()
        with pytest.raises(UpstreamError) as caught:
            await pumping
        assert (seen, caught.value.error_type) == ([b"first"], "upstream_truncated")

    asyncio.run(main())


def test_a_body_is_taken_whole_only_when_all_of_it_is_here_and_no_more_than_asked() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD + chunk(b"one"))
        assert trip.whole(100) is None
        connection.data_received(chunk(b"two") + b"0\r\n\r\n")
        assert trip.whole(5) is None
        assert trip.whole(6) == [b"one", b"two"]
        assert [part async for part in trip] == []

    asyncio.run(main())


def test_a_long_pumped_body_is_not_taken_for_a_head_without_end() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)
        sizes: list[int] = []
        pumping = await begun(trip, lambda data: bool(sizes.append(len(data))))
        for _ in range(10 * LIMIT // 1000):
            connection.data_received(chunk(b"x" * 1000))
        connection.data_received(b"0\r\n\r\n")
        assert await pumping is False
        assert sum(sizes) == 10 * LIMIT // 1000 * 1000

    asyncio.run(main())
