"""hypercorn made fit to face callers: framing refusals, cut streams that arrive as cut, bounded control traffic.

hypercorn takes its protocol classes from module globals, so a worker process puts these in their place before it
serves (``install``); nothing else in the process uses hypercorn. What each class changes, and why:

- HTTP/1.1: a request with both Content-Length and Transfer-Encoding is refused and the connection closed (RFC 9112
  6.1: it is how requests are smuggled); ``Upgrade: h2c`` and clear-text HTTP/2 can be turned off; websockets are not
  served; errors carry OpenAI's JSON.
- HTTP/2: an answer that ends early is reset, so that the caller sees the cut at once (hypercorn leaves it open);
  floods of resets, PINGs and SETTINGS close the connection.
- Connections: idle timers without a task per request; a peer that does not read cannot hold up a close.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
import h11
import hypercorn.asyncio.run as hypercorn_run
import hypercorn.protocol as hypercorn_protocol
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import UnexpectedMessageError

from otelgw.config.settings import Limits
from otelgw.errors import RequestRefused, error_body

__all__ = ["Counters", "EdgeConfig", "close_connections", "counters", "install"]

_RESET_DRAIN = 0.5  # seconds for what was sent before the cut to leave the buffers
_CLOSE_PATIENCE = 1.0  # seconds until a close that a peer blocks becomes an abort
_HEAD_PATIENCE = 15.0  # seconds for the head of a request, once its first byte is here
_CONTROL_FRAMES = 1000  # PING, SETTINGS, PRIORITY and WINDOW_UPDATE frames in one second that close the connection


@dataclass
class Counters:
    """What the parser refused itself: counted, because it never reaches the application."""

    refused_framing: int = 0
    refused_parse: int = 0
    closed_floods: int = 0


_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}

_limits = Limits()
_h2c = "prior_knowledge"
counters = Counters()


class EdgeConfig(Config):
    """hypercorn's config; the Date header is made once a second."""

    _dated: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        now = int(time.time())
        if self._dated[0] != now:
            self._dated = (now, super().response_headers(protocol))
        return self._dated[1]


class _HeadBegun(Event):
    """Part of a request's head has arrived; the rest has to follow soon."""


class EdgeStream(HTTPStream):
    """An HTTP/1.1 exchange whose answer is framed here; h11 reads the request, but its checks of an answer that was
    parsed already cost more than relaying it."""

    protocol: EdgeH11

    async def app_send(self, message: Any) -> None:
        if message is None or self.closed:
            await super().app_send(message)
        elif message["type"] == "http.response.body" and self.state is ASGIHTTPState.RESPONSE:
            more = message.get("more_body", False)
            await self.protocol.send_body(message.get("body", b""), more)
            if not more:
                self.state = ASGIHTTPState.CLOSED
                await self.send(StreamClosed(stream_id=self.stream_id))
        elif message["type"] == "http.response.start" and self.state is ASGIHTTPState.REQUEST:
            self.state = ASGIHTTPState.RESPONSE
            self.protocol.begin_answer(self.scope["method"], message["status"], message["headers"])
        else:
            raise UnexpectedMessageError(self.state, message["type"])


