"""The upstream client over TLS: whom it trusts, and what goes wrong."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, failure_of, read, reused
from tests.servers.upstream import (
    Certificate,
    Pause,
    ScriptedUpstream,
    Send,
    Stall,
    chat,
    chat_body,
    chat_stream,
    close_after,
    head_size,
    make_certificate,
    on_accept,
    stall_after,
)

run = upstream_calls.run
certificate = upstream_calls.certificate
_CHAT = chat()
_HEAD = head_size(_CHAT)
_STREAM = chat_stream("one two three")


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
