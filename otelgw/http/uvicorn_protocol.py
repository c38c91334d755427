"""uvicorn's HTTP/1.1 protocol with the edge's rules: the same refusals, deadlines and closing as under hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from otelgw.config.settings import Settings
from otelgw.http.counters import Counters
from otelgw.http.framing import MAX_HEADERS, HeadRefused, check
from otelgw.http.http1 import refusal
from otelgw.http.stream import ON_LEAVE

__all__ = ["EdgeProtocol", "protocol"]

_LINGER = 2.0  # seconds for a caller to stop sending after it was refused
_UNKNOWN_LENGTH = sys.maxsize // 2
_SETTLED = 0.25  # a connection that has been idle for so long will not be hit by a request just as it closes


class _Outlet:
    """The transport, as an answer sees it: its head leaves with the first part of its body, or alone when none follows
    at once, and to close it is to close in good order."""

    def __init__(self, protocol: EdgeProtocol) -> None:
        self.is_closing = protocol.transport.is_closing
        self._write = protocol.transport.write
        self._shut = protocol.shut
        self._call_soon = protocol.loop.call_soon
        self._head = b""

    def begin(self, head: bytes) -> None:
        self._head = head
        self._call_soon(self.flush)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        self._write(data)

    def flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._write(head)

    def close(self) -> None:
        self.flush()
        self._shut()


class _Answering:
    """The application, sending through ``begin``: uvicorn checks every name and value of a head with two regular
    expressions and writes it by itself, which costs as much as relaying the request."""

    __slots__ = ("_app", "_cycle", "_outlet", "_protocol")

    def __init__(self, app: Any, cycle: RequestResponseCycle, outlet: _Outlet, protocol: EdgeProtocol) -> None:
        self._app = app
        self._cycle = cycle
        self._outlet = outlet
        self._protocol = protocol

    async def __call__(self, scope: Any, receive: Any, _send: Any) -> None:
        scope[ON_LEAVE] = self._on_leave
        await self._app(scope, receive, self._send)

    def _on_leave(self, callback: Callable[[], None]) -> None:
        if self._cycle.disconnected:
            self._protocol.loop.call_soon(callback)
        else:
            self._protocol.on_leave = callback

    async def _send(self, message: Any) -> None:
        cycle = self._cycle
        if cycle.expected_content_length > _UNKNOWN_LENGTH and not message.get("more_body", False):
            cycle.expected_content_length = len(message.get("body", b""))
        if message["type"] != "http.response.start" or cycle.response_started or cycle.flow.write_paused:
            await cycle.send(message)
        elif not cycle.disconnected:
            self._begin(message["status"], message["headers"])

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Frame the head as uvicorn does, and leave its cycle in the state that this means."""
        cycle = self._cycle
        lines = [STATUS_LINE[status][:-2]]
        framed = False
        for name, value in (*cycle.default_headers, *headers):
            if name == b"connection":
                if b"close" in value.lower():
                    cycle.keep_alive = False
                continue
            if name == b"content-length":
                cycle.expected_content_length, cycle.chunked_encoding, framed = int(value), False, True
            elif name == b"transfer-encoding":
                continue
            lines.append(b"%b: %b" % (name, value))
        if not framed and cycle.scope["method"] != "HEAD" and status not in {204, 304}:
            if cycle.scope["http_version"] == "1.0":
                # The end of the connection is the end of the body; uvicorn counts the length it is told.
                cycle.expected_content_length, cycle.chunked_encoding, cycle.keep_alive = sys.maxsize, False, False
            else:
                cycle.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked")
        if not cycle.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise ValueError("a header of the answer has a line break")
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self._outlet.begin(head + b"\r\n\r\n")


