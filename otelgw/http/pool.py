"""Connections to one origin: opened when needed, lent one request at a time, kept for a while, never too many.

The connection used last is lent first, so that in quiet times the rest expire. When all are busy, callers wait in the
order in which they came; waiting counts as connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from typing import Any

from otelgw.http.connection import Connection, Origin
from otelgw.http.proxy import Proxy, tunnel
from otelgw.http.roundtrip import cause_of, failure

__all__ = ["Dialer", "Pool"]

HAPPY_EYEBALLS = 0.25  # seconds before the next address is tried as well (RFC 8305, section 5)
MARGIN = 1.0  # seconds by which an upstream's own keep-alive time is undercut: a request takes time to arrive
_Address = tuple[socket.AddressFamily, int, Any]
# A silent upstream behind a NAT must not be forgotten by it while a model thinks. The options of OpenAI's own SDK.
_PROBES = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


class Dialer:
    """Opens connections to ``origin``, through ``proxy`` if there is one. ``head_limit`` is in bytes."""

    def __init__(
        self, origin: Origin, *, head_limit: int, ssl_context: ssl.SSLContext | None = None, proxy: Proxy | None = None
    ) -> None:
        self.origin = origin
        self.proxy = proxy
        self._head_limit = head_limit
        self._ssl_context = ssl_context

    async def dial(self, loop: asyncio.AbstractEventLoop) -> Connection:
        """Return a new connection, after the TLS handshake.

        Raises:
            UpstreamError: upstream_dns, upstream_connect or upstream_tls.
        """
        proxy = self.proxy
        host, port = (self.origin.host, self.origin.port) if proxy is None else (proxy.host, proxy.port)
        where = str(self.origin) if proxy is None else f"{self.origin} through the proxy {proxy}"
        with _failing_as("upstream_dns", where, OSError, UnicodeError):
            addresses = await _resolve(loop, host, port)
        with _failing_as("upstream_connect", where, OSError):
            sock = await _connect(loop, addresses)
        tls = self._ssl_context
        try:
            if proxy is not None and tls is not None:
                with _failing_as("upstream_connect", where, OSError):
                    await tunnel(loop, sock, proxy, self.origin)
        except BaseException:
            sock.close()
            raise
        with _failing_as("upstream_connect" if tls is None else "upstream_tls", where, OSError):
            _, connection = await loop.create_connection(
                lambda: Connection(loop, self.origin, self._head_limit),
                sock=sock,
                ssl=tls,
                server_hostname=None if tls is None else self.origin.host,
            )
        return connection


class Pool:
    """At most ``limit`` connections to ``dialer.origin``; idle ones are kept for ``keep_alive`` seconds."""

    def __init__(self, dialer: Dialer, *, limit: int, keep_alive: float) -> None:
        self.dialer = dialer
        self.size = 0  # connections that exist or are being opened
        self._loop = asyncio.get_running_loop()
        self._limit = max(1, limit)
        self._keep_alive = keep_alive
        self._idle: dict[Connection, None] = {}  # oldest first
        self._callers = 0  # inside ``acquire``
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    @property
    def unused(self) -> bool:
        """Whether nothing would be lost with this pool."""
        return not (self.size or self._callers)

    def take(self) -> Connection | None:
        """Return an idle connection if there is one that is fit for use."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.usable and connection.expires > self._loop.time():
                return connection
            connection.abort()
        return None

    async def acquire(self, seconds: float | None, *, fresh: bool = False) -> Connection:
        """Return a connection that is the caller's until it ends its round trip or aborts it.

        ``seconds`` bounds waiting, resolving, connecting and the TLS handshake together; None does not. ``fresh`` asks
        for a connection that has served no request.

        Raises:
            UpstreamError: upstream_dns, upstream_connect, upstream_tls, upstream_timeout_connect.
        """
        doing = f"waiting for one of {self._limit} connections to be free"
        self._callers += 1
        try:
            async with asyncio.timeout(seconds):
                connection = await self._slot(fresh=fresh)
                if connection is not None:
                    return connection
                doing = "connecting"
                return await self._open()
        except TimeoutError:
            raise failure("upstream_timeout_connect", str(self.dialer.origin), f"{seconds:g} s ({doing})") from None
        finally:
            self._callers -= 1

    def release(self, connection: Connection) -> None:
        """Take a connection back that has ended its round trip."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        keep = min(self._keep_alive, connection.keep_alive - MARGIN)
        if keep <= 0:
            connection.abort()
            return
        connection.expires = self._loop.time() + keep
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_at(connection.expires, self._sweep)

    def discard(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._idle.pop(connection, None)
        self._free()

    def close(self) -> None:
        """Close the idle connections and keep none from now on; busy ones end with their round trips."""
        self._keep_alive = 0.0
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._idle):
            connection.abort()

    async def _slot(self, *, fresh: bool) -> Connection | None:
        """Return an idle connection, or None: the right to open one."""
        if fresh and self.size >= self._limit and self._idle:
            next(iter(self._idle)).abort()
        while True:
            connection = None if fresh else self.take()
            if connection is not None:
                return connection
            if self.size < self._limit:
                self.size += 1
                return None
            connection = await self._turn()
            if connection is None or (connection.usable and not fresh):
                return connection
            if not connection.closed:
                connection.owner = None  # its slot is ours
                connection.abort()
                return None

    async def _turn(self) -> Connection | None:
        """Wait in line."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            else:  # cancelled after it was served
                connection = waiter.result()
                if connection is None:
                    self._free()
                elif not connection.closed:
                    self.release(connection)
            raise

    async def _open(self) -> Connection:
        try:
            connection = await self.dialer.dial(self._loop)
        except BaseException:
            self._free()
            raise
        connection.owner = self
        if connection.closed:
            self._free()
            raise failure("upstream_reset", str(self.dialer.origin), "as soon as it was open, or spoke unasked")
        return connection

    def _free(self) -> None:
        """Give the slot of a connection that is gone to who waits longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.size -= 1
        if not self.size and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        for connection in [connection for connection in self._idle if connection.expires <= now]:
            connection.abort()
        if self._idle:
            soonest = min(connection.expires for connection in self._idle)
            self._sweeper = self._loop.call_at(soonest, self._sweep)


@contextlib.contextmanager
def _failing_as(error_type: str, where: str, *causes: type[Exception]) -> Iterator[None]:
    try:
        yield
    except causes as error:
        raise failure(error_type, where, cause_of(error)) from error


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Address]:
    """Return the addresses of ``host``, families alternating (RFC 8305, section 4)."""
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        return [(family, 0, (host, port))]
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family: dict[socket.AddressFamily, list[_Address]] = {}
    for family, _, protocol, _, address in found:
        by_family.setdefault(family, []).append((family, protocol, address))
    turns = itertools.zip_longest(*by_family.values())
    addresses = [address for turn in turns for address in turn if address is not None]
    if not addresses:
        raise OSError("it has no address")
    return addresses


async def _connect(loop: asyncio.AbstractEventLoop, addresses: list[_Address]) -> socket.socket:
    """Return a socket connected to the first of ``addresses`` that accepts; one that fails or dawdles starts the next.

    Raises:
        OSError: none of them accepted; the error of the first.
    """
    if len(addresses) == 1:
        return await _connect_to(loop, *addresses[0])
    waiting = deque(addresses)
    attempts: set[asyncio.Task[socket.socket]] = set()
    first_error: BaseException | None = None
    winner: socket.socket | None = None
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(loop.create_task(_connect_to(loop, *waiting.popleft())))
            done, attempts = await asyncio.wait(
                attempts, timeout=HAPPY_EYEBALLS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                error = attempt.exception()
                if error is not None:
                    first_error = first_error or error
                elif winner is None:
                    winner = attempt.result()
                else:
                    attempt.result().close()
            if winner is not None:
                return winner
        raise first_error or OSError("it has no address")
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_result)
            attempt.cancel()


def _close_result(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect_to(
    loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, protocol: int, address: Any
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
