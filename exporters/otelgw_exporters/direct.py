"""POSTs to one address over sockets of its own: a general client takes longer over a request than all else that a batch
needs. Whatever asks for more than a connection (a proxy, a confined destination, a name in the URL) is left to
``otelgw_exporters.http``, and what comes out is the same.
"""

from __future__ import annotations

import contextlib
import io
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import httpx

from otelgw_exporters import confinement, http
from otelgw_exporters.delivery import Reply

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Direct", "direct"]

_LIMIT = 64 * 1024  # bytes of an answer that are read
_IDLE = 30.0  # seconds for which an unused connection is kept
_KEPT = 4  # unused connections
_PIECES = 512  # that one system call takes; 1024 is the least that POSIX systems have
_SWITCHING_PROTOCOLS = 101
_SOUND = re.compile(rb"[!-~](?:[\t -~]*[!-~])?|")  # a header's value as every server takes it
_ITS_OWN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"te", b"upgrade"})


class Direct:
    """Sends to ``url``, each request with the lines ``head`` before its length. Safe for several threads.

    ``context`` is for TLS. Errors are told of ``origin``, as ``http.send`` does.
    """

    def __init__(self, url: httpx.URL, head: bytes, context: ssl.SSLContext | None, origin: str) -> None:
        self._name = url.raw_host.decode("ascii").strip("[]")
        self._address = (self._name, url.port or (443 if context is not None else 80))
        self._head = head
        self._context = context
        self._origin = origin
        self._idle: list[tuple[socket.socket, float]] = []
        self._open: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._closing = False

    def post(self, body: Sequence[bytes], deadline: float, mask: Callable[[str], str]) -> http.Answer | Reply:
        """Send ``body``, in pieces; return the answer, or a reply that says why there was none by ``deadline``."""
        head = b"%bcontent-length: %d\r\n\r\n" % (self._head, sum(map(len, body)))
        try:
            return self._tried((head, *body), deadline)
        except TimeoutError as error:
            return Reply("again", f"{self._origin}: no answer in time ({type(error).__name__})")
        except (OSError, HTTPException) as error:
            return Reply("again", f"{self._origin}: {mask(str(error)) or type(error).__name__}")

    def _tried(self, message: Sequence[bytes], deadline: float) -> http.Answer:
        """Exchange a request for its answer, a second time where the connection broke.

        A kept connection that the other side has closed meanwhile shows only when it is used.
        """
        for last in (False, True):
            connection = self._kept() or self._connected(deadline)
            try:
                return self._exchanged(connection, message, deadline)
            except TimeoutError:
                raise
            except (OSError, HTTPException):
                if last or self._closing:
                    raise
        raise AssertionError("unreachable")

    def _kept(self) -> socket.socket | None:
        while self._idle:
            try:
                connection, since = self._idle.pop()
            except IndexError:  # another thread took it
                break
            ended = select.poll()
            ended.register(connection, select.POLLIN)
            # Nothing is asked, so whatever is there to be read is the connection's end.
            if time.monotonic() - since < _IDLE and not ended.poll(0):
                return connection
            connection.close()
        return None

    def _connected(self, deadline: float) -> socket.socket:
        connection = socket.create_connection(self._address, _left(deadline))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                connection.settimeout(_left(deadline))
                connection = self._context.wrap_socket(connection, server_hostname=self._name)
            with self._lock:
                self._open.add(connection)
            if self._closing:
                raise ConnectionAbortedError("the destination is being closed")
        except BaseException:
            connection.close()
            raise
        return connection

    def _exchanged(self, connection: socket.socket, message: Sequence[bytes], deadline: float) -> http.Answer:
        whole = False
        try:
            try:
                _send(connection, message, deadline)
                sent = True
            except (BrokenPipeError, ConnectionResetError):
                sent = False  # it may have answered before it closed
            incoming = _Incoming(connection, deadline)
            response = HTTPResponse(incoming, method="POST")  # type: ignore[arg-type]
            try:
                response.begin()
                while 100 <= response.status < 200 and response.status != _SWITCHING_PROTOCOLS:
                    response.headers = None  # type: ignore[assignment]
                    response.begin()
                if incoming.ended:  # which the parser takes for the end of the head
                    raise RemoteDisconnected("the connection ended within an answer's head")
                body = response.read(_LIMIT)
                if response.length and len(body) < _LIMIT:
                    raise IncompleteRead(body, response.length)
                whole = sent and response.isclosed() and not response.will_close
                headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
                return http.Answer(response.status, httpx.Headers(headers), body)
            finally:
                response.close()
        finally:
            if whole and not self._closing and len(self._idle) < _KEPT:
                self._idle.append((connection, time.monotonic()))
            else:
                connection.close()

    def close(self) -> None:
        """Break the connections: what waits for an answer would otherwise go on waiting."""
        self._closing = True
        with self._lock:
            found = list(self._open)
        for each in found:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        while self._idle:
            self._idle.pop()[0].close()


class _Incoming(io.RawIOBase):
    """What a connection brings, until ``deadline``."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self.ended = False

    def makefile(self, *_: Any) -> io.BufferedReader:
        """Return what ``HTTPResponse`` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._connection.settimeout(_left(self._deadline))
        count = self._connection.recv_into(buffer)
        self.ended = not count
        return count


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for one delivery was over")
    return left


def _send(connection: socket.socket, pieces: Sequence[bytes], deadline: float) -> None:
    """Send ``pieces`` without putting them together, which takes as long as sending them."""
    connection.settimeout(_left(deadline))
    if isinstance(connection, ssl.SSLSocket):
        for piece in pieces:
            connection.settimeout(_left(deadline))
            connection.sendall(piece)
        return
    waiting = [memoryview(piece) for piece in reversed(pieces) if piece]
    while waiting:
        sent = connection.sendmsg(waiting[: -_PIECES - 1 : -1])
        while sent:
            first = waiting.pop()
            if sent < len(first):
                waiting.append(first[sent:])
                break
            sent -= len(first)
        if waiting:
            connection.settimeout(_left(deadline))


def direct(client: http.Client, url: str, tls: http.Tls, name: str) -> Direct | None:
    """Return what sends to ``url`` as ``client`` would, or None where that takes more than a connection."""
    if confinement.bounds() is not None or not hasattr(select, "poll"):
        return None
    try:
        request = client.build_request("POST", url)
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    target = request.url
    lines = [(key.lower(), value) for key, value in request.headers.raw if key.lower() != b"content-length"]
    if target.scheme not in {"http", "https"} or not target.host or target.userinfo:
        return None
    if client._transport_for_url(target) is not client._transport:  # by a proxy; httpx says so nowhere else
        return None
    if any(key in _ITS_OWN or not _SOUND.fullmatch(value) for key, value in lines):
        return None
    head = b"POST %b HTTP/1.1\r\n" % target.raw_path + b"".join(b"%b: %b\r\n" % line for line in lines)
    return Direct(target, head, tls.context(name) if target.scheme == "https" else None, http.origin(url))
