"""A proxy before a real server that makes the faults which that server does not make by itself.

::

    with Faults(running.url) as proxy:
        proxy.next(Status(503), LOST)      # the next two requests; then everything is forwarded again
        ... proxy.url ...
        proxy.requests                     # what arrived, in order

The Host header is forwarded as it came, so that signatures stay valid.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

__all__ = ["LOST", "SILENT", "Faults", "Seen", "Status"]

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_PATIENCE = 30.0  # seconds of silence at most


@dataclass(frozen=True)
class Status:
    """Answer so instead of forwarding; the request's body is read and dropped."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


LOST = "forwarded, and the connection closed instead of the answer: a lost acknowledgement"
SILENT = "nothing is ever answered"
Fault = Status | str


class Seen(NamedTuple):
    """A request that arrived, header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Faults:
    """A proxy on loopback, in threads."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._faults: deque[Fault] = deque()
        self._always: Fault | None = None
        self._over = threading.Event()
        self.requests: list[Seen] = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else an answer's body waits for the ACK of its head, for 40 ms

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_PUT(self) -> None:
                proxy._serve(self)

            do_POST = do_GET = do_HEAD = do_DELETE = do_PUT  # noqa: N815 - its base calls them so

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base's signature
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def next(self, *faults: Fault) -> None:
        """Meet the next requests so, one each."""
        self._faults.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Meet every request so, after those that ``next`` spoke of; None: forward them."""
        self._always = fault

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(Seen(handler.command, handler.path, headers, body))
        fault = self._faults.popleft() if self._faults else self._always
        if fault == SILENT:
            self._over.wait(_PATIENCE)
            handler.close_connection = True
            return
        if isinstance(fault, Status):
            self._answer(handler, fault.status, fault.headers, fault.body)
            return
        connection = http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            given = {name: value for name, value in headers.items() if name not in _HOP}
            connection.request(handler.command, handler.path, body, {**given, "content-length": str(len(body))})
            answer = connection.getresponse()
            data = answer.read()
        if fault == LOST:
            handler.close_connection = True
            return
        self._answer(handler, answer.status, dict(answer.headers.items()), data)

    @staticmethod
    def _answer(
        handler: http.server.BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], data: bytes
    ) -> None:
        handler.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)
