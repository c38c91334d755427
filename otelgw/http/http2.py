"""HTTP/2 as the edge speaks it: h2 does the framing; streams, flow control, resets and floods are minded here.

A body is acknowledged as the application takes it, and an answer's bytes wait for the caller's windows in a bounded
buffer, so that a slow side holds up its own stream only. An answer that ends early is reset, and the caller sees the
cut at once. Floods of resets, PINGs, SETTINGS and other frames without work in them end the connection.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import struct
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

import h2.events as events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes, Settings

from otelgw.http.framing import MAX_HEADERS, is_host
from otelgw.http.stream import RawHeaders, Stream, http_scope, pairs_of

if TYPE_CHECKING:
    from otelgw.http.edge import Connection

__all__ = ["PREFACE", "Http2"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HIGH = 32 * 1024  # bytes of an answer that wait for the caller's windows before the application has to wait
_CONNECTION_WINDOW = 1024 * 1024  # more than one stream's, so that one slow upload does not hold up the others
_CUT_PATIENCE = 0.5  # seconds for what was sent before a cut to leave the buffer
_LINGER = 5.0  # seconds in which an unwanted body may still come
_FRAMES_A_SECOND = 1000  # frames without work in them
_SILENT = 256  # bytes that weigh as much as a frame without work in it, where h2 finds no event in what was read
_CREDIT = 8  # WINDOW_UPDATE and PRIORITY frames that a caller may send for each request and each DATA frame it was sent
_CONNECTION_HEADERS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


class _Rate:
    """At most ``limit`` events in ``window`` seconds."""

    __slots__ = ("_count", "_limit", "_since", "_window")

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._since = 0.0
        self._count = 0

    def is_over(self, now: float, weight: int = 1) -> bool:
        """Count an event, or something that weighs as much as several; return whether it is one too many."""
        if now - self._since > self._window:
            self._since, self._count = now, 0
        self._count += weight
        return self._count > self._limit


class Http2Stream(Stream):
    """A request and its answer. ``out`` holds bytes of the answer that the caller's windows have no room for yet."""

    __slots__ = ("_bodiless", "_http2", "_remaining", "_room", "closed", "ending", "number", "out", "stalled_at")

    def __init__(self, http2: Http2, number: int, scope: MutableMapping[str, Any]) -> None:
        super().__init__(scope)
        self._http2 = http2
        self.number = number
        self.out = bytearray()
        self.ending = False  # ``out`` is the rest of the answer
        self.closed = False  # END_STREAM was sent
        self.stalled_at = 0.0
        self._bodiless = False
        self._remaining = -1
        self._room: asyncio.Future[None] | None = None

    def _taken(self, size: int) -> None:
        self._http2.acknowledge(self.number, size)

    def _begin(self, status: int, headers: RawHeaders, lines: bytes, *, alone: bool) -> None:  # noqa: ARG002
        sent = [(b":status", b"%d" % status)]
        for name, value in (*headers, *pairs_of(lines)):
            if name not in _CONNECTION_HEADERS:
                sent.append((name, value))
                if name == b"content-length":
                    self._remaining = int(value)
        if self.scope["method"] == "HEAD" or status in {204, 304}:
            self._bodiless, self._remaining = True, -1
        self._http2.send_headers(self, sent)

    async def _send_body(self, data: bytes, more: bool) -> None:
        if data and not self._bodiless:
            if self._remaining >= 0:
                self._remaining -= len(data)
                if self._remaining < 0:
                    raise RuntimeError("the answer is longer than its Content-Length")
            self.out += data
        if not more and self._remaining > 0:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self.ending = not more
        await self._http2.send_data(self)
        await self._until_below(0 if self.ending else _HIGH)
        if self.gone:
            raise ConnectionResetError("the caller has gone")
        if self.ending:
            self.complete = True
            self._http2.answered(self)

    async def _until_below(self, size: int) -> None:
        while len(self.out) > size and not self.gone:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def made_room(self) -> None:
        """Part of ``out`` was sent, or never will be."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def leave(self) -> None:
        super().leave()
        self.out.clear()
        self.made_room()

    async def _cut(self) -> None:
        if self.begun and self.out:
            try:
                async with asyncio.timeout(_CUT_PATIENCE):
                    await self._until_below(0)
            except TimeoutError:
                pass
        self._abort()

    def _abort(self) -> None:
        if not self.gone:
            self._http2.reset(self, ErrorCodes.INTERNAL_ERROR)


class Http2:
    """One connection's streams."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        limits = connection.edge.limits
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.h2_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.headers,
            },
        )
        self._h2.decoder.max_header_list_size = limits.headers
        self._streams: dict[int, Http2Stream] = {}
        self._unread: dict[int, float] = {}  # answered before their bodies were here; until when these are let go
        self._resets = _Rate(limits.h2_resets, limits.h2_reset_window)
        self._idle_frames = _Rate(_FRAMES_A_SECOND, 1.0)
        self._credit = 0
        self._stop_at = 0.0
        self._refuses = False
        self._flushing = False
        self._begun = False
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.RequestReceived: self._on_request,
            events.DataReceived: self._on_data,
            events.StreamEnded: self._on_ended,
            events.StreamReset: self._on_reset,
            events.WindowUpdated: self._on_window,
            events.RemoteSettingsChanged: self._on_settings,
            events.PriorityUpdated: self._on_priority,
            events.ConnectionTerminated: self._on_terminated,
        }

    def _begin(self) -> None:
        self._begun = True
        self._h2.initiate_connection()
        self._widen()

    def _widen(self) -> None:
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - self._h2.inbound_flow_control_window)

    def take_over(self, settings: bytes, scope: MutableMapping[str, Any]) -> bool:
        """Go on from HTTP/1.1 after ``Upgrade: h2c``: its request becomes stream 1. False: the settings are bad."""
        try:
            self._h2.initiate_upgrade_connection(settings)
        except (H2Error, ValueError, binascii.Error):
            return False
        self._begun = True
        self._widen()
        self.connection.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        stream = Http2Stream(self, 1, {**scope, "http_version": "2"})
        stream.end()
        self._start(stream)
        self._flush()
        return True

    # Reading

    def receive(self, data: bytes) -> None:
        """Take what the caller sent."""
        if not self._begun:
            self._begin()
        try:
            found = self._h2.receive_data(data)
            if not found and self._idle_frames.is_over(self.connection.loop.time(), len(data) // _SILENT):
                self._end_flood()
            for event in found:
                self._handlers.get(type(event), self._on_idle_frame)(event)
                if self.connection.finishing:
                    return
        except H2Error:
            # h2 has written the GOAWAY that says why.
            self.connection.edge.counters.refused += 1
            self._shut()
            return
        self._flush()

    def is_full(self) -> bool:
        """A caller that takes nothing is not read either: what it sends could want answers."""
        return self.connection.congested

    def _on_request(self, event: events.RequestReceived) -> None:
        number = event.stream_id
        self._credit += _CREDIT
        if self._refuses:
            self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        pseudo, headers = _split(event.headers)
        method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        is_path = target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")
        plain = target.isascii() and method.isascii() and is_host(dict(headers).get(b"host", b""))
        if method == b"CONNECT" or not is_path or not plain:
            self._refuse(event, 501 if method == b"CONNECT" else 400)
        elif b"#" in target or len(headers) > MAX_HEADERS:
            self._refuse(event, 400 if b"#" in target else 431)
        else:
            connection = self.connection
            name = method.decode("ascii")
            scheme, client, server = connection.scheme, connection.client, connection.server
            stream = Http2Stream(self, number, http_scope(name, target, "2", headers, scheme, client, server))
            # The application runs after the whole batch was read: it sees a request that ends in it as complete.
            stream.ended = event.stream_ended is not None
            self._start(stream)

    def _start(self, stream: Http2Stream) -> None:
        self._streams[stream.number] = stream
        self.connection.start(stream)

    def _refuse(self, event: events.RequestReceived, status: int) -> None:
        """Answer a request that does not reach the application."""
        self.connection.edge.counters.refused += 1
        self._h2.send_headers(event.stream_id, [(b":status", b"%d" % status)], end_stream=True)
        if event.stream_ended is None:
            self._let_go(event.stream_id)

    def _on_data(self, event: events.DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        padding = event.flow_controlled_length - len(event.data)
        if not event.data and event.stream_ended is None:
            self._on_idle_frame(event)
        if stream is None or stream.gone or stream.complete:
            self.acknowledge(event.stream_id, event.flow_controlled_length)
            return
        if padding:
            self.acknowledge(event.stream_id, padding)
        if event.data:
            stream.put(event.data)

    def _on_ended(self, event: events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.end()
        self._unread.pop(event.stream_id, None)

    def _on_reset(self, event: events.StreamReset) -> None:
        self._unread.pop(event.stream_id, None)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._forget(stream)
        if self._resets.is_over(self.connection.loop.time()):
            self._end_flood()

    def _on_priority(self, event: events.PriorityUpdated | events.WindowUpdated) -> None:
        if self._credit:
            self._credit -= 1
        else:
            self._on_idle_frame(event)

    def _on_window(self, event: events.WindowUpdated) -> None:
        self._on_priority(event)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self._pump(stream)
        elif event.stream_id == 0:
            self._pump_all()

    def _on_settings(self, event: events.RemoteSettingsChanged) -> None:
        self._on_idle_frame(event)
        self._pump_all()

    def _on_terminated(self, _: events.ConnectionTerminated) -> None:
        self.leave()
        self.connection.finish()

    def _on_idle_frame(self, _: events.Event) -> None:
        if self._idle_frames.is_over(self.connection.loop.time()):
            self._end_flood()

    def _end_flood(self) -> None:
        if not self.connection.finishing:
            self.connection.edge.counters.floods += 1
            self._close(ErrorCodes.ENHANCE_YOUR_CALM)

    def acknowledge(self, number: int, size: int) -> None:
        """Let the caller send ``size`` more bytes."""
        try:
            self._h2.acknowledge_received_data(size, number)
        except (H2Error, ValueError, KeyError):
            return
        self._flush_soon()

    # Writing

    def _flush(self) -> bool:
        """Write what h2 has framed; return whether the writer should drain."""
        data = self._h2.data_to_send()
        if not data:
            return False
        try:
            return self.connection.write(data)
        except ConnectionResetError:
            self.leave()
            return False

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.connection.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._flush()

    def send_headers(self, stream: Http2Stream, headers: RawHeaders) -> None:
        """Send the head of an answer; it leaves with the first part of the body where one follows at once.

        Raises:
            ConnectionResetError: the stream is closed.
        """
        try:
            self._h2.send_headers(stream.number, headers + self.connection.edge.date()[1])
        except StreamClosedError:
            self._forget(stream)
            raise ConnectionResetError("the caller has gone") from None
        self._flush_soon()

    async def send_data(self, stream: Http2Stream) -> None:
        """Send what the windows allow of ``stream.out``, and wait while the connection is full."""
        self._pump(stream)
        if self._flush():
            await self.connection.drain()

    def _pump_all(self) -> None:
        for stream in list(self._streams.values()):
            if stream.out:
                self._pump(stream)

    def _pump(self, stream: Http2Stream) -> None:
        if stream.closed or stream.gone or not stream.begun:
            return
        out, number, connection = stream.out, stream.number, self._h2
        stream.stalled_at = 0.0
        try:
            while out:
                size = min(connection.local_flow_control_window(number), connection.max_outbound_frame_size)
                if size <= 0:
                    stream.stalled_at = self.connection.loop.time()
                    break
                part = bytes(out[:size])
                del out[:size]
                stream.closed = stream.ending and not out
                connection.send_data(number, part, end_stream=stream.closed)
                self._credit += _CREDIT
            if stream.ending and not out and not stream.closed:
                stream.closed = True
                connection.end_stream(number)
        except H2Error:
            self._forget(stream)
        stream.made_room()

    # Ending

    def _forget(self, stream: Http2Stream) -> None:
        """The stream is no more; its application hears of it."""
        if not stream.ended and stream.queued:
            self.acknowledge(stream.number, stream.queued)
        if not stream.complete:
            stream.leave()
        self._drop(stream)

    def _drop(self, stream: Http2Stream) -> None:
        self._streams.pop(stream.number, None)
        if not self._streams and not self.connection.finishing:
            self.connection.idle()

    def answered(self, stream: Http2Stream) -> None:
        """An answer is out."""
        if not stream.ended:
            if stream.queued:
                self.acknowledge(stream.number, stream.queued)
            self._let_go(stream.number)
        self._drop(stream)

    def _let_go(self, number: int) -> None:
        self._unread[number] = self.connection.loop.time() + _LINGER

    def reset(self, stream: Http2Stream, code: ErrorCodes) -> None:
        """Tell the caller that the stream ended early."""
        self._reset_number(stream.number, code)
        self._forget(stream)

    def _reset_number(self, number: int, code: ErrorCodes) -> None:
        try:
            self._h2.reset_stream(number, code)
        except H2Error:
            return
        self._flush()

    def _close(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        with contextlib.suppress(H2Error):
            self._h2.close_connection(code)
        self._shut()

    def _shut(self) -> None:
        self._flush()
        self.leave()
        self.connection.finish()

    # What the connection asks for

    def leave(self) -> None:
        """The caller has gone."""
        for stream in list(self._streams.values()):
            if not stream.complete:
                stream.leave()
        self._streams.clear()

    def close(self) -> None:
        """Close an idle connection."""
        self._close()

    too_late = close

    def sweep(self, now: float) -> None:
        """End streams whose callers do not read, and bodies that nobody wants; wind down when the worker stops."""
        patience = self.connection.edge.limits.response_idle
        for stream in list(self._streams.values()):
            if stream.stalled_at and now - stream.stalled_at > patience:
                self.connection.edge.counters.timeouts += 1
                self.reset(stream, ErrorCodes.CANCEL)
        for number in [number for number, until in self._unread.items() if now > until]:
            del self._unread[number]
            self._reset_number(number, ErrorCodes.NO_ERROR)
        if self.connection.edge.stopping:
            self._wind_down(now)

    def _wind_down(self, now: float) -> None:
        """A connection that is never idle gets a GOAWAY halfway through the drain; what runs on it goes on."""
        if not self._stop_at:
            self._stop_at = now + self.connection.edge.drain / 2
        elif now > self._stop_at and not self._refuses:
            self._refuses = True
            # h2 cannot send one and go on.
            last = self._h2.highest_inbound_stream_id
            goaway = struct.pack(">BHBBLLL", 0, 8, 7, 0, 0, last, ErrorCodes.NO_ERROR)
            self._flush()
            try:
                self.connection.write(goaway)
            except ConnectionResetError:
                self.leave()


def _split(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], RawHeaders]:
    """Return the pseudo-headers, and the others with the authority as their Host."""
    pseudo: dict[bytes, bytes] = {}
    others: RawHeaders = []
    for name, value in headers:
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            others.append((name, value))
    authority = pseudo.get(b":authority")
    if authority is not None:
        others = [(b"host", authority), *(header for header in others if header[0] != b"host")]
    return pseudo, others
