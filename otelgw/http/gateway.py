"""The request path of one worker: trace, key, route, relay, record; and how requests end when the worker drains.

Every request that reaches this application becomes one record, also one that is refused, cut or fails; the record is in
the spool before the last byte of the answer goes out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

import httpx
from starlette.types import ASGIApp

from otelgw.config.settings import Settings
from otelgw.errors import GatewayError, RequestRefused, error_body
from otelgw.http import routes
from otelgw.http.answer import Send, refuse, untraced
from otelgw.http.auth import Authenticator
from otelgw.http.body import CallerGone, Receive
from otelgw.http.capture import Budget
from otelgw.http.controls import Controls, policy_of
from otelgw.http.cors import Cors
from otelgw.http.counters import Counters
from otelgw.http.exchange import Exchange
from otelgw.http.models import answer_models
from otelgw.http.relay import Relay
from otelgw.http.routing import Router
from otelgw.keys.admin import administer
from otelgw.keys.gatekeeper import Gatekeeper
from otelgw.spool import Intent
from otelgw.tracing.record import Record, Target, encode

__all__ = ["Gateway", "Spool"]

log = logging.getLogger(__name__)

# Answered by ``local``, without a trace.
_UNTRACED = frozenset(
    {"/health", "/health/liveliness", "/health/liveness", "/health/readiness", "/metrics", "/openapi.json"}
)
# No trace either, although there is nothing: what polls them would fill a backend.
_UNTRACED_PREFIXES = ("/health", "/metrics", "/openapi.json", "/ui")
_READING = frozenset({"GET", "HEAD"})
_DRAIN_RETRY_AFTER = 1  # seconds
_CUT_PATIENCE = 2.0  # seconds for cut requests to end
_LEFTOVER = 256 * 1024  # bytes of an unwanted body that are read so that the connection can be used again
_INTEGER_BITS = 63  # that MessagePack has for a signed one
_LINGER = 1.0  # seconds for a caller that is still sending to see that it need not


class Spool(Protocol):
    """Where records go (``otelgw.spool.Spool``): one synchronous write each."""

    def append(self, payload: bytes, *, settles: bytes = b"", unauthenticated: bool = False) -> None: ...
    def intend(self, intent: Intent) -> bytes: ...
    async def commit(self) -> None: ...


class Gateway:
    """The ASGI application. ``local`` answers lifespan events and the untraced routes."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool | None,
        transports: Mapping[str, httpx.AsyncBaseTransport],
        local: ASGIApp,
        keys: Gatekeeper | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.local = local
        self.keys = keys
        self.auth = Authenticator(settings.auth, settings.server.host)
        self.cors = Cors(self.auth) if settings.auth.cors_allow_origins else None
        self.router = Router(settings.deployments)
        self.controls = Controls(settings)
        budget = Budget(settings.limits.capture_memory)
        self.relay = Relay(
            settings, self.router, self.controls, transports, budget, self.commit, self.intend, self._durable()
        )
        self.relay.keys = keys
        self.inflight: set[Exchange] = set()
        self.draining = False
        self.stopping = False
        self._idle = asyncio.Event()
        self.counters = Counters()
        self.unspooled = 0  # records that could not be written: a full or read-only disk

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.local(scope, receive, send)
            return
        if scope["path"] in _UNTRACED and scope["method"] in _READING:
            await self.local(scope, receive, untraced(scope, send))
            return
        exchange = Exchange(scope)
        self.inflight.add(exchange)
        if self.cors is not None:
            self.cors.apply(exchange)
        try:
            await self._handle(exchange, receive, send)
        except asyncio.CancelledError:
            if not exchange.cut_reason:
                raise
            # Cut while the answer to an error was going out; nothing more can be said.
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
            await self._end(exchange, error, receive, send)
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
            await self._end_cut(exchange, receive, send)
        except Exception as error:
            log.exception("request failed", extra={"call_id": exchange.call_id, "trace_id": exchange.trace_id})
            if not exchange.trace_id:
                exchange.begin_trace(self.settings.tracing, "ignore")
            internal = GatewayError("internal", f"otelgw failed ({type(error).__name__}); its log has the trace.")
            await self._end(exchange, internal, receive, send)

    async def _dispatch(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        tracing = self.settings.tracing
        refused: RequestRefused | None = None
        raw_path = exchange.scope.get("raw_path") or exchange.path.encode()
        match = routes.plain(exchange.path, raw_path, exchange.method)
        try:
            if match is None:
                routes.check_path(raw_path)
                match = routes.match(exchange.path, exchange.method, self.settings.pass_through, raw_path)
            exchange.route = match.route.template
        except RequestRefused as error:
            refused = error
            exchange.no_log = exchange.path.startswith(_UNTRACED_PREFIXES)
        preflight = self.cors is not None and self.cors.is_preflight(exchange)
        try:
            if not preflight:
                if self.keys is None:
                    exchange.caller = self.auth.authenticate(exchange.headers)
                elif not self.keys.admit_known(exchange):
                    await self.keys.admit(exchange)
        except GatewayError as error:
            exchange.begin_trace(tracing, tracing.trust if error.error_type == "forbidden" else "ignore")
            await self._discard_body(exchange, receive)
            raise
        # A preflight carries no key, so with keys in use nobody knows who sent it.
        exchange.begin_trace(tracing, "ignore" if preflight and not self.auth.open else tracing.trust)
        grant = exchange.grant
        policy = policy_of(master=self.auth.is_master(exchange.caller)) if grant is None else grant.policy
        refused = self.controls.begin(exchange, policy) or refused
        if preflight and self.cors is not None:
            await self.cors.answer_preflight(exchange, send, self.commit)
        elif self.draining:
            await self._discard_body(exchange, receive)
            raise _shutting_down()
        elif refused is not None or match is None:
            await self._discard_body(exchange, receive)
            raise refused or RequestRefused("not_found", "No such route.")
        elif match.route.kind == routes.LOCAL:
            await self._discard_body(exchange, receive)
            await answer_models(exchange, self.router, match, send, self.commit)
        elif match.route.kind == routes.ADMIN:
            await administer(self.keys, exchange, match, receive, send, self.commit)
        else:
            await self.relay.run(exchange, match, receive, send)

    async def _discard_body(self, exchange: Exchange, receive: Receive) -> None:
        """Read what an unwanted request still sends, within reason; nothing of it is kept."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while size <= _LEFTOVER:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        exchange.body_read = True
                        return

    async def _end(self, exchange: Exchange, error: GatewayError, receive: Receive, send: Send) -> None:
        """Answer with ``error``, or leave the answer cut where it has begun."""
        exchange.fail(error.error_type, error.message)
        if exchange.answered:
            return
        exchange.status = error.answer.status
        exchange.answered = True
        body = error_body(error)
        exchange.sent_bytes = len(body)
        self.commit(exchange)

        async def rest() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    while (await receive()).get("more_body", False):
                        pass

        unread = not exchange.body_read and not exchange.watched and exchange.scope["http_version"].startswith("1")
        if b"expect" in exchange.headers and self.settings.server.kind == "uvicorn":
            unread = False  # asking for more would make it invite a body that nobody sends yet
        with contextlib.suppress(OSError):
            await refuse(send, exchange, error, body, rest if unread else None)

    async def _end_cut(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        if exchange.cut_reason == "shutdown":
            exchange.cut_reason = ""
            await self._end(exchange, _shutting_down(), receive, send)
        else:
            exchange.fail(exchange.cut_reason, "The caller closed the connection.")

    def _durable(self) -> Callable[[], Awaitable[None]] | None:
        """Return what the last byte of an answer waits for, None where nothing but the write itself is promised."""
        return self.spool.commit if self.spool is not None and self.settings.spool.fsync else None

    def intend(self, exchange: Exchange, target: Target) -> None:
        """Note that a request is on its way to ``target``: if this worker is killed, the note becomes its trace."""
        if self.spool is not None and self.settings.spool.intents and not exchange.no_log:
            exchange.intent = self.spool.intend(exchange.as_intent(target))

    def commit(self, exchange: Exchange) -> None:
        """Write the exchange's record, once. A disk that takes no record costs the record, never the answer."""
        if exchange.committed:
            return
        exchange.committed = True
        recorded = self.spool is not None and not exchange.no_log
        try:
            self.relay.settle(exchange, recorded=recorded)
            if self.spool is not None and recorded:
                payload = _payload(exchange.record(self.settings.tracing))
                stranger = not self.auth.open and not exchange.caller.authenticated
                self.spool.append(payload, settles=exchange.intent, unauthenticated=stranger)
        except Exception as error:
            self.unspooled += 1
            if self.unspooled.bit_count() == 1:  # the first, and then ever more rarely
                reason = error.strerror if isinstance(error, OSError) else type(error).__name__
                trouble = None if isinstance(error, OSError) else error
                log.error("record not written: %s (%d so far)", reason, self.unspooled, exc_info=trouble)  # noqa: TRY400

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


def _shutting_down() -> RequestRefused:
    return RequestRefused(
        "shutdown", "The gateway is shutting down; try again.", retry_after=_DRAIN_RETRY_AFTER, close=True
    )


def _payload(record: Record) -> bytes:
    """Return the record as it is written; numbers that its encoding has no room for become text."""
    try:
        return encode(record)
    except OverflowError:
        record.metadata = _bounded(record.metadata)
        record.facts = _bounded(record.facts)
        return encode(record)


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    return str(value) if isinstance(value, int) and value.bit_length() > _INTEGER_BITS else value
