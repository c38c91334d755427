"""What the pipeline knows in numbers: the conventions' metrics of GenAI clients and HTTP servers, and how the spool,
the destinations and the other processes do.

Computed from records in the one pipeline process, so they are right with any number of workers. Labels are bounded:
what comes beyond the first hundred values of one is ``other``, and failures alone name no more than fifty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otelgw.instruments import INSTRUMENTS, Instrument
from otelgw.selection import Trace
from otelgw.tally import Counts, Labels
from otelgw.tracing.ordinary import Likeness, Ordinary
from otelgw_collector.histogram import Histogram
from otelgw_collector.pipeline import Health
from otelgw_exporters import semconv
from otelgw_exporters.layers import Layers

__all__ = ["Family", "Metrics", "Value", "counted", "of_health"]

_MOST = 100  # values of one label
_FAILED = 50  # of those, values that have only been seen on failures: whoever makes names up mostly fails
_LONGEST = 200  # characters of a value
_SERIES = 2000  # of one metric; OpenTelemetry's SDKs have the same limit
_OVERFLOW: Labels = (("otel.metric.overflow", "true"),)
_NANO = 1_000_000_000
_NUMBERS = frozenset({int, float})

_DURATION = "gen_ai.client.operation.duration"
_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
_USAGE = "gen_ai.client.token.usage"
_REQUEST = "http.server.request.duration"
_OBSERVED = (_DURATION, _FIRST_CHUNK, _USAGE, _REQUEST)
_DROPPED = "otelgw.labels.dropped"
_UPLOADS = "otelgw.content.uploads"
_METRICS = {name: name for name in _OBSERVED} | {"input": _USAGE, "output": _USAGE}
_GENERATION = INSTRUMENTS[_DURATION].labels
_SERVER = INSTRUMENTS[_REQUEST].labels
_COUNTED = frozenset(
    {
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
        semconv.OTELGW_LABELS_DROPPED,
    }
)
_LOOKED_AT = _COUNTED | {semconv.GEN_AI_OPERATION_NAME, *_GENERATION, *_SERVER}
_NOTHING: Mapping[str, Any] = {}
_REMEMBERED = 4096  # combinations of attributes whose histograms are found at once
_OTHER = {semconv.ERROR_TYPE: "_OTHER"}  # what the conventions call the rest; "other" elsewhere

Value = int | float | Histogram


class Family(NamedTuple):
    """One metric and its values, by their labels."""

    instrument: Instrument
    points: Sequence[tuple[Labels, Value]]


class _Series:
    """The histograms of the spans that have the same labels; made when they are first needed."""

    __slots__ = ("_made", "_metrics", "_named")

    def __init__(self, metrics: Metrics, named: Mapping[str, Labels]) -> None:
        self._metrics = metrics
        self._named = named
        self._made: dict[str, Histogram] = {}

    def observe(self, key: str, value: Any) -> None:
        """Count ``value``, if it is a number, under the labels called ``key``."""
        if type(value) not in _NUMBERS:
            return
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._metrics.histogram(_METRICS[key], self._named[key])
        found.observe(value)


class _Shared(NamedTuple):
    """Attributes that many spans share. ``layers`` are held so that their ids stay theirs; ``plain`` without a value
    that is counted; ``series`` by what labels the spans' own attributes say."""

    layers: tuple[Mapping[str, Any], ...]
    plain: bool
    generation: bool
    series: dict[tuple[Any, ...], _Series]


class _Alike(NamedTuple):
    """The histograms of ordinary requests; ``likeness`` is held so that its id stays its own."""

    likeness: Likeness
    generation: _Series
    server: _Series