class EdgeProtocol(HttpToolsProtocol):
    """One connection. Subclasses carry the ``settings`` and the worker's ``counters``."""

    settings: Settings
    counters: Counters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What follows a request that ends the connection is let go here, and never taken for a request.
        self.parser = httptools.HttpRequestParser(self)
        self._refused: tuple[int, str] | None = None
        self._deaf = False  # nothing more is read
        self._ended = False  # nothing more is written
        self._in_head = True
        self._head_fed = 0
        self._head_begun = False
        self._body_framing = b""
        self._replaying = False
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._stopping = False
        self._answering: RequestResponseCycle | None = None
        self.on_leave: Callable[[], None] | None = None  # of the request that is being answered

    # Deadlines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = _Outlet(self)
        self._arm(self.settings.limits.request_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)
        self._tell_left()

    def _tell_left(self) -> None:
        if self.on_leave is not None:
            on_leave, self.on_leave = self.on_leave, None
            on_leave()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._too_late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self._deaf:
            self.transport.abort()
        elif self._head_begun:
            self.counters.timeouts += 1
            self._refused = (408, "The request's headers came too slowly.")
            self.send_400_response()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.settings.limits.response_idle, self._check_progress)

    def _check_progress(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self.counters.timeouts += 1
            self.transport.abort()
            return
        self._unsent = unsent
        self._write_timer = self.loop.call_later(self.settings.limits.response_idle, self._check_progress)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    # Reading

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data and not self._deaf:
            if self._in_head:
                self._head_fed += len(data)
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._pass_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError as error:
                if not (self._in_head and self.cycle is not None and not self.cycle.keep_alive):
                    self._fail(error)
                self._deaf = True
                return
        self._watch_head()

    def _watch_head(self) -> None:
        """Bound the head that is coming, in size, and in time once the answers before it are out."""
        if self._ended or self._deaf:
            return
        if not self._in_head:
            self._disarm()
        elif self._head_fed > self.settings.limits.headers:
            self._deaf = True
            self._refused = (431, f"The request's headers are larger than {self.settings.limits.headers} bytes.")
            if not self._is_answering():
                self.send_400_response()
        elif self._head_begun and self._timer is None and not self._is_answering():
            self._arm(self.settings.limits.request_head)

    def _fail(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, HeadRefused):
            self._refused = (cause.status, cause.message)
        else:
            self._refused = (400, f"The request is not valid HTTP/1.1. {error}.")
        if self.pipeline and not self._in_head:
            self.pipeline.popleft()
        elif self._is_answering() and not self._in_head:
            # The body of the request that is being answered is broken.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._tell_left()
            if self.cycle.response_started:
                self.shut()
                return
        if not self._is_answering():
            self.send_400_response()

    def _is_answering(self) -> bool:
        cycle = self._answering
        return bool(self.pipeline) or (cycle is not None and not cycle.response_complete and not cycle.disconnected)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, _Answering(app, cycle, self._outlet, self))

    def _pass_upgrade(self, rest: bytes) -> bytes:
        """Go on after a request that asks for an upgrade, none of which is taken; return what is still to be parsed.

        llhttp takes such a request to have no body. Where it has one, a fresh parser is given its framing again.
        """
        if self._body_framing:
            self.parser = httptools.HttpRequestParser(self)
            self._replaying = True
            framing, self._body_framing = self._body_framing, b""
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        return rest

    def on_message_begin(self) -> None:
        if not self._replaying:
            self._head_begun = True
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Outside the head they are trailers, which nothing here needs.
        if self._in_head and not self._replaying:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._replaying:
            self._replaying = False
            return
        headers, limit = self.headers, self.settings.limits.headers
        if len(headers) > MAX_HEADERS:
            raise HeadRefused(431, f"The request has more than {MAX_HEADERS} headers.")
        if self._head_fed > limit:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > limit:
                raise HeadRefused(431, f"The request's headers are larger than {limit} bytes.")
        self.url = check(self.parser.get_method(), self.url, self.parser.get_http_version(), headers)
        if self.parser.should_upgrade():
            fields = dict(headers)
            for name in (b"content-length", b"transfer-encoding"):
                if fields.get(name, b"0") != b"0":
                    self._body_framing = b"%b: %b" % (name, fields[name])
        self._in_head = False
        self._disarm()
        super().on_headers_complete()
        self.cycle.transport = self._outlet  # type: ignore[assignment]
        if self._stopping:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if self._body_framing:
            return
        self._in_head = True
        self._head_begun = False
        self._head_fed = 0
        super().on_message_complete()

    # Closing

    def send_400_response(self, _msg: str = "") -> None:
        """Refuse what was read, with the status and message that were found."""
        status, message = self._refused or (400, "The request is not valid HTTP/1.1.")
        self.counters.refused += status != 408 and not self._ended
        if not self.transport.is_closing():
            date = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
            self.transport.write(refusal(status, message, date))
        self.shut()

    def shut(self) -> None:
        """Close once everything is sent; what the caller still sends is let go for a moment, for a socket that is
        closed with unread data takes the end of the answer with it."""
        self._deaf = self._ended = True
        self.pipeline.clear()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()
            self.flow.resume_reading()
            self._arm(_LINGER)
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        self.on_leave = None
        if self._ended or self.transport.is_closing():
            return
        super().on_response_complete()
        if self._refused is not None and not self._is_answering():
            self.send_400_response()
            return
        self._watch_head()
        if self._stopping and not self._is_answering():
            self.loop.call_later(_SETTLED, self._close_settled)

    def shutdown(self) -> None:
        """The worker stops: let what runs finish, and a connection that was busy a moment ago be used once more."""
        self._stopping = True
        if self._answering is not None:
            self._answering.keep_alive = False
        if not self._is_answering():
            self.loop.call_later(_SETTLED, self._close_settled)

    def _close_settled(self) -> None:
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.close()


def protocol(settings: Settings, counters: Counters | None = None) -> type[EdgeProtocol]:
    """Return the protocol class for ``settings``."""
    return type("Protocol", (EdgeProtocol,), {"settings": settings, "counters": counters or Counters()})
