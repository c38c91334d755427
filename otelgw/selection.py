"""Which of a request's spans a destination gets, and how much of them it sees.

Everything is judged by the spans, so that requests of the gateway and spans from other applications fall under the same
rules; what a caller said about its request travels in the record. A trace is the unit: its spans in one record are sent
together or not at all. What a destination sees is made here, before its exporter gets anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from otelgw.config.settings import Destination, Redaction, Selection
from otelgw.redaction.offloading import Keeper
from otelgw.redaction.spans import redactor
from otelgw.tracing.default_tags import default_tags
from otelgw.tracing.ordinary import Ordinary
from otelgw.tracing.record import EVERYBODY, Record
from otelgw_exporters import foreign, semconv
from otelgw_exporters.sheaf import Sheaf

__all__ = ["Trace", "preparer", "selector"]

_IDENTITY = frozenset(
    {
        semconv.OTELGW_KEY_ALIAS,
        semconv.OTELGW_KEY_HASH,
        semconv.OTELGW_KEY_USER_EMAIL,
        semconv.OTELGW_KEY_USER_ID,
        semconv.OTELGW_TEAM_ALIAS,
        semconv.OTELGW_TEAM_ID,
        *foreign.IDENTITY,
        *(f"{semconv.OTELGW_METADATA}{name}" for name in ("trace_user_id", "user_id", "user_email")),
    }
)
# Metadata of this beginning is LiteLLM's way to say who called.
_KEY_INFO = f"{semconv.OTELGW_METADATA}user_api_key"
# They repeat the fields of a body that name the user.
_QUOTING = frozenset({semconv.OTELGW_REQUEST_BODY, semconv.OTELGW_RAW_REQUEST})
_USER_FIELDS = ('"user"', '"safety_identifier"')
_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("model", (semconv.OTELGW_MODEL_ALIAS, semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_RESPONSE_MODEL)),
    ("key", (semconv.OTELGW_KEY_ALIAS, semconv.OTELGW_KEY_HASH)),
    ("team", (semconv.OTELGW_TEAM_ALIAS, semconv.OTELGW_TEAM_ID)),
    ("tag", (semconv.OTELGW_TAGS,)),
    ("route", (semconv.HTTP_ROUTE,)),
)
_ANY = Selection()
_NO_REDACTION = Redaction()
_SECOND = 1_000_000_000

_BUILDING = threading.RLock()

Ahead = Callable[[ReadableSpan], ReadableSpan]
Write = Callable[[Ordinary], Sequence[ReadableSpan]]
Select = Callable[["Trace"], Sequence[ReadableSpan]]
_RATIO_BITS = (1 << 56) - 1  # of the trace id: those that W3C's random flag promises to be random


class View(NamedTuple):
    """What a destination sees: without ``content``, ``anonymous`` (without who called), redacted, with more tags, with
    long content left to ``keep``."""

    content: bool = True
    anonymous: bool = False
    redaction: Redaction = _NO_REDACTION
    tags: tuple[str, ...] = ()
    keep: Keeper | None = None


class Trace:
    """A decoded record: its spans, and the gateway's record of them, which spans from elsewhere do not have.

    Copies of the spans as a destination sees them are made once for all destinations that see the same. The spans of an
    ``ordinary`` request are made by ``build`` when they are asked for: most destinations can do without.
    """

    __slots__ = ("_build", "_groups", "_ready", "_spans", "_views", "ordinary", "record")

    def __init__(
        self,
        record: Record | None,
        spans: Sequence[ReadableSpan] | None = None,
        ordinary: Ordinary | None = None,
        build: Callable[[Record], Sequence[ReadableSpan]] | None = None,
    ) -> None:
        self.record = record
        self.ordinary = ordinary
        self._spans = spans
        self._build = build
        self._views: dict[View, Sequence[ReadableSpan]] = {}
        self._groups: list[Group] | None = None
        self._ready: dict[tuple[object, int], tuple[object, Ready]] = {}

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All spans."""
        if self._spans is None:
            with _BUILDING:  # one destination's thread makes them for all
                if self._spans is None:
                    self._spans = (
                        self._build(self.record) if self._build is not None and self.record is not None else ()
                    )
        return self._spans

    def ready(self, spans: Sequence[ReadableSpan], ahead: Ahead) -> Ready:
        """Return what ``ahead`` makes of ``spans``, a view: once for all destinations that see the same."""
        key = ahead, id(spans)
        found = self._ready.get(key)
        if found is None:
            found = self._ready[key] = spans, Ready([ahead(span) for span in spans], self.ended)
        return found[1]

    def written(self, request: Ordinary, write: Write) -> Ready:
        """Return what ``write`` makes of an ordinary ``request``: once for all destinations that see all of it."""
        key = write, 0
        found = self._ready.get(key)
        if found is None:
            found = self._ready[key] = None, Ready(write(request), request.ended)
        return found[1]

    @property
    def ended(self) -> int:
        """When the last span ended, in nanoseconds since the epoch; 0 where none says."""
        if self.ordinary is not None:
            return self.ordinary.ended
        latest = 0
        for span in self.spans:
            end = span._end_time
            if end is not None and end > latest:
                latest = end
        return latest

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

    def view(self, view: View) -> Sequence[ReadableSpan]:
        """Return the spans as a destination with ``view`` sees them."""
        if view is _EVERYTHING:  # the selectors say it so, as comparing takes longer than all else here
            return self.spans
        found = self._views.get(view)
        if found is None:
            found = self._views[view] = self._made(view)
        return found

    def _made(self, view: View) -> Sequence[ReadableSpan]:
        spans = self.spans
        if not view.content and self.record is None:
            spans = [foreign.without_content(span) for span in spans]
        if not view.content or view.anonymous:
            spans = [_without(span, view) for span in spans]
        if view.tags:
            spans = [_tagged(span, view.tags) for span in spans]
        # Last, so that nothing gets into the blob store that the destination may not see.
        if view.redaction != _NO_REDACTION or view.keep is not None:
            redact = _redactor(view.redaction, view.keep)
            spans = [redact(span) for span in spans]
        return spans


