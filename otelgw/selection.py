"""Which of a request's spans a destination gets, and how much of them it sees.

Everything is judged by the spans, so that requests of the gateway and spans from other applications fall under the same
rules. A trace is the unit: its spans in one record are sent together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from otelgw.config.settings import Destination, Selection
from otelgw.tracing.record import Record
from otelgw_exporters import foreign, semconv

__all__ = ["Trace", "selector"]

_IDENTITY = frozenset(
    {
        semconv.OTELGW_KEY_ALIAS,
        semconv.OTELGW_KEY_HASH,
        semconv.OTELGW_TEAM_ALIAS,
        semconv.OTELGW_TEAM_ID,
        *foreign.IDENTITY,
    }
)
_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("model", (semconv.OTELGW_MODEL_ALIAS, semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_RESPONSE_MODEL)),
    ("key", (semconv.OTELGW_KEY_ALIAS, semconv.OTELGW_KEY_HASH)),
    ("team", (semconv.OTELGW_TEAM_ALIAS, semconv.OTELGW_TEAM_ID)),
    ("tag", (semconv.OTELGW_TAGS,)),
    ("route", (semconv.HTTP_ROUTE,)),
)
_ANY = Selection()
_SECOND = 1_000_000_000
_RATIO_BITS = (1 << 56) - 1  # of the trace id: those that W3C's random flag promises to be random


class Trace:
    """A decoded record: its spans, and the gateway's record of them, which spans from elsewhere do not have.

    Copies of the spans without what a destination must not see are made once for all destinations that see the same.
    """

    __slots__ = ("_groups", "_views", "record", "spans")

    def __init__(self, record: Record | None, spans: Sequence[ReadableSpan]) -> None:
        self.record = record
        self.spans = spans
        self._views: dict[tuple[frozenset[str], bool], Sequence[ReadableSpan]] = {}
        self._groups: list[Group] | None = None

    @property
    def failed(self) -> bool:
        """True for a request that did not end well, whoever's fault it was."""
        if self.record is not None:
            return bool(self.record.error_type) or self.record.status >= 400
        return any(group.failed for group in self.groups)

    @property
    def groups(self) -> list[Group]:
        """The spans by trace: one group for a record of the gateway."""
        if self._groups is None:
            by_trace: dict[int, list[int]] = {}
            for index, span in enumerate(self.spans):
                context = span.get_span_context()
                by_trace.setdefault(context.trace_id if context is not None else 0, []).append(index)
            self._groups = [self._group(trace_id, indexes) for trace_id, indexes in by_trace.items()]
        return self._groups

    def _group(self, trace_id: int, indexes: list[int]) -> Group:
        spans = [self.spans[index] for index in indexes]
        record = self.record
        if record is not None:
            failed, sampled = bool(record.error_type) or record.status >= 400, record.sampled
        else:
            failed = any(span.status.status_code is StatusCode.ERROR for span in spans)
            sampled = True  # what was exported was sampled, and not every SDK sends the flag along
        return Group(trace_id, indexes, spans, failed, sampled)

    def view(self, withheld: frozenset[str], *, plain: bool) -> Sequence[ReadableSpan]:
        """Return the spans without the named attributes; ``plain``: without error text, which may quote the content."""
        if not withheld:
            return self.spans
        view = self._views.get((withheld, plain))
        if view is None:
            spans = self.spans
            if plain and self.record is None:
                spans = [foreign.without_content(span) for span in spans]
            view = self._views[withheld, plain] = [_without(span, withheld, plain=plain) for span in spans]
        return view


class Group(NamedTuple):
    """The spans of one trace in one record; ``indexes`` are theirs in it."""

    trace_id: int
    indexes: list[int]
    spans: list[ReadableSpan]
    failed: bool
    sampled: bool

    def values(self, names: Sequence[str]) -> set[str]:
        """Return what the spans say under any of ``names``, lists taken apart."""
        found: set[str] = set()
        for span in self.spans:
            attributes: Mapping[str, Any] = span.attributes or {}
            for name in names:
                value = attributes.get(name)
                if isinstance(value, list | tuple):
                    found.update(map(str, value))
                elif value is not None:
                    found.add(str(value))
        return found

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        starts = [span.start_time for span in self.spans if span.start_time]
        ends = [span.end_time for span in self.spans if span.end_time]
        return (max(ends) - min(starts)) / _SECOND if starts and ends else 0.0

    @property
    def cost(self) -> float:
        """USD, 0 where it is not known."""
        total = 0.0
        for span in self.spans:
            value = (span.attributes or {}).get(semconv.GEN_AI_USAGE_COST)
            total += value if isinstance(value, int | float) else 0.0
        return total


def selector(destination: Destination) -> Callable[[Trace], Sequence[ReadableSpan]]:
    """Return the function from a trace to the spans that ``destination`` gets, as it may see them."""
    withheld = frozenset[str]().union(
        () if destination.content else semconv.CONTENT,
        (*_IDENTITY, semconv.OTELGW_REQUEST_BODY) if destination.redact_user_api_key_info else (),
    )
    plain = not destination.content
    if destination.on == "all" and destination.sampling != "parent" and destination.selection == _ANY:
        return lambda trace: trace.view(withheld, plain=plain)

    def select(trace: Trace) -> Sequence[ReadableSpan]:
        chosen = [group for group in trace.groups if _is_chosen(group, destination)]
        if not chosen:
            return ()
        spans = trace.view(withheld, plain=plain)
        if len(chosen) == len(trace.groups):
            return spans
        return [spans[index] for index in sorted(index for group in chosen for index in group.indexes)]

    return select


def _is_chosen(group: Group, destination: Destination) -> bool:
    selection = destination.selection
    if destination.on != "all" and group.failed != (destination.on == "failure"):
        return False
    if destination.sampling == "parent" and not group.sampled:
        return False
    for field, names in _NAMES:
        patterns: Sequence[str] = getattr(selection, field)
        if patterns and not _any_fits(group.values(names), patterns):
            return False
    return _in_ratio(group.trace_id, selection.ratio) or _is_remarkable(group, selection)


def _any_fits(values: set[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) for value in values for pattern in patterns)


def _in_ratio(trace_id: int, ratio: float) -> bool:
    return ratio >= 1 or (trace_id & _RATIO_BITS) < ratio * (_RATIO_BITS + 1)


def _is_remarkable(group: Group, selection: Selection) -> bool:
    if group.failed or (selection.slow is not None and group.seconds >= selection.slow):
        return True
    return selection.costly is not None and group.cost >= selection.costly


def _without(span: ReadableSpan, names: frozenset[str], *, plain: bool) -> ReadableSpan:
    attributes: Mapping[str, object] = span.attributes or {}
    copied = semconv.with_attributes(span, {key: value for key, value in attributes.items() if key not in names})
    if plain and span.status.description:
        copied._status = Status(span.status.status_code)
    return copied
