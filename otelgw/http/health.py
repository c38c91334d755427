"""Health routes. None of them spends tokens, unless ``/health?probe=1`` asks for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from otelgw.errors import GatewayError, RequestRefused, error_body
from otelgw.exposition import CONTENT_TYPE
from otelgw.http.auth import is_loopback
from otelgw.http.client import build_request
from otelgw.http.gateway import Gateway
from otelgw.http.routing import Upstream
from otelgw.report import read_metrics, read_state
from otelgw.tally import Totals

__all__ = ["alive", "metrics", "overview", "readiness"]

_STALE = 10.0  # seconds after which the pipeline's last word no longer counts
_UNWRITTEN = "otelgw.spool.unwritten_records"
_PATIENCE = 30.0  # seconds for a probe
_PING = [{"role": "user", "content": "ping"}]
# Models that think refuse `max_tokens`, and fail where what they may say ends before they have thought; many servers
# of other models know no other name.
_CHATS = ({"messages": _PING, "max_tokens": 1}, {"messages": _PING, "max_completion_tokens": 1024})
_OTHERWISE = (400, 422)  # then it may be the question that is not understood
_OWN_SITE = (b"none", b"same-origin")


def _gateway(request: Request) -> Gateway:
    return cast("Gateway", request.app.state.gateway)


def _refusal(request: Request) -> RequestRefused | None:
    """Details are for every program on loopback, for no web page, and for the key's owner anywhere."""
    gateway = _gateway(request)
    headers = dict(request.scope["headers"])
    refusal = RequestRefused("unauthorized", "Beyond loopback this needs general_settings.master_key.")
    if is_loopback(gateway.settings.server.host):
        try:
            gateway.auth.guard(headers)
        except RequestRefused as error:
            refusal = error
        else:
            # An image or a link of another page has no Origin; browsers say this of it.
            if headers.get(b"sec-fetch-site", b"none") in _OWN_SITE:
                return None
            refusal = RequestRefused("forbidden", "Web pages of other sites may not see this.")
    if gateway.auth.open:
        return refusal
    try:
        gateway.auth.authenticate(headers)
    except RequestRefused as error:
        return error
    return None


async def alive(_: Request) -> Response:
    """Liveness: the worker answers."""
    return JSONResponse("I'm alive!")


async def readiness(request: Request) -> Response:
    """Readiness: 200 also with dead destinations, which are named; 503 while draining."""
    gateway = _gateway(request)
    status = 503 if gateway.draining else 200
    document: dict[str, Any] = {"status": "draining" if gateway.draining else "healthy"}
    if _refusal(request) is None:
        document |= {
            "version": request.app.state.version,
            "models": gateway.router.aliases,
            "destinations": _destinations(gateway),
            "in_flight": len(gateway.inflight),
            "records_not_written": _unwritten(gateway),
        }
    headers = {"retry-after": "1"} if gateway.draining else None
    return JSONResponse(document, status, headers)


def _unwritten(gateway: Gateway) -> int:
    """Return the records that found no room, of all workers: what the others have counted is half a second old."""
    counted = Totals(Path(gateway.settings.state_dir)).read() if gateway.settings.state_dir else {}
    return max(gateway.unspooled, counted.get((_UNWRITTEN, (("reason", "disk"),)), 0))


def _destinations(gateway: Gateway) -> list[dict[str, Any]]:
    """Return each destination with the state that the pipeline last gave it; ``unknown`` where it is silent."""
    report = read_state(gateway.settings.state_dir) or {}
    fresh = time.time() - report.get("at", 0.0) < _STALE
    told = {entry.get("name"): entry for entry in report.get("destinations", [])} if fresh else {}
    return [
        told.get(destination.name, {"name": destination.name, "state": "unknown"})
        for destination in gateway.settings.destinations
    ]


async def metrics(request: Request) -> Response:
    """What the pipeline counts, for Prometheus; the same from every worker."""
    refusal = _refusal(request)
    if refusal is not None:
        return Response(error_body(refusal), refusal.answer.status, media_type="application/json")
    return Response(read_metrics(_gateway(request).settings.state_dir), media_type=CONTENT_TYPE)


async def overview(request: Request) -> Response:
    """The configured models; with ``?probe=1`` each is asked for a word and is listed as healthy or not."""
    gateway = _gateway(request)
    refusal = _refusal(request)
    if refusal is not None:
        return Response(error_body(refusal), refusal.answer.status, media_type="application/json")
    upstreams = [
        upstream for alias in gateway.router.aliases if "*" not in alias for upstream in gateway.router.resolve(alias)
    ]
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


def _named(upstream: Upstream) -> dict[str, str]:
    deployment = upstream.deployment
    return {"model": upstream.alias, "provider": deployment.provider, "model_id": deployment.id}


async def _probe(gateway: Gateway, upstream: Upstream) -> str:
    """Return what is wrong with an upstream, empty when it answers; its answer's text is not shown."""
    embeds = upstream.deployment.model_info.get("mode") == "embedding"
    questions: Sequence[dict[str, Any]] = ({"input": "ping"},) if embeds else _CHATS
    status = 0
    try:
        async with asyncio.timeout(_PATIENCE):
            for question in questions:
                status = await _ask(gateway, upstream, "embeddings" if embeds else "chat/completions", question)
                if status not in _OTHERWISE:
                    break
    except (GatewayError, httpx.HTTPError, TimeoutError) as error:
        return getattr(error, "error_type", type(error).__name__)
    return "" if status < httpx.codes.BAD_REQUEST else str(status)


async def _ask(gateway: Gateway, upstream: Upstream, path: str, question: Mapping[str, Any]) -> int:
    """Return the status of an upstream's answer, which is read to its end."""
    deployment = upstream.deployment
    headers = [(b"content-type", b"application/json"), *deployment.auth, *deployment.headers]
    body = msgspec.json.encode({"model": deployment.model, **question})
    request = build_request("POST", upstream.endpoint(path, b"").url, headers, body, timeout=upstream.timeout)
    if deployment.mock_response is not None:
        request.extensions["otelgw.mock_response"] = deployment.mock_response
    response = await gateway.relay.transport(deployment.transport).handle_async_request(request)
    try:
        async for _ in response.stream:  # type: ignore[union-attr]
            pass
    finally:
        await response.stream.aclose()  # type: ignore[union-attr]
    return response.status_code
