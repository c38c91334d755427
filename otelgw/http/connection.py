"""One HTTP/1.1 connection to an upstream: one request at a time, its answer as a stream of chunks.

``Connection`` is the asyncio protocol: bytes out, bytes in, deadlines. How connections are opened and kept is the
business of ``otelgw.http.pool``; ``RoundTrip``, what a caller awaits and iterates, is in ``otelgw.http.roundtrip``.

The framing rules are those of RFC 9112 taken strictly, for an upstream is only half trusted: what llhttp refuses, a
``Transfer-Encoding`` other than one ``chunked``, 101, or a head above the limit is a bad answer and ends the
connection; it goes back to its owner only when the answer ended where its framing said and nothing came after it.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import AsyncIterable
from time import monotonic_ns
from typing import Any, NamedTuple, Protocol, cast

from httptools import HttpParserError, HttpResponseParser

from otelgw.errors import StaleConnection, UpstreamError
from otelgw.http.roundtrip import BUFFER, RawHeader, RoundTrip, cause_of, failure

__all__ = ["Connection", "Origin", "Owner", "Patience"]

STALE_WITHIN = 1.0  # seconds after a request was written in which a close means that the connection was stale
STATUS_LINE = 1024  # bytes allowed for it and for 1xx answers beside the headers
TICK = 0.001  # seconds; uvloop's clock moves in milliseconds
_KEEP_ALIVE = re.compile(rb"timeout\s*=\s*(\d{1,6})", re.IGNORECASE)
_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class Origin(NamedTuple):
    """Where requests go; ``str()`` is ``host:port``, as messages name it."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Patience(NamedTuple):
    """Timeouts of one round trip in seconds; ``math.inf`` for none.

    ``first_byte`` runs from the last byte of the request to the head of the answer, ``idle`` between two reads of the
    body (or while the upstream does not take the request's), ``total`` from the start of the call to its last byte.
    """

    first_byte: float = math.inf
    idle: float = math.inf
    total: float = math.inf


class Owner(Protocol):
    """Who lends a connection: told when it can be lent again, and once that it is gone."""

    def release(self, connection: Connection) -> None: ...

    def discard(self, connection: Connection) -> None: ...


class _Malformed(Exception):  # never leaves this module
    """Raised inside a parser callback: the answer breaks a rule that llhttp does not check."""


