"""What the head of an HTTP/1.1 request may look like, beyond what llhttp's strict parser refuses itself.

llhttp refuses Content-Length beside Transfer-Encoding, unequal or repeated lengths, bare line feeds, folded lines,
control characters and malformed chunks. What it lets through and RFC 9112 does not, is refused here, for both servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["MAX_HEADERS", "HeadRefused", "check", "is_host", "tokens"]

MAX_HEADERS = 256  # header lines of one request
_HOST = re.compile(rb"[A-Za-z0-9._~%\[\]:-]*")
_WATCHED = frozenset({b"host", b"transfer-encoding", b"expect"})
_SCHEMES = (b"http://", b"https://")
_LONGEST_NAME = 260  # bytes, with a port


class HeadRefused(Exception):
    """The request cannot be served; ``status`` and ``message`` are the answer's, after which the connection closes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def check(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request target in origin form (path and query); names of ``headers`` are in lower case.

    Raises:
        HeadRefused: the head is ambiguous, or asks for what is not served (RFC 9110 and 9112).
    """
    hosts = []
    codings = []
    for name, value in headers:
        if name in _WATCHED:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding":
                codings.append(value)
            elif value.lower() != b"100-continue":
                raise HeadRefused(417, "Expect knows 100-continue only.")
    if version not in {"1.1", "1.0"}:
        raise HeadRefused(505, "The HTTP version is not supported; use HTTP/1.1.")
    if codings:
        _check_coding(codings, version)
    if len(hosts) != 1 and (hosts or version == "1.1"):
        raise HeadRefused(400, "Exactly one Host header is required.")
    host = hosts[0] if hosts else b""
    if not is_host(host):
        raise HeadRefused(400, "The Host header is not a host name with an optional port.")
    if not target.startswith(b"/"):
        target = _origin_form(method, target, host if hosts else None)
    if b"#" in target:
        raise HeadRefused(400, "A request target has no fragment.")
    return target


def _check_coding(codings: list[bytes], version: str) -> None:
    if version != "1.1":
        raise HeadRefused(400, "Transfer-Encoding needs HTTP/1.1.")
    if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise HeadRefused(501, "The only Transfer-Encoding that is understood is chunked.")


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    """Return the path of an absolute target, whose authority has to be the Host's; ``*`` is for OPTIONS only."""
    if method == b"CONNECT":
        raise HeadRefused(501, "CONNECT is not served.")
    if target == b"*" and method == b"OPTIONS":
        return target
    scheme = next((scheme for scheme in _SCHEMES if target[: len(scheme)].lower() == scheme), None)
    if scheme is None:
        raise HeadRefused(400, "The request target is neither a path nor an http URL.")
    rest = target[len(scheme) :]
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    if host is not None and rest[:cut].lower() != host.lower():
        raise HeadRefused(400, "The request target names another host than the Host header.")
    path = rest[cut:]
    return path if path.startswith(b"/") else b"/" + path


def is_host(value: bytes) -> bool:
    """Return whether a Host header's value is a name or address with an optional port."""
    # The same few come with every request; a longer one is no name of the DNS, and not worth its room.
    return _is_host(value) if len(value) <= _LONGEST_NAME else _HOST.fullmatch(value) is not None


@lru_cache(maxsize=1024)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def tokens(value: bytes) -> set[bytes]:
    """Return the comma-separated tokens of a header value, in lower case."""
    return {token.strip() for token in value.lower().split(b",")}
