"""What the pipeline knows in numbers: the GenAI client metrics of the conventions, and how the spool and the
destinations do, as Prometheus reads them.

Computed from records in the one pipeline process, so they are right with any number of workers. Labels are bounded:
what comes beyond the first hundred models is ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw.selection import Trace
from otelgw_collector.histogram import Histogram
from otelgw_collector.pipeline import Health
from otelgw_exporters import semconv

__all__ = ["CONTENT_TYPE", "Metrics", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The conventions' own buckets.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4.0**power for power in range(14))
_MOST = 100  # values of one label
_NANO = 1_000_000_000

_DURATION = "gen_ai_client_operation_duration_seconds"
_USAGE = "gen_ai_client_token_usage"
_FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
_HELP = {
    _DURATION: ("GenAI operation duration.", _SECONDS),
    _USAGE: ("Number of input and output tokens used.", _TOKENS),
    _FIRST_CHUNK: ("Time to receive the first chunk of a streamed answer.", _SECONDS),
}
_LABELS = (
    semconv.GEN_AI_OPERATION_NAME,
    semconv.GEN_AI_PROVIDER_NAME,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.GEN_AI_RESPONSE_MODEL,
    semconv.SERVER_ADDRESS,
    semconv.ERROR_TYPE,
)
_TYPES = (("input", semconv.GEN_AI_USAGE_INPUT_TOKENS), ("output", semconv.GEN_AI_USAGE_OUTPUT_TOKENS))

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """The GenAI client metrics. To be used by one thread."""

    def __init__(self) -> None:
        self._series: dict[str, dict[Labels, Histogram]] = {name: {} for name in _HELP}
        self._known: dict[str, set[str]] = {name: set() for name in _LABELS}

    def observe(self, trace: Trace) -> None:
        """Count the generations of a record."""
        for span in trace.spans:
            attributes: Mapping[str, Any] = span.attributes or {}
            if semconv.GEN_AI_OPERATION_NAME in attributes:
                self._count(span, attributes)

    def _count(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> None:
        labels = tuple((name, self._bounded(name, str(attributes[name]))) for name in _LABELS if name in attributes)
        if span.start_time and span.end_time:
            self._histogram(_DURATION, labels).observe((span.end_time - span.start_time) / _NANO)
        waited = attributes.get(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        if isinstance(waited, int | float):
            self._histogram(_FIRST_CHUNK, labels).observe(waited)
        for kind, name in _TYPES:
            tokens = attributes.get(name)
            if isinstance(tokens, int | float):
                self._histogram(_USAGE, (*labels, ("gen_ai.token.type", kind))).observe(tokens)

    def _bounded(self, name: str, value: str) -> str:
        known = self._known[name]
        if value in known:
            return value
        if len(known) >= _MOST:
            return "other"
        known.add(value)
        return value

    def _histogram(self, name: str, labels: Labels) -> Histogram:
        series = self._series[name]
        found = series.get(labels)
        if found is None:
            found = series[labels] = Histogram(_HELP[name][1])
        return found

    def lines(self) -> Iterator[str]:
        """Yield the metrics in Prometheus' text format."""
        for name, (text, _) in _HELP.items():
            yield from _histograms(name, text, self._series[name].items())


def exposition(health: Health, metrics: Metrics) -> str:
    """Return everything in Prometheus' text format."""
    return "\n".join([*_of_health(health), *metrics.lines()]) + "\n"


def _of_health(health: Health) -> Iterator[str]:
    each = health.destinations
    fate = "otelgw_destination_spans_total"
    yield f"# HELP {fate} Spans by what became of them; a retried one counts each time."
    yield f"# TYPE {fate} counter"
    for status in each:
        for outcome in ("delivered", "retried", "dead", "rejected"):
            labels = (("destination", status.name), ("outcome", outcome))
            yield f"{fate}{_braced(labels)} {getattr(status.counters, outcome)}"
    yield from _values(
        "otelgw_destination_dropped_records_total",
        "counter",
        "Records that had to go undelivered because the spool was at its limit.",
        ((status.name, status.counters.dropped) for status in each),
    )
    yield from _values(
        "otelgw_destination_dead_letters",
        "gauge",
        "Dead letters that are kept.",
        ((status.name, health.dead.get(status.name, 0)) for status in each),
    )
    yield from _values(
        "otelgw_destination_queue_records",
        "gauge",
        "Records in memory that wait for a destination.",
        ((status.name, status.queued) for status in each),
    )
    yield from _values(
        "otelgw_destination_backlog_bytes",
        "gauge",
        "Bytes of the spool that are not delivered.",
        ((status.name, status.backlog) for status in each),
    )
    yield from _values(
        "otelgw_destination_oldest_seconds",
        "gauge",
        "Age of the oldest record that is not delivered.",
        ((status.name, round(status.oldest, 3)) for status in each),
    )
    yield from _values(
        "otelgw_destination_up",
        "gauge",
        "1 unless the last delivery failed.",
        ((status.name, int(status.state != "retrying")) for status in each),
    )
    latency = "otelgw_destination_delivery_seconds"
    found = ((((("destination", status.name),), status.latency)) for status in each)
    yield from _histograms(latency, "Time of one try to deliver one batch.", found)
    for name, kind, text, value in (
        ("otelgw_spool_bytes", "gauge", "Bytes of the spool on disk.", health.spool_size),
        ("otelgw_spool_limit_bytes", "gauge", "Bytes that the spool may take.", health.spool_cap),
        ("otelgw_undecodable_records_total", "counter", "Records that could not be decoded.", health.undecodable),
        ("otelgw_quarantined_records_total", "counter", "Records that are not tried any more.", health.quarantined),
    ):
        yield from (f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}")


def _values(name: str, kind: str, text: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for destination, value in rows:
        yield f"{name}{_braced((('destination', destination),))} {value}"


def _histograms(name: str, text: str, rows: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    for labels, histogram in rows:
        for end, count in histogram.cumulative():
            yield f"{name}_bucket{_braced((*labels, ('le', end)))} {count}"
        yield f"{name}_sum{_braced(labels)} {histogram.total:.9g}"
        yield f"{name}_count{_braced(labels)} {histogram.count}"


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name.replace(".", "_")}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
