"""The upstream client over real sockets, against the scripted upstream, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvloop

from otelgw.config.settings import Limits, Timeouts
from otelgw.errors import ConfigError, RequestRefused, StaleConnection, UpstreamError
from otelgw.http.client import UpstreamTransport, build_request, timeout_extension
from otelgw.http.connection import BUFFER, FAILURES, Origin
from otelgw.http.proxy import Proxies
from tests.servers.upstream import (
    Certificate,
    Close,
    Pause,
    Reset,
    Script,
    ScriptedUpstream,
    Send,
    Stall,
    answer,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    close_after,
    early,
    error,
    head_size,
    make_certificate,
    on_accept,
    payload,
    preceded_by,
    refused_port,
    reset_after,
    spaced,
    split_every,
    stall_after,
)

Run = Callable[[Coroutine[Any, Any, None]], None]
PATIENT = timeout_extension(Timeouts(connect=5, first_byte=5, idle=5, total=10))
HEADERS = [(b"Authorization", b"Bearer sk-canary-0123456789"), (b"Content-Type", b"application/json")]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Client:
    """The transport with a short way to ask; closes it at the end of a ``with``."""

    def __init__(self, base: str, limits: Limits | None = None, **options: Any) -> None:
        self.transport = UpstreamTransport(limits or Limits(), **options)
        self.base = base

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.aclose()
        await asyncio.sleep(0.01)

    async def send(
        self,
        content: Any = b"{}",
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        headers: list[tuple[bytes, bytes]] | None = None,
        length: int | None = None,
        fresh: bool = False,
        **timeout: float,
    ) -> httpx.Response:
        url = httpx.URL(self.base + path)
        head = HEADERS if headers is None else headers
        request = build_request(method, url, head, content, timeout={**PATIENT, **timeout}, length=length)
        if fresh:
            request.extensions["otelgw.fresh"] = True
        return await self.transport.handle_async_request(request)

    async def ask(self, content: Any = b"{}", **options: Any) -> tuple[int, bytes]:
        response = await self.send(content, **options)
        return response.status_code, await read(response)

    @property
    def connections(self) -> int:
        return sum(pool.size for pool in self.transport._pools.values())


async def chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for chunk in response.stream:
        yield chunk


async def read(response: httpx.Response) -> bytes:
    got: list[bytes] = []
    await collect(response, got)
    return b"".join(got)


async def collect(response: httpx.Response, into: list[bytes]) -> None:
    async for chunk in chunks(response):
        into += (chunk,)  # not a comprehension: what came before an error counts


async def failure_of(awaitable: Awaitable[Any]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await awaitable
    return caught.value


def reused(upstream: ScriptedUpstream) -> list[int]:
    return [request.connection for request in upstream.requests]


# What goes out


def test_the_upstream_gets_the_headers_in_their_case_and_order_and_our_framing(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            await client.ask(b'{"a":1}', headers=[(b"X-Case", b"Kept  in"), (b"accept", b"*/*"), (b"X-Case", b"\xe9")])
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % upstream.port
            rest = b"X-Case: Kept  in\r\naccept: */*\r\nX-Case: \xe9\r\nContent-Length: 7\r\n\r\n"
            assert upstream.requests[0].raw_head == head + rest
            assert upstream.requests[0].body == b'{"a":1}'

    run(main())


def test_a_callers_word_on_framing_and_connection_never_reaches_the_upstream(run: Run) -> None:
    ours = ["Connection", "Transfer-Encoding", "Content-Length", "Expect", "TE", "Upgrade", "Keep-Alive", "Trailer"]
    ours += ["Proxy-Connection", "Proxy-Authorization", "HTTP2-Settings"]

    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            await client.ask(b"12345", headers=[(name.upper().encode(), b"chunked") for name in ours])
            received = upstream.requests[0]
            assert [name for name, _ in received.headers] == [b"Host", b"Content-Length"]
            assert received.body == b"12345"

    run(main())


@pytest.mark.parametrize(("method", "length"), [("POST", b"0"), ("PUT", b"0"), ("GET", None), ("DELETE", None)])
def test_an_empty_body_is_announced_only_where_one_is_expected(run: Run, method: str, length: bytes | None) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            await client.ask(b"", method=method, headers=[])
            assert dict(upstream.requests[0].headers).get(b"Content-Length") == length

    run(main())


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


@pytest.mark.parametrize(
    "header",
    [(b"X-A", b"1\r\nX-Injected: 1"), (b"X-A", b"1\n"), (b"X-A", b"\0"), (b"X A", b"1"), (b"X-A:", b"1"), (b"", b"1")],
)
def test_a_header_that_would_break_the_head_is_refused_before_anything_is_sent(
    run: Run, header: tuple[bytes, bytes]
) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            for _ in range(2):
                with pytest.raises(RequestRefused):
                    await client.ask(headers=[header])
            assert upstream.connections == 0

    run(main())


def test_another_scheme_than_http_is_refused(run: Run) -> None:
    async def main() -> None:
        async with Client("ftp://127.0.0.1") as client:
            with pytest.raises(RequestRefused, match="api_base"):
                await client.ask()

    run(main())


def test_httpx_itself_can_use_the_transport(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream() as upstream:
            transport = UpstreamTransport(Limits())
            async with httpx.AsyncClient(transport=transport, base_url=upstream.url) as client:
                hello = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
                response = await client.post("/v1/chat/completions", json=hello)
                assert response.json()["choices"][0]["message"]["content"] == "echo: hello"
                await client.post("/v1/chat/completions", files={"file": b"content"})
                assert b"content" in upstream.requests[1].body

    run(main())


# What comes back


def test_the_response_has_the_raw_headers_and_says_where_it_came_from(run: Run) -> None:
    script = answer(
        429,
        b"busy",
        reason=b"Too Many",
        headers=[(b"Retry-After", b"2"), (b"x-ratelimit-limit", b" 5 \t"), (b"A", b"")],
    )

    async def main() -> None:
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            first = await client.send()
            assert (first.status_code, await read(first)) == (429, b"busy")
            assert first.headers.raw == [
                (b"Content-Type", b"application/json"),
                (b"Retry-After", b"2"),
                (b"x-ratelimit-limit", b"5"),
                (b"A", b""),
                (b"Content-Length", b"4"),
            ]
            assert (first.http_version, first.reason_phrase) == ("HTTP/1.1", "Too Many")
            assert first.extensions["otelgw.first_byte_ns"] > 0
            assert first.extensions["network_stream"].get_extra_info("server_addr")[1] == upstream.port
            second = await client.send()
            assert [r.extensions["otelgw.reused"] for r in (first, second)] == [False, True]
            await read(second)

    run(main())


def test_each_chunk_is_given_out_as_it_arrives(run: Run) -> None:
    events = [*chat_events("one two three"), b"data: [DONE]\n\n"]

    async def main() -> None:
        script = spaced(chat_stream("one two three"), 0.01)
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            response = await client.send()
            assert [chunk async for chunk in chunks(response)] == events
            assert (await client.ask())[0] == 200
            assert reused(upstream) == [1, 1]

    run(main())


def test_the_head_is_there_before_the_body(run: Run) -> None:
    script = chat()

    async def main() -> None:
        async with (
            ScriptedUpstream(stall_after(script, head_size(script) + 5)) as upstream,
            Client(upstream.url) as client,
        ):
            response = await client.send()
            assert await anext(chunks(response)) == chat_body()[:5]
            await response.aclose()

    run(main())


def test_a_compressed_answer_is_not_touched(run: Run) -> None:
    script = answer(body=chat_body(), encoding="gzip")

    async def main() -> None:
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            response = await client.send()
            assert await read(response) == payload(script)[head_size(script) :]
            assert response.headers["content-encoding"] == "gzip"

    run(main())


@pytest.mark.parametrize("statuses", [(100,), (103,), (100, 102, 103, 199)])
def test_informational_answers_are_skipped(run: Run, statuses: tuple[int, ...]) -> None:
    async def main() -> None:
        for script in (preceded_by(chat(), *statuses), split_every(preceded_by(chat(), *statuses), 7)):
            async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
                response = await client.send()
                assert (response.status_code, await read(response)) == (200, chat_body())
                assert "link" not in response.headers
                assert (await client.ask())[0] == 200
                assert reused(upstream) == [1, 1]

    run(main())


NO_BODY = [
    ("POST", Script((Send(b"HTTP/1.1 204 No Content\r\n\r\n"),)), [1, 1]),
    ("GET", Script((Send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),)), [1, 1]),
    ("HEAD", Script((Send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),)), [1, 2]),
    ("HEAD", Script((Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),)), [1, 2]),
]


@pytest.mark.parametrize(("method", "script", "connections"), NO_BODY)
def test_an_answer_without_a_body_ends_with_its_head(
    run: Run, method: str, script: Script, connections: list[int]
) -> None:
    async def main() -> None:
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            for _ in connections:
                assert (await client.ask(b"", method=method))[1] == b""
            assert reused(upstream) == connections

    run(main())


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
        async with ScriptedUpstream(NOT_REUSED[case]) as upstream, Client(upstream.url) as client:
            for _ in range(2):
                assert await client.ask() == (200, b"ok")
                await upstream.eventually(lambda: client.connections == 0)
            assert reused(upstream) == [1, 2]

    run(main())


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


def test_a_slow_reader_stops_the_upstream_and_still_gets_everything(run: Run) -> None:
    body = os.urandom(1 << 20) * 16
    script = Script((*answer(body=body, framing="chunked", chunk=32768).steps,))

    async def main() -> None:
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            response = await client.send()
            trip: Any = response.stream
            await upstream.eventually(lambda: trip.buffered > BUFFER)
            await asyncio.sleep(0.05)
            assert trip.buffered <= BUFFER + 300_000
            assert upstream.requests[0].answered_at is None
            assert await read(response) == body
            assert (await client.ask())[1] == body
            assert reused(upstream) == [1, 1]

    run(main())


# What goes wrong

_CHAT, _STREAM = chat(), chat_stream("one two three")
_HEAD, _STREAM_HEAD = head_size(_CHAT), head_size(_STREAM)
BEFORE_THE_BODY: dict[str, tuple[Script, str]] = {
    "reset before the head": (reset_after(_CHAT, 0), "upstream_reset"),
    "closed before the head": (close_after(_CHAT, 0), "upstream_reset"),
    "reset in the head": (reset_after(_CHAT, 20), "upstream_reset"),
    "closed in the head": (close_after(_CHAT, 20), "upstream_reset"),
    "closed after 100": (Script((Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Close())), "upstream_reset"),
    "no HTTP": (Script((Send(b"SSH-2.0-OpenSSH_9.2\r\n"), Stall())), "upstream_bad_response"),
    "HTTP/2": (Script((Send(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),)), "upstream_bad_response"),
    "status 99": (answer(99, b"x"), "upstream_bad_response"),
    "status with two digits": (Script((Send(b"HTTP/1.1 20 OK\r\n\r\n"), Stall())), "upstream_bad_response"),
    "101": (answer(101, framing="none", headers=[(b"Upgrade", b"x")]), "upstream_bad_response"),
    "100 with a body": (answer(100, b"body"), "upstream_bad_response"),
    "length and chunked": (
        answer(body=b"0\r\n\r\n", headers=[(b"Transfer-Encoding", b"chunked")]),
        "upstream_bad_response",
    ),
    "two lengths": (answer(body=b"ok", headers=[(b"Content-Length", b"3")]), "upstream_bad_response"),
    "gzip, chunked": (
        answer(framing="none", headers=[(b"Transfer-Encoding", b"gzip, chunked")]),
        "upstream_bad_response",
    ),
    "gzip until close": (answer(framing="none", headers=[(b"Transfer-Encoding", b"gzip")]), "upstream_bad_response"),
    "a giant header": (answer(headers=[(b"X-Big", b"x" * 70_000)]), "upstream_bad_response"),
    "many headers": (answer(headers=[(b"X-Many", b"x" * 50)] * 1200), "upstream_bad_response"),
    "an endless header": (stall_after(answer(headers=[(b"X-Big", b"x" * 900_000)]), 800_000), "upstream_bad_response"),
    "endless 1xx": (preceded_by(_CHAT, *[103] * 3000), "upstream_bad_response"),
}
IN_THE_BODY: dict[str, tuple[Script, str, bytes]] = {
    "reset in a length": (reset_after(_CHAT, _HEAD + 50), "upstream_reset", chat_body()[:50]),
    "closed in a length": (close_after(_CHAT, _HEAD + 50), "upstream_truncated", chat_body()[:50]),
    "closed after the head": (close_after(_CHAT, _HEAD), "upstream_truncated", b""),
    "no last chunk": (close_after(_STREAM, len(payload(_STREAM)) - 5), "upstream_truncated", b"".join(
        [*chat_events("one two three"), b"data: [DONE]\n\n"])),
    "half a last chunk": (close_after(_STREAM, len(payload(_STREAM)) - 2), "upstream_truncated", b"".join(
        [*chat_events("one two three"), b"data: [DONE]\n\n"])),
    "reset until close": (Script((Send(b"HTTP/1.1 200 OK\r\n\r\nab"), Pause(0.05), Reset())), "upstream_reset", b"ab"),
    "no hex in a chunk": (
        Script((Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nxyz\r\n"), Stall())),
        "upstream_bad_response",
        b"ab",
    ),
    "an endless chunk extension": (
        Script((Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2;"), Send(b"x" * 900_000))),
        "upstream_bad_response",
        b"ab",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BEFORE_THE_BODY)
def test_without_a_valid_head_there_is_no_response(run: Run, case: str) -> None:
    script, error_type = BEFORE_THE_BODY[case]

    async def main() -> None:
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            failure = await failure_of(client.send(path="/v1/x?key=canary"))
            assert (failure.error_type, type(failure)) == (error_type, UpstreamError)
            assert f"127.0.0.1:{upstream.port}" in failure.message
            assert "canary" not in failure.message
            assert client.connections == 0
            await upstream.eventually(lambda: upstream.open_connections == 0)

    run(main())


@pytest.mark.parametrize("case", IN_THE_BODY)
def test_what_arrived_before_a_body_was_cut_is_given_out_first(run: Run, case: str) -> None:
    script, error_type, expected = IN_THE_BODY[case]

    async def main() -> None:
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            response = await client.send()
            got: list[bytes] = []
            failure = await failure_of(collect(response, got))
            assert (failure.error_type, b"".join(got)) == (error_type, expected)
            await response.aclose()
            assert client.connections == 0

    run(main())


@pytest.mark.parametrize("step", [Reset(), Close()])
def test_a_connection_that_ends_when_it_is_accepted_fails_the_call(run: Run, step: Reset | Close) -> None:
    async def main() -> None:
        async with ScriptedUpstream(on_accept(step)) as upstream, Client(upstream.url) as client:
            failure = await failure_of(client.send())
            assert failure.error_type in {"upstream_reset", "upstream_connect"}  # the reset may win the race
            assert client.connections == 0

    run(main())


def test_a_body_that_ends_with_the_connection_is_whole(run: Run) -> None:
    async def main() -> None:
        script = Script((Send(b"HTTP/1.1 200 OK\r\n\r\nab"), Pause(0.02), Send(b"cd"), Close()))
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            assert await client.ask() == (200, b"abcd")

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


def test_a_refused_connection_says_where_and_how_to_mend_it(run: Run) -> None:
    async def main() -> None:
        port = refused_port()
        async with Client(f"http://127.0.0.1:{port}") as client:
            failure = await failure_of(client.send())
            assert failure.error_type == "upstream_connect"
            assert f"127.0.0.1:{port}: connection refused; check api_base" in failure.message
            assert client.connections == 0

    run(main())


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".invalid"])
def test_a_host_without_an_address_is_a_dns_error(run: Run, host: str) -> None:
    async def main() -> None:
        async with Client(f"http://{host}:81") as client:
            failure = await failure_of(client.send())
            assert failure.error_type == "upstream_dns"
            assert f"{host}:81" in failure.message

    run(main())


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
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.02)
            yield b"piece"

    async def main() -> None:
        script = chat()
        eager = early(Script((Send(payload(script)[:_HEAD]), Pause(0.2), Send(payload(script)[_HEAD:]))))
        async with ScriptedUpstream(eager) as upstream, Client(upstream.url) as client:
            sent = slow()
            response = await client.send(sent)
            with pytest.raises(StopAsyncIteration):
                await anext(sent)
            assert await read(response) == chat_body()

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


def test_every_failure_has_a_message_that_says_how_to_mend_it() -> None:
    for error_type, template in FAILURES.items():
        assert "{where}" in template, error_type
        assert "{cause}" in template, error_type
        assert ";" in template, error_type


# TLS


def test_tls_checks_the_certificate_and_speaks_http_1_1(run: Run, certificate: Certificate) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=certificate.ca)
        context.set_alpn_protocols(["http/1.1"])
        async with (
            ScriptedUpstream(tls=certificate.server_context()) as upstream,
            Client(upstream.url, ssl_context=context) as client,
        ):
            for _ in range(2):
                response = await client.send(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
                assert b"echo: hi" in await read(response)
            tls = response.extensions["network_stream"].get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "http/1.1"
            assert reused(upstream) == [1, 1]

    run(main())


def test_the_systems_authorities_come_from_ssl_cert_file(
    run: Run, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat(), tls=certificate.server_context()) as upstream:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate.ca))
            async with Client(upstream.url) as client:
                response = await client.send()
                tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                assert (tls.selected_alpn_protocol(), await read(response)) == ("http/1.1", chat_body())

    run(main())


@pytest.mark.parametrize("fault", ["unknown authority", "another name", "plain HTTP"])
def test_a_tls_fault_says_what_and_how_to_mend_it(
    run: Run, certificate: Certificate, tmp_path: Path, fault: str
) -> None:
    other = make_certificate(tmp_path, "other.test")

    async def main() -> None:
        trusted = ssl.create_default_context(cafile=certificate.ca if fault == "unknown authority" else other.ca)
        plain = fault == "plain HTTP"
        script = on_accept(Send(b"HTTP/1.1 400 Bad\r\n\r\n"), Pause(1)) if plain else chat()
        async with (
            ScriptedUpstream(script, tls=None if plain else other.server_context()) as upstream,
            Client(f"https://localhost:{upstream.port}", ssl_context=trusted) as client,
        ):
            failure = await failure_of(client.send())
            assert failure.error_type == "upstream_tls"
            assert failure.message.startswith(f"TLS with localhost:{upstream.port} failed")
            assert plain or "its certificate is not trusted" in failure.message
            assert client.connections == 0

    run(main())


def test_a_tls_handshake_counts_as_connecting(run: Run) -> None:
    async def main() -> None:
        async with (
            ScriptedUpstream(on_accept(Stall())) as upstream,
            Client(f"https://127.0.0.1:{upstream.port}") as client,
        ):
            failure = await failure_of(client.send(connect=0.1))
            assert failure.error_type == "upstream_timeout_connect"
            await upstream.eventually(lambda: upstream.connections and not upstream.open_connections)

    run(main())


@pytest.mark.parametrize(("size", "error_type"), [(0, "upstream_reset"), (_HEAD + 9, "upstream_truncated")])
def test_a_cut_over_tls_is_a_cut(run: Run, certificate: Certificate, size: int, error_type: str) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=certificate.ca)
        async with (
            ScriptedUpstream(close_after(_CHAT, size), tls=certificate.server_context()) as upstream,
            Client(upstream.url, ssl_context=context) as client,
        ):
            assert (await failure_of(client.ask())).error_type == error_type

    run(main())


def test_a_hang_up_over_tls_reaches_the_upstream(run: Run, certificate: Certificate) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=certificate.ca)
        async with (
            ScriptedUpstream(stall_after(_STREAM, 400), tls=certificate.server_context()) as upstream,
            Client(upstream.url, ssl_context=context) as client,
        ):
            response = await client.send()
            await response.aclose()
            await upstream.eventually(lambda: upstream.requests[0].aborted_at)

    run(main())


# Proxies


class ConnectProxy:
    """A proxy that tunnels every CONNECT to ``target`` and remembers the heads it got."""

    def __init__(self, target: int, status: bytes = b"200 Connection established") -> None:
        self.heads: list[bytes] = []
        self._target = target
        self._status = status
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 " + self._status + b"\r\nVia: test\r\n\r\n")
        if not self._status.startswith(b"2"):
            writer.close()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, upstream_writer), (upstream_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()


def test_an_https_upstream_is_tunnelled_through_the_proxy(run: Run, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "model.test")

    async def main() -> None:
        context = ssl.create_default_context(cafile=certificate.ca)
        async with (
            ScriptedUpstream(chat(), tls=certificate.server_context()) as upstream,
            ConnectProxy(upstream.port) as proxy,
        ):
            proxies = {"HTTPS_PROXY": f"http://us%40er:p%3Ass@127.0.0.1:{proxy.port}", "HTTP_PROXY": "http://unused:1"}
            async with Client("https://model.test", ssl_context=context, proxies=proxies) as client:
                for _ in range(2):
                    assert await client.ask() == (200, chat_body())
                head = b"CONNECT model.test:443 HTTP/1.1\r\nHost: model.test:443\r\n"
                assert proxy.heads == [head + b"Proxy-Authorization: Basic dXNAZXI6cDpzcw==\r\n\r\n"]
                assert upstream.requests[0].header("proxy-authorization") is None
                assert upstream.requests[0].header("host") == "model.test"

    run(main())


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"502 Bad Gateway"])
def test_a_proxy_that_refuses_is_named_without_its_password(run: Run, status: bytes) -> None:
    async def main() -> None:
        async with ConnectProxy(0, status) as proxy:
            proxies = {"https_proxy": f"http://user:canary@127.0.0.1:{proxy.port}"}
            async with Client("https://model.test", proxies=proxies) as client:
                failure = await failure_of(client.send())
                assert failure.error_type == "upstream_connect"
                assert (
                    f"the proxy 127.0.0.1:{proxy.port} answered CONNECT with {status[:3].decode()}" in failure.message
                )
                assert "canary" not in failure.message

    run(main())


def test_an_http_upstream_is_asked_for_by_its_whole_url_at_the_proxy(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as proxy:
            proxies = {"http_proxy": f"http://user:pass@127.0.0.1:{proxy.port}"}
            async with Client("http://model.test:8000", proxies=proxies) as client:
                assert (await client.ask(path="/v1/x?a=b"))[0] == 200
                received = proxy.requests[0]
                assert received.target == "http://model.test:8000/v1/x?a=b"
                assert received.header("host") == "model.test:8000"
                assert received.header("proxy-authorization") == "Basic dXNlcjpwYXNz"

    run(main())


ROUTES = [
    ({"HTTP_PROXY": "proxy:3128"}, "http://api.test", "proxy:3128"),
    ({"HTTP_PROXY": "proxy:3128"}, "https://api.test", None),
    ({"HTTP_PROXY": "http://upper:1", "http_proxy": "http://lower:2"}, "http://api.test", "lower:2"),
    ({"HTTP_PROXY": "http://upper:1", "http_proxy": " "}, "http://api.test", "upper:1"),
    ({"ALL_PROXY": "http://all"}, "https://api.test", "all:80"),
    ({"all_proxy": "http://all", "HTTPS_PROXY": "http://[::1]:3128"}, "https://api.test", "[::1]:3128"),
    ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://api.test", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "other.test, api.test"}, "https://api.test", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "API.Test"}, "https://a.api.test.", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "api.test"}, "https://xapi.test", "p:1"),
    ({"ALL_PROXY": "http://p:1", "no_proxy": ".api.test"}, "https://a.api.test", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": ".api.test"}, "https://api.test", "p:1"),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "*.api.test"}, "https://a.api.test", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "api.test:8443"}, "https://api.test:8443", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "api.test:8443"}, "https://api.test", "p:1"),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, "https://10.1.2.3", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, "https://11.1.2.3", "p:1"),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "10.1.2.3"}, "https://10.1.2.3", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "10.1.2.3:80"}, "https://10.1.2.3", "p:1"),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "fd00::/8"}, "https://[fd00::1]", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "[fd00::1]:443"}, "https://[fd00::1]", None),
    ({"ALL_PROXY": "http://p:1", "no_proxy": "fd00::1"}, "https://[fd00::2]", "p:1"),
    ({"ALL_PROXY": "http://p:1"}, "http://localhost:11434", None),
    ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.2:11434", None),
    ({"ALL_PROXY": "http://p:1"}, "http://[::1]:11434", None),
    ({}, "https://api.test", None),
]


@pytest.mark.parametrize(("environment", "url", "expected"), ROUTES)
def test_the_proxy_of_an_upstream_follows_the_environment(
    environment: dict[str, str], url: str, expected: str | None
) -> None:
    parsed = httpx.URL(url)
    origin = Origin(parsed.scheme, parsed.host, parsed.port or {"http": 80, "https": 443}[parsed.scheme])
    proxy = Proxies(environment).for_origin(origin)
    assert (None if proxy is None else str(proxy)) == expected


@pytest.mark.parametrize("value", ["socks5://u:canary@p:1", "https://u:canary@p:1", "http://", "http://p:canary"])
def test_a_proxy_that_cannot_be_used_is_a_config_error_without_its_value(value: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        UpstreamTransport(Limits(), proxies={"HTTPS_PROXY": value})
    assert "canary" not in str(caught.value)


def test_a_proxys_password_is_not_in_its_repr() -> None:
    proxy = Proxies({"ALL_PROXY": "http://user:canary@p:1"}).for_origin(Origin("http", "api.test", 80))
    assert "p" in repr(proxy)
    assert "canary" not in repr(proxy)
    assert "Y2FuYXJ5" not in repr(proxy)
    assert "dXNlcjpjYW5hcnk" not in repr(proxy)
