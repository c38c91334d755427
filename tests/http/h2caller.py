"""An HTTP/2 caller over a socket that does what a test says, with the ``h2`` library's client state machine."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Self

import h2.events as events
from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.http.wire import CHAT

__all__ = ["H2Caller"]

HEADERS = [(":scheme", "http"), (":authority", "127.0.0.1")]


class H2Caller:
    """One connection by prior knowledge, or over TLS with ``context``."""

    def __init__(self, port: int, *, context: ssl.SSLContext | None = None, timeout: float = 10) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket = context.wrap_socket(sock, server_hostname="localhost") if context is not None else sock
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[events.Event] = []
        self.ended = False
        self.acknowledges = True
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(
        self,
        path: str = "/v1/chat/completions",
        body: bytes | None = CHAT,
        *,
        method: str = "POST",
        headers: list[tuple[str, str]] | None = None,
        end: bool = True,
    ) -> int:
        """Send a request and return its stream; without ``end`` its body goes on."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), *HEADERS, *(headers or [])]
        self.h2.send_headers(stream, head, end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def read(self) -> bool:
        """Take what has come; False when the connection has ended."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = True
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, events.DataReceived) and self.acknowledges and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return True

    def of(self, stream: int, kind: type[Any]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "stream_id", None) == stream]

    def until(self, stream: int, *kinds: type[Any]) -> Any:
        """Read until one of ``kinds`` comes on ``stream`` and return it."""
        while True:
            for kind in kinds:
                if found := self.of(stream, kind):
                    return found[0]
            assert self.read(), f"the connection ended; {self.events}"

    def until_closed(self) -> events.ConnectionTerminated | None:
        """Read to the end of the connection; return the GOAWAY if there was one."""
        while self.read():
            pass
        return next((event for event in self.events if isinstance(event, events.ConnectionTerminated)), None)

    def status(self, stream: int) -> int:
        response = self.until(stream, events.ResponseReceived)
        return int(dict(response.headers)[":status"])

    def body(self, stream: int) -> bytes:
        """Return the body of an answer that ends in good order."""
        ended = self.until(stream, events.StreamEnded, events.StreamReset)
        assert isinstance(ended, events.StreamEnded), ended
        return b"".join(event.data for event in self.of(stream, events.DataReceived))

    def is_serving(self) -> bool:
        """Return whether a request is still answered with 200."""
        return self.status(self.request()) == 200
