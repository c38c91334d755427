"""``make soak``: many spans through gateways, Kafka and Collectors, while a Collector dies and the broker restarts.

::

    2 gateways -> Kafka, 3 partitions -> 2 Collectors, one consumer group -> a backend (a Collector with a file)

Requests come at a steady rate. When a third of the spans have arrived one Collector of the group is killed (kill -9)
and stays dead; when half of them have, the broker is killed and started again. At the end every span of every answered
request has to be in the backend; the only difference there may be is spans that came more than once, with the same ids
and the same content. All of it runs on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.processes import usage
from tests.servers import SERVERS
from tests.servers.collector import Collector
from tests.servers.gateway import GatewayProcess
from tests.servers.kafka import Kafka
from tests.servers.ports import free_port

__all__ = ["Result", "run"]

RECIPE = Path(__file__).parents[1] / "collector" / "recipes" / "kafka_consumer.yaml"
SPANS_PER_REQUEST = 3  # SERVER, generation, one attempt
_CONNECTIONS = 4  # to each gateway
_PATIENCE = 120.0  # seconds without a new span after which the rest is missing
_BACKEND = """\
receivers: {{otlp: {{protocols: {{grpc: {{max_recv_msg_size_mib: 64}}}}}}}}
exporters: {{file: {{path: "{path}", format: proto, flush_interval: 200ms}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}}}
"""
_BODY = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "How many spans make a soak?"}]}).encode()
_TRACE = re.compile(rb"\r\nx-otelgw-trace-id: ([0-9a-f]{32})\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass
class Result:
    """What a run found out. Times are in seconds, memory in bytes; ``repeated`` counts arrivals beyond the first.

    ``messages`` are those in the topic: one a request, and what a gateway had to send again.
    """

    requests: int = 0
    messages: int = 0
    spans: int = 0
    missing: int = 0
    unknown: int = 0
    repeated: int = 0
    repeated_differently: int = 0
    answering: float = 0.0
    arriving: float = 0.0
    broker_away: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


class _Load:
    """Asks gateways for ``count`` answers, ``rate`` a second, and keeps the trace ids of those that came."""

    def __init__(self, ports: list[int], count: int, rate: float) -> None:
        self.traces: list[str] = []
        self.error: BaseException | None = None
        self._ports = ports
        self._count, self._rate = count, rate
        self._asked = 0
        self.thread = threading.Thread(target=self._run, name="load")

    def _run(self) -> None:
        try:
            asyncio.run(self._ask())
        except BaseException as error:  # a thread has no other way to tell
            self.error = error

    async def _ask(self) -> None:
        self._started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for port in self._ports * _CONNECTIONS:
                group.create_task(self._connection(port))

    async def _connection(self, port: int) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(_BODY)}\r\n"
        request = f"{head}content-type: application/json\r\n\r\n".encode() + _BODY
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while self._asked < self._count:
            due = self._started + self._asked / self._rate
            self._asked += 1
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(request)
            head_read = await reader.readuntil(b"\r\n\r\n")
            found, length = _TRACE.search(head_read), _LENGTH.search(head_read)
            if not head_read.startswith(b"HTTP/1.1 200 ") or found is None or length is None:
                raise RuntimeError(f"an unexpected answer: {head_read!r}")
            await reader.readexactly(int(length[1]))
            self.traces.append(found[1].decode())
        writer.close()


class _Backend:
    """What the backend's Collector has written so far: each request after its size, four bytes, big end first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: dict[tuple[bytes, bytes], int] = {}
        self.repeated = self.differently = 0
        self._position = 0

    def read(self) -> int:
        """Read what is new; return how many different spans there are."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        start = 0
        while len(data) >= start + 4:
            (size,) = struct.unpack_from(">I", data, start)
            if len(data) < start + 4 + size:
                break
            self._take(ExportTraceServiceRequest.FromString(data[start + 4 : start + 4 + size]))
            start += 4 + size
        self._position += start
        return len(self.seen)

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    key, content = (span.trace_id, span.span_id), hash(span.SerializeToString(deterministic=True))
                    if key in self.seen:
                        self.repeated += 1
                        self.differently += self.seen[key] != content
                    self.seen.setdefault(key, content)


def run(
    spans: int,
    directory: Path,
    programs: Mapping[str, Path],
    *,
    rate: float = 600.0,
    session: float = 10.0,
    say: Callable[[str], object] = lambda _: None,
) -> Result:
    """Send at least ``spans`` spans through everything, and return what arrived.

    ``programs`` are those of the servers collector and kafka, ``rate`` is that of requests, per second; ``session`` is
    the time in seconds after which the group gives a dead Collector's partitions to the other.
    """
    result = Result(requests=-(-spans // SPANS_PER_REQUEST))
    result.spans = result.requests * SPANS_PER_REQUEST
    backend = _Backend(directory / "arrived")
    with ExitStack() as stack:
        settings = {"group.min.session.timeout.ms": "1000"}
        kafka = stack.enter_context(Kafka(programs["kafka"], settings=settings))
        kafka.create("otlp_spans", partitions=3)
        config = directory / "backend.yaml"
        config.write_text(_BACKEND.format(path=backend.path))
        last = stack.enter_context(Collector(programs["collector"], config))
        group = [stack.enter_context(_consumer(programs["collector"], kafka, last, session)) for _ in range(2)]
        gateways = [stack.enter_context(_gateway(directory / f"gateway-{number}", kafka)) for number in range(2)]
        say("2 gateways, a broker with 3 partitions, 2 Collectors and the backend are up")

        started = time.monotonic()
        load = _Load([gateway.port for gateway in gateways], result.requests, rate)
        load.thread.start()
        stack.callback(load.thread.join)
        _arriving(backend, result.spans // 3, load)
        group[0]._process.kill()
        say(f"{len(load.traces)} answers, {backend.read()} spans in the backend: a Collector is killed")
        _arriving(backend, result.spans // 2, load)
        away = time.monotonic()
        kafka.stop()
        say(f"{len(load.traces)} answers, {backend.read()} spans in the backend: the broker is killed")
        kafka.start()
        result.broker_away = time.monotonic() - away
        say(f"{len(load.traces)} answers, {backend.read()} spans in the backend: the broker is back")
        load.thread.join()
        result.answering = time.monotonic() - started
        say(f"{len(load.traces)} answers, {backend.read()} spans in the backend: that was the last answer")
        named = {"gateway": gateways[0].process.pid, "broker": kafka.process_id}
        named |= {"collector": group[1]._process.pid, "backend": last._process.pid}
        result.memory = {name: usage(pid).rss for name, pid in named.items()}
        result.arriving = _arriving(backend, result.spans, load) - started
        result.messages = kafka.written("otlp_spans")
        say(f"{len(backend.seen)} of {result.spans} spans in the backend")
    backend.read()
    _compare(result, backend, load.traces)
    return result


def _consumer(program: Path, kafka: Kafka, backend: Collector, session: float) -> Collector:
    overrides = {
        "extensions.health_check.endpoint": f"127.0.0.1:{free_port()}",
        "receivers.kafka.session_timeout": f"{session}s",
        "receivers.kafka.heartbeat_interval": f"{session / 3:.2f}s",
    }
    env = {"KAFKA_BROKERS": kafka.brokers, "BACKEND_ENDPOINT": f"127.0.0.1:{backend.grpc}"}
    return Collector(program, RECIPE, overrides, env)


def _gateway(directory: Path, kafka: Kafka) -> GatewayProcess:
    directory.mkdir()
    env = {"OTEL_TRACES_EXPORTER": "kafka", "OTELGW_KAFKA_BROKERS": kafka.brokers}
    return GatewayProcess(None, directory, env=env)


def _arriving(backend: _Backend, spans: int, load: _Load) -> float:
    """Wait until there are ``spans`` different spans, or no more come; return when the last one was seen."""
    count, last = backend.read(), time.monotonic()
    while count < spans and time.monotonic() - last < _PATIENCE:
        if load.error is not None:
            raise load.error
        time.sleep(0.1)
        if (now := backend.read()) > count:
            count, last = now, time.monotonic()
    return last


def _compare(result: Result, backend: _Backend, traces: list[str]) -> None:
    """Count what is not there, and what nobody asked for."""
    found = Counter(trace.hex() for trace, _ in backend.seen)
    answered = set(traces)
    result.missing = sum(max(0, SPANS_PER_REQUEST - found[trace]) for trace in answered)
    result.missing += SPANS_PER_REQUEST * (result.requests - len(answered))
    result.unknown = sum(max(0, count - SPANS_PER_REQUEST * (trace in answered)) for trace, count in found.items())
    result.repeated, result.repeated_differently = backend.repeated, backend.differently


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spans", type=int, default=100_000, help="how many at least (default: 100000)")
    parser.add_argument("--rate", type=float, default=600.0, help="requests a second (default: 600)")
    given = parser.parse_args()
    programs = {name: SERVERS[name].build() for name in ("collector", "kafka")}
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        result = run(given.spans, Path(directory), programs, rate=given.rate, say=say)
    for name, value in asdict(result).items():
        shown = ", ".join(f"{each} {size // 2**20} MiB" for each, size in value.items()) if name == "memory" else value
        print(f"{name:>20}  {round(shown, 1) if isinstance(shown, float) else shown}")
    if result.missing or result.unknown or result.repeated_differently:
        raise SystemExit("spans are missing, unknown or differ from their first arrival")


if __name__ == "__main__":
    main()
