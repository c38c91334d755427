"""The pipeline process: builds what the collector room is given, then delivers until it is told to stop.

Started by the master as ``python -m otelgw.pipeline_main``. SIGTERM delivers what it can within 10 s and leaves the
rest on disk; a second one ends at once. When the master is gone it has 5 s. SIGINT and SIGHUP are the master's.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version

from otelgw import __version__, logs
from otelgw.config.settings import Destination, Settings, Tracing
from otelgw.errors import StartError
from otelgw.gathering import gatherer, together
from otelgw.keys.database import StoreError
from otelgw.metrics import Metrics
from otelgw.process import announce, lock, read_settings
from otelgw.redaction.offloading import Keeper
from otelgw.report import Reporter, pushing
from otelgw.selection import Trace, preparer, selector
from otelgw.spool import killed
from otelgw.tracing import record as records
from otelgw.tracing import spans
from otelgw.tracing.dropped import DroppedLabels
from otelgw.tracing.limits import AttributeLimits
from otelgw.tracing.ordinary import ordinary
from otelgw.tracing.ordinary_spans import OrdinarySpans
from otelgw_collector import otlp_spans, pipeline
from otelgw_collector.pipeline import Batching, Pipeline, Retention, RetryPolicy
from otelgw_collector.segment_format import OTLP, RECORD
from otelgw_exporters import catalog
from otelgw_exporters.batches import Batches
from otelgw_exporters.delivery import Exporter
from otelgw_exporters.errors import DestinationError
from otelgw_exporters.otlp_wire import Encoder

__all__ = ["decoder", "decoders", "keeper", "main", "resource", "writers"]

log = logging.getLogger("otelgw.pipeline_main")  # not `__main__`, which it is run as

_NICENESS = 10

_STOP = 10.0  # seconds for delivering what is left, on SIGTERM
_ORPHANED = 5.0  # the same when the master is gone


def resource(tracing: Tracing, state_dir: str) -> Resource:
    """Return the gateway's resource; what the settings say about an attribute prevails.

    ``service.instance.id`` is the same after every restart in the same state directory, so that a span that is sent
    again is the same span.
    """
    instance = uuid.uuid5(uuid.NAMESPACE_URL, f"otelgw://{platform.node()}{Path(state_dir).absolute()}")
    standard = {
        "service.name": tracing.service_name,
        "service.version": __version__,
        "service.instance.id": str(instance),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    return Resource({**standard, **tracing.resource})


def decoder(tracing: Tracing, state_dir: str) -> Callable[[bytes], Trace]:
    """Return the function from a record's payload to its spans."""
    described = resource(tracing, state_dir)
    scope = _scope(tracing)
    limits = AttributeLimits.of(tracing.attribute_count_limit, tracing.attribute_length_limit)
    dropped = DroppedLabels()

    def build(record: records.Record) -> list[ReadableSpan]:
        return spans.build(record, described, scope, limits)

    def decode(payload: bytes) -> Trace:
        record = records.decode(payload)
        found = ordinary(record) if limits.length is None else None
        if found is not None:
            return Trace(record, None, found, build)
        made = build(record)
        dropped.note(made)
        return Trace(record, made)

    return decode


def _scope(tracing: Tracing) -> InstrumentationScope:
    return InstrumentationScope(tracing.tracer_name, __version__)


def writers(tracing: Tracing, state_dir: str) -> Callable[[Encoder], OrdinarySpans | None]:
    """Return the function from an encoder to what writes the spans of ordinary requests as it does; the same for all
    destinations that share it, None where it has to see the spans."""
    described, scope = resource(tracing, state_dir), _scope(tracing)

    @cache
    def writer(encoder: Encoder) -> OrdinarySpans | None:
        return OrdinarySpans(encoder, described, scope) if OrdinarySpans.fits(encoder) else None

    return writer


def decoders(tracing: Tracing, state_dir: str) -> dict[int, Callable[[bytes], Trace]]:
    """Return the functions from payloads to spans, by the record's kind."""
    instance = str(resource(tracing, state_dir).attributes["service.instance.id"])

    def received(payload: bytes) -> Trace:
        return Trace(None, otlp_spans.decode(payload, instance))

    return {RECORD: decoder(tracing, state_dir), OTLP: received}


def age(trace: Trace) -> float:
    """Return how many seconds ago a record was done."""
    ended = trace.ended
    return max(0.0, time.time() - ended / 1e9) if ended else 0.0


def keeper(settings: Settings) -> Keeper | None:
    """Return what keeps long content beside the spans; None without a blob store.

    Raises:
        DestinationConfigError: it cannot be used as it is configured.
    """
    chosen = settings.blob_store
    if chosen is None:
        return None
    from otelgw_exporters import blob_store  # the writers of buckets are large

    return Keeper(blob_store.open_store(chosen.type, chosen.options, chosen.prefix), chosen.above)


