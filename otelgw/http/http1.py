"""HTTP/1.1 as the edge speaks it: llhttp reads requests, strictly; answers are framed here.

A request whose framing is wrong or could be read in two ways is refused and the connection closed (RFC 9112 6.1, 11.2:
it is how requests are smuggled). No ``Upgrade`` is taken but h2c, where the config allows it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from otelgw.errors import GatewayError, error_body
from otelgw.http.framing import MAX_HEADERS, HeadRefused, check, tokens
from otelgw.http.heads import KnownHead
from otelgw.http.http2 import Http2
from otelgw.http.stream import Chunked, RawHeaders, Stream, http_scope

if TYPE_CHECKING:
    from otelgw.http.edge import Connection

__all__ = ["Http1", "refusal"]

_QUEUE = 256 * 1024  # bytes of a body that wait for the application before reading pauses
_LARGE = 32 * 1024  # bytes
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_STATUS_LINES = {status: b"HTTP/1.1 %d %b" % (status, phrase) for status, phrase in _PHRASES.items()}
_ERROR_TYPES = {408: "request_timeout", 500: "internal"}
_FIRST_KNOWN, _LAST_KNOWN = 2, 8  # of a connection's requests that are parsed, those whose heads are remembered
_NO_CONTENT = HTTPStatus.NO_CONTENT.value
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_MALFORMED = "The request is not valid HTTP/1.1."


def refusal(status: int, message: str, date: bytes = b"") -> bytes:
    """Return a whole answer with OpenAI's error JSON that closes the connection."""
    body = error_body(GatewayError(_ERROR_TYPES.get(status, "invalid_request"), message))
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
    return head % (status, _PHRASES[status], len(body), date) + body


class Http1Stream(Stream):
    """A request and its answer."""

    __slots__ = ("_bodiless", "_chunked", "_expects", "_head", "_http1", "_remaining", "close", "persistent")

    immediate = True

    def __init__(self, http1: Http1, scope: MutableMapping[str, Any]) -> None:
        super().__init__(scope)
        self._http1 = http1
        self.persistent = scope["http_version"] == "1.1"
        self.close = False
        self._expects = False
        self._head = b""
        self._chunked = self._bodiless = False
        self._remaining = -1

    def expect(self) -> None:
        """The caller waits for 100 Continue before it sends the body."""
        self._expects = True

    def _expected(self) -> None:
        if self._expects and not self.begun:
            self._expects = False
            self._http1.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _taken(self, _size: int) -> None:
        self._http1.connection.resume_reading()

    def _begin(self, status: int, headers: RawHeaders, lines: bytes, *, alone: bool) -> None:
        """Frame the head; it leaves with the body's first part, or by itself when none follows at once."""
        http1 = self._http1
        # Without the rest of the request there is no telling where the next one begins.
        close = not self.persistent or not self.ended or http1.connection.edge.stopping
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
        length = -1
        for name, value in headers:
            if name not in _FRAMING:
                parts.append(name + b": " + value)
            elif name == b"connection":
                close = close or b"close" in value.lower()
            elif name == b"content-length" and status != _NO_CONTENT:
                length = int(value)
                parts.append(b"content-length: %d" % length)
        self._bodiless = self.scope["method"] == "HEAD" or status in {204, 304}
        self._remaining = 0 if self._bodiless else length
        if self._remaining < 0:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                parts.append(b"transfer-encoding: chunked")
            else:
                close = True
        if close:
            parts.append(b"connection: close")
        head = b"\r\n".join(parts)
        if head.count(b"\n") != len(parts) - 1 or head.count(b"\r") != len(parts) - 1:
            raise ValueError("a header of the answer has a line break")
        self.close = close
        self._head = b"".join((head, b"\r\n", lines, http1.connection.edge.date()[0], b"\r\n"))
        if alone:
            http1.connection.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            try:
                self._http1.connection.write(head)
            except ConnectionResetError:
                self.leave()

    def put_out(self, data: bytes) -> bool:
        if self.gone:
            raise ConnectionResetError("the caller has gone")
        return self._write_body(data, more=True)

    def chunked(self) -> Chunked | None:
        return self._http1.connection if self._chunked else None

    async def drained(self) -> None:
        await self._http1.connection.drain()

    def put_last(self, data: bytes) -> bool:
        if self.gone:
            raise ConnectionResetError("the caller has gone")
        if self._write_body(data, more=False):
            return True
        self._conclude()
        return False

    async def concluded(self) -> None:
        await self._http1.connection.drain()
        self._conclude()

    async def _send_body(self, data: bytes, more: bool) -> None:
        if self._write_body(data, more=more):
            await self._http1.connection.drain()
        if not more:
            self._conclude()

    def _conclude(self) -> None:
        """The answer is out."""
        if self._remaining > 0:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self.complete = True
        self._http1.answered(self)

    def _write_body(self, data: bytes, *, more: bool) -> bool:
        """Write a part of the body; return whether the connection has more than it should."""
        connection = self._http1.connection
        out, self._head = self._head, b""
        if self._chunked:
            if len(data) > _LARGE:
                # A copy of it would be held for as long as the caller does not read.
                connection.write(b"%b%x\r\n" % (out, len(data)))
                connection.write(data)
                out = b"\r\n"
            elif data:
                out += b"%x\r\n" % len(data) + data + b"\r\n"
            if not more:
                out += b"0\r\n\r\n"
        elif data and not self._bodiless:
            if 0 <= self._remaining < len(data):
                raise RuntimeError("the answer is longer than its Content-Length")
            if self._remaining > 0:
                self._remaining -= len(data)
            if len(data) > _LARGE:
                connection.write(out)
                out = data
            else:
                out += data
        return bool(out) and connection.write(out)

    async def _cut(self) -> None:
        self._abort()

    def _abort(self) -> None:
        connection = self._http1.connection
        if not self.begun:
            self._http1.refuse(500, "otelgw failed; its log has the reason.", self)
            return
        self._send_head()
        self.leave()
        if self._chunked or self._remaining >= 0:
            connection.finish(unread=not self.ended)
        else:
            connection.reset()


