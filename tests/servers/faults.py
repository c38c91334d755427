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
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.servers.answering import Asked, HttpAnswer, HttpServer

__all__ = ["LOST", "SILENT", "Faults", "Status"]

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


class Faults(HttpServer):
    """A proxy on loopback, in threads. ``requests`` are what arrived, in order."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.url = self.origin
        self._target = urlsplit(target)
        self._faults: deque[Fault] = deque()
        self._always: Fault | None = None
        self.requests: list[Asked] = []

    def next(self, *faults: Fault) -> None:
        """Meet the next requests so, one each."""
        self._faults.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Meet every request so, after those that ``next`` spoke of; None: forward them."""
        self._always = fault

    def answer(self, asked: Asked) -> HttpAnswer:
        self.requests.append(asked)
        fault = self._faults.popleft() if self._faults else self._always
        if fault == SILENT:
            return HttpAnswer(silent=_PATIENCE)
        if isinstance(fault, Status):
            return HttpAnswer(fault.status, fault.headers, fault.body)
        forwarded = self._forwarded(asked)
        return HttpAnswer(hang_up=True) if fault == LOST else forwarded

    def _forwarded(self, asked: Asked) -> HttpAnswer:
        connection = http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            given = {name: value for name, value in asked.headers.items() if name not in _HOP}
            connection.request(asked.method, asked.path, asked.body, {**given, "content-length": str(len(asked.body))})
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return HttpAnswer(answer.status, headers, answer.read())
