"""A destination of many moods that notes what it took, and whether what came twice was the same twice."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers.answering import Asked, HttpAnswer
from tests.servers.otlp import HttpReceiver, spans_in

__all__ = ["MOODS", "MoodyDestination"]

MOODS = ("healthy", "slow", "down", "flapping")
FLAPPING = ("healthy", "down", "lost", "reset", "busy")


class MoodyDestination:
    """An OTLP/HTTP server on 127.0.0.1. ``mood``: one of MOODS.

    ``taken`` are the ids of the spans that it took, by trace id; it may have broken off the answer to that.
    ``altered`` are spans that came again with other content, ``rebatched`` those that came again in another request.
    """

    def __init__(self, seed: int = 0) -> None:
        self.mood = "healthy"
        self.taken: dict[str, set[str]] = {}
        self.again = 0
        self.altered: list[str] = []
        self.rebatched: list[str] = []
        self._seen: dict[str, tuple[bytes, bytes]] = {}
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._server = HttpReceiver([self._answer], repeat=True)
        self.endpoint = self._server.endpoint

    def _answer(self, asked: Asked) -> HttpAnswer:
        spans = spans_in([ExportTraceServiceRequest.FromString(asked.body)])
        with self._lock:
            self._compare(spans, hashlib.sha256(asked.body).digest())
            doing = (
                self._rng.choice(("healthy", "down", "lost", "reset", "busy")) if self.mood == "flapping" else self.mood
            )
        # The bodies of thousands of requests are not kept.
        self._server.asked.clear()
        self._server.accepted.clear()
        if doing == "slow":
            time.sleep(self._rng.uniform(0.05, 0.4))
        if doing in {"healthy", "slow", "lost"}:
            self._take(spans)
        return {
            "down": HttpAnswer(503),
            "busy": HttpAnswer(429, {"retry-after": "0"}),
            "lost": HttpAnswer(hang_up=True),
            "reset": HttpAnswer(hang_up=True),
        }.get(doing, HttpAnswer())

    def _compare(self, spans: list[Span], request: bytes) -> None:
        for span in spans:
            key = f"{span.trace_id.hex()}-{span.span_id.hex()}"
            content = hashlib.sha256(span.SerializeToString(deterministic=True)).digest()
            before = self._seen.setdefault(key, (content, request))
            self.again += before[0] == content and before[1] == request
            if before[0] != content:
                self.altered.append(key)
            elif before[1] != request:
                self.rebatched.append(key)

    def _take(self, spans: list[Span]) -> None:
        with self._lock:
            for span in spans:
                self.taken.setdefault(span.trace_id.hex(), set()).add(span.span_id.hex())

    def missing(self, trace_ids: set[str]) -> set[str]:
        """Return those of ``trace_ids`` of which nothing has been taken."""
        with self._lock:
            return trace_ids - self.taken.keys()

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)
