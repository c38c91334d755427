"""Raw HTTP/1.1 over a socket, for tests that send what no client library would."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self

__all__ = ["CHAT", "RawAnswer", "Wire", "chat_request", "chunk"]

CHAT = b'{"model":"echo","messages":[{"role":"user","content":"hello"}]}'


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def chat_request(body: bytes = CHAT, *headers: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: 127.0.0.1", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


@dataclass
class RawAnswer:
    """One answer; ``whole`` tells whether it arrived to its framed end."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    whole: bool


class Wire:
    """A connection to a gateway."""

    def __init__(self, port: int, *, timeout: float = 10, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _until(self, size: int) -> bool:
        while len(self._buffer) < size:
            if not self._more():
                return False
        return True

    def _take(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def answer(self) -> RawAnswer | None:
        """Return the next answer, None when the connection has ended instead."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                assert not self._buffer, self._buffer
                return None
        head = self._take(self._buffer.index(b"\r\n\r\n") + 4)
        first, *lines = head[:-4].split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        status = int(first.split(b" ")[1])
        if status == 100:
            return self.answer()
        if headers.get(b"transfer-encoding") == b"chunked":
            body, whole = self._chunks()
        elif b"content-length" in headers:
            size = int(headers[b"content-length"])
            whole = self._until(size)
            body = self._take(size)
        else:
            while self._more():
                pass
            body, whole = self._take(len(self._buffer)), True
        return RawAnswer(status, headers, body, whole)

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            while b"\r\n" not in self._buffer:
                if not self._more():
                    return body, False
            line = self._take(self._buffer.index(b"\r\n") + 2)
            size = int(line, 16)
            if not self._until(size + 2):
                return body + self._take(len(self._buffer)), False
            body += self._take(size + 2)[:-2]
            if size == 0:
                return body, True

    def is_closed(self) -> bool:
        """Wait for the end of the connection; anything else that comes is a mistake."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        return self._take(len(self._buffer))
