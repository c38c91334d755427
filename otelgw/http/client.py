"""The upstream client: ``httpx.AsyncBaseTransport`` over our own connections, for one caller, the relay.

It speaks HTTP/1.1 and takes and gives httpx's types, so that any httpx transport can stand in its place; httpx's own
client and pool are not involved. Bodies are passed as they are: nothing is decoded, followed, retried or stored. Every
failure is an ``otelgw.errors.UpstreamError``.

``request.extensions["timeout"]`` holds seconds: ``connect`` (waiting for a free connection included), ``first_byte``,
``idle``, ``total``; httpx's ``read`` stands in for ``first_byte`` and ``idle`` where they are absent.
``request.extensions["otelgw.fresh"]`` set to True asks for a connection that has served no request.

A response's ``stream`` must be read to its end or closed. Its extensions: ``http_version``, ``reason_phrase``,
``network_stream`` (``get_extra_info``), ``otelgw.first_byte_ns`` (``time.monotonic_ns()`` at the first byte of the
head), ``otelgw.reused`` (whether the connection had served a request before).
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from functools import cached_property
from typing import Any, cast

import httpx

from otelgw.config.settings import Limits, Timeouts
from otelgw.errors import RequestRefused
from otelgw.http.connection import Connection, Origin, Patience
from otelgw.http.lazy_headers import Block, BlockHeaders, LazyHeaders
from otelgw.http.pool import Dialer, Pool
from otelgw.http.proxy import Proxies, Proxy
from otelgw.http.roundtrip import RoundTrip

__all__ = ["Address", "UpstreamTransport", "build_request", "client_ssl_context", "timeout_extension"]

RawHeaders = list[tuple[bytes, bytes]]

_PORTS = {"http": 80, "https": 443}
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})  # a missing body is announced as such
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Framing and the connection are ours; a caller's word on them must not reach an upstream.
_OURS = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_KNOWN_NAMES = 4096  # header names of which the verdict is remembered


class Address(httpx.URL):
    """A URL to which many requests go: what each of them needs of it is found once."""

    @cached_property
    def host(self) -> str:
        return super().host

    @cached_property
    def netloc(self) -> bytes:
        return super().netloc

    @cached_property
    def port(self) -> int | None:
        return super().port

    @cached_property
    def raw_path(self) -> bytes:
        return super().raw_path

    @cached_property
    def scheme(self) -> str:
        return super().scheme


class _Request(httpx.Request):
    """What ``httpx.Request`` is after its constructor, which looks at every argument for what it might be."""

    def __init__(
        self,
        method: str,
        url: httpx.URL,
        headers: httpx.Headers,
        stream: httpx.ByteStream | _Body,
        extensions: dict[str, Any],
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.extensions = extensions
        self.stream = stream


class _Response(httpx.Response):
    """The same for ``httpx.Response``."""

    def __init__(self, trip: RoundTrip, extensions: dict[str, Any]) -> None:
        self.status_code = trip.status
        self.headers = LazyHeaders(trip.headers)
        self._request = None
        self.next_request = None
        self.extensions = extensions
        self.history = []
        self.is_closed = False
        self.is_stream_consumed = False
        self.default_encoding = "utf-8"
        self.stream = trip
        self._num_bytes_downloaded = 0


class _Bytes(httpx.ByteStream):
    """A request body that is here; ``content`` is all of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content


class _Body(httpx.AsyncByteStream):
    """A request body from an async iterable."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._chunks)


class _TimeoutExtension(dict[str, float]):
    """Timeouts that many requests have, with what is made of them once."""

    __slots__ = ("patience",)

    patience: Patience


def timeout_extension(timeouts: Timeouts) -> dict[str, float]:
    """Return ``extensions["timeout"]`` in seconds: our keys, and httpx's for a plugged-in transport."""
    extension = _TimeoutExtension(
        connect=timeouts.connect,
        pool=timeouts.connect,
        read=max(timeouts.first_byte, timeouts.idle),
        write=timeouts.idle,
        first_byte=timeouts.first_byte,
        idle=timeouts.idle,
        total=timeouts.total,
    )
    extension.patience = _patience(extension)
    return extension


