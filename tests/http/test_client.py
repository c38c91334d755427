"""The upstream client over real sockets, against the scripted upstream, on both event loops: requests and answers."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx
import pytest

from otelgw.config.settings import Limits
from otelgw.errors import RequestRefused
from otelgw.http.client import Address, UpstreamTransport, build_request
from otelgw.http.lazy_headers import Block
from otelgw.http.roundtrip import BUFFER
from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, chunks, read, reused
from tests.servers.upstream import (
    Close,
    Pause,
    Script,
    ScriptedUpstream,
    Send,
    answer,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    head_size,
    payload,
    preceded_by,
    spaced,
    split_every,
    stall_after,
)

run = upstream_calls.run


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


def test_a_host_header_of_the_request_goes_before_that_of_the_url_and_alone(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(chat()) as upstream, Client(upstream.url) as client:
            headers = [(b"host", b"virtual.test"), (b"Host", b"other.test"), (b"A", b"b")]
            request = httpx.Request("GET", upstream.url, headers=headers, stream=httpx.ByteStream(b""))
            await read(await client.transport.handle_async_request(request))
            assert upstream.requests[0].headers == [(b"Host", b"virtual.test"), (b"A", b"b")]

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


def test_a_body_that_ends_with_the_connection_is_whole(run: Run) -> None:
    async def main() -> None:
        script = Script((Send(b"HTTP/1.1 200 OK\r\n\r\nab"), Pause(0.02), Send(b"cd"), Close()))
        async with ScriptedUpstream(script) as upstream, Client(upstream.url) as client:
            assert await client.ask() == (200, b"abcd")

    run(main())


def test_requests_and_responses_hold_what_httpx_gives_its_own(upstream: ScriptedUpstream, run: Run) -> None:
    request = build_request("POST", httpx.URL("http://model.test/v1"), [(b"a", b"b")], b"{}", timeout={"connect": 1.0})
    assert vars(request).keys() == vars(httpx.Request("POST", "http://model.test", stream=httpx.ByteStream(b""))).keys()
    assert request.headers["a"] == "b"
    upstream.answer_with(chat())

    async def main() -> None:
        async with Client(upstream.url) as client:
            response = await client.send()
            assert vars(response).keys() == vars(httpx.Response(200, stream=httpx.ByteStream(b""))).keys()
            await response.stream.aclose()  # type: ignore[union-attr]

    run(main())


def test_headers_that_many_requests_have_are_sent_like_any_others(upstream: ScriptedUpstream, run: Run) -> None:
    headers = [(b"authorization", b"Bearer sk-canary-0123456789"), (b"host", b"other"), (b"X-Thing", b"a")]
    block = Block(headers)

    async def main() -> None:
        async with Client(upstream.url) as client:
            for path, content in (("/a", b"{}"), ("/a", b'{"b":1}'), ("/b?c=d", b"{}"), ("/b?c=d", b"")):
                url = Address(httpx.URL(upstream.url + path))
                heads = []
                for given in (headers, block, block):
                    request = build_request("POST", url, given, content)
                    response = await client.transport.handle_async_request(request)
                    await response.aread()
                    heads.append((upstream.requests[-1].raw_head, upstream.requests[-1].body))
                assert heads[0] == heads[1] == heads[2]
                assert heads[0][1] == content

    run(main())


def test_headers_that_many_requests_have_can_be_looked_at_and_changed(upstream: ScriptedUpstream, run: Run) -> None:
    async def main() -> None:
        async with Client(upstream.url) as client:
            url = Address(httpx.URL(upstream.url + "/a"))
            request = build_request("POST", url, Block([(b"X-Thing", b"a")]), b"{}")
            assert request.headers["x-thing"] == "a"
            assert request.headers["content-length"] == "2"
            request.headers["x-thing"] = "changed"
            response = await client.transport.handle_async_request(request)
            await response.aread()
            assert dict(upstream.requests[-1].headers)[b"x-thing"] == b"changed"

    run(main())


def test_a_line_break_in_headers_that_many_requests_have_is_refused(run: Run) -> None:
    async def main() -> None:
        async with Client("http://127.0.0.1:9") as client:
            block = Block([(b"X-Thing", b"a\r\nX-Other: b")])
            for _ in range(2):
                request = build_request("POST", Address("http://127.0.0.1:9/a"), block, b"{}")
                with pytest.raises(RequestRefused, match="control character"):
                    await client.transport.handle_async_request(request)

    run(main())
