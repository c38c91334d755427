"""Upstreams behind a proxy: which one it is by the environment, and how it is asked."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Self

import httpx
import pytest

from otelgw.config.settings import Limits
from otelgw.errors import ConfigError
from otelgw.http.client import UpstreamTransport
from otelgw.http.connection import Origin
from otelgw.http.proxy import Proxies
from otelgw_collector.listening import stop_accepting
from tests.http import upstream_calls
from tests.http.upstream_calls import Client, Run, failure_of
from tests.servers.upstream import ScriptedUpstream, chat, chat_body, make_certificate

run = upstream_calls.run


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
        await stop_accepting(*(listener.fileno() for listener in self._server.sockets))
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


def test_a_proxy_that_says_more_than_yes_is_not_trusted(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream() as upstream, ConnectProxy(upstream.port, b"200 Fine\r\n\r\nmore") as proxy:
            proxies = {"https_proxy": f"http://127.0.0.1:{proxy.port}"}
            async with Client("https://model.test", proxies=proxies) as client:
                failure = await failure_of(client.send())
                assert failure.error_type == "upstream_connect"
                assert "no valid answer to CONNECT" in failure.message

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