def build_request(
    method: str,
    url: httpx.URL,
    headers: RawHeaders | Block,
    content: bytes | AsyncIterable[bytes] = b"",
    *,
    timeout: Mapping[str, float] | None = None,
    length: int | None = None,
) -> httpx.Request:
    """Return a request that any httpx transport can send, the cheap way (about 4 us).

    ``headers`` keep their case and order and must hold neither Host nor framing: Host, and Content-Length or
    Transfer-Encoding, are added. ``content`` that is no bytes goes out chunked, or plain if its ``length`` in bytes is
    known. ``timeout`` is what ``timeout_extension`` returns: make it once per deployment.
    """
    extensions = {} if timeout is None else {"timeout": timeout}
    if isinstance(headers, Block):
        if isinstance(content, bytes) and content:
            return _Request(method, url, BlockHeaders(headers, url, len(content)), _Bytes(content), extensions)
        headers = headers.headers
    head = [(b"Host", url.netloc), *headers]
    stream: httpx.ByteStream | _Body
    if isinstance(content, bytes):
        stream = httpx.ByteStream(content)
        if content or method in _BODY_METHODS:
            head.append((b"Content-Length", b"%d" % len(content)))
    else:
        stream = _Body(content)
        head.append((b"Transfer-Encoding", b"chunked") if length is None else (b"Content-Length", b"%d" % length))
    return _Request(method, url, LazyHeaders(head), stream, extensions)


def client_ssl_context() -> ssl.SSLContext:
    """Return the context for upstreams: the system's CAs (SSL_CERT_FILE and SSL_CERT_DIR honoured), HTTP/1.1 only.

    Where OpenSSL knows no CAs at all (some builds for macOS), certifi's are used.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        import certifi

        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Sends requests to upstreams; one instance a worker, used in one event loop.

    ``proxies`` are the proxy variables of the environment by name (``HTTPS_PROXY``, ``no_proxy`` …).

    Raises:
        ConfigError: a proxy variable cannot be used.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self._limits = limits
        self._ssl_context = ssl_context
        self._proxies = Proxies(proxies)
        self._pools: dict[tuple[str, str, int | None], Pool] = {}
        self._names: dict[bytes, bytes] = {}  # header name -> its name on the wire with the colon; empty: not sent
        self._keep_alive = limits.upstream_keepalive

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response as soon as its head is there.

        Raises:
            UpstreamError: no usable answer; ``StaleConnection`` where a fresh connection may well do.
            RequestRefused: the request cannot be written as HTTP/1.1 (a control character in a header, …).
        """
        url = request.url
        pool = self._pools.get((url.scheme, url.host, url.port)) or self._new_pool(url)
        head, body, length = self._encode(request, pool.dialer.proxy)
        extensions = request.extensions
        timeout = extensions.get("timeout") or {}
        fresh = extensions.get("otelgw.fresh") is True
        started = pool.now()
        connection = None if fresh else pool.take()
        if connection is None:
            connection = await pool.acquire(timeout.get("connect"), fresh=fresh)
        patience = timeout.patience if isinstance(timeout, _TimeoutExtension) else _patience(timeout)
        trip = connection.send(head, body, patience, started=started, without_body=request.method == "HEAD")
        if body is None:
            await _upload(connection, trip, cast("AsyncIterable[bytes]", request.stream), length)
        else:
            await trip.answered()
        return _Response(
            trip,
            {
                "http_version": trip.http_version,
                "reason_phrase": trip.reason,
                "network_stream": connection,
                "otelgw.first_byte_ns": trip.first_byte_ns,
                "otelgw.reused": connection.served > 1,
            },
        )

    async def aclose(self) -> None:
        """Close idle connections now and busy ones when their answers end."""
        self._keep_alive = 0.0
        for pool in list(self._pools.values()):
            pool.close()

    def _new_pool(self, url: httpx.URL) -> Pool:
        scheme = url.scheme
        if scheme not in _PORTS or not url.host:
            raise RequestRefused(
                "invalid_request", f"not an http:// or https:// URL: {scheme}://{url.host}; mend api_base"
            )
        origin = Origin(scheme, url.host, url.port or _PORTS[scheme])
        context = None
        if scheme == "https":
            if self._ssl_context is None:
                self._ssl_context = client_ssl_context()
            context = self._ssl_context
        dialer = Dialer(
            origin,
            head_limit=self._limits.headers,
            ssl_context=context,
            proxy=self._proxies.for_origin(origin),
        )
        self._pools = {key: pool for key, pool in self._pools.items() if not pool.unused}
        pool = Pool(dialer, limit=self._limits.upstream_connections, keep_alive=self._keep_alive)
        self._pools[scheme, url.host, url.port] = pool
        return pool

    def _encode(self, request: httpx.Request, proxy: Proxy | None) -> tuple[bytes, bytes | None, int | None]:
        """Return the head, the body if it is bytes, and the length of a streamed body if it was announced."""
        given, stream = request.headers, request.stream
        if proxy is None and isinstance(given, BlockHeaders) and given.untouched and isinstance(stream, _Bytes):
            content = stream.content
            return b"%b%d\r\n\r\n" % (self._start(request, given.block), len(content)), content, None
        url = request.url
        method = request.method
        target = url.raw_path
        headers, host, announced = self._lines_of(given.raw)
        lines = [b"", b"", *headers]
        body: bytes | None = None
        length: int | None = None
        if isinstance(stream, httpx.ByteStream):
            body = b"".join(stream)
            if body or method in _BODY_METHODS:
                lines.append(b"Content-Length: %d" % len(body))
        elif announced.isdigit():
            length = int(announced)
            lines.append(b"Content-Length: %d" % length)
        else:
            lines.append(b"Transfer-Encoding: chunked")
        if proxy is not None and url.scheme == "http":
            target = b"http://%b%b" % (url.netloc, target)
            if proxy.authorization:
                lines.append(b"Proxy-Authorization: %b" % proxy.authorization)
        lines[0] = b"%b %b HTTP/1.1" % (method.encode(), target)
        lines[1] = b"Host: %b" % (host or url.netloc)
        return _joined(lines) + b"\r\n\r\n", body, length

    def _start(self, request: httpx.Request, block: Block) -> bytes:
        """Return what a request to this URL with ``block`` begins with, up to the length of its body."""
        url, method = request.url, request.method
        if block.url is not url or block.method != method:
            lines, _, _ = self._lines_of(block.headers)
            first = b"%b %b HTTP/1.1" % (method.encode(), url.raw_path)
            block.start = _joined([first, b"Host: %b" % url.netloc, *lines, b"Content-Length: "])
            block.url, block.method = url, method
        return block.start

    def _lines_of(self, headers: RawHeaders) -> tuple[list[bytes], bytes, bytes]:
        """Return the lines of headers that are not ours to write, and of those that are the host and the length."""
        lines: list[bytes] = []
        host = announced = b""
        names = self._names
        for name, value in headers:
            prefix = names.get(name)
            if prefix is None:
                prefix = self._learn(name)
            if prefix:
                lines.append(prefix + value)
            elif name.lower() == b"host":
                host = host or value
            elif name.lower() == b"content-length":
                announced = value
        return lines, host, announced

    def _learn(self, name: bytes) -> bytes:
        """Return what a header's line starts with, empty if it is ours to write, and remember it."""
        if _TOKEN.fullmatch(name) is None:
            raise RequestRefused("invalid_request", f"{name!r} is no header name; see RFC 9110, section 5.1")
        if len(self._names) >= _KNOWN_NAMES:
            self._names.clear()
        prefix = self._names[name] = b"" if name.lower() in _OURS else name + b": "
        return prefix