class Http1:
    """One connection's requests, one after the other; pipelined ones wait."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._limit = connection.edge.limits.headers
        self._parser = HttpRequestParser(self)
        self._stream: Http1Stream | None = None  # being answered
        self._receiving: Http1Stream | None = None  # whose body is coming
        self._waiting: deque[Http1Stream] = deque()
        self._refused: tuple[int, str] | None = None  # to be sent when the answers before it are out
        self._deaf = False  # nothing more can be read
        self._last_persistent = True
        self._reset_head()
        self._target = b""
        self._headers: RawHeaders = []
        self._body_framing = b""  # of a request with an Upgrade and a body
        self._replaying = False
        self._upgrading: tuple[bytes, Http1Stream] | None = None
        self._successor: tuple[Http2, bytes] | None = None
        self._known: KnownHead | None = None
        self._parsed = 0  # requests that came in one piece and had to be parsed

    def _reset_head(self) -> None:
        self._in_head = True
        self._head_begun = False
        self._head_fed = 0

    # Reading

    def receive(self, data: bytes) -> None:
        """Take what the caller sent."""
        between = self._stream is None and not (self._head_begun or self._head_fed or self._deaf)
        if between and self._known is not None and self._repeated(self._known, data):
            return
        self._feed(data)
        if between:
            self._remember(data)
        if self._successor is not None:
            http2, rest = self._successor
            self.connection.upgrade(http2)
            http2.receive(rest)

    def _repeated(self, known: KnownHead, data: bytes) -> bool:
        """Take a request whose head is known, if ``data`` is one."""
        found = known.match(data)
        if found is None:
            return False
        scope, body = found
        stream = Http1Stream(self, scope)
        stream.findings = known.findings
        stream.put(body)
        stream.end()
        self._admit(stream)
        return True

    def _remember(self, data: bytes) -> None:
        """Note the head of a request that came in one piece, unless the connection has shown that its heads differ."""
        stream = self._stream
        if stream is not None and stream.ended and stream.persistent and not self._head_begun:
            self._parsed += 1
            if _FIRST_KNOWN <= self._parsed < _LAST_KNOWN:
                self._known = KnownHead.of(data, stream.scope)

    def is_full(self) -> bool:
        """Whether nothing more should be read for now."""
        receiving = self._receiving
        return bool(self._waiting) or (receiving is not None and receiving.queued > _QUEUE)

    def _feed(self, data: bytes) -> None:
        while data and not self._deaf:
            if self._in_head:
                self._head_fed += len(data)
            try:
                self._parser.feed_data(data)
                data = b""
            except HttpParserUpgrade as upgrade:
                data = self._pass_upgrade(data[upgrade.args[0] :])
            except HttpParserError as error:
                cause = error.__context__
                if isinstance(cause, HeadRefused):
                    self._fail(cause.status, cause.message)
                else:
                    self._fail(400, f"{_MALFORMED} {error}.")
                return
        if self._in_head and not self._deaf:
            if self._head_fed > self._limit:
                self._fail(431, f"The request's headers are larger than {self._limit} bytes.")
            elif self._head_begun and self._stream is None:
                self.connection.head_begun()

    def _pass_upgrade(self, rest: bytes) -> bytes:
        """Go on after a request that asks for an upgrade; return what is still to be parsed.

        llhttp takes such a request to have no body. Where it has one, a fresh parser is given its framing again.
        """
        if self._upgrading is not None:
            settings, stream = self._upgrading
            self._deaf = True
            http2 = Http2(self.connection)
            if http2.take_over(settings, stream.scope):
                self._successor = (http2, rest)
            else:
                self._fail(400, "HTTP2-Settings cannot be read.")
            return b""
        if self._body_framing:
            self._parser = HttpRequestParser(self)
            self._replaying = True
            framing, self._body_framing = self._body_framing, b""
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        return rest

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        if not self._replaying:
            self._head_begun = True
            self._target = b""
            self._headers = []

    def on_url(self, url: bytes) -> None:
        if not self._replaying:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Outside the head they are trailers, which nothing here needs.
        if self._in_head and not self._replaying:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._replaying:
            self._replaying = False
            return
        parser, headers = self._parser, self._headers
        self._check_size()
        method, version = parser.get_method(), parser.get_http_version()
        target = check(method, self._target, version, headers)
        place = self.connection
        scope = http_scope(method.decode("ascii"), target, version, headers, place.scheme, place.client, place.server)
        stream = Http1Stream(self, scope)
        stream.persistent = self._last_persistent = stream.persistent and parser.should_keep_alive()
        self._in_head = False
        self._receiving = stream
        for name, value in headers:
            if name == b"expect" and stream.persistent:
                stream.expect()
            elif name == b"upgrade" and parser.should_upgrade():
                self._consider_upgrade(stream, value)
        if self._upgrading is None:
            self._admit(stream)

    def _admit(self, stream: Http1Stream) -> None:
        if self._stream is None:
            self._stream = stream
            self.connection.start(stream)
        else:
            self._waiting.append(stream)

    def _check_size(self) -> None:
        if len(self._headers) > MAX_HEADERS:
            raise HeadRefused(431, f"The request has more than {MAX_HEADERS} headers.")
        if self._head_fed > self._limit:
            size = len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers)
            if size > self._limit:
                raise HeadRefused(431, f"The request's headers are larger than {self._limit} bytes.")

    def _consider_upgrade(self, stream: Http1Stream, protocol: bytes) -> None:
        fields = dict(stream.scope["headers"])
        for name in (b"content-length", b"transfer-encoding"):
            if name in fields and fields[name] != b"0":
                self._body_framing = b"%b: %b" % (name, fields[name])
                return
        settings = fields.get(b"http2-settings")
        takes = self.connection.edge.h2c == "upgrade" and self.connection.scheme == "http"
        if takes and settings is not None and self._stream is None and b"h2c" in tokens(protocol):
            self._upgrading = (settings, stream)

    def on_body(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.put(data)

    def on_message_complete(self) -> None:
        if self._body_framing:
            return
        if self._receiving is not None:
            self._receiving.end()
            self._receiving = None
        self._reset_head()

    # Answering

    def answered(self, stream: Http1Stream) -> None:
        """An answer is out: take the next request, or close."""
        if stream.close:
            self._shut(unread=not stream.ended)
        elif self._waiting:
            self._stream = self._waiting.popleft()
            self.connection.start(self._stream)
        else:
            self._stream = None
            if self._refused is not None:
                self.refuse(*self._refused)
            else:
                self.connection.idle()
                if self._head_begun:
                    self.connection.head_begun()
        self.connection.resume_reading()

    def _fail(self, status: int, message: str) -> None:
        """The input cannot be read any further: refuse what cannot be answered, after what can."""
        self._deaf = True
        broken, self._receiving = self._receiving, None
        if broken is not None and broken is self._stream:
            if broken.begun:
                broken.leave()
                self._shut(unread=True)
            else:
                self.refuse(status, message, broken)
            return
        if broken in self._waiting:
            self._waiting.pop()
        if self._stream is None:
            self.refuse(status, message)
        elif self._last_persistent or broken is not None:
            self._refused = (status, message)

    def refuse(self, status: int, message: str, stream: Http1Stream | None = None) -> None:
        """Answer with an error and close; in the place of ``stream``'s answer, where one is given."""
        self.connection.edge.counters.refused += status != 408  # the connection has counted what came too late
        with contextlib.suppress(ConnectionResetError):
            self.connection.write(refusal(status, message, self.connection.edge.date()[0]))
        if stream is not None:
            stream.leave()
        self._shut(unread=True)

    def _shut(self, *, unread: bool) -> None:
        self._deaf = True
        self._waiting.clear()
        self.connection.finish(unread=unread)

    # What the connection asks for

    def leave(self) -> None:
        """The caller has gone."""
        self._deaf = True
        self._known = None
        self._waiting.clear()
        for stream in (self._stream, self._receiving):
            if stream is not None and not stream.complete:
                stream.leave()

    def close(self) -> None:
        """Close an idle connection."""
        self._shut(unread=False)

    def too_late(self) -> None:
        """The head has not come in time."""
        self.refuse(408, "The request's headers came too slowly.")

    def sweep(self, now: float) -> None:
        """Nothing here has a time of its own."""
