"""A null OTLP/HTTP receiver: accepts every export at once and counts what it was sent. ``python -m benchmarks.sink``.

``GET /stats`` answers with JSON: ``posts``, ``bytes``, and ``generations``, the number of spans that carried their
input messages, which shows that content was really captured, exported, and how much of it has arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import cast

import httptools
import uvloop

__all__ = ["main"]

CONTENT_KEY = b"gen_ai.input.messages"


class _Counts:
    def __init__(self) -> None:
        self.posts = 0
        self.bytes = 0
        self.generations: dict[str, int] = {}


class _Exporter(asyncio.Protocol):
    def __init__(self, counts: _Counts) -> None:
        self._counts = counts
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body, url = b"".join(self._body), self._url.decode()
        self._body.clear()
        self._url = b""
        answer = b""
        if self._parser.get_method() == b"GET":
            answer = json.dumps(vars(self._counts)).encode()
        else:
            counts = self._counts
            counts.posts += 1
            counts.bytes += len(body)
            counts.generations[url] = counts.generations.get(url, 0) + body.count(CONTENT_KEY)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {len(answer)}\r\n\r\n"
        self._transport.write(head.encode() + answer)


async def _serve(port: int) -> None:
    counts = _Counts()
    server = await asyncio.get_running_loop().create_server(lambda: _Exporter(counts), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
