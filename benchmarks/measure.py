"""One cell of the tables: load one target at one concurrency, and read what its processes used for it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from benchmarks import load
from benchmarks.processes import usage
from benchmarks.targets import KEY, Backends, Target

__all__ = ["Cell", "Workload", "measure", "warm_up", "workload"]

SETTLE_SECONDS = 60.0
QUIET_SECONDS = 0.4
STREAM_SECONDS = 0.5  # 50 chunks, 10 ms apart
QUIET_TICKS = 0.021  # CPU seconds that an idle tree may use in QUIET_SECONDS: two clock ticks


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement. CPU in seconds per 1000 answers; latency and time to first chunk in ms; rss in bytes.

    ``missing`` is the number of generation spans with content that the sink had not received a minute after the load;
    negative where some were delivered more than once.
    """

    target: str
    kind: str
    concurrency: int
    count: int
    cpu: float | None
    pipeline_cpu: float | None
    rss: int
    rate: float
    p50: float
    p99: float
    first_p50: float
    first_p99: float
    missing: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Workload:
    """A request body and the answer that every target must give to it, byte for byte."""

    kind: str
    body: bytes
    expected: load.Answer


def _body(stream: bool) -> bytes:
    """Return a chat request with four messages; 1637 bytes without streaming."""
    texts = {
        "system": "You are a careful assistant. Answer in plain words and say so when you do not know. " * 5,
        "user": "Explain how a trace context travels from a caller through a gateway to a model server. " * 5,
        "assistant": "The caller sends a traceparent; the gateway makes its own spans children of that one. " * 5,
    }
    messages = [{"role": role, "content": text} for role, text in texts.items()]
    fields: dict[str, object] = {"model": "bench", "messages": [*messages, {"role": "user", "content": "%s"}]}
    text = json.dumps({**fields, "temperature": 0.2, "max_tokens": 400})
    body = text % ("And with two gateways? " * 20)[: 1637 - len(text) + 2]
    return (body.replace("{", '{"stream": true, ', 1) if stream else body).encode()


def workload(kind: str, backends: Backends) -> Workload:
    """Return the workload ``requests`` or ``streams``, its expected answer taken from the upstream itself."""
    body = _body(stream=kind == "streams")
    port = backends.upstream.port
    answer = load.fetch(port, load.request_bytes(port, body, key=KEY))
    if answer.status != 200 or len(answer.body) < 500:
        raise load.LoadError(f"the upstream answers {answer.status} {answer.body[:300]!r}")
    return Workload(kind, body, answer)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def _settle(target: Target) -> None:
    """Wait until the target's processes are idle, so that one cell's work is not counted in the next one."""
    if not target.pid:
        return
    deadline = time.monotonic() + SETTLE_SECONDS
    before = usage(target.pid)
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        now = usage(target.pid)
        if now.request_path + now.pipeline - before.request_path - before.pipeline <= QUIET_TICKS:
            return
        before = now


def _undelivered(target: Target, backends: Backends, wanted: int) -> int:
    """Wait until the sink has ``wanted`` generations of the target; return how many are missing after a minute.

    A negative number counts spans that were delivered twice.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while (missing := wanted - backends.generations(target.name)) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    return missing


def warm_up(target: Target, work: Workload, backends: Backends) -> None:
    """Send enough that connections, caches and allocators are as in service, and wait for its spans.

    Raises:
        load.LoadError: an answer was wrong, or a span did not reach the sink.
    """
    count = 500 if work.kind == "requests" else 32
    delivered = backends.generations(target.name)
    request = load.request_bytes(target.port, work.body, key=KEY)
    load.run(target.port, request, work.expected, count=count, concurrency=16)
    if target.exports and (missing := _undelivered(target, backends, delivered + count)) > 0:
        raise load.LoadError(f"{target.name}: {missing} of {count} generations did not reach the sink")


def measure(target: Target, work: Workload, backends: Backends, *, count: int, concurrency: int) -> Cell:
    """Load the target once.

    Raises:
        load.LoadError: an answer was wrong or missing, or a process of the target died or was added.
    """
    request = load.request_bytes(target.port, work.body, key=KEY)
    _settle(target)
    delivered = backends.generations(target.name) if target.exports else 0
    before = usage(target.pid) if target.pid else None
    spread = STREAM_SECONDS if work.kind == "streams" else 0.0
    samples = load.run(target.port, request, work.expected, count=count, concurrency=concurrency, spread=spread)
    cpu = pipeline_cpu = None
    missing = rss = 0
    if before:
        after = usage(target.pid)
        cpu, rss = (after.request_path - before.request_path) * 1000 / count, after.rss
        if target.exports:
            missing = _undelivered(target, backends, delivered + count)
            _settle(target)
            after = usage(target.pid)
            pipeline_cpu = (after.pipeline - before.pipeline) * 1000 / count
        if after.pids != before.pids:
            raise load.LoadError(f"{target.name}: its processes changed under load: {before.pids} -> {after.pids}")
    return Cell(
        target=target.name,
        kind=work.kind,
        concurrency=concurrency,
        count=count,
        cpu=cpu,
        pipeline_cpu=pipeline_cpu,
        rss=rss,
        rate=count / samples.wall,
        p50=_quantile(samples.latency, 0.50),
        p99=_quantile(samples.latency, 0.99),
        first_p50=_quantile(samples.first_chunk, 0.50),
        first_p99=_quantile(samples.first_chunk, 0.99),
        missing=missing,
    )