def _built(
    destination: Destination,
    retry_limit: float,
    keep: Keeper | None,
    writer: Callable[[Encoder], OrdinarySpans | None],
) -> pipeline.Destination[Trace]:
    exporter = catalog.build(destination.type, destination.name, destination.options)
    write = writer(exporter.encoder) if exporter.encoder is not None else None
    retry = RetryPolicy(limit=retry_limit)
    select = selector(destination, keep)
    return pipeline.Destination(
        destination.name,
        exporter,
        select,
        batching=_batching(exporter),
        retry=retry,
        prepare=preparer(destination, select, exporter.ahead, keep, write),
        gather=gatherer(exporter.gather),
        together=together if exporter.gather is not None else None,
    )


def _batching(exporter: Exporter) -> Batching:
    """Return how much at a time an exporter wants; most have no wish of their own."""
    asked: Batches | None = getattr(exporter, "batching", None)
    if asked is None:
        return Batching()
    records, size = max(1024, 2 * asked.records), max(8 * 1024 * 1024, 2 * asked.size)
    return Batching(asked.records, asked.size, asked.linger, first=asked.linger, queue_records=records, queue_size=size)


def _tenants(settings: Settings) -> pipeline.Destination[Trace]:
    """Return the destination that stands for those of keys and teams."""
    from otelgw.tenants import NAME, Tenants

    tenants = Tenants(settings, decoder(settings.tracing, settings.state_dir))
    return pipeline.Destination(NAME, tenants, tenants.select)


class _Termination:
    """SIGTERM, from the first moment on: it may come while the settings are still being read."""

    def __init__(self) -> None:
        self._asked = 0
        self._running: Pipeline[Trace] | None = None
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        if self._running is not None:
            self._running.stop(_STOP if self._asked == 1 else 0.0)

    def stops(self, running: Pipeline[Trace]) -> None:
        """Have SIGTERM stop ``running``, also one that has come already."""
        self._running = running
        if self._asked:
            running.stop(_STOP)


def _watch_master(running: Pipeline[Trace]) -> None:
    """Stop when standard input ends: the master holds its other end for as long as it lives."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        log.warning("the master is gone; delivering what is left for %.0f s", _ORPHANED)
        running.stop(_ORPHANED)

    threading.Thread(target=wait, name="watch the master", daemon=True).start()


def _yield_to_requests() -> None:
    """Lower this process's priority: where cores are short, exporting waits, not a caller."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)


def _settle_garbage() -> None:
    """Take what was loaded at start out of the collector's sight, as it lives as long as the process: spans are made of
    so many small objects that walking it on their account would cost more than a third of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def main(arguments: list[str] | None = None) -> int:
    """Run the pipeline on the settings that come by standard input; return the exit status."""
    parser = argparse.ArgumentParser(prog="otelgw.pipeline_main")
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _yield_to_requests()
    termination = _Termination()
    settings = read_settings()
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    state = Path(settings.state_dir)
    try:
        held = lock(state, "pipeline")
        keep = keeper(settings)
        writer = writers(settings.tracing, settings.state_dir)
        destinations = [_built(each, settings.spool.retry_limit, keep, writer) for each in settings.destinations]
        if settings.keys.tenants:
            destinations.append(_tenants(settings))
        push = pushing(settings.metrics, resource(settings.tracing, settings.state_dir))
    except (StartError, StoreError, DestinationError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says what and how to mend it
        return 2 if isinstance(error, DestinationError) else 1
    metrics = Metrics(keep.counts) if keep is not None else Metrics()
    running = Pipeline(
        state / "spool",
        state / "pipeline.db",
        decoders(settings.tracing, settings.state_dir),
        destinations,
        retention=Retention(settings.spool.retention, settings.spool.disk_cap),
        dead_letter_cap=settings.spool.dead_letter_cap,
        observe=metrics.observe,
        report=Reporter(state, metrics, push),
        killed=killed,
        age=age,
    )
    _settle_garbage()
    termination.stops(running)
    _watch_master(running)
    threading.Thread(target=_announce, args=(running, options.ready_fd), daemon=True).start()
    try:
        running.run()
    except Exception:
        log.exception("the pipeline has failed; what is not delivered stays in the spool")
        return 1
    finally:
        if push is not None:
            push.stop()
        os.close(held)
    return 0


def _announce(running: Pipeline[Trace], descriptor: int) -> None:
    running.ready.wait()
    announce(descriptor)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not sys.exit: a delivery that is stuck in a library's thread must not hold up the end.
    os._exit(status)
