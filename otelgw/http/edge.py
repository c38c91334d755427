"""Callers' connections, whichever server accepted them: who speaks which HTTP, deadlines, back-pressure, and closing in
good order.

hypercorn or uvicorn bind, accept, set up TLS, run the lifespan and shut down (``servers``). What is read and written on
a connection is ours, because neither is an edge server as it comes: hypercorn serves requests that can be read in two
ways, keeps slow bodies for ever, leaves cut HTTP/2 answers open and never cuts a flood. HTTP/1.1 is in ``http1``,
HTTP/2 in ``http2``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Protocol, cast

from otelgw.config.settings import Settings
from otelgw.http.counters import Counters
from otelgw.http.http1 import Http1
from otelgw.http.http2 import PREFACE, Http2
from otelgw.http.stream import Application, RawHeaders, Stream

__all__ = ["Connection", "Edge"]

_HIGH = 64 * 1024  # bytes that a connection buffers for a reader that is slower than its answer
_LINGER = 5.0  # seconds for a peer to take the last bytes and to stop sending; more while it goes on taking
_TLS_LINGER = 1.0
_SETTLED = 0.25  # a connection that has been idle for so long will not be hit by a request just as it closes
_LAST_PATIENCE = 1.0  # seconds for connections to close when the process has to end


class Edge:
    """What the connections of one server share. ``stopping`` is set once no new connections are taken; without
    ``http2`` only HTTP/1.1 is spoken."""

    def __init__(self, settings: Settings, counters: Counters, *, http2: bool = True) -> None:
        self.limits = settings.limits
        self.h2c = settings.server.h2c if http2 else "off"
        self.drain = settings.server.drain
        self.keep_alive = settings.server.keep_alive
        self.connections: set[Connection] = set()
        self.counters = counters
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
        shortest = min(self.limits.request_head, self.limits.response_idle, self.keep_alive)
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

    def receive(self, data: bytes) -> None: ...
    def is_full(self) -> bool: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...
    def too_late(self) -> None: ...
    def sweep(self, now: float) -> None: ...


class Connection(asyncio.Protocol):
    """One caller's connection. Times are those of the event loop, in seconds.

    ``finishing``: nothing more is written, what still comes is let go. ``congested``: the caller has not taken what was
    written. A server's subclass learns by ``_gone`` that the connection and its requests are over.
    """

    def __init__(self, edge: Edge, application: Application) -> None:
        self.loop = asyncio.get_running_loop()
        self.edge = edge
        self.finishing = self.congested = False
        self.scheme = "http"
        self.client: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self._application = application
        self._transport: asyncio.Transport
        self._protocol: _Speaks | None = None
        self._begun = b""  # bytes that do not tell yet which HTTP is spoken
        self._running: dict[Stream, asyncio.Task[None]] = {}
        self._lost = self._holding = False
        self._writers: list[asyncio.Future[None]] = []
        self._idle_since = self.loop.time()
        self._deadline = self._idle_since + edge.limits.request_head
        self._in_head = False
        self._unsent = 0
        self._progress_at = 0.0

    def _gone(self) -> None:
        """The connection is closed and no request runs any more."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH)
        self.edge.connections.add(self)
        peer, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not here:
            self._transport.abort()  # it was gone before it was looked at
            return
        self.client, self.server = peer[:2], here[:2]
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.scheme = "https"
            self._protocol = Http2(self) if tls.selected_alpn_protocol() == "h2" else Http1(self)

    def data_received(self, data: bytes) -> None:
        if self._protocol is None:
            data = self._begun + data
            if len(data) < len(PREFACE) and PREFACE.startswith(data):
                self._begun = data
                return
            self._protocol = self._speaks(data)
        if not self.finishing:
            self._protocol.receive(data)
            if self._is_full():
                self._holding = True
                self._transport.pause_reading()

    def eof_received(self) -> None:
        self._leave()
        self._note_unsent(self.loop.time())
        self._deadline = self.loop.time() + _LINGER
        self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self.edge.connections.discard(self)
        self.resume_writing()
        self._leave()
        if not self._running:
            self._gone()

    def pause_writing(self) -> None:
        self.congested = True
        self._note_unsent(self.loop.time())

    def resume_writing(self) -> None:
        self.congested = False
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)
        self.resume_reading()

    # Reading

    def _leave(self) -> None:
        """The caller has gone."""
        self.finishing = True
        if self._protocol is not None:
            self._protocol.leave()

    def _is_full(self) -> bool:
        # What the protocol is after a request may not be what it was before it.
        return not self.finishing and self._protocol is not None and self._protocol.is_full()

    def resume_reading(self) -> None:
        """There may be room for more."""
        if self._holding and not self._is_full():
            self._holding = False
            self._transport.resume_reading()

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
        self._running[stream] = self.loop.create_task(stream.run(self._application, self._ended))

    def _ended(self, stream: Stream) -> None:
        del self._running[stream]
        if self._lost and not self._running:
            self._gone()

    def cancel(self) -> None:
        """End the connection and its requests now."""
        for task in self._running.values():
            task.cancel()
        self._transport.abort()

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
        return self.congested

    def writer(self) -> Callable[[bytes], None]:
        """Return what ``write`` writes with."""
        return self._transport.write

    async def drain(self) -> None:
        """Wait until the caller has taken enough of what was written.

        Raises:
            ConnectionResetError: the connection is closed.
        """
        if self.congested:
            writer = self.loop.create_future()
            self._writers.append(writer)
            await writer
        if self._transport.is_closing():
            raise ConnectionResetError("the caller has gone")

    def _note_unsent(self, now: float) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self._progress_at = now

    # Waiting and closing

    def idle(self) -> None:
        """No request is open; the next one may take its time."""
        self._idle_since = self.loop.time()
        self._deadline = self._idle_since + self.edge.keep_alive
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
        self.resume_reading()
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

    def sweep(self, now: float) -> None:
        """Do what is due."""
        if self.congested or self.finishing:
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