class Ready(Trace):
    """A decoded record of which a destination's spans are chosen, perhaps none, and made ready to be sent."""

    __slots__ = ("_ended", "sheaf")

    def __init__(self, spans: Sequence[ReadableSpan], ended: int) -> None:
        super().__init__(None, spans)
        self._ended = ended
        self.sheaf: Sheaf | None = None  # that it is a part of

    @property
    def ended(self) -> int:
        """When the last span of the whole record ended, in nanoseconds since the epoch."""
        return self._ended


_EVERYTHING = View()


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


def selector(destination: Destination, keep: Keeper | None = None) -> Select:
    """Return the function from a trace to the spans that ``destination`` gets, as it may see them; ``keep`` keeps
    content that is too long for them.

    Raises:
        ConfigError: a pattern of its redaction that cannot be used.
    """
    answers = frozenset({destination.name.lower(), destination.type.lower(), *destination.callbacks})
    keep = keep if destination.blob_store else None
    view = _view(destination, keep)
    bare = view._replace(content=False)
    if destination.redaction != _NO_REDACTION:
        _redactor(destination.redaction, keep)
    always = _is_for_all(destination)

    def select(trace: Trace) -> Sequence[ReadableSpan]:
        if type(trace) is Ready:
            return trace.spans
        record = trace.record
        seen = view
        if record is not None and record.audience != EVERYBODY and not record.audience.includes(answers):
            if not destination.required:
                return ()
            seen = bare
        if record is not None and destination.default_tags:
            seen = seen._replace(tags=_default_tags(destination, record))
        if always:
            return trace.view(seen)
        chosen = [group for group in trace.groups if _is_chosen(group, destination)]
        if not chosen:
            return ()
        spans = trace.view(seen)
        if len(chosen) == len(trace.groups):
            return spans
        return [spans[index] for index in sorted(index for group in chosen for index in group.indexes)]

    return select