class Metrics:
    """What is counted from records. To be used by one thread. ``uploads`` tells of the blob store, by outcome."""

    def __init__(self, uploads: Callable[[], Mapping[str, int]] = dict) -> None:
        self._uploads = uploads
        self._dropped = 0
        self._histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in _OBSERVED}
        self._known: dict[str, set[str]] = {}
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._layers: dict[tuple[int, ...], _Shared] = {}
        self._alike: dict[tuple[int, str | None], _Alike] = {}
        self._curbed = False  # a label has just been replaced

    def observe(self, trace: Trace) -> None:
        """Count a record."""
        if trace.ordinary is not None:
            self._observe_ordinary(trace.ordinary)
            return
        requests = trace.record is not None
        for span in trace.spans:
            attributes: Mapping[str, Any] | None = span._attributes
            if type(attributes) is Layers and self._observe_layers(span, attributes, requests=requests):
                continue
            if not attributes:
                attributes = _NOTHING
            if semconv.GEN_AI_OPERATION_NAME in attributes:
                series = self._of(tuple(map(attributes.get, _GENERATION)), self._generation)
                self._count_generation(series, span, attributes.get)
            elif requests and span._kind is SpanKind.SERVER:
                series = self._of(tuple(map(attributes.get, _SERVER)), self._request)
                self._count_request(series, span, attributes.get)

    def _observe_ordinary(self, request: Ordinary) -> None:
        """Count a request as its spans would be."""
        likeness, model, usage = request.likeness, request.answer.model or None, request.usage
        known = self._alike.get((id(likeness), model))
        if known is None:
            told = {**likeness.called, semconv.GEN_AI_RESPONSE_MODEL: model}
            generation = self._of(tuple(map(told.get, _GENERATION)), self._generation)
            curbed = self._curbed
            server = self._of(tuple(map(likeness.endpoint.get, _SERVER)), self._request)
            known = _Alike(likeness, generation, server)
            if not curbed and not self._curbed:
                if len(self._alike) >= _REMEMBERED:
                    self._alike.clear()
                self._alike[id(likeness), model] = known
        known.generation.observe(_DURATION, (request.generation_end - request.generation_start) / _NANO)
        if request.waited is not None:
            known.generation.observe(_FIRST_CHUNK, request.waited)
        known.generation.observe("input", usage.input)
        known.generation.observe("output", usage.output)
        known.server.observe(_REQUEST, (request.end - request.record.start) / _NANO)

    def _observe_layers(self, span: ReadableSpan, attributes: Layers, *, requests: bool) -> bool:
        """Count a span by its own attributes, where those that it shares say nothing but labels; False if it is not.

        So nothing is put together for most spans: their shared attributes were looked at with a span before.
        """
        own, common = attributes.own, attributes.common
        if common and not _LOOKED_AT.isdisjoint(common):
            return False
        known = self._layers.get(tuple(map(id, attributes.shared))) or self._learn(attributes.shared)
        if not known.plain or semconv.GEN_AI_OPERATION_NAME in own:
            return False
        if not known.generation and not (requests and span._kind is SpanKind.SERVER):
            return True
        names = _GENERATION if known.generation else _SERVER
        told = tuple(map(own.get, names))
        try:
            series = known.series.get(told)
        except TypeError:  # no simple value
            return False
        if series is None:
            named = self._generation if known.generation else self._request
            series = self._of(tuple(map(attributes.get, names)), named)
            if not self._curbed and len(known.series) < _REMEMBERED:
                known.series[told] = series
        (self._count_generation if known.generation else self._count_request)(series, span, own.get)
        return True

    def _learn(self, shared: tuple[Mapping[str, Any], ...]) -> _Shared:
        if len(self._layers) >= _REMEMBERED:
            self._layers.clear()
        names = frozenset[str]().union(*shared)
        known = _Shared(shared, names.isdisjoint(_COUNTED), semconv.GEN_AI_OPERATION_NAME in names, {})
        self._layers[tuple(map(id, shared))] = known
        return known

    def _count_generation(self, series: _Series, span: ReadableSpan, get: Callable[[str], Any]) -> None:
        series.observe(_DURATION, _seconds(span))
        waited = get(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        if waited is not None:
            series.observe(_FIRST_CHUNK, waited)
        series.observe("input", get(semconv.GEN_AI_USAGE_INPUT_TOKENS))
        series.observe("output", get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS))

    def _count_request(self, series: _Series, span: ReadableSpan, get: Callable[[str], Any]) -> None:
        series.observe(_REQUEST, _seconds(span))
        dropped = get(semconv.OTELGW_LABELS_DROPPED)
        if isinstance(dropped, int):
            self._dropped += dropped

    def _of(self, values: tuple[Any, ...], named: Callable[[tuple[Any, ...]], Mapping[str, Labels]]) -> _Series:
        """Return the histograms for the attributes ``values``, whose labels ``named`` tells."""
        try:
            found = self._series.get(values)
        except TypeError:  # another application's attribute is no simple value
            values = tuple(value if value is None else str(value) for value in values)
            found = self._series.get(values)
        self._curbed = False
        if found is not None:
            return found
        found = _Series(self, named(values))
        if not self._curbed:  # what is "other" for now may get its name later
            if len(self._series) >= _REMEMBERED:
                self._series.clear()
            self._series[values] = found
        return found

    def _generation(self, values: tuple[Any, ...]) -> Mapping[str, Labels]:
        labels = self._labels(_GENERATION, values)
        plain = tuple(pair for pair in labels if pair[0] != semconv.ERROR_TYPE)
        usage = {kind: (*plain, ("gen_ai.token.type", kind)) for kind in ("input", "output")}
        return {_DURATION: labels, _FIRST_CHUNK: plain, **usage}

    def _request(self, values: tuple[Any, ...]) -> Mapping[str, Labels]:
        return {_REQUEST: self._labels(_SERVER, values)}

    def _labels(self, names: Sequence[str], values: Sequence[Any]) -> Labels:
        given = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        failed = semconv.ERROR_TYPE in given
        return tuple((name, self._bounded(name, str(value)[:_LONGEST], failed=failed)) for name, value in given.items())

    def _bounded(self, name: str, value: str, *, failed: bool) -> str:
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = set()
        if value in known:
            return value
        # A failure itself is told by this very label: it has the whole room.
        if len(known) >= (_FAILED if failed and name != semconv.ERROR_TYPE else _MOST):
            self._curbed = True
            return _OTHER.get(name, "other")
        known.add(value)
        return value

    def histogram(self, name: str, labels: Labels) -> Histogram:
        """Return the histogram of a metric for ``labels``, or that of all the rest where there are too many."""
        series = self._histograms[name]
        if labels not in series and len(series) >= _SERIES:
            labels = _OVERFLOW
        found = series.get(labels)
        if found is None:
            found = series[labels] = Histogram(INSTRUMENTS[name].bounds)
        return found

    def families(self) -> Iterator[Family]:
        """Yield what was counted; the histograms go on being counted in."""
        for name, series in self._histograms.items():
            yield Family(INSTRUMENTS[name], list(series.items()))
        yield Family(INSTRUMENTS[_DROPPED], [((), self._dropped)])
        yield Family(INSTRUMENTS[_UPLOADS], [((("outcome", each),), count) for each, count in self._uploads().items()])


