"""The HTTP servers that a worker can run behind its socket: hypercorn, and uvicorn where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator

from otelgw.config.settings import Settings
from otelgw.http.gateway import Gateway

__all__ = ["SERVERS", "serve_hypercorn", "serve_uvicorn"]

log = logging.getLogger(__name__)

Ready = Callable[[], None]
Serve = Callable[[Gateway, Settings, int, asyncio.Event, Ready], Awaitable[None]]

_BACKLOG = 2048
_GRACE = 5.0  # seconds on top of the drain limit: the gateway cuts its requests before the server cuts connections
# The gateway bounds a connection by its floods and idle time; a count of requests would only break keep-alive.
_UNBOUNDED_REQUESTS = 2**31


async def serve_hypercorn(
    gateway: Gateway, settings: Settings, descriptor: int, stop: asyncio.Event, ready: Ready
) -> None:
    """Serve with ``hypercorn.asyncio.serve`` on an inherited socket until ``stop`` is set."""
    from hypercorn.asyncio import serve

    from otelgw.http import edge

    edge.install(settings.limits, settings.server.h2c)
    config = edge.EdgeConfig()
    config.bind = [f"fd://{descriptor}"]
    config.backlog = _BACKLOG
    config.certfile = settings.server.certfile
    config.keyfile = settings.server.keyfile
    config.include_server_header = False
    config.h11_max_incomplete_size = settings.limits.headers
    config.h2_max_header_list_size = settings.limits.headers
    config.h2_max_concurrent_streams = settings.limits.h2_streams
    config.keep_alive_timeout = settings.server.keep_alive
    config.graceful_timeout = settings.server.drain + _GRACE
    config.keep_alive_max_requests = _UNBOUNDED_REQUESTS
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None
    closing: list[asyncio.Task[None]] = []

    async def shutdown() -> None:
        await stop.wait()
        # hypercorn waits for its connections next, from Python 3.12 on without a limit.
        closing.append(asyncio.get_running_loop().create_task(edge.close_connections(lambda: not gateway.inflight)))

    asyncio.get_running_loop().call_soon(ready)
    await serve(gateway, config, shutdown_trigger=shutdown)  # type: ignore[arg-type]
    for task in closing:
        task.cancel()


async def serve_uvicorn(
    gateway: Gateway, settings: Settings, descriptor: int, stop: asyncio.Event, ready: Ready
) -> None:
    """Serve with uvicorn (httptools, on this loop) on an inherited socket until ``stop`` is set."""
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    limit = settings.limits.headers

    class Protocol(HttpToolsProtocol):
        """uvicorn's protocol with a bound on the size of a request's head."""

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.head_size = 0

        def on_header(self, name: bytes, value: bytes) -> None:
            self.head_size += len(name) + len(value)
            if self.head_size > limit:
                raise ValueError("the request's headers are too large")
            super().on_header(name, value)

    class Server(uvicorn.Server):
        """uvicorn's server without its signal handlers: signals are the worker's."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        gateway,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=int(settings.server.keep_alive),
        timeout_graceful_shutdown=int(settings.server.drain + _GRACE),
        ssl_certfile=settings.server.certfile,
        ssl_keyfile=settings.server.keyfile,
    )
    server = Server(config)

    async def shutdown() -> None:
        await stop.wait()
        server.should_exit = True

    listener = socket.socket(fileno=descriptor)
    waiting = asyncio.get_running_loop().create_task(shutdown())
    asyncio.get_running_loop().call_soon(ready)
    await server.serve(sockets=[listener])
    waiting.cancel()


SERVERS: dict[str, Serve] = {"hypercorn": serve_hypercorn, "uvicorn": serve_uvicorn}
