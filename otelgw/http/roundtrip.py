"""One request to an upstream and its answer, and the errors that either can end in."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from otelgw.errors import UpstreamError

if TYPE_CHECKING:
    from otelgw.http.connection import Connection

__all__ = ["BUFFER", "FAILURES", "RawHeader", "RoundTrip", "cause_of", "failure"]

RawHeader = tuple[bytes, bytes]
Sink = Callable[[bytes], bool | None]
Express = Callable[[bytes], bool | None]

BUFFER = 64 * 1024  # bytes of body that the reader has not taken; above it the socket is not read

FAILURES: dict[str, str] = {
    "upstream_dns": "cannot resolve {where}: {cause}; check the host name in api_base",
    "upstream_connect": "cannot connect to {where}: {cause}; check api_base, and that the server runs and is reachable",
    "upstream_tls": "TLS with {where} failed: {cause}; for a private CA let SSL_CERT_FILE name its certificate, for a "
    "server that speaks plain HTTP write http:// in api_base",
    "upstream_timeout_connect": "no connection to {where} within {cause}; check the network, or raise the connect "
    "timeout",
    "upstream_timeout_first_byte": "{where} sent no answer within {cause}; if it needs longer, raise the first_byte "
    "timeout",
    "upstream_timeout_idle": "{where} was silent for {cause} in the middle of a transfer; if that is normal for it, "
    "raise the idle timeout",
    "upstream_timeout_total": "the call to {where} took longer than {cause}; if it needs longer, raise the total "
    "timeout",
    "upstream_reset": "{where} closed the connection {cause}; see the upstream's log, and try again",
    "upstream_truncated": "{where} closed the connection {cause}; see the upstream's log, and try again",
    "upstream_bad_response": "{where} sent no valid HTTP/1.1 answer: {cause}; check that api_base names an HTTP server",
}
"""``error.type`` -> message: what failed, where, how to mend it. The upstream client has no other errors."""


def failure(error_type: str, where: str, cause: str) -> UpstreamError:
    """Return the error for a key of ``FAILURES``; ``where`` is ``host:port``, ``cause`` holds no secret."""
    return UpstreamError(error_type, FAILURES[error_type].format(where=where, cause=cause))


def cause_of(error: BaseException) -> str:
    """Return what a socket or TLS error says, without its errno decoration."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "handshake failed").lower().replace("_", " ")
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


class RoundTrip(httpx.AsyncByteStream):
    """One request and its answer: await ``answered()``, then iterate for the body, then ``aclose()``.

    A chunk is a piece of the body as one read of the socket held it, without the chunked framing; nothing is joined,
    split or decoded. The iteration ends where the body ends and raises ``UpstreamError`` where it was cut, after the
    chunks that did arrive. ``aclose()`` before the end closes the socket at once, and so does a cancelled wait.
    """

    def __init__(self, connection: Connection, *, without_body: bool) -> None:
        self.connection = connection
        self.without_body = without_body
        self.status = 0  # 0 until the head is complete
        self.reason = b""
        self.http_version = b"HTTP/1.1"
        self.headers: list[RawHeader] = []
        self.first_byte_ns = 0  # time.monotonic_ns() at the first byte of the final head
        self.error: BaseException | None = None
        self.ended = False  # nothing more will arrive
        self.received = 0  # bytes of body so far
        self.buffered = 0  # of them those that the reader has not taken
        self._chunks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.express: Express | None = None  # during ``pump``
        self._sink: Sink | None = None
        self._refusal: BaseException | None = None  # what the sink raised

    async def answered(self) -> None:
        """Wait for the head of the answer.

        Raises:
            UpstreamError: there is none; ``StaleConnection`` if only the connection is to blame.
        """
        try:
            while not self.status and self.error is None:
                self._waiter = self.connection.loop.create_future()
                await self._waiter
        except BaseException:
            self.connection.abort(self)
            raise
        if not self.status and self.error is not None:
            raise self.error

    def whole(self, limit: int) -> list[bytes] | None:
        """Take the body's chunks where all of them are here and no more than ``limit`` bytes; else None."""
        if not self.ended or self.error is not None or self.buffered > limit:
            return None
        chunks = list(self._chunks)
        self._chunks.clear()
        self.buffered = 0
        return chunks

    async def pump(self, sink: Sink, express: Express | None = None) -> bool:
        """Give ``sink`` every chunk as soon as it is read, without a task in between; return True where the sink wants
        to be waited for (what comes meanwhile is kept), False at the end of the body.

        ``express`` is asked first where a read begins where a chunk of the chunked coding does: it gets the read as it
        is, and returns None unless that is one whole chunk which it took, and else what the sink would return.

        Raises:
            UpstreamError: the body was cut, as in the iteration.
            Exception: what the sink raised.
        """
        while self._chunks:
            data = self._chunks.popleft()
            self.buffered -= len(data)
            if sink(data):
                return True
        if self.connection.paused:
            self.connection.resume(self)
        self._sink, self.express = sink, express
        try:
            while self._sink is not None and not self.ended:
                await self._wait()
        finally:
            stopped = self._sink is None
            self._sink = self.express = None
        if self._refusal is not None:
            raise self._refusal
        if not stopped and self.error is not None:
            raise self.error
        return stopped

    def __aiter__(self) -> RoundTrip:
        return self

    async def __anext__(self) -> bytes:
        chunks = self._chunks
        while not chunks:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            await self._wait()
        data = chunks.popleft()
        self.buffered -= len(data)
        if self.connection.paused and self.buffered <= BUFFER // 2:
            self.connection.resume(self)
        return data

    def close(self) -> None:
        """Close the socket unless the answer has ended. Idempotent."""
        self.connection.abort(self)

    async def aclose(self) -> None:
        self.close()

    async def _wait(self) -> None:
        waiter = self._waiter = self.connection.loop.create_future()
        try:
            await waiter
        except BaseException:
            self.connection.abort(self)
            raise

    def put(self, data: bytes) -> None:
        self.received += len(data)
        if self._sink is None:
            self._chunks.append(data)
            self.buffered += len(data)
            self._wake()
            return
        try:
            if self._sink(data):
                self.halt()
        except Exception as error:  # noqa: BLE001 - it belongs to the reader, not to the connection
            self.halt(error)

    def halt(self, refusal: BaseException | None = None) -> None:
        """End ``pump``: the sink wants to be waited for, or raised ``refusal``."""
        self._sink = self.express = None
        self._refusal = refusal
        self._wake()

    def start(self, status: int, headers: list[RawHeader]) -> None:
        self.status = status
        self.headers = headers
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