class EdgeH11(H11Protocol):
    """HTTP/1.1 as hypercorn speaks it, strict where a request could mean two things."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection: h11.Connection  # never a websocket: no stream here upgrades to one
        self._server: EdgeServer = self.send.__self__  # type: ignore[attr-defined]
        self._upgrade = False
        self._head = b""
        self._chunked = False
        self._bodiless = False
        self._remaining = -1
        self._close_after = False
        self._ended = False

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
            if self.stream is None and isinstance(event, RawData) and self.connection.trailing_data[0]:
                await self.send(_HeadBegun())
        except h11.RemoteProtocolError as error:
            counters.refused_framing += 1
            await self._refuse(error.error_status_hint, str(error))
            await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        names = [name for name, _ in event.headers]
        if b"transfer-encoding" in names:
            if b"content-length" in names:
                raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other.")
            if event.http_version != b"1.1":
                raise h11.RemoteProtocolError("Transfer-Encoding needs HTTP/1.1.")
        if names.count(b"host") > 1:
            raise h11.RemoteProtocolError("More than one Host header.")
        self._upgrade = b"upgrade" in names or event.method == b"CONNECT"
        if event.method == b"PRI" or (self._upgrade and _h2c == "upgrade"):
            if _h2c == "off":
                raise h11.RemoteProtocolError("Clear-text HTTP/2 is turned off; use HTTP/1.1, or TLS.", 505)
            await super()._check_protocol(event)

    async def _create_stream(self, request: h11.Request) -> None:
        """Hand the request to the application; an upgrade that was not taken is served as HTTP/1.1."""
        self._ended = False
        stream = EdgeStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        stream.protocol = self
        self.stream = stream
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    def begin_answer(self, method: str, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Frame the head of an answer; it leaves with the body's first part, or alone when none follows at once."""
        self._bodiless = method == "HEAD" or status in {204, 304}
        self._remaining = -1
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b""))]
        close = not self.connection._cstate.keep_alive or self._upgrade or self.context.terminated.is_set()
        for name, value in (*headers, *self.config.response_headers("h11")):
            if b"\n" in value or b"\r" in value:
                raise ValueError("a header value has a line break")
            if name == b"connection":
                close = close or b"close" in value
                continue
            if name == b"content-length":
                self._remaining = int(value)
            parts.append(b"%b: %b\r\n" % (name, value))
        self._chunked = self._remaining < 0 and not self._bodiless
        if self._chunked and self.connection.their_http_version == b"1.1":
            parts.append(b"transfer-encoding: chunked\r\n")
        elif self._chunked:
            self._chunked, close = False, True
        self._close_after = close
        parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
        self._head = b"".join(parts)
        self._server.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._server.writer.write(head)

    async def send_body(self, data: bytes, more: bool) -> None:
        """Send a part of the body; the last one ends the answer, unless bytes of its Content-Length are missing."""
        out, self._head = self._head, b""
        if self._bodiless:
            self._remaining = 0
        elif self._chunked:
            if data:
                out += b"%x\r\n%b\r\n" % (len(data), data)
            if not more:
                out += b"0\r\n\r\n"
        else:
            self._remaining -= len(data)
            out += data
        if out:
            await self.send(RawData(data=out))
        if not more:
            self._ended = self._chunked or self._remaining == 0

    async def _maybe_recycle(self) -> None:
        """Take the next request on this connection where both sides ended in good order, else close it."""
        await self._close_stream()
        connection = self.connection
        reusable = self._ended and not self._close_after and connection.their_state is h11.DONE
        if reusable and not self.context.terminated.is_set():
            # The answer did not pass through h11, so h11 is told that it is done.
            connection._cstate.states[h11.SERVER] = h11.DONE
            connection.start_next_cycle()
            await self.can_read.set()
            await self.send(Updated(idle=True))
        else:
            self._send_head()
            await self.can_read.set()
            await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        counters.refused_parse += 1
        message = "The request is not valid HTTP/1.1."
        if status_code == 431:
            message = f"The request's headers are larger than {_limits.headers} bytes."
        await self._refuse(status_code, message)

    async def _refuse(self, status_code: int, message: str) -> None:
        body = error_body(RequestRefused("invalid_request", message))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        if self.stream is not None or self.connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        await self._send_h11_event(h11.Response(headers=headers, status_code=status_code))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class EdgeH2(H2Protocol):
    """HTTP/2 as hypercorn speaks it; a cut answer is reset, and floods end the connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resets: deque[float] = deque(maxlen=_limits.h2_resets + 1)
        self._control: deque[float] = deque(maxlen=_CONTROL_FRAMES + 1)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed):
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer._complete:
                await self._reset(event.stream_id)
        await super().stream_send(event)

    async def _reset(self, stream_id: int) -> None:
        """Send what is buffered, then RST_STREAM: the answer did not end, it was cut."""
        buffer = self.stream_buffers[stream_id]
        if buffer.buffer:
            try:
                async with asyncio.timeout(_RESET_DRAIN):
                    await buffer.drain()
            except TimeoutError:
                pass
        try:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        except h2.exceptions.ProtocolError:
            return
        await self._flush()
        await buffer.close()
        self.stream_buffers.pop(stream_id, None)
        self.priority.remove_stream(stream_id)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        now = time.monotonic()
        for event in events:
            if isinstance(event, h2.events.StreamReset):
                if _flooded(self._resets, now, _limits.h2_reset_window):
                    await self._close_flood(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    return
            elif isinstance(
                event, (h2.events.PingReceived, h2.events.RemoteSettingsChanged, h2.events.PriorityUpdated)
            ) and _flooded(self._control, now, 1.0):
                await self._close_flood(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                return
        begun = {event.stream_id for event in events if isinstance(event, h2.events.RequestReceived)}
        known: list[h2.events.Event] = []
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in begun | self.streams.keys():
                # The answer went out before the body was read to its end: what still comes is let go.
                self._let_go(event)
            else:
                known.append(event)
        try:
            await super()._handle_events(known)
        except KeyError:
            # A stream that was closed while an earlier event of the same batch was handled.
            await self._flush()

    def _let_go(self, event: h2.events.DataReceived) -> None:
        try:
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        except h2.exceptions.ProtocolError:
            return

    async def _close_flood(self, code: h2.errors.ErrorCodes) -> None:
        counters.closed_floods += 1
        self.connection.close_connection(error_code=code)
        await self._flush()
        await self.send(Closed())


def _flooded(seen: deque[float], now: float, window: float) -> bool:
    """Note one event; return whether more than ``maxlen - 1`` came within ``window`` seconds."""
    seen.append(now)
    return len(seen) == seen.maxlen and now - seen[0] < window


class EdgeServer(TCPServer):
    """A connection, with a timer handle instead of a task for each idle period."""

    _idle_handle: asyncio.TimerHandle | None = None
    _head_begun = False

    async def run(self) -> None:
        self.idle_task = _NoTask()  # type: ignore[assignment]
        transport = self.writer.transport
        # One full buffer a connection is what a reader that does not read can hold.
        transport.set_write_buffer_limits(high=64 * 1024)
        _connections.add(self)
        self._arm_idle(_HEAD_PATIENCE)
        try:
            await super().run()
        finally:
            self._disarm_idle()
            _connections.discard(self)

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            writer = self.writer
            transport = writer.transport
            try:
                if self.send_lock.locked() or transport.get_write_buffer_size():
                    async with self.send_lock:
                        writer.write(event.data)
                        await writer.drain()
                else:
                    writer.write(event.data)
                    if transport.get_write_buffer_size() or transport.is_closing():
                        async with self.send_lock:
                            await writer.drain()
            except (ConnectionError, RuntimeError):
                await self.protocol.handle(Closed())
        elif isinstance(event, Updated):
            self._disarm_idle()
            self._head_begun = False
            if event.idle:
                self._arm_idle(self.config.keep_alive_timeout)
        elif isinstance(event, _HeadBegun):
            if not self._head_begun:
                self._head_begun = True
                self._disarm_idle()
                self._arm_idle(_HEAD_PATIENCE)
        else:
            await super().protocol_send(event)

    def _arm_idle(self, seconds: float) -> None:
        if self.context.terminated.is_set():
            seconds = 0
        self._idle_handle = self.loop.call_later(seconds, self.close_idle)

    def _disarm_idle(self) -> None:
        if self._idle_handle is not None:
            self._idle_handle.cancel()
            self._idle_handle = None

    @property
    def is_idle(self) -> bool:
        return self._idle_handle is not None

    def close_idle(self) -> None:
        """Close the connection: it is idle, or the worker stops."""
        self._idle_handle = None
        task = self.loop.create_task(self._initiate_server_close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def _close(self) -> None:
        handle = self.loop.call_later(_CLOSE_PATIENCE, self.writer.transport.abort)
        try:
            await super()._close()
        finally:
            handle.cancel()


class _NoTask:
    """Stands in for hypercorn's idle task; ``EdgeServer`` keeps a timer handle itself."""

    async def restart(self, *_: Any) -> None:
        return

    async def stop(self) -> None:
        return


_connections: set[EdgeServer] = set()
_closing: set[asyncio.Task[None]] = set()


async def close_connections(drained: Callable[[], bool]) -> None:
    """Close connections as they become idle; once ``drained`` says that no request runs, close all of them."""
    deadline = 0.0
    while _connections:
        if not deadline and drained():
            deadline = time.monotonic() + 2 * _CLOSE_PATIENCE
        for connection in list(_connections):
            if connection.is_idle:
                connection._disarm_idle()
                connection.close_idle()
            elif deadline and time.monotonic() > deadline:
                connection.writer.transport.abort()
        await asyncio.sleep(0.02)


def install(limits: Limits, h2c: str) -> None:
    """Make hypercorn use these classes in this process. ``h2c``: "prior_knowledge", "upgrade" or "off"."""
    global _limits, _h2c  # noqa: PLW0603 - hypercorn builds the protocols; it passes no place to put these
    _limits = limits
    _h2c = h2c
    hypercorn_protocol.H11Protocol = EdgeH11  # type: ignore[attr-defined]
    hypercorn_protocol.H2Protocol = EdgeH2  # type: ignore[attr-defined]
    hypercorn_run.TCPServer = EdgeServer  # type: ignore[attr-defined]
