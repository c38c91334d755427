"""Calls of the upstream client: the transport with a short way to ask, and the event loops that it runs on.

A test module that wants a fixture binds it: ``run = upstream_calls.run``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Self

import httpx
import pytest
import uvloop

from otelgw.config.settings import Limits, Timeouts
from otelgw.errors import UpstreamError
from otelgw.http.client import UpstreamTransport, build_request, timeout_extension
from tests.servers.upstream import Certificate, ScriptedUpstream, make_certificate

__all__ = ["Client", "Run", "certificate", "chunks", "collect", "failure_of", "read", "reused", "run"]

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
