"""The room's one maker of HTTP clients, and the base of destinations that speak HTTP: request, answer, classification.

The clients are deliberately not instrumented, and requests run with instrumentation suppressed: in an application
that instruments every httpx client, an export that made a span would make the next export, without end.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Container, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakSet

import httpx
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otelgw_exporters import confinement
from otelgw_exporters.delivery import OPERATOR_DELAY, Reply
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["AGAIN", "Answer", "Client", "Masked", "Tls", "classify", "client", "origin", "retry_after", "send"]

_ANSWER_LIMIT = 64 * 1024
_IDLE = 30.0  # seconds for which an unused connection is kept
_OF_A_BODY = ("content-encoding", "content-type")
_STALE = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class Tls(NamedTuple):
    """Paths of PEM files; empty: the system's roots, no client certificate."""

    certificate: str = ""
    client_key: str = ""
    client_certificate: str = ""

    def check(self, name: str) -> None:
        """Raise DestinationConfigError if a file cannot be read or one of key and certificate is missing."""
        for option, path in self._asdict().items():
            if path and not Path(path).is_file():
                raise DestinationConfigError(f"destination {name}: {option}: there is no file {path}")
        if bool(self.client_key) != bool(self.client_certificate):
            raise DestinationConfigError(f"destination {name}: client_key and client_certificate go together: set both")

    def context(self, name: str) -> ssl.SSLContext:
        """Return the context for an HTTP client."""
        if not any(self):
            return confinement.default_context() if confinement.bounds() is not None else _default_context()
        try:
            context = ssl.create_default_context(cafile=self.certificate or None)
            if self.client_certificate:
                context.load_cert_chain(self.client_certificate, self.client_key)
        except (ssl.SSLError, OSError) as error:
            files = ", ".join(path for path in self if path)
            raise DestinationConfigError(f"destination {name}: {files} cannot be used for TLS: {error}") from None
        return context


@lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    """Return the context of all clients without files of their own: reading the roots takes longer than all else."""
    return httpx.create_ssl_context()


NO_TLS = Tls()


class Masked:
    """Replaces known secrets in outside text, so that a destination's error message cannot put one into a log."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        words = {word for value in secrets.values() for word in (value, *value.split()) if len(word) >= 6}
        self._words = sorted(words, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for word in self._words:
            text = text.replace(word, "***")
        return "".join(char if char.isprintable() else " " for char in text[:300]).strip()


def origin(url: str) -> str:
    """Return scheme, host and port of ``url``, the part of it that may be shown."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if parts.scheme else host


class Answer(NamedTuple):
    """An HTTP answer; ``body`` holds at most its first 64 KiB."""

    status: int
    headers: httpx.Headers
    body: bytes


class Client(httpx.Client):
    """A client whose ``close`` ends the requests that are under way, too."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.closing = False
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()

    def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Learn of a new connection; httpcore calls this with everything that it does."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            made = info["return_value"].get_extra_info("socket")
            if isinstance(made, socket.socket):
                with self._lock:
                    self._sockets.add(made)
                if self.closing:
                    _end(made)

    def close(self) -> None:
        """Break the connections, then close them: what waits for an answer would otherwise go on waiting."""
        self.closing = True
        with self._lock:
            open_ones = list(self._sockets)
        for each in open_ones:
            _end(each)
        super().close()


def _end(connection: socket.socket) -> None:
    """Shut a connection down on TCP's level; TLS is past saying goodbye."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def client(name: str, *, headers: Mapping[str, str], tls: Tls = NO_TLS) -> Client:
    """Return a client for one destination. Redirects are not followed: they would take the credentials along."""
    limits = httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=_IDLE)
    within = confinement.bounds()
    verify = tls.context(name)
    if within is None:
        return Client(headers=dict(headers), verify=verify, limits=limits, follow_redirects=False)
    transport = httpx.HTTPTransport(verify=verify, trust_env=False, limits=limits)
    transport._pool._network_backend = confinement.Backend(within)  # httpx has no other way to set it
    return Client(headers=dict(headers), transport=transport, trust_env=False, follow_redirects=False)


def send(
    http: Client,
    url: str,
    body: bytes,
    deadline: float,
    mask: Callable[[str], str],
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> Answer | Reply:
    """Send ``body``; return the answer, or a reply that says why there was none by ``deadline``."""
    for fresh in (False, True):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            request = http.build_request(
                method, url, content=body, timeout=left, headers=headers, extensions={"trace": http.note}
            )
            if method == "GET":
                for name in _OF_A_BODY:
                    request.headers.pop(name, None)
            with suppress_instrumentation(), contextlib.closing(http.send(request, stream=True)) as got:
                return Answer(got.status_code, got.headers, _read(got, deadline))
        except httpx.TimeoutException as error:
            return Reply("again", f"{origin(url)}: no answer in time ({type(error).__name__})")
        except _STALE as error:
            # A kept connection that the other side has closed meanwhile shows only when it is used.
            if fresh or http.closing:
                return Reply("again", f"{origin(url)}: {mask(str(error)) or type(error).__name__}")
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:  # RuntimeError: the client was closed
            return Reply("again", f"{origin(url)}: {mask(str(error)) or type(error).__name__}")
    return Reply("again", f"{origin(url)}: no answer in time")


def _read(answer: httpx.Response, deadline: float) -> bytes:
    body = b""
    for chunk in answer.iter_raw():
        body += chunk
        if len(body) >= _ANSWER_LIMIT or time.monotonic() >= deadline:
            break
    return body[:_ANSWER_LIMIT]


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, in either of its forms (RFC 9110, 10.2.3).

    ``now`` is the wall clock in seconds since the epoch. None: absent or malformed.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) < 10 else None
    try:
        at = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - (time.time() if now is None else now))


AGAIN = frozenset({408, 425, 429, *range(500, 600)})
"""Statuses that are no fault of the request: it may be taken at another time."""

_OPERATOR: Mapping[int, str] = {
    401: "the credentials are not accepted: mend the destination's headers or key",
    403: "the credentials lack the right to write: mend the destination's headers or key",
    404: "nothing is there: mend the destination's endpoint",
    405: "this takes no spans: mend the destination's endpoint",
    407: "a proxy asks for credentials: mend HTTPS_PROXY",
}


def classify(answer: Answer, said: str = "", again: Container[int] = AGAIN) -> Reply:
    """Return what an answer means for the spans of its request; ``said`` is the answer's own explanation.

    ``again`` are the statuses after which the same request is tried again.

    What only the operator can mend (credentials, endpoint) is retried slowly, because the spans are not at fault.
    """
    status = answer.status
    reason = f"HTTP {status}{': ' + said if said else ''}"
    if 200 <= status < 300:
        return Reply("accepted")
    if status in again:
        return Reply("again", reason, retry_after(answer.headers.get("retry-after")))
    if status in _OPERATOR:
        return Reply("again", f"{reason} ({_OPERATOR[status]})", OPERATOR_DELAY)
    if 300 <= status < 400:
        said = f"redirected to {origin(answer.headers.get('location', ''))!r}"
        return Reply("again", f"HTTP {status}: {said}: mend the destination's endpoint", OPERATOR_DELAY)
    if status == 413:
        return Reply("too_large", reason)
    return Reply("refused", reason)
