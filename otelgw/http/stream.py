"""One request in the application's hands: its ASGI scope, what it receives and what it sends, whatever the protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol
from urllib.parse import unquote

from otelgw.http.lazy_headers import Block
from otelgw.tracing.record import Caller

__all__ = ["OUTLET", "Application", "Chunked", "Findings", "Stream", "http_scope", "pairs_of", "rendered"]

log = logging.getLogger(__name__)

OUTLET = "otelgw.outlet"  # in the ASGI scope: the ``Stream`` itself, for an application that would have less to await

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
RawHeaders = list[tuple[bytes, bytes]]

_ASGI = {"version": "3.0", "spec_version": "2.3"}


def rendered(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as the lines that ``Stream.begin`` takes; a line break in one would make it two."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def pairs_of(lines: bytes) -> RawHeaders:
    """Return the header lines of ``Stream.begin`` as pairs of name and value."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])]


def http_scope(
    method: str,
    target: bytes,
    version: str,
    headers: RawHeaders,
    scheme: str,
    client: tuple[str, int] | None,
    server: tuple[str, int] | None,
) -> MutableMapping[str, Any]:
    """Return the ASGI scope of a request; ``target`` is ASCII and in origin form."""
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method,
        "scheme": scheme,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
    }


class Chunked(Protocol):
    """A connection whose answer is chunked, for whoever writes whole chunks without ``put_out``: with what ``writer``
    returns, while it is not ``finishing``, and waiting for ``drained`` where it is ``congested`` afterwards."""

    finishing: bool
    congested: bool

    def writer(self) -> Callable[[bytes], None]: ...


class Findings:
    """What follows from a request's head, the length of its body and its trace context left aside; each fact is noted
    by whom it concerns, for the next request with that head.

    ``key``: the SHA-256 of the key and who holds it, if that is the master key. ``controlled``: there are headers that
    say how to record. ``upward``: what goes to an upstream, by upstream.
    """

    __slots__ = ("controlled", "key", "upward")

    def __init__(self) -> None:
        self.key: tuple[str, Caller | None] | None = None
        self.controlled: bool | None = None
        self.upward: dict[object, Block] = {}


class Stream:
    """A request's body comes in by ``put`` and ``end``; a protocol's subclass sends the answer.

    ``ended``: the request is here to its last byte. ``begun``: the answer's head was handed over. ``complete``: its end
    was, too. ``gone``: the caller is not there any more. ``queued`` counts body bytes that the application has not
    taken yet. ``findings``: what is known of the head from requests before.
    """

    __slots__ = (
        "_on_leave",
        "_parts",
        "_told",
        "_waiter",
        "begun",
        "complete",
        "ended",
        "findings",
        "gone",
        "queued",
        "scope",
    )

    immediate = False  # ``put_out``, ``put_last`` and what is awaited after them can be used

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.scope = scope
        self.ended = self.begun = self.complete = self.gone = False
        self.queued = 0
        self.findings: Findings | None = None
        self._parts: list[bytes] = []
        self._told = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_leave: Callable[[], None] | None = None
        scope[OUTLET] = self

    def on_leave(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the caller goes: an application that waits elsewhere needs no task for it."""
        self._on_leave = callback
        if self.gone:
            asyncio.get_running_loop().call_soon(callback)

    def put(self, data: bytes) -> None:
        """Take a part of the request's body."""
        if self.gone or self.complete:
            return
        self._parts.append(data)
        self.queued += len(data)
        self._wake()

    def end(self) -> None:
        """The request is complete."""
        self.ended = True
        self._wake()

    def leave(self) -> None:
        """The caller has gone."""
        self.gone = True
        self._parts.clear()
        self.queued = 0
        self._wake()
        if self._on_leave is not None:
            self._on_leave()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> Message:
        """Return what has come of the body since, or that the caller has gone, or that the answer is complete."""
        while True:
            if self.gone:
                return {"type": "http.disconnect"}
            if self._parts or (self.ended and not self._told):
                self._told = self.ended
                return {"type": "http.request", "body": self._take(), "more_body": not self.ended}
            if self.complete:
                return {"type": "http.disconnect"}
            self._expected()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def whole(self) -> bytes | None:
        """Take the request's body where all of it is here; None where it has to be received."""
        if not self.ended or self._told or self.gone:
            return None
        self._told = True
        return self._take()

    def _take(self) -> bytes:
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self.queued = 0
        if body:
            self._taken(len(body))
        return body

    def begin(self, status: int, headers: RawHeaders, lines: bytes, *, alone: bool = True) -> None:
        """Send the head of an answer: ``headers`` and, as they are, ``lines``. Not ``alone``: the first part of the
        body follows at once.

        Raises:
            ConnectionResetError: the caller has gone.
        """
        if self.gone:
            raise ConnectionResetError("the caller has gone")
        self._begin(status, headers, lines, alone=alone)
        self.begun = True

    def put_out(self, data: bytes) -> bool:
        """Send a part of the answer's body that is not its last, where the protocol is ``immediate``; return True where
        ``drained`` is to be awaited before the next.

        Raises:
            ConnectionResetError: the caller has gone.
        """
        raise NotImplementedError

    def chunked(self) -> Chunked | None:
        """Return the connection for chunks that are framed already, each after at least one ``put_out``; None where the
        answer is not chunked."""
        return None

    async def drained(self) -> None:
        """Wait until the caller has taken enough of what was put out.

        Raises:
            ConnectionResetError: the caller has gone.
        """
        raise NotImplementedError

    def put_last(self, data: bytes) -> bool:
        """Send the last part of the answer's body like ``put_out``; return True where the answer is over only when
        ``concluded`` was awaited.

        Raises:
            ConnectionResetError: the caller has gone.
            RuntimeError: the body is not as long as the head said.
        """
        raise NotImplementedError

    async def concluded(self) -> None:
        """Wait until the caller has taken enough of the answer, and end it.

        Raises:
            ConnectionResetError: the caller has gone.
        """
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        Raises:
            ConnectionResetError: the caller has gone.
            RuntimeError: the message does not fit what was sent before.
        """
        if self.gone:
            raise ConnectionResetError("the caller has gone")
        kind = message["type"]
        if kind == "http.response.body" and self.begun and not self.complete:
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self.begun:
            self.begin(message["status"], message.get("headers", []), b"")
        else:
            raise RuntimeError(f"{kind} does not fit what was sent before")

    async def run(self, application: Application, ended: Callable[[Stream], None]) -> None:
        """Run the application, and say that it has ``ended``; an answer that it leaves open reaches the caller as a
        cut."""
        try:
            try:
                await application(self.scope, self.receive, self.send)
            except asyncio.CancelledError:
                self._abort()
                raise
            except Exception as error:
                # A write that found the caller gone is no failure.
                if not (self.gone and isinstance(error, OSError)):
                    log.exception("the application failed")
            if not self.complete and not self.gone:
                await self._cut()
        finally:
            # Either holds what holds this stream.
            self._on_leave = None
            self.scope.pop(OUTLET, None)
            ended(self)

    def _taken(self, size: int) -> None:
        """The application took ``size`` bytes of the body."""

    def _expected(self) -> None:
        """The application waits for the body."""

    def _begin(self, status: int, headers: RawHeaders, lines: bytes, *, alone: bool) -> None:
        raise NotImplementedError

    async def _send_body(self, data: bytes, more: bool) -> None:
        raise NotImplementedError

    async def _cut(self) -> None:
        """The application ended before its answer did."""
        raise NotImplementedError

    def _abort(self) -> None:
        """The same, now."""
        raise NotImplementedError