class Connection(asyncio.Protocol):
    """A socket to ``origin``. Whoever keeps it sets ``owner``; ``head_limit`` is in bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin, head_limit: int) -> None:
        self.loop = loop
        self.origin = origin
        self.owner: Owner | None = None
        self.closed = False
        self.expires = math.inf  # loop time until which the owner keeps it idle
        self.keep_alive = math.inf  # seconds that the upstream said it keeps an idle connection
        self.served = 0  # requests sent
        self._time = loop.time
        self._head_limit = head_limit
        self._transport: asyncio.Transport
        self._parser = HttpResponseParser(self)
        self._trip: RoundTrip | None = None
        self._headers: list[RawHeader] = []
        self._reason = b""
        self._overhead = 0  # bytes read since the request or the last byte of the body
        self._interim = False  # inside a 1xx answer
        self._complete = False
        self._between = False  # the last read ended with a chunk, so that the next one begins with one
        self._reusable = False
        self._until_close = False  # the body ends where the connection does
        self.paused = False
        self._writable: asyncio.Future[None] | None = None  # set while the socket takes no more
        self._patience = Patience()
        self._started = 0.0  # loop times
        self._sent = math.inf  # the whole request was handed over
        self._blocked = math.inf  # the socket takes no more
        self._heard = 0.0  # the last read
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def usable(self) -> bool:
        """Whether another request may be sent, as far as is known without asking the network."""
        return not (self.closed or self._trip is not None or self._transport.is_closing())

    def send(
        self, head: bytes, body: bytes | None, patience: Patience, *, started: float, without_body: bool = False
    ) -> RoundTrip:
        """Write a request and return its round trip.

        ``body`` None: it follows by ``upload``. ``started`` is the loop time from which the total timeout runs.
        ``without_body``: the answer has no body whatever its headers say (HEAD).
        """
        trip = self._trip = RoundTrip(self, without_body=without_body)
        now = self._time()
        self.served += 1
        self._patience = patience
        self._started = started
        self._heard = now
        self._headers = []
        self._reason = b""
        self._overhead = 0
        self._complete = self._interim = self._until_close = self._between = False
        if body is None:
            self._sent = math.inf
            self._transport.write(head)
        else:
            self._sent = now
            if len(body) <= BUFFER:
                self._transport.write(head + body)
            else:
                self._transport.writelines((head, body))
        self._arm(min(now + patience.first_byte, now + patience.idle, started + patience.total))
        return trip

    async def upload(self, trip: RoundTrip, body: AsyncIterable[bytes], length: int | None) -> None:
        """Send the body of ``trip``: chunked, or as it is if its ``length`` in bytes was announced.

        Returns early when the round trip has ended.

        Raises:
            ValueError: ``body`` is longer or shorter than ``length``.
        """
        transport = self._transport
        sent = 0
        async for data in body:
            if self._trip is not trip:
                return
            sent += len(data)
            if length is None:
                if data:  # not writelines: asyncio's forgets to pause us (CVE-2024-12254)
                    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            elif sent <= length:
                transport.write(data)
            else:
                break
            if self._writable is not None:
                await self._writable
        if length is not None and sent != length:
            raise ValueError(f"the request body is not {length} bytes long, as its Content-Length says")
        if self._trip is trip:
            if length is None:
                transport.write(b"0\r\n\r\n")
            self._sent = self._time()

    def resume(self, trip: RoundTrip) -> None:
        """Read on, if the reader of ``trip`` had fallen behind."""
        if self.paused and self._trip is trip:
            self.paused = False
            self._heard = self._time()  # the silence until now was ours
            self._transport.resume_reading()

    def abort(self, trip: RoundTrip | None = None, error: BaseException | None = None) -> None:
        """Close the socket now and end the round trip in progress, with ``error`` if there is one.

        With ``trip`` only if it is the one in progress. Idempotent.
        """
        current = self._trip
        if self.closed or (trip is not None and current is not trip):
            return
        self.closed = True
        self._trip = None
        if current is not None:
            current.end(error or failure("upstream_reset", str(self.origin), "because the call was given up"))
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        self._transport.abort()
        del self._parser  # it holds our bound methods: a cycle
        if self.owner is not None:
            self.owner.discard(self)

    def get_extra_info(self, name: str) -> Any:
        """Answer like httpcore's network streams: ``socket``, ``ssl_object``, ``server_addr``, ``client_addr``."""
        return self._transport.get_extra_info({"server_addr": "peername", "client_addr": "sockname"}.get(name, name))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        trip = self._trip
        if trip is None:  # nobody asked: whatever this is, it must not become the next answer
            self.abort()
            return
        self._heard = self._time()
        if self._between and (express := trip.express) is not None:
            try:
                waits = express(data)
            except Exception as error:  # noqa: BLE001 - it belongs to the reader, not to the connection
                trip.halt(error)
                return
            if waits is not None:
                if waits:
                    trip.halt()
                return
        if not trip.first_byte_ns:
            trip.first_byte_ns = monotonic_ns()
        received = trip.received
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if not self._complete:
                self._fail("upstream_bad_response", str(error.__context__ or error))
                return
            self._reusable = False
        if self._between:
            self._between = data.endswith(b"\r\n")
        if self._complete:
            self._finish(trip)
        elif trip.received == received:
            self._overhead += len(data)
            if self._overhead > self._head_limit + STATUS_LINE:
                self._fail("upstream_bad_response", f"more than {self._head_limit} bytes of headers or framing")
        else:
            self._overhead = 0
            if trip.buffered > BUFFER and not self.paused:
                self.paused = True
                self._transport.pause_reading()

    def eof_received(self) -> None:
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()
        self._blocked = self._time()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        self._blocked = math.inf
        if writable is not None and not writable.done():
            writable.set_result(None)

    # httptools.HttpResponseParser

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Malformed("bytes after the end of the answer")

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        trip = cast("RoundTrip", self._trip)
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                raise _Malformed(f"status {status}")
            self._interim = True
            return
        version = _VERSIONS.get(self._parser.get_http_version())
        if version is None:
            raise _Malformed("it is not HTTP/1.1")
        headers = self._headers
        self._until_close = not self._read_framing(headers)
        self._headers = []  # what follows are trailers
        trip.reason = self._reason
        trip.http_version = version
        if not trip.first_byte_ns:
            trip.first_byte_ns = monotonic_ns()
        trip.start(status, headers)
        if trip.without_body:
            self._complete = True  # llhttp does not know, and takes a body that came all the same for one
            self._reusable = False

    def on_body(self, data: bytes) -> None:
        if self._interim:
            raise _Malformed("a 1xx answer with a body")
        trip = self._trip
        if trip is not None and not self._complete:
            trip.put(data)

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self._headers = []
            self._reason = b""
            cast("RoundTrip", self._trip).first_byte_ns = 0
        elif not self._complete:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()

    def _read_framing(self, headers: list[RawHeader]) -> bool:
        """Say whether the headers tell where the body ends; note how long the upstream keeps the connection."""
        framed = False
        size = 0
        for name, value in headers:
            length = len(name)
            size += length + len(value) + 4
            if length == 10:
                if name.lower() == b"keep-alive" and (seconds := _KEEP_ALIVE.search(value)):
                    self.keep_alive = float(seconds[1])
            elif length == 14:
                framed = framed or name.lower() == b"content-length"
            elif length == 17 and name.lower() == b"transfer-encoding":
                if framed or value.lower() != b"chunked":
                    raise _Malformed("a Transfer-Encoding other than one chunked")
                framed = True
        if size > self._head_limit:
            raise _Malformed(f"more than {self._head_limit} bytes of headers")
        return framed

    # The end of a round trip.

    def _finish(self, trip: RoundTrip) -> None:
        self._trip = None
        trip.end()
        transport = self._transport
        owner = self.owner
        if (
            owner is None
            or not self._reusable
            or trip.http_version != b"HTTP/1.1"
            or self._sent == math.inf
            or transport.get_write_buffer_size()
            or transport.is_closing()
        ):
            self.abort()
            return
        if self.paused:
            self.paused = False
            transport.resume_reading()
        owner.release(self)

    def _fail(self, error_type: str, cause: str) -> None:
        self.abort(error=failure(error_type, str(self.origin), cause))

    def _lost(self, exc: Exception | None) -> None:
        trip = self._trip
        if trip is None:
            self.abort()
        elif trip.status and self._until_close and exc is None:
            self._finish(trip)
        else:
            self.abort(error=self._verdict(trip, exc))

    def _verdict(self, trip: RoundTrip, exc: Exception | None) -> UpstreamError:
        """Return the error of a round trip that ended because the connection did."""
        where = str(self.origin)
        if isinstance(exc, ssl.SSLError):
            return failure("upstream_tls", where, cause_of(exc))
        if trip.status:
            error_type = "upstream_truncated" if exc is None else "upstream_reset"
            return failure(error_type, where, "before the end of its answer")
        if trip.first_byte_ns:
            return failure("upstream_reset", where, "in the head of its answer")
        error = failure("upstream_reset", where, "before it answered")
        if self.served > 1 and self._time() - self._started <= STALE_WITHIN:
            return StaleConnection(error.error_type, error.message)
        return error

    # Deadlines: one timer a connection, which looks at the times when it fires; a read only moves ``_heard``.

    def _arm(self, when: float) -> None:
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self.loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        trip = self._trip
        if trip is None:
            return
        now = self._time()
        due, error_type, seconds = self._due(trip)
        if due - now <= TICK:
            self._fail(error_type, f"{seconds:g} s")
        else:
            # Whatever the round trip does next, no deadline is nearer than these two timeouts from now.
            self._arm(min(due, now + self._patience.first_byte, now + self._patience.idle))

    def _due(self, trip: RoundTrip) -> tuple[float, str, float]:
        first_byte, idle, total = self._patience
        if trip.status:
            silent = (math.inf if self.paused else self._heard + idle, "upstream_timeout_idle", idle)
        elif self._sent == math.inf:
            silent = (self._blocked + idle, "upstream_timeout_idle", idle)
        else:
            silent = (self._sent + first_byte, "upstream_timeout_first_byte", first_byte)
        return min(silent, (self._started + total, "upstream_timeout_total", total))