def _seconds(span: ReadableSpan) -> float | None:
    start, end = span._start_time, span._end_time
    return (end - start) / _NANO if start and end else None


def of_health(health: Health) -> Iterator[Family]:
    """Yield how the spool and the destinations do."""
    each = health.destinations
    outcomes = ("delivered", "retried", "dead", "rejected")
    yield Family(
        INSTRUMENTS["otelgw.destination.spans"],
        [
            ((("destination", status.name), ("outcome", outcome)), getattr(status.counters, outcome))
            for status in each
            for outcome in outcomes
        ],
    )
    rows: dict[str, Iterable[Value]] = {
        "dropped_records": (status.counters.dropped for status in each),
        "withheld_records": (status.counters.unselected for status in each),
        "dead_letters": (health.dead.get(status.name, 0) for status in each),
        "queued_records": (status.queued for status in each),
        "backlog": (status.backlog for status in each),
        "oldest_record.age": (round(status.oldest, 3) for status in each),
        "up": (int(status.state != "retrying") for status in each),
        "delivery.duration": (status.latency for status in each),
    }
    for name, values in rows.items():
        labelled = [((("destination", status.name),), value) for status, value in zip(each, values, strict=True)]
        yield Family(INSTRUMENTS[f"otelgw.destination.{name}"], labelled)
    for name, value in (
        ("otelgw.spool.usage", health.spool_size),
        ("otelgw.spool.limit", health.spool_cap),
        ("otelgw.spool.undecodable_records", health.undecodable),
        ("otelgw.spool.quarantined_records", health.quarantined),
        ("otelgw.spool.newer_records", health.newer),
        ("otelgw.spool.given_up_records", health.given_up),
        ("otelgw.pipeline.last_report.timestamp", round(time.time(), 3)),
    ):
        yield Family(INSTRUMENTS[name], [((), value)])


def counted(counts: Counts) -> Iterator[Family]:
    """Yield what the other processes have counted."""
    by_name: dict[str, list[tuple[Labels, Value]]] = {}
    for (name, labels), count in sorted(counts.items()):
        if name in INSTRUMENTS:  # another version's may be there too
            by_name.setdefault(name, []).append((labels, count))
    for name, points in by_name.items():
        yield Family(INSTRUMENTS[name], points)
