"""The composition root of a worker: ``Settings`` in, an ASGI application out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import otelgw
from otelgw.config.prices import read_prices
from otelgw.config.settings import Settings
from otelgw.http import health
from otelgw.http.auth import Authenticator
from otelgw.http.client import UpstreamTransport
from otelgw.http.echo import EchoTransport
from otelgw.http.gateway import Gateway, Spool
from otelgw.http.openapi import document
from otelgw.keys.gatekeeper import Gatekeeper

__all__ = ["build"]


def build(
    settings: Settings,
    spool: Spool | None = None,
    transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
) -> Gateway:
    """Return the gateway of one worker; ``transports`` replaces what stands behind "http" and "echo"."""
    standing: dict[str, httpx.AsyncBaseTransport] = {"echo": EchoTransport()}
    if transports is None or "http" not in transports:
        standing["http"] = UpstreamTransport(settings.limits, proxies=settings.proxies)
    standing.update(transports or {})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for transport in standing.values():
            await transport.aclose()
        if keys is not None:
            await keys.aclose()

    async def describe(_: Request) -> Response:
        return JSONResponse(document(settings))

    read_prices(settings.deployments)
    keys = None
    if settings.auth.master_key_sha256 and settings.state_dir:
        keys = Gatekeeper(settings, Authenticator(settings.auth, settings.server.host))
    local = Starlette(
        routes=[
            *(Route(path, health.alive) for path in ("/health/liveliness", "/health/liveness")),
            Route("/health/readiness", health.readiness),
            Route("/health", health.overview),
            Route("/metrics", health.metrics),
            Route("/openapi.json", describe),
        ],
        lifespan=lifespan,
    )
    gateway = Gateway(settings, spool, standing, local, keys)
    local.state.gateway = gateway
    local.state.version = otelgw.__version__
    return gateway
