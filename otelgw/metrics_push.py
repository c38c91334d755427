"""The metrics by OTLP, from the pipeline process, in a thread of its own: however it goes, no delivery waits for it.

What is sent is cumulative, so an export that fails costs nothing but its time: the next one tells it all. It is not
tried again before that; a failure is logged once a minute, and counted.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelgw import __version__
from otelgw.config.settings import MetricsExport
from otelgw.instruments import INSTRUMENTS
from otelgw.metrics import Family
from otelgw.metrics_transport import transport
from otelgw.tally import Labels
from otelgw_collector.histogram import Histogram

__all__ = ["Push", "metrics_data"]

log = logging.getLogger(__name__)

_QUIET = 60.0  # seconds between two log lines about failures
_SCOPE = InstrumentationScope("otelgw", __version__)
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNKNOWN: Any = None  # the least and the greatest value of all time are not kept
_NUMBERS = frozenset({"server.port", "http.response.status_code"})  # attributes that the conventions have as numbers


class Push:
    """Sends the latest metrics every ``interval`` seconds. ``offer`` and ``stop`` are for one thread.

    Raises:
        DestinationConfigError: a TLS file cannot be used.
    """

    def __init__(
        self, settings: MetricsExport, resource: Resource, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resource = resource
        self._interval = settings.interval
        self._timeout = settings.timeout
        self._transport = transport(settings)
        self._clock = clock
        self._began = time.time_ns()
        self._due = clock() + settings.interval
        self._latest: tuple[Sequence[Family], int] | None = None
        self._waiting: queue.Queue[MetricsData | None] = queue.Queue(1)
        self._told_at = float("-inf")
        self._ended = threading.Event()
        self.outcomes = {"success": 0, "failure": 0}
        self._thread = threading.Thread(target=self._run, name="metrics by OTLP", daemon=True)
        self._thread.start()

    def families(self) -> Iterator[Family]:
        """Yield how sending has gone."""
        points = [((("outcome", outcome),), count) for outcome, count in self.outcomes.items()]
        yield Family(INSTRUMENTS["otelgw.metrics.exports"], points)

    def offer(self, families: Sequence[Family], since: int) -> None:
        """Take note of how things are; if an export is due, it is of this.

        ``since`` is when the lasting metrics began, in nanoseconds since the epoch.
        """
        self._latest = (families, since)
        if self._clock() >= self._due:
            self._due = self._clock() + self._interval
            self._submit()

    def _submit(self) -> None:
        if self._latest is None or self._waiting.full():  # the one before is still on its way
            return
        families, since = self._latest
        self._waiting.put_nowait(metrics_data(families, self._resource, began=self._began, since=since))

    def stop(self, limit: float = 2.0) -> None:
        """Send the latest metrics once more, and end; blocks for ``limit`` seconds at most."""
        if self._ended.is_set():
            return
        deadline = time.monotonic() + limit
        self._submit()
        try:
            self._waiting.put(None, timeout=limit)
            self._ended.wait(max(0.0, deadline - time.monotonic()))
        except queue.Full:
            log.warning("the last metrics are not sent: the export before is still on its way")
        self._transport.close()

    def _run(self) -> None:
        while (data := self._waiting.get()) is not None:
            try:
                reason = self._transport.send(encode_metrics(data).SerializeToString(), self._timeout)
            except Exception as error:  # noqa: BLE001 - whatever it is, it may cost metrics and nothing else
                reason = type(error).__name__
            self.outcomes["failure" if reason else "success"] += 1
            if reason:
                self._complain(reason)
        self._ended.set()

    def _complain(self, reason: str) -> None:
        now = self._clock()
        if now - self._told_at >= _QUIET:
            self._told_at = now
            log.warning("metrics cannot be sent: %s (%d times so far)", reason, self.outcomes["failure"])


def metrics_data(families: Sequence[Family], resource: Resource, *, began: int, since: int) -> MetricsData:
    """Return ``families`` as they are now, in the SDK's types.

    Cumulative; ``began`` (``since`` for what lasts) is where counting started, in nanoseconds since the epoch.
    """
    now = time.time_ns()
    metrics = [
        Metric(each.instrument.name, each.instrument.description, each.instrument.unit, _data(each, start, now))
        for each in families
        if each.points
        for start in (since if each.instrument.lasting else began,)
    ]
    scope = ScopeMetrics(_SCOPE, metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], resource.schema_url)])


def _data(family: Family, start: int, now: int) -> Any:
    if family.instrument.kind == "histogram":
        points = [_histogram(labels, value, start, now) for labels, value in family.points]
        return HistogramData(points, _CUMULATIVE)
    numbers = [NumberDataPoint(_attributes(labels), start, now, value) for labels, value in family.points]  # type: ignore[arg-type]
    if family.instrument.kind == "gauge":
        return Gauge(numbers)
    return Sum(numbers, _CUMULATIVE, is_monotonic=family.instrument.kind == "counter")


def _histogram(labels: Labels, value: Any, start: int, now: int) -> HistogramDataPoint:
    found: Histogram = value
    counts = list(found.counts)  # it goes on being counted in
    return HistogramDataPoint(
        _attributes(labels),
        start,
        now,
        sum(counts),
        found.total,
        counts,
        found.bounds,
        _UNKNOWN,
        _UNKNOWN,
    )


def _attributes(labels: Labels) -> dict[str, str | int]:
    return {name: int(value) if name in _NUMBERS and value.isdecimal() else value for name, value in labels}
