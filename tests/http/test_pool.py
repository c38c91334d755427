"""The pool of connections to one origin, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
import uvloop

from otelgw.config.settings import Limits
from otelgw.errors import UpstreamError
from otelgw.http.client import UpstreamTransport, build_request
from otelgw.http.connection import Connection, Origin, Patience
from otelgw.http.pool import Dialer, Pool, _connect, _resolve
from tests.servers.upstream import (
    Close,
    Pause,
    Script,
    ScriptedUpstream,
    Send,
    Stall,
    answer,
    chat,
    on_accept,
    payload,
    refused_port,
)

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


def pool_for(port: int, *, limit: int = 10, keep_alive: float = 4.0, host: str = "127.0.0.1") -> Pool:
    return Pool(Dialer(Origin("http", host, port), head_limit=65536), limit=limit, keep_alive=keep_alive)


async def exchange(connection: Connection, pool: Pool) -> int:
    """Send one request on ``connection`` and read the answer; it is back in the pool then. Return the status."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    trip = connection.send(head, b"", Patience(5, 5, 5), started=connection.loop.time())
    await trip.answered()
    async for _ in trip:
        pass
    return trip.status


def spread(count: int, pool: Pool) -> list[asyncio.Task[Connection]]:
    """Start ``count`` callers, in this order."""
    return [asyncio.create_task(pool.acquire(5), name=str(n)) for n in range(count)]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_connection_used_last_is_lent_first(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port)
            first, second, third = await asyncio.gather(*spread(3, pool))
            for connection in (first, third, second):
                await exchange(connection, pool)
            assert [pool.take() for _ in range(4)] == [second, third, first, None]
            for connection in (first, second, third):
                connection.abort()
            assert pool.size == 0

    run(main())


def test_callers_over_the_limit_are_served_in_the_order_they_came(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port, limit=2)
            busy = [await pool.acquire(5), await pool.acquire(5)]
            waiting = spread(4, pool)
            served: list[str] = []
            for task in waiting:
                task.add_done_callback(lambda task: served.append(task.get_name()))
            await settle()
            assert pool.size == 2
            for _ in range(2):  # one is handed on, the other makes room for a new one
                await exchange(busy[0], pool)
                await settle()
                busy[1].abort()
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                await upstream.eventually(lambda: len(served) % 2 == 0)
                busy = [task.result() for task in waiting if task.done()][-2:]
            assert served == ["0", "1", "2", "3"]
            assert pool.size == 2
            for connection in busy:
                connection.abort()
            assert pool.unused

    run(main())


def test_a_waiting_caller_takes_part_of_the_connect_timeout(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port, limit=1)
            busy = await pool.acquire(5)
            with pytest.raises(UpstreamError, match="waiting for one of 1 connections") as caught:
                await pool.acquire(0.02)
            assert caught.value.error_type == "upstream_timeout_connect"
            assert await exchange(busy, pool) == 200
            assert pool.take() is busy
            busy.abort()
            assert pool.unused

    run(main())


