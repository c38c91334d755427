"""A small HTTP/1.1 server on loopback, in threads: a test's own class says what it answers.

::

    class Clock(HttpServer):
        def answer(self, asked: Asked) -> HttpAnswer:
            return HttpAnswer(200, body=b"noon") if asked.path == "/time" else HttpAnswer(404)

    with Clock() as clock:
        ...  # clock.origin
"""

from __future__ import annotations

import http.server
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

__all__ = ["AnyMethod", "Asked", "HttpAnswer", "HttpServer"]


class Asked(NamedTuple):
    """One request as it arrived; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer. ``hang_up`` closes the connection before any of it, ``silent`` says nothing for that long."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang_up: bool = False
    silent: float = 0.0


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: HttpServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that the other side breaks is none of the test's output; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class AnyMethod(http.server.BaseHTTPRequestHandler):
    """Gives a request of any method to ``respond``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer's body waits for the ACK of its head, for 40 ms

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.respond
        raise AttributeError(name)

    def respond(self) -> None:
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""


class _Handler(AnyMethod):
    """Asks its server's owner."""

    server: _Server

    def respond(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = owner.answer(Asked(self.path, headers, body, self.command))
        if answer.silent:
            owner.stopping.wait(answer.silent)
        if answer.hang_up or answer.silent:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


class HttpServer:
    """``tls`` is a context for servers; ``stopping`` is set when the ``with`` block ends."""

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.origin = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def answer(self, asked: Asked) -> HttpAnswer:
        """Say what a request gets; called in the request's thread."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
