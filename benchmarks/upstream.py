"""A static upstream that costs as little as Python can, so that a benchmark measures what stands in front of it.

``POST /v1/chat/completions`` (any path, in fact) is answered with one constant JSON answer of about 1500 bytes, or,
when the body asks for ``"stream": true``, with a constant stream of server-sent events, ``--gap-ms`` apart, one write
each. The first event leaves at once; the last write carries the finish reason, the usage (if ``include_usage`` was
asked for), ``[DONE]`` and the end of the chunked body. ``GET`` gets ``200 ok``: a readiness probe.

It trusts its client: one request at a time per connection, well-formed heads, ``Content-Length`` or chunked.

Run it with ``python -m benchmarks.upstream --port 9000``; it prints one line once it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, cast

import uvloop

__all__ = ["Answers", "StaticUpstream", "main", "serve"]

ANSWER_SIZE = 1500
CHUNKS = 50
GAP = 0.010
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_READY = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_0123456789abcdef\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _answer(size: int) -> bytes:
    """Return the head and body of the JSON answer; the body is ``size`` bytes long, or more if its shape needs more."""
    usage = {"prompt_tokens": 320, "completion_tokens": 180, "total_tokens": 500}
    message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    answer = {
        "id": "chatcmpl-0123456789abcdef0123456789",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage,
        "system_fingerprint": "fp_0123456789",
    }
    filler = "The quick brown fox jumps over the lazy dog. "
    missing = max(0, size - len(_json(answer)))
    message["content"] = (filler * (missing // len(filler) + 1))[:missing]
    body = _json(answer)
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_0123456789abcdef\r\n"
        b"openai-processing-ms: 12\r\nx-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    return head + body


def _event(choices: list[dict[str, Any]], **fields: Any) -> bytes:
    chunk = {
        "id": "chatcmpl-0123456789abcdef0123456789",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_0123456789",
        "choices": choices,
        **fields,
    }
    return b"data: " + _json(chunk) + b"\n\n"


def _delta(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _stream(chunks: int, *, usage: bool) -> tuple[bytes, ...]:
    """Return the writes of one streamed answer, ``chunks`` of them."""
    null = {"usage": None} if usage else {}
    events = [_event(_delta({"role": "assistant", "content": ""}), **null)]
    events += [_event(_delta({"content": f"token{n} "}), **null) for n in range(1, max(2, chunks) - 1)]
    last = _event(_delta({}, "stop"), **null)
    if usage:
        last += _event([], usage={"prompt_tokens": 320, "completion_tokens": chunks, "total_tokens": 320 + chunks})
    events.append(last + b"data: [DONE]\n\n")
    writes = [_framed(event) for event in events]
    writes[0] = _STREAM_HEAD + writes[0]
    writes[-1] += b"0\r\n\r\n"
    return tuple(writes)


class Answers:
    """The constant answers: ``plain`` as one write, ``stream`` and ``stream_with_usage`` as ``chunks`` writes each."""

    def __init__(self, *, size: int = ANSWER_SIZE, chunks: int = CHUNKS, gap: float = GAP) -> None:
        self.plain = _answer(size)
        self.stream = _stream(chunks, usage=False)
        self.stream_with_usage = _stream(chunks, usage=True)
        self.gap = gap


class StaticUpstream(asyncio.Protocol):
    """One connection of the static upstream."""

    def __init__(self, answers: Answers, call_later: Callable[..., asyncio.TimerHandle]) -> None:
        self._answers = answers
        self._call_later = call_later
        self._pending = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        start = data.find(b"\r\n\r\n") + 4
        if start < 4 or not _is_whole(data, start):
            self._pending = data
            return
        self._pending = b""
        if data.startswith(b"GET "):
            self._transport.write(_READY)
        elif _STREAM.search(data, start):
            usage = _USAGE.search(data, start)
            self._step(iter(self._answers.stream_with_usage if usage else self._answers.stream))
        else:
            self._transport.write(self._answers.plain)

    def _step(self, writes: Any) -> None:
        data = next(writes, None)
        if data is not None:
            self._transport.write(data)
            self._timer = self._call_later(self._answers.gap, self._step, writes)


def _is_whole(data: bytes, start: int) -> bool:
    """Say whether the request whose body begins at ``start`` has arrived."""
    length = _LENGTH.search(data, 0, start)
    if length is not None:
        return len(data) - start >= int(length[1])
    return data.endswith(b"0\r\n\r\n") if _CHUNKED.search(data, 0, start) else True


async def serve(host: str, port: int, answers: Answers) -> None:
    """Serve on ``host``:``port`` (0: any free port) until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StaticUpstream(answers, loop.call_later), host, port, backlog=4096)
    print("listening on {}:{}".format(*server.sockets[0].getsockname()[:2]), flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description="A fast static upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free port (default: %(default)s)")
    parser.add_argument("--size", type=int, default=ANSWER_SIZE, help="bytes of the JSON answer (default: %(default)s)")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="writes of a stream (default: %(default)s)")
    parser.add_argument("--gap-ms", type=float, default=GAP * 1000, help="between two writes (default: %(default)s)")
    options = parser.parse_args()
    answers = Answers(size=options.size, chunks=options.chunks, gap=options.gap_ms / 1000)
    try:
        uvloop.run(serve(options.host, options.port, answers))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