def _view(destination: Destination, keep: Keeper | None = None) -> View:
    view = View(destination.content, destination.redact_user_api_key_info, destination.redaction, keep=keep)
    return _EVERYTHING if view == _EVERYTHING else view


def _is_for_all(destination: Destination) -> bool:
    return destination.on == "all" and destination.sampling != "parent" and destination.selection == _ANY


def preparer(
    destination: Destination,
    select: Select,
    ahead: Ahead | None,
    keep: Keeper | None = None,
    write: Write | None = None,
) -> Callable[[Trace], Trace] | None:
    """Return the function from a trace to the spans that its ``selector`` chooses, as ``ahead`` makes them ready.

    ``write`` makes the same of an ordinary request without its spans. None where that is not to be done in advance:
    patterns may be slow, and a blob store is.
    """
    if ahead is None or destination.redaction != _NO_REDACTION or (keep is not None and destination.blob_store):
        return None
    if _is_for_all(destination) and not destination.default_tags:
        return _shared_preparer(_view(destination), ahead, write)

    def prepare(trace: Trace) -> Trace:
        return trace.ready(select(trace), ahead)

    return prepare


@lru_cache(maxsize=256)
def _shared_preparer(view: View, ahead: Ahead, write: Write | None) -> Callable[[Trace], Trace]:
    """Return the same function for all destinations that get every record alike, so that it is called once for them.

    A record that is not for every destination is left to each one's selector.
    """
    writes = write if view is _EVERYTHING else None

    def prepare(trace: Trace) -> Trace:
        record = trace.record
        if record is not None and record.audience is not EVERYBODY and record.audience != EVERYBODY:
            return trace
        if writes is not None and trace.ordinary is not None:
            return trace.written(trace.ordinary, writes)
        return trace.ready(trace.view(view), ahead)

    return prepare


def _default_tags(destination: Destination, record: Record) -> tuple[str, ...]:
    return default_tags(
        destination.default_tags,
        record.caller,
        destination.base_url,
        anonymous=destination.redact_user_api_key_info,
    )


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


def _without(span: ReadableSpan, view: View) -> ReadableSpan:
    """Return a copy without content, or without who called, or both."""
    attributes: Mapping[str, Any] = span.attributes or {}
    if not view.content:
        attributes = {key: value for key, value in attributes.items() if key not in semconv.CONTENT}
        if isinstance(url := attributes.get(semconv.URL_FULL), str):
            attributes[semconv.URL_FULL] = url.partition("?")[0]  # the query is the caller's text, too
    if view.anonymous:
        attributes = {key: value for key, value in attributes.items() if not _says_who(key, value)}
    copied = semconv.with_attributes(span, attributes)
    if not view.content and span.status.description:
        copied._status = Status(span.status.status_code)
    return copied


def _says_who(key: str, value: Any) -> bool:
    if key in _IDENTITY or key in _QUOTING or key.startswith(_KEY_INFO):
        return True
    return key == semconv.OTELGW_RESPONSE_BODY and any(field in str(value) for field in _USER_FIELDS)


def _tagged(span: ReadableSpan, tags: tuple[str, ...]) -> ReadableSpan:
    attributes: Mapping[str, Any] = span.attributes or {}
    given = attributes.get(semconv.OTELGW_TAGS) or ()
    return semconv.with_attributes(span, {**attributes, semconv.OTELGW_TAGS: list(dict.fromkeys((*given, *tags)))})


@lru_cache(maxsize=256)
def _redactor(redaction: Redaction, keep: Keeper | None) -> Callable[[ReadableSpan], ReadableSpan]:
    return redactor(redaction, keep)
