"""The HTTP servers that a worker can run behind its socket: hypercorn, and uvicorn where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from otelgw.config.settings import Settings
from otelgw.http.edge import Edge
from otelgw.http.gateway import Gateway
from otelgw_collector.listening import stop_accepting

__all__ = ["SERVERS", "serve_hypercorn", "serve_uvicorn"]

Ready = Callable[[], None]
Serve = Callable[[Gateway, Settings, int, asyncio.Event, Ready], Awaitable[None]]

_BACKLOG = 2048
_GRACE = 5.0  # seconds on top of the drain limit: the gateway cuts its requests before the server cuts connections


async def serve_hypercorn(
    gateway: Gateway, settings: Settings, descriptor: int, stop: asyncio.Event, ready: Ready
) -> None:
    """Serve with ``hypercorn.asyncio.serve`` on an inherited socket until ``stop`` is set.

    ``ready`` is called once connections are taken. A stop while the gateway refuses new requests closes all
    connections; otherwise those that are in use are given the drain limit.
    """
    import hypercorn.asyncio.run as hypercorn_run
    from hypercorn.asyncio import serve

    from otelgw.http.hypercorn_connection import EdgeConfig, HypercornConnection

    # hypercorn offers no other place to put it; nothing else in this process uses hypercorn.
    hypercorn_run.TCPServer = HypercornConnection  # type: ignore[attr-defined,assignment]
    edge = Edge(settings, gateway.counters)
    config = EdgeConfig(edge)
    config.bind = [f"fd://{descriptor}"]
    config.backlog = _BACKLOG
    config.certfile = settings.server.certfile
    config.keyfile = settings.server.keyfile
    config.ssl_handshake_timeout = settings.limits.request_head
    config.graceful_timeout = settings.server.drain + _GRACE
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None
    # A certificate that cannot be used is found before the lifespan begins, which would end in noise.
    config.create_ssl_context()
    async with _watching(edge) as closing:

        async def shutdown() -> None:
            ready()
            await stop.wait()
            # hypercorn waits for its connections next, from Python 3.12 on without a limit.
            await closing(gateway, descriptor)

        await serve(gateway, config, shutdown_trigger=shutdown)  # type: ignore[arg-type]


async def serve_uvicorn(
    gateway: Gateway, settings: Settings, descriptor: int, stop: asyncio.Event, ready: Ready
) -> None:
    """Serve with uvicorn (httptools, on this loop) on an inherited socket until ``stop`` is set; see above."""
    import uvicorn

    from otelgw.http.uvicorn_connection import UvicornConnection

    class Server(uvicorn.Server):
        """uvicorn's server without its signal handlers: signals are the worker's."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def main_loop(self) -> None:
            # Uvicorn's own looks ten times a second whether it is over, for a header that is not sent, too.
            await over.wait()

    over = asyncio.Event()
    edge = Edge(settings, gateway.counters, http2=False)
    config = uvicorn.Config(
        gateway,
        http=functools.partial(UvicornConnection, edge, gateway),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.server.drain + _GRACE),
        ssl_certfile=settings.server.certfile,
        ssl_keyfile=settings.server.keyfile,
    )
    server = Server(config)
    listener = socket.socket(fileno=descriptor)
    async with _watching(edge) as closing:

        async def shutdown() -> None:
            await stop.wait()
            await closing(gateway, descriptor)
            over.set()

        waiting = asyncio.get_running_loop().create_task(shutdown())
        try:
            await server.serve(sockets=[listener])
        finally:
            waiting.cancel()


@contextlib.asynccontextmanager
async def _watching(edge: Edge) -> AsyncIterator[Callable[[Gateway, int], Awaitable[None]]]:
    """Enforce the deadlines of the edge's connections; give the function that begins to close them."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(edge.watch())]

    async def close(gateway: Gateway, descriptor: int) -> None:
        await stop_accepting(descriptor)
        edge.stopping = True
        # A gateway that refuses new requests by now has drained already.
        limit = loop.time() + (0 if gateway.draining else gateway.settings.server.drain)

        def is_over() -> bool:
            return loop.time() >= limit or (gateway.draining and not gateway.inflight)

        tasks.append(loop.create_task(edge.end(is_over)))

    try:
        yield close
    finally:
        for task in tasks:
            task.cancel()


SERVERS: dict[str, Serve] = {"hypercorn": serve_hypercorn, "uvicorn": serve_uvicorn}
