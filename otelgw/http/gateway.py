"""The request path of one worker: trace, key, route, relay, record; and how requests end when the worker drains.

Every request that reaches this application becomes one record, also one that is refused, cut or fails; the record is in
the spool before the last byte of the answer goes out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

import httpx
from starlette.types import ASGIApp

from otelgw.config.settings import Settings
from otelgw.errors import GatewayError, RequestRefused
from otelgw.http import routes
from otelgw.http.answer import Send, refuse
from otelgw.http.auth import Authenticator
from otelgw.http.body import CallerGone, Receive
from otelgw.http.capture import Budget
from otelgw.http.cors import Cors
from otelgw.http.exchange import Exchange
from otelgw.http.models import answer_models
from otelgw.http.relay import Relay
from otelgw.http.routing import Router
from otelgw.tracing.record import encode

__all__ = ["Gateway", "Spool"]

log = logging.getLogger(__name__)

_UNTRACED = frozenset(
    {"/health", "/health/liveliness", "/health/liveness", "/health/readiness", "/metrics", "/openapi.json"}
)
_DRAIN_RETRY_AFTER = 1  # seconds
_CUT_PATIENCE = 2.0  # seconds for cut requests to end
_LEFTOVER = 256 * 1024  # bytes of an unwanted body that are read so that the connection can be used again


class Spool(Protocol):
    """Where records go: one synchronous write each."""

    def append(self, payload: bytes) -> None: ...


class Gateway:
    """The ASGI application. ``local`` answers lifespan events and the untraced routes."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool | None,
        transports: Mapping[str, httpx.AsyncBaseTransport],
        local: ASGIApp,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.local = local
        self.auth = Authenticator(settings.auth, settings.server.host)
        self.cors = Cors(self.auth) if settings.auth.cors_allow_origins else None
        self.router = Router(settings.deployments)
        self.relay = Relay(settings, self.router, transports, Budget(settings.limits.capture_memory), self.commit)
        self.inflight: set[Exchange] = set()
        self.draining = False
        self.stopping = False
        self._idle = asyncio.Event()
        self.unspooled = 0  # records that could not be written: a full or read-only disk

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self.local(scope, receive, send)
            return
        exchange = Exchange(scope)
        self.inflight.add(exchange)
        if self.cors is not None:
            send = self.cors.wrap(exchange, send)
        try:
            await self._handle(exchange, receive, send)
        finally:
            exchange.close()
            self.commit(exchange)
            self.inflight.discard(exchange)
            if self.stopping and not self.inflight:
                self._idle.set()

    async def _handle(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Run the request; whatever goes wrong ends as an answer, or as a cut connection once bytes are out."""
        try:
            await self._dispatch(exchange, receive, send)
        except GatewayError as error:
            await self._end(exchange, error, send)
        except CallerGone:
            exchange.fail("client_disconnect", "The caller closed the connection.")
        except OSError as error:
            # uvicorn raises it when the caller is gone; upstream errors have been mapped by now.
            exchange.fail("client_disconnect", type(error).__name__)
        except asyncio.CancelledError:
            if not exchange.cut_reason:
                exchange.fail("client_disconnect", "The connection was closed.")
                raise
            if exchange.task is not None:
                exchange.task.uncancel()
            await self._end_cut(exchange, send)
        except Exception as error:
            log.exception("request failed", extra={"call_id": exchange.call_id, "trace_id": exchange.trace_id})
            internal = GatewayError("internal", f"otelgw failed ({type(error).__name__}); its log has the trace.")
            await self._end(exchange, internal, send)

    async def _dispatch(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        tracing = self.settings.tracing
        refused: RequestRefused | None = None
        match = None
        try:
            routes.check_path(exchange.scope.get("raw_path") or exchange.path.encode())
            match = routes.match(exchange.path, exchange.method, self.settings.pass_through)
            exchange.route = match.route.template
        except RequestRefused as error:
            refused = error
        preflight = self.cors is not None and self.cors.is_preflight(exchange)
        try:
            if not preflight:
                exchange.caller = self.auth.authenticate(exchange.headers)
        except RequestRefused as error:
            exchange.begin_trace(tracing, "ignore" if error.error_type == "unauthorized" else tracing.trust)
            await self._discard_body(receive)
            raise
        exchange.begin_trace(tracing, tracing.trust)
        if preflight and self.cors is not None:
            await self.cors.answer_preflight(exchange, send)
        elif self.draining:
            raise RequestRefused(
                "shutdown", "The gateway is shutting down; try again.", retry_after=_DRAIN_RETRY_AFTER, close=True
            )
        elif refused is not None or match is None:
            await self._discard_body(receive)
            raise refused or RequestRefused("not_found", "No such route.")
        elif match.route.kind == routes.LOCAL:
            await answer_models(exchange, self.router, match, send, self.commit)
        else:
            await self.relay.run(exchange, match, receive, send)

    async def _discard_body(self, receive: Receive) -> None:
        """Read what an unwanted request still sends, within reason; nothing of it is kept."""
        size = 0
        try:
            async with asyncio.timeout(1):
                while size <= _LEFTOVER:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def _end(self, exchange: Exchange, error: GatewayError, send: Send) -> None:
        """Answer with ``error``, or leave the answer cut where it has begun."""
        exchange.fail(error.error_type, error.message)
        if exchange.answered:
            return
        exchange.status = error.answer.status
        exchange.answered = True
        self.commit(exchange)
        try:
            await refuse(send, exchange, error)
        except OSError:
            return

    async def _end_cut(self, exchange: Exchange, send: Send) -> None:
        if exchange.cut_reason == "shutdown":
            error = RequestRefused(
                "shutdown", "The gateway is shutting down; try again.", retry_after=_DRAIN_RETRY_AFTER, close=True
            )
            exchange.cut_reason = ""
            await self._end(exchange, error, send)
        else:
            exchange.fail(exchange.cut_reason, "The caller closed the connection.")

    def commit(self, exchange: Exchange) -> None:
        """Write the exchange's record, once. A disk that takes no record costs the record, never the answer."""
        if exchange.committed:
            return
        exchange.committed = True
        self.relay.settle(exchange)
        if self.spool is None or exchange.no_log:
            return
        try:
            self.spool.append(encode(exchange.record(self.settings.tracing)))
        except OSError as error:
            self.unspooled += 1
            if self.unspooled.bit_count() == 1:  # the first, and then ever more rarely
                log.error("record not written: %s (%d so far)", error.strerror, self.unspooled)  # noqa: TRY400

    async def drain(self, limit: float, *, refuse: bool = True) -> None:
        """Let what runs finish for ``limit`` seconds, then cut it with error.type ``shutdown``.

        With ``refuse`` new requests get 503 meanwhile; without, the server takes none any more.
        """
        self.draining = refuse
        self.stopping = True
        await self._until_idle(limit)
        for exchange in list(self.inflight):
            exchange.cut("shutdown")
        await self._until_idle(_CUT_PATIENCE)

    async def _until_idle(self, seconds: float) -> None:
        self._idle.clear()
        if self.inflight:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
