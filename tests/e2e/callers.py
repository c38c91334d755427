"""Callers that ask a gateway without end, chats and streams by turns, and remember which answers they got whole."""

from __future__ import annotations

import asyncio
import random
import threading
from types import TracebackType
from typing import Self

import httpx

__all__ = ["Callers"]

PATH = "/v1/chat/completions"
TIMEOUT = httpx.Timeout(15, connect=2)


class Callers:
    """``count`` callers at once, each with one request in flight; ``url`` may change while they run.

    ``asked`` are the trace ids of all requests, ``acknowledged`` those of which the last byte of the answer came, with
    its status. Every request begins a trace of its own.
    """

    def __init__(self, url: str, count: int = 16, *, pause: float = 0.03, seed: int = 0) -> None:
        self.url = url
        self.asked: set[str] = set()
        self.acknowledged: dict[str, int] = {}
        self._count = count
        self._pause = pause
        self._rng = random.Random(seed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="callers", daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every caller finish what it asks."""
        self._stopped.set()
        self._thread.join(60)
        if self._thread.is_alive():
            raise TimeoutError("the callers did not come to an end")
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        try:
            await asyncio.gather(*(self._call_on(number) for number in range(self._count)))
        except BaseException as error:  # a thread has no other way to tell
            self._failure = error

    async def _call_on(self, number: int) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            while not self._stopped.is_set():
                number += 1
                try:
                    await self._call(client, stream=number % 2 == 0)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(self._rng.uniform(0, self._pause))

    async def _call(self, client: httpx.AsyncClient, *, stream: bool) -> None:
        trace_id = f"{self._rng.getrandbits(128) or 1:032x}"
        body = {"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": trace_id}]}
        self.asked.add(trace_id)
        headers = {"traceparent": f"00-{trace_id}-{self._rng.getrandbits(64) or 1:016x}-01"}
        async with client.stream("POST", self.url + PATH, json=body, headers=headers) as answer:
            said = await answer.aread()
        assert answer.status_code != 200 or trace_id.encode() in said
        assert answer.headers["x-otelgw-trace-id"] == trace_id
        self.acknowledged[trace_id] = answer.status_code
