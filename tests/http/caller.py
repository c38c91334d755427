"""Callers of a running gateway: whole answers as httpx has them, and a bare connection for what httpx hides."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import h11
import httpx

from tests.e2e.tree import Node, Tree, trees
from tests.servers.gateway import RunningGateway

__all__ = ["CHAT", "HELLO", "STREAM", "Answer", "Caller", "ask", "asked", "parts_of", "tree_of"]

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
STREAM: dict[str, Any] = {**HELLO, "stream": True}


@dataclass
class Answer:
    """An answer as it was on the wire, its chunked framing taken off. ``complete`` False: it was cut."""

    status: int = 0
    reason: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str | None:
        """Return the value of a header that must not stand there twice."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} stands there {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of an answer that must have OpenAI's shape."""
        document = self.json()
        assert document.keys() == {"error"}
        assert document["error"].keys() == {"message", "type", "param", "code"}
        return dict(document["error"])


class Caller:
    """One HTTP/1.1 connection to ``port`` of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self._connection = h11.Connection(h11.CLIENT)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(
        self,
        path: str = CHAT,
        body: Any = None,
        headers: Sequence[tuple[str, str]] = (),
        *,
        method: str = "POST",
        length: int | None = None,
    ) -> None:
        """Send a request: ``body`` as JSON, or as it is if it is bytes; ``length`` announces another length."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = [*headers]
        if not any(name.lower() == "host" for name, _ in headers):
            head.insert(0, ("Host", "127.0.0.1"))
        if not any(name.lower() == "content-type" for name, _ in headers) and content:
            head.append(("Content-Type", "application/json"))
        if not any(name.lower() == "transfer-encoding" for name, _ in headers):
            head.append(("Content-Length", str(len(content) if length is None else length)))
        self.begin(method)
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head), "", ""]
        self.socket.sendall("\r\n".join(lines).encode("latin-1") + content)

    def begin(self, method: str = "POST") -> None:
        """Expect an answer to a request that the test sends itself."""
        self._connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        self._connection.send(h11.EndOfMessage())

    def answer(self) -> Answer:
        """Return the next answer, or as much of it as there is."""
        answer = Answer()
        while True:
            try:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    self._connection.receive_data(self._read())
                    continue
            except h11.RemoteProtocolError:
                return answer
            if isinstance(event, h11.Response):
                answer.status, answer.reason = event.status_code, event.reason
                answer.headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                answer.complete = True
                if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
                    self._connection.start_next_cycle()
                return answer
            elif isinstance(event, h11.ConnectionClosed):
                return answer

    def read_until(self, mark: bytes) -> bytes:
        """Return what has come, framing and all, once ``mark`` is in it; ``answer`` goes on from the start."""
        while mark not in self._seen:
            data = self._read()
            assert data, f"the connection ended before {mark!r}: {self._seen!r}"
            self._connection.receive_data(data)
        return self._seen

    def _read(self) -> bytes:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self._seen += data
        return data

    def hang_up(self) -> None:
        """Close the connection as a killed process does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def ask(
    gateway: RunningGateway,
    body: Any = None,
    path: str = CHAT,
    headers: Sequence[tuple[str, str]] = (),
    *,
    method: str = "POST",
) -> Answer:
    """Send one request on a connection of its own and return what came back."""
    with Caller(gateway.port) as caller:
        caller.send(path, body, headers, method=method)
        return caller.answer()


def asked(gateway: RunningGateway, body: Any = None, path: str = CHAT, **more: Any) -> tuple[Answer, Tree]:
    """Send one request and return the answer and its trace."""
    answer = ask(gateway, body, path, **more)
    return answer, tree_of(gateway)


def tree_of(gateway: RunningGateway) -> Tree:
    """Return the trace of the next record."""
    (found,) = trees(map(Node.of_sdk, gateway.spans()))
    return found


def parts_of(url: str, body: Any, headers: Mapping[str, str] | None = None) -> list[bytes]:
    """Return the pieces of an answer as httpx gets them from the network, undecoded."""
    with (
        httpx.Client(trust_env=False, timeout=15) as client,
        client.stream("POST", url, json=body, headers=headers) as r,
    ):
        return list(r.iter_raw())
