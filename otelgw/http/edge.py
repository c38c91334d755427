"""Callers' connections under hypercorn: who speaks which HTTP, deadlines, back-pressure, and closing in good order.

hypercorn binds, accepts, sets up TLS, runs the lifespan and shuts down; ``Connection`` stands in the place of its
``TCPServer``, because hypercorn as it comes is no edge server: it serves requests that can be read in two ways, keeps
slow bodies for ever, leaves cut HTTP/2 answers open and never cuts a flood. HTTP/1.1 is in ``http1``, HTTP/2 in
``http2``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
import time
from collections.abc import Callable, Generator
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

from hypercorn.config import Config

from otelgw.config.settings import Settings
from otelgw.http.counters import Counters
from otelgw.http.http1 import Http1
from otelgw.http.http2 import PREFACE, Http2
from otelgw.http.stream import Application, RawHeaders, Stream

if TYPE_CHECKING:
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.typing import LifespanState, WorkerContext

__all__ = ["Connection", "Edge"]

log = logging.getLogger(__name__)

_READ = 64 * 1024
_HIGH = 64 * 1024  # bytes that a connection buffers for a reader that is slower than its answer
_LINGER = 5.0  # seconds for a peer to take the last bytes and to stop sending; more while it goes on taking
_TLS_LINGER = 1.0
_SETTLED = 0.25  # a connection that has been idle for so long will not be hit by a request just as it closes
_LAST_PATIENCE = 1.0  # seconds for connections to close when the process has to end


class Edge(Config):
    """hypercorn's configuration, and what the connections of one server share. ``stopping`` is set once no new
    connections are taken."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.limits = settings.limits
        self.h2c = settings.server.h2c
        self.drain = settings.server.drain
        self.keep_alive_timeout = settings.server.keep_alive
        self.ssl_handshake_timeout = settings.limits.request_head
        self.connections: set[Connection] = set()
        self.counters = Counters()
        self.stopping = False
        self._second = 0
        self._date: tuple[bytes, RawHeaders] = (b"", [])

    def date(self) -> tuple[bytes, RawHeaders]:
        """Return the Date header, as a line and as a pair; it is made once a second."""
        now = int(time.time())
        if now != self._second:
            value = formatdate(now, usegmt=True).encode()
            self._second, self._date = now, (b"date: %b\r\n" % value, [(b"date", value)])
        return self._date

    async def watch(self) -> None:
        """Enforce the deadlines of all connections, until cancelled."""
        loop = asyncio.get_running_loop()
        shortest = min(self.limits.request_head, self.limits.response_idle, self.keep_alive_timeout)
        period = min(max(shortest / 4, 0.02), 1.0)
        while True:
            await asyncio.sleep(period)
            now = loop.time()
            for connection in list(self.connections):
                connection.sweep(now)

    async def end(self, urgent: Callable[[], bool]) -> None:
        """Close connections as they become idle; all that are left once ``urgent`` says that the process must end."""
        loop = asyncio.get_running_loop()
        deadline = math.inf
        while self.connections:
            now = loop.time()
            if deadline == math.inf and urgent():
                deadline = now + _LAST_PATIENCE
            for connection in list(self.connections):
                connection.end(now, deadline)
            await asyncio.sleep(0.02)


class _Speaks(Protocol):
    """One of the two protocols, as a connection sees it."""

    async def receive(self, data: bytes) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...
    def too_late(self) -> None: ...
    def sweep(self, now: float) -> None: ...


