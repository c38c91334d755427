"""Destinations whose behaviour a test decides, and records for them: a record is a text, its span is named by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otelgw_collector.pipeline import Batching, Destination, Pipeline, RetryPolicy
from otelgw_exporters.delivery import Exporter, Outcome, all_done

__all__ = ["QUICK", "Scripted", "Spool", "decode", "eventually", "running"]

RESOURCE = Resource({})
QUICK = RetryPolicy(first=0.01, most=0.05)
Answer = Callable[[Sequence[ReadableSpan]], Outcome]


def decode(payload: bytes) -> list[ReadableSpan]:
    if payload.startswith(b"undecodable"):
        raise ValueError("a text that must not be logged")
    identity = int.from_bytes(payload[-8:], "big") or 1
    return [ReadableSpan(payload.decode(), context=SpanContext(1, identity, is_remote=False), resource=RESOURCE)]


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class Scripted(Exporter):
    """Takes spans as ``answer`` says, by default all of them; ``names`` are those it has taken, ``tries`` all."""

    def __init__(self, name: str, answer: Answer | None = None) -> None:
        super().__init__(name)
        self.answer = answer
        self.names: list[str] = []
        self.tries: list[list[str]] = []
        self.times: list[float] = []
        self.closed = threading.Event()

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        self.tries.append([span.name for span in spans])
        outcome = self.answer(spans) if self.answer else all_done(len(spans))
        taken = zip(spans, outcome.verdicts, strict=False)
        self.names += [span.name for span, verdict in taken if verdict.state == "done"]
        self.times.append(time.monotonic())
        return outcome

    def shutdown(self) -> None:
        super().shutdown()
        self.closed.set()

    def destination(self, batching: Batching | None = None, **options: Any) -> Destination[list[ReadableSpan]]:
        options = {"retry": QUICK, "select": lambda spans: spans, **options}
        return Destination(self.name, self, batching=batching or Batching(), **options)


class Spool:
    """A state directory: where the spool and the ledger are."""

    def __init__(self, home: Path) -> None:
        self.segments = home / "spool"
        self.ledger = home / "pipeline.db"

    def pipeline(self, *destinations: Destination[Any], **options: Any) -> Pipeline[Any]:
        return Pipeline(self.segments, self.ledger, options.pop("decode", decode), destinations, **options)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.segments.glob("*.seg")) if self.segments.exists() else []


@contextmanager
def running(pipeline: Pipeline[Any], limit: float = 5.0) -> Iterator[Pipeline[Any]]:
    """Run ``pipeline`` in a thread and stop it at the end, within ``limit`` seconds."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            pipeline.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert pipeline.ready.wait(20)
        yield pipeline
    finally:
        pipeline.stop(limit)
        thread.join(limit + 20)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
