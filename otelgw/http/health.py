"""Health routes. None of them spends tokens, unless ``/health?probe=1`` asks for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from otelgw.errors import GatewayError
from otelgw.http.auth import is_loopback
from otelgw.http.client import build_request
from otelgw.http.gateway import Gateway
from otelgw.http.routing import Upstream

__all__ = ["alive", "overview", "readiness"]

_PROBE = b'{"model":"%b","messages":[{"role":"user","content":"ping"}],"max_tokens":1}'


def _gateway(request: Request) -> Gateway:
    return cast("Gateway", request.app.state.gateway)


def _may_see_details(request: Request) -> bool:
    """Details are for everybody on loopback and for the key's owner elsewhere."""
    gateway = _gateway(request)
    if is_loopback(gateway.settings.server.host):
        return True
    try:
        gateway.auth.authenticate(dict(request.scope["headers"]))
    except GatewayError:
        return False
    return not gateway.auth.open


async def alive(_: Request) -> Response:
    """Liveness: the worker answers."""
    return JSONResponse("I'm alive!")


async def readiness(request: Request) -> Response:
    """Readiness: 200 also with dead destinations, which are named; 503 while draining."""
    gateway = _gateway(request)
    status = 503 if gateway.draining else 200
    document: dict[str, Any] = {"status": "draining" if gateway.draining else "healthy"}
    if _may_see_details(request):
        document |= {
            "version": request.app.state.version,
            "models": gateway.router.aliases,
            "destinations": [destination.name for destination in gateway.settings.destinations],
            "in_flight": len(gateway.inflight),
            "records_not_written": gateway.unspooled,
        }
    headers = {"retry-after": "1"} if gateway.draining else None
    return JSONResponse(document, status, headers)


async def overview(request: Request) -> Response:
    """The configured models; with ``?probe=1`` each is asked for one token and is listed as healthy or not."""
    gateway = _gateway(request)
    if not _may_see_details(request):
        error = {"message": "A key is needed.", "type": "authentication_error", "param": None, "code": "unauthorized"}
        return JSONResponse({"error": error}, 401)
    upstreams = [upstream for alias in gateway.router.aliases if "*" not in alias for upstream in _of(gateway, alias)]
    if request.query_params.get("probe") != "1":
        listed = [_named(upstream) for upstream in upstreams]
        return JSONResponse({"models": listed, "count": len(listed), "probed": False})
    errors = await asyncio.gather(*(_probe(gateway, upstream) for upstream in upstreams))
    healthy = [_named(u) for u, error in zip(upstreams, errors, strict=True) if not error]
    unhealthy = [_named(u) | {"error": error} for u, error in zip(upstreams, errors, strict=True) if error]
    return JSONResponse(
        {
            "healthy_endpoints": healthy,
            "unhealthy_endpoints": unhealthy,
            "healthy_count": len(healthy),
            "unhealthy_count": len(unhealthy),
        }
    )


def _of(gateway: Gateway, alias: str) -> list[Upstream]:
    return gateway.router.resolve(alias)


def _named(upstream: Upstream) -> dict[str, str]:
    deployment = upstream.deployment
    return {"model": upstream.alias, "provider": deployment.provider, "model_id": deployment.id}


async def _probe(gateway: Gateway, upstream: Upstream) -> str:
    """Return what is wrong with an upstream, empty when it answers; its answer's text is not shown."""
    deployment = upstream.deployment
    endpoint = upstream.endpoint("chat/completions", b"")
    headers = [(b"content-type", b"application/json"), *deployment.auth, *deployment.headers]
    body = _PROBE % deployment.model.encode()
    request = build_request("POST", endpoint.url, headers, body, timeout=upstream.timeout)
    try:
        async with asyncio.timeout(30):
            response = await gateway.relay.transport(deployment.transport).handle_async_request(request)
            async for _ in response.stream:  # type: ignore[union-attr]
                pass
    except (GatewayError, httpx.HTTPError, TimeoutError) as error:
        return getattr(error, "error_type", type(error).__name__)
    return "" if response.status_code < httpx.codes.BAD_REQUEST else str(response.status_code)