def _joined(lines: list[bytes]) -> bytes:
    """Return the lines of a head, the first of them the request's.

    Raises:
        RequestRefused: 400: one of them would be read as more.
    """
    head = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head or lines[0].count(b" ") != 2:
        raise RequestRefused("invalid_request", "a header or the path holds a control character; remove it")
    return head


def _patience(timeout: Mapping[str, float | None]) -> Patience:
    read = timeout.get("read")
    first_byte, idle, total = timeout.get("first_byte", read), timeout.get("idle", read), timeout.get("total")
    return Patience(
        math.inf if first_byte is None else first_byte,
        math.inf if idle is None else idle,
        math.inf if total is None else total,
    )


async def _upload(connection: Connection, trip: RoundTrip, body: AsyncIterable[bytes], length: int | None) -> None:
    """Send a streamed body and wait for the head of the answer, whichever comes first.

    An answer that comes first and is no success ends the sending: the upstream does not want the rest.
    """

    def sent(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the caller's body failed, and the upstream must not take the piece for the whole
            connection.abort(trip, error)

    sending = asyncio.get_running_loop().create_task(connection.upload(trip, body, length))
    sending.add_done_callback(sent)
    try:
        await trip.answered()
        if trip.status < 300 and not trip.ended:
            await asyncio.wait({sending})
    except BaseException:
        connection.abort(trip)
        raise
    finally:
        sending.cancel()
        await asyncio.wait({sending})
