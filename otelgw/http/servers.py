"""The HTTP servers that a worker can run behind its socket: hypercorn, and uvicorn where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Awaitable, Callable, Iterator

from otelgw.config.settings import Settings
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

    from otelgw.http.edge import Connection, Edge

    # hypercorn offers no other place to put it; nothing else in this process uses hypercorn.
    hypercorn_run.TCPServer = Connection  # type: ignore[attr-defined,assignment]
    loop = asyncio.get_running_loop()
    edge = Edge(settings)
    edge.counters = gateway.counters
    edge.bind = [f"fd://{descriptor}"]
    edge.backlog = _BACKLOG
    edge.certfile = settings.server.certfile
    edge.keyfile = settings.server.keyfile
    edge.graceful_timeout = settings.server.drain + _GRACE
    edge.errorlog = logging.getLogger("hypercorn.error")
    edge.accesslog = None
    # A certificate that cannot be used is found before the lifespan begins, which would end in noise.
    edge.create_ssl_context()
    tasks = [loop.create_task(edge.watch())]

    async def shutdown() -> None:
        ready()
        await stop.wait()
        await stop_accepting(descriptor)
        edge.stopping = True
        # A gateway that refuses new requests by now has drained already.
        limit = loop.time() + (0 if gateway.draining else settings.server.drain)

        def is_over() -> bool:
            return loop.time() >= limit or (gateway.draining and not gateway.inflight)

        # hypercorn waits for its connections next, from Python 3.12 on without a limit.
        tasks.append(loop.create_task(edge.end(is_over)))

    try:
        await serve(gateway, edge, shutdown_trigger=shutdown)  # type: ignore[arg-type]
    finally:
        for task in tasks:
            task.cancel()


async def serve_uvicorn(
    gateway: Gateway, settings: Settings, descriptor: int, stop: asyncio.Event, ready: Ready
) -> None:
    """Serve with uvicorn (httptools, on this loop) on an inherited socket until ``stop`` is set; see above."""
    import uvicorn

    from otelgw.http.uvicorn_protocol import protocol

    class Server(uvicorn.Server):
        """uvicorn's server without its signal handlers: signals are the worker's."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        gateway,
        http=protocol(settings, gateway.counters),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=math.ceil(settings.server.keep_alive),
        timeout_graceful_shutdown=math.ceil(settings.server.drain + _GRACE),
        ssl_certfile=settings.server.certfile,
        ssl_keyfile=settings.server.keyfile,
    )
    server = Server(config)

    async def shutdown() -> None:
        await stop.wait()
        server.should_exit = True

    listener = socket.socket(fileno=descriptor)
    waiting = asyncio.get_running_loop().create_task(shutdown())
    try:
        await server.serve(sockets=[listener])
    finally:
        waiting.cancel()


SERVERS: dict[str, Serve] = {"hypercorn": serve_hypercorn, "uvicorn": serve_uvicorn}
