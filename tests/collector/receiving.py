"""A receiver for tests: both real servers on loopback, on an event loop in a thread of their own.

::

    with RunningReceiver(tmp_path) as receiver:
        ...  # send to receiver.grpc, receiver.http
        spans = receiver.spans()      # what is in the spool by now
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import threading
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelgw_collector.receiver import Intake
from otelgw_collector.receiver_grpc import GrpcReceiver
from otelgw_collector.receiver_http import HttpReceiver
from otelgw_collector.segment_format import OTLP
from otelgw_collector.segments import SegmentReader, SegmentWriter, find_segments

__all__ = ["OWN", "RunningReceiver", "payloads", "request", "span", "spans_of"]

OWN = "0d4bbfa0-0000-5000-8000-000000000001"


def span(number: int = 1, **fields: Any) -> Span:
    made = Span(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=f"span {number}")
    made.MergeFrom(Span(**fields))
    return made


def request(*spans: Span, **resource: str) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    for key, value in resource.items():
        group.resource.attributes.add(key=key.replace("_", ".")).value.string_value = value
    group.scope_spans.add(spans=spans)
    return made


def payloads(spool: Path) -> list[bytes]:
    """Return the payloads that a reader of the spool finds now."""
    found = []
    for segment in find_segments(spool):
        reader = SegmentReader(segment.path)
        entries = reader.read(2**30)
        assert {entry.kind for entry in entries} <= {OTLP}
        found += [entry.payload for entry in entries]
        reader.close()
    return found


def spans_of(payload: bytes) -> list[Span]:
    groups = ExportTraceServiceRequest.FromString(payload).resource_spans
    return [each for group in groups for scope in group.scope_spans for each in scope.spans]


class RunningReceiver:
    """``spool``, if given, takes the place of the segments in ``directory``."""

    def __init__(
        self,
        directory: Path,
        *,
        spool: Any = None,
        token: str = "",
        max_bytes: int = 1024 * 1024,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self._directory = directory
        self._writer = SegmentWriter(directory, "receiver")
        self.intake = Intake(spool or self._writer, OWN)
        digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
        settings: dict[str, Any] = {"max_bytes": max_bytes, "token_sha256": digest}
        context, pair = None, None
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls[1], tls[0])
            pair = (tls[0].read_bytes(), tls[1].read_bytes())
        self._servers = lambda: (
            GrpcReceiver(self.intake, pair=pair, **settings),
            HttpReceiver(self.intake, tls=context, **settings),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver")
        self.grpc = self.http = 0

    def call(self, coroutine: Awaitable[Any]) -> Any:
        """Run a coroutine on the receiver's loop."""

        async def run() -> Any:
            return await coroutine

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def spans(self) -> list[Span]:
        """Return the spans in the spool."""
        return [each for payload in payloads(self._directory) for each in spans_of(payload)]

    async def _start(self) -> None:
        grpc, http = self._running = self._servers()
        self.grpc = await grpc.start("127.0.0.1:0")
        self.http = await http.start("127.0.0.1", 0)

    def stop(self, limit: float = 1.0) -> None:
        for server in self._running:
            self.call(server.stop(limit))

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._writer.close()
