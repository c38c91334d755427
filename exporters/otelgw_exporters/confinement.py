"""What keeps a destination in bounds whose settings come from a stranger: a tenant of the gateway.

An exporter that is built in ``confined`` takes nothing from the process's environment, where the operator's own
credentials are, goes through no proxy, and connects to public addresses only. That is checked on the address that the
name has resolved to, when the connection is made, so that neither a name nor a redirect leads to the machine itself or
to its neighbours.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpcore
import httpx

__all__ = ["Backend", "Bounds", "NotAllowed", "bounds", "confined", "default_context", "grpc_target", "networks_of"]

Network = IPv4Network | IPv6Network

_TRANSLATED = IPv6Network("64:ff9b::/96")  # RFC 6052: carries a public IPv4 address in its last bits
# A network's own translators (RFC 8215) and 6to4, which is no more (RFC 7526): versions of Python judge them each in
# its own way.
_LOCAL = (IPv6Network("64:ff9b:1::/48"), IPv6Network("2002::/16"))


class NotAllowed(OSError):
    """An address that a confined destination may not have."""


class Bounds(NamedTuple):
    """``networks`` are those beside the public ones that may be connected to."""

    networks: tuple[Network, ...] = ()

    def allows(self, address: str) -> bool:
        """Say whether ``address`` (in digits) may be connected to."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        for each in _meanings(parsed):
            if any(each.version == network.version and each in network for network in self.networks):
                continue
            if isinstance(each, IPv6Address) and (each.is_site_local or any(each in network for network in _LOCAL)):
                return False
            if not each.is_global or each.is_multicast or each.is_reserved:
                return False
        return True

    def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host`` that may be connected to; at least one.

        Raises:
            NotAllowed: there is none among them.
            OSError: the name is not known.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        allowed = [address for address in addresses if self.allows(address)]
        if not allowed:
            raise NotAllowed("its address is not a public one, which a tenant's destination must have")
        return allowed


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks in CIDR notation, parsed.

    Raises:
        ValueError: one is none.
    """
    return tuple(ipaddress.ip_network(text.strip()) for text in texts)


_bounds: ContextVar[Bounds | None] = ContextVar("bounds", default=None)


def bounds() -> Bounds | None:
    """Return the bounds of what is built now; None where there are none."""
    return _bounds.get()


@contextlib.contextmanager
def confined(within: Bounds) -> Iterator[None]:
    """Have everything that is built in this block keep to ``within``."""
    token = _bounds.set(within)
    try:
        yield
    finally:
        _bounds.reset(token)


class Backend(httpcore.SyncBackend):
    """Makes httpcore's connections, to allowed addresses only."""

    def __init__(self, within: Bounds) -> None:
        self._bounds = within

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses: Sequence[str] = self._bounds.resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        failure: Exception | None = None
        for address in addresses:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("a tenant's destination has no sockets of this machine")


@lru_cache(maxsize=1)
def default_context() -> ssl.SSLContext:
    """Return the TLS context of confined destinations without certificates of their own: loading the roots for each
    anew would cost more than everything else about one."""
    return httpx.create_ssl_context(trust_env=False)


def grpc_target(netloc: str, within: Bounds) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Return the target of a confined gRPC channel, pinned to an allowed address of ``netloc``, and its options.

    gRPC has no place to look at an address before it connects, so the name is resolved here, once for a channel.

    Raises:
        OSError: the name is not known, or has no allowed address (``NotAllowed``).
    """
    parts = urlsplit(f"//{netloc}")
    host, port = parts.hostname or "", parts.port or 443
    address = within.resolve(host, port)[0].partition("%")[0]
    target = f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
    names = (("grpc.ssl_target_name_override", host), ("grpc.default_authority", netloc))
    return target, (*names, ("grpc.enable_http_proxy", 0), ("grpc.service_config_disable_resolution", 1))


def _meanings(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Yield an address and the IPv4 addresses that are carried in it: all of them must be allowed."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if address in _TRANSLATED:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
        return
    yield from address.teredo or ()
    yield address
