"""The section ``otelgw.receiver``: where spans of other applications come in, and that none go round in circles."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from otelgw.config.bind import is_loopback
from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.model import OtelgwSection
from otelgw.config.settings import Destination, Receiver

__all__ = ["Address", "address", "leads_to", "receiver"]

_AT: Location = ("otelgw", "receiver")
_OFF = frozenset({"off", "none", ""})
_PORTS = {"http": 80, "https": 443, "": 4317}


class Address(NamedTuple):
    host: str
    port: int


def address(text: str) -> Address:
    """Return the parts of ``host:port``; an IPv6 host is in brackets.

    Raises:
        ValueError: it is no such address.
    """
    parts = urlsplit(f"//{text}")
    if parts.hostname is None or parts.port is None or parts.path or parts.username is not None:
        raise ValueError(f"`{text[:80]}` is no host:port")
    return Address(parts.hostname, parts.port)


def receiver(
    section: OtelgwSection, targets: Iterable[Destination], context: Context, *, always: bool
) -> Receiver | None:
    """Return the receiver's settings, None without one; ``always`` says that there is one in any case."""
    if not always and "receiver" not in section.model_fields_set:
        return None
    given = section.receiver
    bound = {name: _address(name, getattr(given, name), context) for name in ("grpc", "http")}
    found = [each for each in bound.values() if each is not None]
    if given.token is not None and not given.token.strip():
        context.findings.error((*_AT, "token"), "is blank; set it, or leave it out if none is to be asked for")
    if all(str(text).lower() in _OFF for text in (given.grpc, given.http)):
        context.findings.error(_AT, "gRPC and HTTP are both off; set one of them, or leave the section out")
    if len(found) == 2 and found[0] == found[1] and found[0].port:
        context.findings.error((*_AT, "http"), "gRPC and HTTP cannot share an address; give each a port")
    _check_open(given.token, bound, context, allowed=given.allow_open)
    files = _files(given.ssl_certfile, given.ssl_keyfile, context)
    _check_loops(targets, bound, context)
    return Receiver(
        grpc=_text(bound["grpc"]),
        http=_text(bound["http"]),
        token_sha256=hashlib.sha256(given.token.strip().encode()).hexdigest() if given.token else "",
        certfile=files[0],
        keyfile=files[1],
        max_request_bytes=given.max_request_bytes,
    )


def _address(name: str, text: str, context: Context) -> Address | None:
    if text.lower() in _OFF:
        return None
    try:
        return address(text)
    except ValueError as error:
        context.findings.error((*_AT, name), f"{error}, such as 127.0.0.1:4317; `off` turns it off")
        return None


def _text(found: Address | None) -> str:
    if found is None:
        return ""
    return f"[{found.host}]:{found.port}" if ":" in found.host else f"{found.host}:{found.port}"


def _check_open(token: str | None, bound: dict[str, Address | None], context: Context, *, allowed: bool) -> None:
    for name, each in bound.items():
        if each is not None and not token and not allowed and not is_loopback(each.host):
            context.findings.error(
                (*_AT, name),
                f"{each.host} can be reached from other machines and no token is asked for: set "
                "otelgw.receiver.token, bind 127.0.0.1, or set allow_open: true if everybody may send spans",
            )


def _files(certfile: str | None, keyfile: str | None, context: Context) -> tuple[str | None, str | None]:
    if bool(certfile) != bool(keyfile):
        context.findings.error(
            (*_AT, "ssl_certfile"), "certificate and key go together: set ssl_certfile and ssl_keyfile"
        )
    found = [context.path(path) if path else None for path in (certfile, keyfile)]
    for name, path in zip(("ssl_certfile", "ssl_keyfile"), found, strict=True):
        if path and not Path(path).is_file():
            context.findings.error((*_AT, name), f"no such file: {path}")
    return found[0], found[1]


def _check_loops(targets: Iterable[Destination], bound: dict[str, Address | None], context: Context) -> None:
    for target in targets:
        endpoint = target.options.get("endpoint")
        for name, each in bound.items():
            if each is not None and isinstance(endpoint, str) and leads_to(endpoint, each):
                context.findings.error(
                    _AT,
                    f"the destination {target.name} leads back to the receiver's own {name} address "
                    f"({_text(each)}): spans would go round in circles. Give the destination another endpoint, or the "
                    "receiver another port",
                )


def leads_to(endpoint: str, bound: Address) -> bool:
    """Say whether ``endpoint``, a URL or ``host:port``, is what listens on ``bound``.

    A name is looked up only where the port is the same one.
    """
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return False
    if port != bound.port or parts.hostname is None:
        return False
    theirs, ours = _addresses(parts.hostname), _addresses(bound.host)
    if ours & {"0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound
        return any(_is_ours(each) for each in theirs)
    return bool(theirs & ours)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return {host.lower()}


def _is_ours(ip: str) -> bool:
    """Say whether an address is this machine's: only then can a socket be bound to it."""
    family: Any = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((ip, 0))
    except (OSError, UnicodeError):
        return False
    return True
