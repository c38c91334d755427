"""A span as a destination with a ``redact`` section gets it. What cannot be redacted is left out; the span never is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Status

from otelgw.config.settings import Redaction
from otelgw.redaction import cutting
from otelgw.redaction.offloading import Keeper
from otelgw.redaction.patterns import compiled
from otelgw.redaction.presets import PRESETS
from otelgw.redaction.text import Named
from otelgw.redaction.values import Rules
from otelgw_exporters import foreign, semconv

__all__ = ["redactor"]

log = logging.getLogger(__name__)

# What the gateway itself says of a request, and what spans are found by. All else is or may be a caller's text.
_FACTS = frozenset(
    {
        semconv.ERROR_TYPE,
        semconv.GEN_AI_OPERATION_NAME,
        semconv.GEN_AI_OUTPUT_TYPE,
        semconv.GEN_AI_PROVIDER_NAME,
        semconv.GEN_AI_RESPONSE_FINISH_REASONS,
        semconv.GEN_AI_RESPONSE_ID,
        semconv.HTTP_REQUEST_METHOD,
        semconv.HTTP_ROUTE,
        semconv.OTELGW_ATTEMPT_MODEL,
        semconv.OTELGW_ATTEMPT_PROVIDER,
        semconv.OTELGW_ATTEMPT_REQUEST_ID,
        semconv.OTELGW_ATTEMPT_RETRY_REASON,
        semconv.OTELGW_CALLER_SPAN_ID,
        semconv.OTELGW_CALLER_TRACE_ID,
        semconv.OTELGW_CALL_ID,
        semconv.OTELGW_COST_CURRENCY,
        semconv.OTELGW_COST_SOURCE,
        semconv.OTELGW_KEY_HASH,
        semconv.OTELGW_MODEL_ID,
        semconv.OTELGW_REQUEST_SHA256,
        semconv.OTELGW_RESPONSE_SHA256,
        semconv.OTELGW_USAGE_SOURCE,
        semconv.URL_SCHEME,
    }
)
_FACT_PREFIXES = ("server.", "client.", "network.", "telemetry.", "gen_ai.usage.")
_URLS = frozenset({semconv.URL_FULL, semconv.URL_PATH, "url.query", "http.url", "http.target"})
_WITHHELD = "withheld"
_NUMBERS = frozenset({int, float, bool})
# Namespaces in which no name is a caller's text, apart from metadata and headers.
_OWN = ("gen_ai.", "otelgw.", "http.", "server.", "client.", "network.", "openai.", "url.", "error.")
_CALLERS = (semconv.OTELGW_METADATA, semconv.HTTP_REQUEST_HEADER, semconv.HTTP_RESPONSE_HEADER)

Redactor = Callable[[ReadableSpan], ReadableSpan]


def redactor(redaction: Redaction, keep: Keeper | None = None) -> Redactor:
    """Return the function from a span to its copy without what ``redaction`` takes out; of what is too long then
    ``keep`` is asked to take it, and it is cut where that does not.

    Raises:
        ConfigError: a preset or a pattern that cannot be used.
    """
    finders = [Named(name, find) for name, find in PRESETS.items() if name in redaction.presets]
    finders += [Named(pattern.name, compiled(pattern)) for pattern in redaction.patterns]
    redaction_of = _Redaction(Rules(tuple(finders), redaction.media), redaction.limit, keep)
    return redaction_of.applied


class _Redaction:
    def __init__(self, rules: Rules, limit: int, keep: Keeper | None) -> None:
        self._rules = rules
        self._limit = min(filter(None, (limit, keep.above if keep is not None else 0)), default=0)
        self._keep = keep
        self._failed = 0

    def applied(self, span: ReadableSpan) -> ReadableSpan:
        try:
            return self._redacted(span)
        except Exception as error:  # noqa: BLE001 - whatever it was: unredacted content must not leave
            self._failed += 1
            if self._failed.bit_count() == 1:  # the first, and then ever more rarely
                log.error(  # noqa: TRY400 - a traceback would have the content in it
                    "redaction failed (%s); what was said is left out of the span (%d so far)",
                    type(error).__name__,
                    self._failed,
                )
            return _bare(span)

    def _redacted(self, span: ReadableSpan) -> ReadableSpan:
        attributes = self._attributes(span.attributes or {})
        changed = semconv.with_attributes(span, attributes)
        changed._name = self._rules.text(span.name)
        if span.status.description:
            changed._status = Status(span.status.status_code, self._rules.text(span.status.description))
        if span.events:
            events = [
                Event(self._rules.text(event.name), self._attributes(event.attributes or {}), event.timestamp)
                for event in span.events
            ]
            changed._events = _bounded(events, span.dropped_events)
        return changed

    def _attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        rules = self._rules
        found: dict[str, Any] = {}
        cut: list[str] = []
        for key, value in attributes.items():
            if is_fact(key) or type(value) in _NUMBERS:
                found[_name(key, rules)] = value
                continue
            kept = value
            if rules.finders or rules.media:
                kept = rules.text(value, url=key in _URLS) if isinstance(value, str) else rules.value(value)
            if self._limit and foreign.is_content(key) and cutting.size(kept) > self._limit:
                uri = self._keep(kept) if self._keep is not None else ""
                if uri:
                    found[f"{_name(key, rules)}{semconv.REF}"] = uri
                    continue
                cut.append(key)
                kept = cutting.cut(kept, self._limit)
            found[_name(key, rules)] = kept
        if cut:
            found[semconv.OTELGW_CONTENT_CUT] = cut
        return found


def _name(key: str, rules: Rules) -> str:
    """Return an attribute's name as it may be seen: some have a caller's text in them."""
    return key if key.startswith(_OWN) and not key.startswith(_CALLERS) else rules.text(key)


@lru_cache(maxsize=4096)
def is_fact(name: str) -> bool:
    """Say whether an attribute holds no text of a caller's, an upstream's or a model's."""
    return name in _FACTS or name.startswith(_FACT_PREFIXES)


def _bare(span: ReadableSpan) -> ReadableSpan:
    """Return a copy with the gateway's own facts and numbers only."""
    known = {
        key: value
        for key, value in (span.attributes or {}).items()
        if key.startswith(_OWN) and not key.startswith(_CALLERS) and (is_fact(key) or type(value) in _NUMBERS)
    }
    changed = semconv.with_attributes(span, {**known, semconv.OTELGW_REDACTION_FAILED: True})
    changed._name = str(known.get(semconv.GEN_AI_OPERATION_NAME) or known.get(semconv.HTTP_REQUEST_METHOD) or _WITHHELD)
    changed._status = Status(span.status.status_code)
    changed._events = _bounded([], span.dropped_events + len(span.events))
    return changed


def _bounded(events: list[Event], dropped: int) -> Any:
    bounded: Any = BoundedList.from_seq(None, events)
    bounded.dropped = dropped
    return bounded
