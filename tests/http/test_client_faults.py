"""What the upstream client gives out and says when an upstream fails, before the answer and in its middle."""

from __future__ import annotations

import pytest

from otelgw.errors import UpstreamError
from otelgw.http.roundtrip import FAILURES
from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, collect, failure_of
from tests.servers.upstream import (
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
    head_size,
    on_accept,
    payload,
    preceded_by,
    refused_port,
    reset_after,
    stall_after,
)

run = upstream_calls.run
_CHAT = chat()
_HEAD = head_size(_CHAT)
_STREAM = chat_stream("one two three")

BEFORE_THE_BODY: dict[str, tuple[Script, str]] = {
    "reset before the head": (reset_after(_CHAT, 0), "upstream_reset"),
    "closed before the head": (close_after(_CHAT, 0), "upstream_reset"),
    "reset in the head": (reset_after(_CHAT, 20), "upstream_reset"),
    "closed in the head": (close_after(_CHAT, 20), "upstream_reset"),
    "closed after 100": (Script((Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Close())), "upstream_reset"),
    "no HTTP": (Script((Send(b"SSH-2.0-OpenSSH_9.2\r\n"), Stall())), "upstream_bad_response"),
    "HTTP/2": (Script((Send(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),)), "upstream_bad_response"),
    "status 99": (
        Script((Send(b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"), *_CHAT.steps)),
        "upstream_bad_response",
    ),
    "status with two digits": (Script((Send(b"HTTP/1.1 20 OK\r\n\r\n"), Stall())), "upstream_bad_response"),
    "101": (answer(101, framing="none", headers=[(b"Upgrade", b"x")]), "upstream_bad_response"),
    "1xx with a body": (answer(150, b"body"), "upstream_bad_response"),
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
    "endless 1xx": (Script((*preceded_by(_CHAT, *[103] * 3000).steps[:-2], Stall())), "upstream_bad_response"),
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


def test_every_failure_has_a_message_that_says_how_to_mend_it() -> None:
    for error_type, template in FAILURES.items():
        assert "{where}" in template, error_type
        assert "{cause}" in template, error_type
        assert ";" in template, error_type
