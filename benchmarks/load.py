"""The load generator: closed-loop keep-alive connections on raw protocols, every answer compared byte for byte.

It runs in one process with uvloop and does as little as possible per answer (httptools parses the framing, headers are
not looked at), so that on two cores most of the time is left to what is measured.
"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

__all__ = ["Answer", "LoadError", "Samples", "fetch", "request_bytes", "run"]

ANSWER_TIMEOUT = 60.0  # seconds without any answer after which a run is given up


class LoadError(Exception):
    """An answer was not the expected one, or the connection ended."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one answer; the body without its framing."""

    status: int
    body: bytes


@dataclass(slots=True)
class Samples:
    """What one run measured: seconds from the request's write to the last and to the first byte of each body."""

    wall: float = 0.0
    latency: list[float] = field(default_factory=list)
    first_chunk: list[float] = field(default_factory=list)


def request_bytes(port: int, body: bytes, *, key: str) -> bytes:
    """Return one POST to ``/v1/chat/completions`` as it goes on the wire."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\nUser-Agent: otelgw-bench\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Run:
    """The work that the connections of one run share."""

    def __init__(self, request: bytes, expected: Answer | None, count: int) -> None:
        self.request = request
        self.expected = expected
        self.left = count
        self.missing = count
        self.samples = Samples()
        self.answer: Answer | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def complete(self, answer: Answer, latency: float, first_chunk: float) -> None:
        if self.expected is None:
            self.answer = answer
        elif answer != self.expected:
            self.fail(
                f"unexpected answer: {answer.status} {answer.body[:300]!r}, expected {self.expected.body[:80]!r}…"
            )
            return
        self.samples.latency.append(latency)
        self.samples.first_chunk.append(first_chunk)
        self.missing -= 1
        if self.missing == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, message: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(message))


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is complete."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._sent = 0.0
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._run.fail(f"not HTTP: {error}: {data[:200]!r}")
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent:
            self._run.fail(f"connection ended before the answer was complete: {exc!r}")

    def on_body(self, body: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter()
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        sent, first = self._sent, self._first or now
        self._sent = self._first = 0.0
        self._run.complete(Answer(self._parser.get_status_code(), body), now - sent, first - sent)
        self._next()

    def _next(self) -> None:
        if self._run.take():
            self._sent = time.perf_counter()
            self._transport.write(self._run.request)
        else:
            self._transport.close()


async def _drive(port: int, run: _Run, concurrency: int, spread: float) -> None:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    opened: list[asyncio.Transport] = []
    try:
        for _ in range(concurrency):
            transport, _ = await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
            opened.append(transport)
            if spread:
                await asyncio.sleep(spread / concurrency)
        before = -1
        while not run.done.done():
            if before == run.missing:
                run.fail(f"no answer for {ANSWER_TIMEOUT:.0f} s; {run.missing} are missing")
            before = run.missing
            await asyncio.wait([run.done], timeout=ANSWER_TIMEOUT)
        run.samples.wall = time.perf_counter() - started
        await run.done
    finally:
        run.done.cancel()
        for transport in opened:
            transport.abort()
        await asyncio.sleep(0)


def _execute(
    port: int, request: bytes, expected: Answer | None, count: int, concurrency: int, spread: float = 0.0
) -> _Run:
    async def main() -> _Run:
        run = _Run(request, expected, count)
        await _drive(port, run, min(concurrency, count), spread)
        return run

    gc.collect()
    gc.disable()
    try:
        return uvloop.run(main())
    finally:
        gc.enable()


def run(port: int, request: bytes, expected: Answer, *, count: int, concurrency: int, spread: float = 0.0) -> Samples:
    """Send ``request`` ``count`` times over ``concurrency`` connections to 127.0.0.1:``port``.

    The connections are opened over ``spread`` seconds, so that long answers do not all start and end together.

    Raises:
        LoadError: an answer differs from ``expected``, a connection ended early, or nothing came for a minute.
    """
    return _execute(port, request, expected, count, concurrency, spread).samples


def fetch(port: int, request: bytes) -> Answer:
    """Send ``request`` once and return the answer, whatever it is."""
    answer = _execute(port, request, None, 1, 1).answer
    assert answer is not None
    return answer
