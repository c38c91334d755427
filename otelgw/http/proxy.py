"""Which proxy an upstream is reached through, by the usual environment variables, and the CONNECT tunnel through it.

Rules (those of curl and of Go's ``net/http``, where they agree): ``http_proxy`` for http:// upstreams, ``https_proxy``
for https://, ``all_proxy`` where the first two are unset; lower case before upper case; empty means unset. ``no_proxy``
is a comma-separated list of ``*``, host names (with their subdomains; with a leading dot only the subdomains), IP
addresses and CIDR ranges, each with an optional ``:port``. ``localhost`` and loopback addresses are never proxied, as
in Go: a model server on this machine is not the proxy's.

Only ``http://`` proxies are supported (the tunnel inside them is encrypted end to end for https:// upstreams).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from otelgw.errors import ConfigError
from otelgw.http.connection import Origin
from otelgw.http.roundtrip import failure

__all__ = ["Proxies", "Proxy", "tunnel"]

_HEAD_LIMIT = 16 * 1024  # bytes of a proxy's answer to CONNECT
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_ADVICE = {407: "; check the user name and password in the proxy variable", 403: "; the proxy forbids this destination"}
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; ``authorization`` is the value of Proxy-Authorization, empty without credentials."""

    host: str
    port: int
    authorization: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        return str(Origin("http", self.host, self.port))


@dataclass(frozen=True, slots=True)
class _Exemption:
    """One entry of ``no_proxy``: either a network or a name; ``port`` None is any port."""

    network: _Network | None
    name: str
    subdomains_only: bool
    port: int | None

    def covers(self, origin: Origin, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
        if self.port is not None and self.port != origin.port:
            return False
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        host = origin.host.lower().rstrip(".")
        return host.endswith(f".{self.name}") or (not self.subdomains_only and host == self.name)


class Proxies:
    """The proxies of one environment. ``Proxies()`` has none.

    Raises:
        ConfigError: a proxy variable that will be used cannot be. Its value is not repeated: it may hold a password.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        variables = environment or {}
        problems: list[str] = []
        self._by_scheme = {scheme: _proxy_for(scheme, variables, problems) for scheme in ("http", "https")}
        self._exemptions: list[_Exemption] = []
        self._exempt_all = False
        for entry in _variable(variables, "no_proxy")[1].replace(" ", ",").split(","):
            if entry == "*":
                self._exempt_all = True
            elif entry:
                self._exemptions.append(_exemption(entry))
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))

    def for_origin(self, origin: Origin) -> Proxy | None:
        """Return the proxy for ``origin``, None if it is reached directly."""
        proxy = self._by_scheme.get(origin.scheme)
        if proxy is None or self._exempt_all:
            return None
        address = _address(origin.host)
        if origin.host.lower().rstrip(".") == "localhost" or (address is not None and address.is_loopback):
            return None
        return None if any(entry.covers(origin, address) for entry in self._exemptions) else proxy


async def tunnel(loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    """Make ``sock``, connected to ``proxy``, a connection to ``origin`` (RFC 9110, 9.3.6).

    Raises:
        UpstreamError: the proxy refused (``upstream_connect``).
        OSError: the connection to the proxy broke.
    """
    authority = str(origin).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    if proxy.authorization:
        lines.append(b"Proxy-Authorization: %b" % proxy.authorization)
    await loop.sock_sendall(sock, b"\r\n".join([*lines, b"", b""]))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        data = await loop.sock_recv(sock, 4096)
        answer += data
        if not data or len(answer) > _HEAD_LIMIT or b"\r\n\r\n" in answer[:-4]:
            raise _refused(proxy, origin, "closed the connection or sent no valid answer to CONNECT")
    status = _STATUS.match(answer)
    if status is None:
        raise _refused(proxy, origin, "sent no valid answer to CONNECT")
    code = int(status[1])
    if not 200 <= code < 300:
        raise _refused(proxy, origin, f"answered CONNECT with {code}{_ADVICE.get(code, '')}")


def _refused(proxy: Proxy, origin: Origin, what: str) -> Exception:
    return failure("upstream_connect", str(origin), f"the proxy {proxy} {what}")


def _variable(variables: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the variable's name as it is written in the environment, and its value; empty if unset."""
    for spelling in (name, name.upper()):
        if value := variables.get(spelling, "").strip():
            return spelling, value
    return name, ""


def _proxy_for(scheme: str, variables: Mapping[str, str], problems: list[str]) -> Proxy | None:
    for name in (f"{scheme}_proxy", "all_proxy"):
        spelling, value = _variable(variables, name)
        if value:
            return _proxy(spelling, value, problems)
    return None


def _proxy(spelling: str, value: str, problems: list[str]) -> Proxy | None:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host:
        problems.append(f"{spelling} is no proxy URL; write it as http://host:port or http://user:password@host:port")
        return None
    if parts.scheme != "http":
        problems.append(
            f"{spelling} names a {parts.scheme}:// proxy ({host}:{port}); only http:// proxies are supported: "
            "https:// upstreams are tunnelled through them and stay encrypted"
        )
        return None
    if parts.username is None:
        return Proxy(host, port)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(host, port, b"Basic " + base64.b64encode(credentials.encode()))


def _exemption(entry: str) -> _Exemption:
    name, port = entry.lower(), None
    bare = name.strip("[]")
    if _address(bare) is None and "/" not in name:
        before, colon, digits = name.rpartition(":")
        if colon and digits.isdigit():
            bare, port = before.strip("[]"), int(digits)
    try:
        return _Exemption(ipaddress.ip_network(bare, strict=False), "", subdomains_only=False, port=port)
    except ValueError:
        bare = bare.removeprefix("*")
        return _Exemption(None, bare.strip("."), subdomains_only=bare.startswith("."), port=port)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
