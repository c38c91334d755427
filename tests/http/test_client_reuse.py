"""Which connections the upstream client uses again, and what it says when one turns out stale."""

from __future__ import annotations

import pytest

from otelgw.config.settings import Limits
from otelgw.errors import StaleConnection, UpstreamError
from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, failure_of, reused
from tests.servers.upstream import (
    Close,
    Pause,
    Script,
    ScriptedUpstream,
    Send,
    answer,
    chat,
    payload,
    reset_after,
)

run = upstream_calls.run

NOT_REUSED = {
    "connection: close": answer(body=b"ok", headers=[(b"Connection", b"close")]),
    "HTTP/1.0": Script((Send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),)),
    "bytes after the end": Script((Send(payload(answer(body=b"ok")) + b"HTTP/1.1 200 OK\r\n"),)),
    "bytes a little later": Script((Send(payload(answer(body=b"ok"))), Pause(0.02), Send(b"x"), Pause(0.02))),
    "closed while idle": Script((Send(payload(answer(body=b"ok"))), Pause(0.02), Close())),
    "body until close": answer(body=b"ok", framing="close"),
    "no framing": Script((Send(b"HTTP/1.1 200 OK\r\n\r\nok"), Close())),
    "Keep-Alive: timeout=1": answer(body=b"ok", headers=[(b"Keep-Alive", b"max=5, timeout=1")]),
}


@pytest.mark.parametrize("case", NOT_REUSED)
def test_a_connection_is_not_reused_after(run: Run, case: str) -> None:
    async def main() -> None:
        limits = Limits(upstream_keepalive=60)
        async with ScriptedUpstream(NOT_REUSED[case]) as upstream, Client(upstream.url, limits) as client:
            for _ in range(2):
                assert await client.ask() == (200, b"ok")
                await upstream.eventually(lambda: client.connections == 0)
            assert reused(upstream) == [1, 2]

    run(main())


def test_a_reused_connection_that_turns_out_closed_is_stale_and_a_fresh_one_serves(run: Run) -> None:
    async def main() -> None:
        async with (
            ScriptedUpstream([chat(), reset_after(chat(), 0), chat()]) as upstream,
            Client(upstream.url) as client,
        ):
            await client.ask()
            failure = await failure_of(client.send())
            assert isinstance(failure, StaleConnection)
            assert failure.error_type == "upstream_reset"
            assert (await client.ask(fresh=True))[0] == 200
            assert reused(upstream) == [1, 1, 2]

    run(main())


def test_a_reused_connection_that_breaks_after_the_first_byte_is_not_stale(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([chat(), reset_after(chat(), 3)]) as upstream, Client(upstream.url) as client:
            await client.ask()
            assert type(await failure_of(client.send())) is UpstreamError

    run(main())


def test_a_reused_connection_that_closes_after_a_second_is_not_stale(run: Run) -> None:
    async def main() -> None:
        late = Script((Pause(1.1), Close()))
        async with ScriptedUpstream([chat(), late]) as upstream, Client(upstream.url) as client:
            await client.ask()
            assert type(await failure_of(client.send())) is UpstreamError

    run(main())


def test_a_fresh_connection_is_made_although_one_is_idle(run: Run) -> None:
    async def main() -> None:
        limits = Limits(upstream_connections=1)
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url, limits) as client:
            for fresh in (False, False, True, True):
                await client.ask(fresh=fresh)
            assert reused(upstream) == [1, 1, 2, 3]
            await upstream.eventually(lambda: upstream.open_connections == 1)

    run(main())