def test_a_cancelled_caller_leaves_its_place_to_the_next(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            for served_first in (False, True):
                for by_release in (False, True):
                    pool = pool_for(upstream.port, limit=1)
                    busy = await pool.acquire(5)
                    first, second = spread(2, pool)
                    await settle()
                    if not served_first:
                        first.cancel()
                    if by_release:
                        trip = busy.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", Patience(), started=0.0)
                        await trip.answered()
                    else:
                        busy.abort()
                    if served_first:
                        first.cancel()
                    connection = await second
                    assert first.cancelled()
                    assert (connection is busy) == by_release
                    assert pool.size == 1
                    connection.abort()
                    assert pool.unused

    run(main())


def test_a_failed_dial_makes_room_for_the_next_caller(run: Run) -> None:
    async def main() -> None:
        pool = pool_for(refused_port(), limit=1)
        results = await asyncio.gather(*spread(3, pool), return_exceptions=True)
        assert [getattr(result, "error_type", result) for result in results] == ["upstream_connect"] * 3
        assert pool.unused

    run(main())


def test_a_connection_that_ends_while_it_is_opened_is_not_lent(run: Run) -> None:
    class Unlucky(Dialer):
        async def dial(self, loop: asyncio.AbstractEventLoop) -> Connection:
            connection = await super().dial(loop)
            connection.data_received(b"220 I speak first\r\n")
            return connection

    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            dialer = Unlucky(Origin("http", "127.0.0.1", upstream.port), head_limit=4096)
            pool = Pool(dialer, limit=1, keep_alive=1)
            with pytest.raises(UpstreamError, match="as soon as it was open"):
                await pool.acquire(5)
            assert pool.unused

    run(main())


def test_a_connection_that_dies_while_it_is_handed_on_is_replaced(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port, limit=1)
            busy = await pool.acquire(5)
            (waiting,) = spread(1, pool)
            await settle()
            busy.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", Patience(), started=0.0)
            busy.data_received(payload(chat()))  # handed to the waiting caller, which has not run yet
            busy.abort()
            connection = await waiting
            assert connection is not busy
            assert connection.usable
            assert pool.size == 1
            connection.abort()
            assert pool.unused

    run(main())


def test_a_caller_that_wants_a_fresh_connection_gets_one_in_line(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port, limit=1)
            busy = await pool.acquire(5)
            waiting = asyncio.create_task(pool.acquire(5, fresh=True))
            await settle()
            await exchange(busy, pool)
            connection = await waiting
            assert connection is not busy
            assert connection.served == 0
            assert busy.closed
            assert pool.size == 1
            connection.abort()

    run(main())


def test_idle_connections_expire(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port, keep_alive=0.05)
            for connection in await asyncio.gather(*spread(3, pool)):
                await exchange(connection, pool)
            assert upstream.open_connections == 3
            await upstream.eventually(lambda: upstream.open_connections == 0)
            assert pool.unused

    run(main())


def test_an_expired_connection_is_not_lent_even_if_it_was_not_swept_yet(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port)
            connection = await pool.acquire(5)
            await exchange(connection, pool)
            connection.expires = connection.loop.time() - 0.001
            assert pool.take() is None
            assert connection.closed

    run(main())


@pytest.mark.parametrize(("timeout", "kept"), [(1, 0.0), (3, 2.0), (600, 4.0)])
def test_an_upstreams_own_keep_alive_time_is_undercut_by_a_second(run: Run, timeout: int, kept: float) -> None:
    async def main() -> None:
        async with ScriptedUpstream(answer(headers=[(b"Keep-Alive", b"timeout=%d" % timeout)])) as upstream:
            pool = pool_for(upstream.port)
            connection = await pool.acquire(5)
            await exchange(connection, pool)
            if kept:
                assert connection.expires - connection.loop.time() == pytest.approx(kept, abs=0.5)
            assert connection.closed == (not kept)
            connection.abort()

    run(main())


@pytest.mark.parametrize("after", [(Close(),), (Send(b"x"),)])
def test_an_idle_connection_that_the_upstream_spoils_is_dropped(run: Run, after: tuple[Close | Send, ...]) -> None:
    async def main() -> None:
        script = Script((*chat().steps, Pause(0.02), *after, Pause(1)))
        async with ScriptedUpstream(script) as upstream:
            pool = pool_for(upstream.port)
            await exchange(await pool.acquire(5), pool)
            assert pool.size == 1
            await upstream.eventually(lambda: pool.size == 0)
            assert pool.take() is None

    run(main())


def test_closing_ends_idle_connections_now_and_busy_ones_with_their_answers(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            pool = pool_for(upstream.port)
            idle, busy = await asyncio.gather(*spread(2, pool))
            await exchange(idle, pool)
            pool.close()
            assert idle.closed
            assert await exchange(busy, pool) == 200
            assert busy.closed
            await upstream.eventually(lambda: upstream.open_connections == 0)

    run(main())


def test_origins_nobody_uses_any_more_are_forgotten(run: Run) -> None:
    async def main() -> None:
        transport = UpstreamTransport(Limits())
        for _ in range(30):
            request = build_request("GET", httpx.URL(f"http://127.0.0.1:{refused_port()}/"), [])
            with pytest.raises(UpstreamError):
                await transport.handle_async_request(request)
        assert len(transport._pools) == 1

    run(main())


def test_a_burst_over_the_limit_is_served_whole(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:
            transport = UpstreamTransport(Limits(upstream_connections=4))
            url = httpx.URL(upstream.url)

            async def ask(n: int) -> int:
                response = await transport.handle_async_request(build_request("POST", url, [], b"%d" % n))
                assert isinstance(response.stream, httpx.AsyncByteStream)
                async for _ in response.stream:
                    pass
                return response.status_code

            assert set(await asyncio.gather(*map(ask, range(100)))) == {200}
            assert upstream.connections == 4
            assert sorted(int(request.body) for request in upstream.requests) == list(range(100))
            await transport.aclose()

    run(main())


# Addresses


def test_a_host_name_with_two_families_reaches_the_one_that_listens(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream:  # on 127.0.0.1 only
            pool = pool_for(upstream.port, host="localhost")
            connection = await pool.acquire(5)
            assert await exchange(connection, pool) == 200
            connection.abort()

    run(main())


def _listening(backlog: int) -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


def test_an_address_that_does_not_answer_does_not_hold_up_the_next(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with _listening(0) as silent, _listening(5) as good:
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:  # with its queue full, Linux drops further SYNs
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            addresses = [(socket.AF_INET, 0, sock.getsockname()) for sock in (silent, good)]
            async with asyncio.timeout(5):
                connected = await _connect(loop, addresses)
            assert connected.getpeername() == good.getsockname()
            for sock in (connected, *fillers):
                sock.close()
            await settle()

    run(main())


def test_when_no_address_accepts_the_first_error_is_reported(run: Run) -> None:
    async def main() -> None:
        hosts = [("127.0.0.1", refused_port()), ("255.255.255.255", 9)]  # refused; not permitted or no route
        addresses = [(socket.AF_INET, 0, host) for host in hosts]
        with pytest.raises(ConnectionRefusedError):
            await _connect(asyncio.get_running_loop(), addresses)

    run(main())


def test_a_race_that_is_called_off_at_any_moment_leaves_no_socket(run: Run) -> None:
    async def main() -> None:
        with _listening(50) as one, _listening(50) as two:
            addresses = [(socket.AF_INET, 0, sock.getsockname()) for sock in (one, two)]
            for turns in range(12):
                race = asyncio.create_task(_connect(asyncio.get_running_loop(), addresses))
                for _ in range(turns):
                    await asyncio.sleep(0)
                race.cancel()
                (result,) = await asyncio.gather(race, return_exceptions=True)
                if isinstance(result, socket.socket):
                    result.close()
                await settle()

    run(main())
    gc.collect()  # an unclosed socket warns here


def test_a_literal_address_is_not_looked_up(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await _resolve(loop, "127.0.0.1", 80) == [(socket.AF_INET, 0, ("127.0.0.1", 80))]
        assert await _resolve(loop, "::1", 80) == [(socket.AF_INET6, 0, ("::1", 80))]

    run(main())


def test_families_alternate_beginning_with_the_systems_choice() -> None:
    class Loop(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
            six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"::{n}", 80, 0, 0)) for n in range(3)]
            return [*six, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

    loop = Loop()
    found = loop.run_until_complete(_resolve(loop, "model.test", 80))
    loop.close()
    assert [address[0] for _, _, address in found] == ["::0", "192.0.2.1", "::1", "::2"]


def test_a_caller_that_gives_up_while_connecting_leaves_no_socket(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(on_accept(Stall())) as upstream:
            dialer = Dialer(
                Origin("https", "127.0.0.1", upstream.port), head_limit=1, ssl_context=ssl.create_default_context()
            )
            pool = Pool(dialer, limit=1, keep_alive=1)
            task = asyncio.create_task(pool.acquire(5))
            await upstream.eventually(lambda: upstream.open_connections == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert pool.unused
            await upstream.eventually(lambda: upstream.open_connections == 0)

    run(main())
