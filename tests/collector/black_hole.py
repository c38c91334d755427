"""A pipeline in a process of its own, with a destination that is there and one that takes all and never answers.

``python -m tests.collector.black_hole DIRECTORY PORT RECORDS SIZE``: PORT is the black hole's, or 0 for none, SIZE that
of a request's and an answer's text. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination as Policy
from otelgw.config.settings import Tracing
from otelgw.pipeline_main import decoders
from otelgw.selection import selector
from otelgw.tracing import record as records
from otelgw.tracing.record import Capture, capture_whole
from otelgw_collector.pipeline import Batching, Destination, Pipeline, Retention
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import Exporter, Outcome, all_done
from otelgw_exporters.otlp import OtlpHttpExporter
from tests.tracing.records import record

CAP = 24 * 1024 * 1024
PROMPT = Batching(linger=0.02, first=0.005)
AT_ONCE = 1024  # records, four whole batches, before the healthy destination is waited for


class Counting(Exporter):
    """Takes everything; ``spans`` counts, ``delays`` are seconds from the writing of a batch's last record."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.spans = 0
        self.delays: list[float] = []
        self.written_at = 0.0

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        self.delays.append(time.monotonic() - self.written_at)
        self.spans += len(spans)
        return all_done(len(spans))


def captured(body: bytes) -> Capture:
    return capture_whole(body, "application/json")


def payload(size: int) -> bytes:
    question = b'{"model":"gpt","messages":[{"role":"user","content":"' + b"q" * size + b'"}]}'
    answer = (
        b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"finish_reason":"stop","message":'
        b'{"role":"assistant","content":"' + b"a" * size + b'"}}],"usage":{"prompt_tokens":9,"completion_tokens":4}}'
    )
    return records.encode(record(request=captured(question), response=captured(answer)))


def pipeline(directory: Path, *exporters: Exporter) -> Pipeline[object]:
    policy = selector(Policy("console", "console"))
    return Pipeline(
        directory / "spool",
        directory / "pipeline.db",
        decoders(Tracing(), str(directory)),
        [Destination(each.name, each, policy, PROMPT) for each in exporters],
        retention=Retention(0.0, CAP),
    )


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux that begins with what the parent had.
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def run(running: Pipeline[object], work: object) -> None:
    thread = threading.Thread(target=running.run)
    thread.start()
    running.ready.wait(60)
    work()  # type: ignore[operator]
    running.stop(1.0)
    thread.join(60)


def main(directory: Path, port: int, count: int, size: int) -> dict[str, object]:
    healthy = Counting("healthy")
    exporters: list[Exporter] = [healthy]
    if port:
        exporters.append(OtlpHttpExporter(name="hole", endpoint=f"http://127.0.0.1:{port}/v1/traces"))
    running = pipeline(directory, *exporters)
    writer = SegmentWriter(directory / "spool", "w0_1_1", max_bytes=4 * 1024 * 1024)
    said: dict[str, object] = {}
    text = payload(size)

    def feed() -> None:
        for number in range(1, count + 1):
            writer.append(text)
            healthy.written_at = time.monotonic()
            if number % AT_ONCE == 0:
                while healthy.spans < number * 3:
                    time.sleep(0.001)
        writer.close()
        while any(each.name == "healthy" and each.backlog for each in running.status()):
            time.sleep(0.01)
        said.update(hole_delivered=sum(each.counters.delivered for each in running.status() if each.name == "hole"))

    run(running, feed)
    delays = sorted(healthy.delays)
    said |= {
        "healthy": healthy.spans,
        "dropped_healthy": running.status()[0].counters.dropped,
        "mib": peak() / 1024**2,
        "median": delays[len(delays) // 2],
        "p99": delays[len(delays) * 99 // 100],
    }
    if not port:
        return said
    # The black hole is mended: what it gets now and what it has lost is everything.
    mended = Counting("hole")
    again = pipeline(directory, Counting("healthy"), mended)

    def wait() -> None:
        while any(each.backlog or each.queued for each in again.status()):
            time.sleep(0.05)

    run(again, wait)
    hole = again.status()[1]
    left = len(list(directory.glob("spool/*.seg")))
    return said | {"hole": mended.spans, "dropped": hole.counters.dropped, "left": left}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))))
