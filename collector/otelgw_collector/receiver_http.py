"""OTLP over HTTP/1.1 into an ``Intake``: protobuf and JSON, plain, gzip or deflate; everything bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h11
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otelgw_collector.listening import stop_accepting
from otelgw_collector.otlp_json import from_json, to_json
from otelgw_collector.receiver import Answer, Intake, from_protobuf, is_allowed

__all__ = ["HttpReceiver", "decompressed"]

logger = logging.getLogger(__name__)

_PATH = b"/v1/traces"
_CHUNK = 64 * 1024
_HEAD = 64 * 1024  # bytes of a request's head
_IDLE = 75.0  # seconds that a connection may be idle
_SILENCE = 30.0  # seconds without a byte within a request
_REQUEST = 120.0  # seconds for a whole request
_LINGER = 2.0  # seconds to read on after a refusal, so that the sender gets to see it
_CONNECTIONS = 512
_IN_FLIGHT = 256 * 1024 * 1024  # bytes of all request bodies that are being read
_NO_HTTP = "this is no request of HTTP/1.1; for gRPC there is another port"
_ENOUGH = 1.0  # seconds after which to come again when that is used up

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_STATUSES: Mapping[str, tuple[int, int]] = {  # HTTP status, gRPC code
    "accepted": (200, 0),
    "unreadable": (400, 3),
    "unauthorized": (401, 16),
    "not_found": (404, 5),
    "not_allowed": (405, 12),
    "too_large": (413, 8),
    "unsupported": (415, 3),
    "unavailable": (503, 14),
}


@dataclass(frozen=True, slots=True)
class _Form:
    """How bodies are written: read a request, write an answer."""

    media_type: str
    read: Callable[[bytes], ExportTraceServiceRequest]
    write: Callable[[Message], bytes]


_FORMS = {
    _PROTOBUF: _Form(_PROTOBUF, from_protobuf, lambda message: message.SerializeToString()),
    _JSON: _Form(_JSON, from_json, to_json),
}
_FORMS["application/protobuf"] = _FORMS[_PROTOBUF]


class _Refused(Exception):
    """A request that is answered before it is read to its end; the connection is closed."""

    def __init__(self, kind: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """Return ``body`` without its content coding.

    Raises:
        ValueError: it is not what the coding says, or ends early.
        OverflowError: it is larger than ``limit`` bytes.
        LookupError: the coding is not known.
    """
    if encoding in {"", "identity"}:
        return body
    parts: list[bytes] = []
    left = limit
    while body:
        inflater = zlib.decompressobj(_WINDOWS[encoding])
        try:
            part = inflater.decompress(body, left + 1)
        except zlib.error:
            raise ValueError(f"the body is not {encoding}") from None
        if len(part) > left:
            raise OverflowError(f"the body is larger than {limit} bytes when decompressed")
        if not inflater.eof:
            raise ValueError(f"the body ends in the middle of its {encoding} data")
        parts.append(part)
        left -= len(part)
        body = inflater.unused_data
    return b"".join(parts)


class HttpReceiver:
    """A server for ``POST /v1/traces``; it lives on the event loop that it is started on.

    ``max_bytes`` bounds a body, on the wire and decompressed.
    """

    def __init__(
        self, intake: Intake, *, max_bytes: int, token_sha256: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        self._intake = intake
        self._max_bytes = max_bytes
        self._token_sha256 = token_sha256
        self._tls = tls
        self._in_flight = 0
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._server = await asyncio.start_server(
            self._serve, host, port, limit=_CHUNK, ssl=self._tls, backlog=_CONNECTIONS, reuse_address=True
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, limit: float) -> None:
        """Take no new requests; those under way have ``limit`` seconds."""
        if self._server is None:
            return
        await stop_accepting(*(listener.fileno() for listener in self._server.sockets))
        self._server.close()
        for task, connection in list(self._connections.items()):
            connection.closing = True
            if connection.idle:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(list(self._connections), timeout=limit)
            for task in late:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 1.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _CONNECTIONS:
            writer.close()
            return
        connection = _Connection(reader, writer)
        self._connections[task] = connection
        try:
            await self._converse(connection)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception:
            logger.exception("a connection has failed")
        finally:
            self._connections.pop(task, None)
            writer.close()

    async def _converse(self, connection: _Connection) -> None:
        """Answer the requests of one connection, one after the other."""
        while not connection.closing:
            request = await connection.next_request()
            if request is None:
                if connection.refused:
                    self._intake.note("http", "unreadable")
                return
            form = _FORMS[_PROTOBUF]
            try:
                async with asyncio.timeout(_REQUEST):
                    form, coding = self._admitted(request)
                    answer = await self._received(connection, form, coding)
            except _Refused as refusal:
                self._intake.note("http", refusal.kind)
                await connection.send(*_refusal(refusal, form), close=True)
                await connection.linger()
                return
            self._intake.note("http", answer.kind)
            await connection.send(*_answered(answer, form), close=connection.closing)
            if not connection.reusable():
                return

    def _admitted(self, request: h11.Request) -> tuple[_Form, str]:
        """Return the form of the request's body and its coding, by its head.

        Raises:
            _Refused: the head says that it cannot be taken.
        """
        headers = {name: value.decode("latin-1").strip() for name, value in request.headers}
        if request.http_version not in {b"1.0", b"1.1"}:
            raise _Refused("unreadable", _NO_HTTP)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise _Refused("unreadable", "a request has either Content-Length or Transfer-Encoding")
        if request.target.partition(b"?")[0] != _PATH:
            raise _Refused("not_found", "traces are received at /v1/traces; nothing else is received")
        if request.method != b"POST":
            raise _Refused("not_allowed", "send with POST")
        if not is_allowed(headers.get(b"authorization", ""), self._token_sha256):
            raise _Refused("unauthorized", "a bearer token is asked for in Authorization")
        media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        form = _FORMS.get(media_type)
        if form is None:
            raise _Refused("unsupported", f"the content type must be {_PROTOBUF} or {_JSON}")
        coding = headers.get(b"content-encoding", "").lower()
        if coding not in _WINDOWS and coding not in {"", "identity"}:
            raise _Refused("unsupported", "the content coding must be gzip, deflate or none")
        if int(headers.get(b"content-length", "0")) > self._max_bytes:
            raise _Refused("too_large", f"a request has at most {self._max_bytes} bytes")
        return form, coding

    async def _received(self, connection: _Connection, form: _Form, coding: str) -> Answer:
        body = bytearray()
        try:
            async for data in connection.body():
                body += data
                self._in_flight += len(data)
                if len(body) > self._max_bytes:
                    raise _Refused("too_large", f"a request has at most {self._max_bytes} bytes")
                if self._in_flight > _IN_FLIGHT:
                    raise _Refused("unavailable", "too much is being received at once", _ENOUGH)
            try:
                plain = decompressed(bytes(body), coding, self._max_bytes)
            except OverflowError as error:
                return Answer("too_large", str(error))
            except ValueError as error:
                return Answer("unreadable", str(error))
            return await self._intake.receive(plain, form.read, keep=form.media_type == _PROTOBUF)
        finally:
            self._in_flight -= len(body)


class _Connection:
    """One HTTP/1.1 connection. ``idle`` while no request has begun; once ``closing`` is set, there is no next one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
        self.idle = True
        self.closing = False
        self.refused = False  # what came was no HTTP

    async def next_request(self) -> h11.Request | None:
        """Return the head of the next request; None at the end of the connection."""
        try:
            async with asyncio.timeout(_IDLE):
                event = await self._next(_IDLE)
        except h11.RemoteProtocolError:
            await self._refuse()
            return None
        return event if isinstance(event, h11.Request) else None

    async def body(self) -> Any:
        """Yield the pieces of the request's body."""
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self._http.send(go_on))
        while True:
            try:
                event = await self._next(_SILENCE)
            except h11.RemoteProtocolError:
                raise _Refused("unreadable", "the request's body is not what its head says") from None
            if isinstance(event, h11.Data):
                yield event.data
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise ConnectionResetError("the sender has gone")

    async def _next(self, seconds: float) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await asyncio.wait_for(self._reader.read(_CHUNK), seconds)
            self.idle = self.idle and not data
            self._http.receive_data(data)

    async def send(self, status: int, headers: Sequence[tuple[str, str]], body: bytes, *, close: bool) -> None:
        """Send a whole answer."""
        lines = [*headers, ("content-length", str(len(body))), *([("connection", "close")] if close else [])]
        out = self._http.send(h11.Response(status_code=status, headers=lines)) or b""
        out += self._http.send(h11.Data(data=body)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        await self._write(out)

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        await asyncio.wait_for(self._writer.drain(), _SILENCE)

    def reusable(self) -> bool:
        """Get ready for another request; False if there can be none."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self.idle = not self._http.trailing_data[0]
        return True

    async def _refuse(self) -> None:
        """Answer what is no HTTP."""
        self.refused = True
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            refusal = _Refused("unreadable", _NO_HTTP)
            await self.send(*_refusal(refusal, _FORMS[_PROTOBUF]), close=True)
            await self.linger()

    async def linger(self) -> None:
        """Read on for a moment: closing with unread bytes would take the answer away from the sender."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._reader.read(_CHUNK):
                    pass


def _answered(answer: Answer, form: _Form) -> tuple[int, list[tuple[str, str]], bytes]:
    if answer.kind != "accepted":
        return _refusal(_Refused(answer.kind, answer.message, answer.retry_after), form)
    response = ExportTraceServiceResponse()
    if answer.rejected:
        response.partial_success.rejected_spans = answer.rejected
        response.partial_success.error_message = answer.message
    return 200, [("content-type", form.media_type)], form.write(response)


def _refusal(refusal: _Refused, form: _Form) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return the answer of OTLP's specification: a ``google.rpc.Status`` in the request's own form."""
    status, code = _STATUSES[refusal.kind]
    headers = [("content-type", form.media_type)]
    if refusal.retry_after:
        headers.append(("retry-after", str(max(1, round(refusal.retry_after)))))
    if status == 401:
        headers.append(("www-authenticate", "Bearer"))
    if status == 405:
        headers.append(("allow", "POST"))
    return status, headers, form.write(Status(code=code, message=refusal.message))