class Connection:
    """One caller's connection. Times are those of the event loop, in seconds."""

    def __init__(
        self,
        app: ASGIWrapper,
        loop: asyncio.AbstractEventLoop,
        config: Edge,
        _context: WorkerContext,
        _state: LifespanState,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.loop = loop
        self.edge = config
        self.finishing = False  # nothing more is written; what still comes is let go
        self.scheme = "http"
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self._application: Application = app.app  # type: ignore[assignment]
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        self._protocol: _Speaks | None = None
        self._idle_since = loop.time()
        self._deadline = self._idle_since + config.limits.request_head
        self._in_head = False
        self._writers_waiting = 0
        self._unsent = 0
        self._progress_at = 0.0

    def __await__(self) -> Generator[Any]:
        return self.run().__await__()

    async def run(self) -> None:
        """Serve the connection to its end."""
        self.edge.connections.add(self)
        self._transport.set_write_buffer_limits(high=_HIGH)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                with contextlib.suppress(OSError):
                    await self._serve()
                self.finishing = True
                if self._protocol is not None:
                    self._protocol.leave()
            self._begin_closing()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        except Exception:
            log.exception("a connection failed")
        finally:
            self._transport.abort()
            self.edge.connections.discard(self)

    async def _serve(self) -> None:
        peer, here = self._transport.get_extra_info("peername"), self._transport.get_extra_info("sockname")
        if not peer or not here:
            return  # it was gone before it was looked at
        self.client, self.server = peer[:2], here[:2]
        read = self._reader.read
        tls = self._transport.get_extra_info("ssl_object")
        data = b""
        if tls is not None:
            self.scheme = "https"
            self._protocol = Http2(self) if tls.selected_alpn_protocol() == "h2" else Http1(self)
        else:
            while len(data) < len(PREFACE) and PREFACE.startswith(data):
                more = await read(_READ)
                if not more:
                    return
                data += more
            self._protocol = self._speaks(data)
        while True:
            if data and not self.finishing:
                await self._protocol.receive(data)
            data = await read(_READ)
            if not data:
                return

    def _speaks(self, data: bytes) -> _Speaks:
        """Choose the protocol of a connection without TLS by its first bytes."""
        if not data.startswith(PREFACE):
            return Http1(self)
        if self.edge.h2c != "off":
            return Http2(self)
        http1 = Http1(self)
        http1.refuse(505, "HTTP/2 without TLS is turned off; use HTTP/1.1, or TLS.")
        return http1

    def upgrade(self, http2: Http2) -> None:
        """Go on with HTTP/2."""
        self._protocol = http2

    def start(self, stream: Stream) -> None:
        """Hand a request to the application."""
        self._deadline = self._idle_since = math.inf
        self._in_head = False
        self._tasks.create_task(stream.run(self._application))

    # Writing

    def write(self, data: bytes) -> bool:
        """Write; return True where the writer should ``drain`` before it goes on.

        Raises:
            ConnectionResetError: the connection is closed.
        """
        transport = self._transport
        if self.finishing or transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        transport.write(data)
        return transport.get_write_buffer_size() > _HIGH

    async def drain(self) -> None:
        """Wait until the caller has taken enough of what was written.

        Raises:
            ConnectionResetError: the connection is closed.
        """
        if not self._writers_waiting:
            self._note_unsent(self.loop.time())
        self._writers_waiting += 1
        try:
            await self._writer.drain()
        except (OSError, RuntimeError):
            raise ConnectionResetError("the caller has gone") from None
        finally:
            self._writers_waiting -= 1
        if self._transport.is_closing():
            raise ConnectionResetError("the caller has gone")

    def _note_unsent(self, now: float) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._progress_at = now

    # Waiting and closing

    def idle(self) -> None:
        """No request is open; the next one may take its time."""
        self._idle_since = self.loop.time()
        self._deadline = self._idle_since + self.edge.keep_alive_timeout
        self._in_head = False

    def head_begun(self) -> None:
        """Part of a request's head is here; the rest has to follow soon."""
        if not self._in_head:
            self._in_head = True
            self._idle_since = math.inf
            self._deadline = self.loop.time() + self.edge.limits.request_head

    def finish(self, *, unread: bool = False) -> None:
        """Close once everything is sent. What the caller still sends (``unread``: it does) is let go for a moment, for
        a socket that is closed with unread data takes the end of the answer with it."""
        if self.finishing:
            return
        self.finishing = True
        now = self.loop.time()
        self._note_unsent(now)
        self._idle_since = math.inf
        self._deadline = now + _LINGER
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
        elif unread:
            self._deadline = now + _TLS_LINGER
        else:
            self._transport.close()

    def reset(self) -> None:
        """Break the connection, so that an answer whose end is the connection's does not look complete."""
        self.finishing = True
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _begin_closing(self) -> None:
        self._note_unsent(self.loop.time())
        self._deadline = self.loop.time() + _LINGER
        self._transport.close()

    def sweep(self, now: float) -> None:
        """Do what is due."""
        if self._writers_waiting or self.finishing:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent, self._progress_at = unsent, now
                if self.finishing:
                    self._deadline = max(self._deadline, now + _LINGER)
            elif unsent and now - self._progress_at > self.edge.limits.response_idle:
                self.edge.counters.timeouts += 1
                self._transport.abort()
                return
        if now >= self._deadline:
            self._expire()
        elif self._protocol is not None and not self.finishing:
            self._protocol.sweep(now)

    def _expire(self) -> None:
        self._deadline = math.inf
        if self.finishing or self._protocol is None:
            self._transport.abort()
        elif self._in_head:
            self.edge.counters.timeouts += 1
            self._protocol.too_late()
        else:
            self._protocol.close()

    def end(self, now: float, deadline: float) -> None:
        """The worker stops: close as soon as no request is open, and at ``deadline`` in any case."""
        if now >= deadline:
            self._transport.abort()
        elif now - self._idle_since > (_SETTLED if deadline == math.inf else -1) and not self.finishing:
            if self._protocol is not None:
                self._protocol.close()
            self.finish()
