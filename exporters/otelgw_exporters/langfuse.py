"""Langfuse: OTLP, or the JSON ingestion of self-hosted servers before version 4.

Trace ids that callers name in their metadata hold here only: elsewhere a request keeps the trace of its traceparent.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags, format_span_id, format_trace_id

from otelgw_exporters import calls, document, http
from otelgw_exporters.delivery import DONE, OPERATOR_DELAY, Outcome, Reply, Verdict, deliver_in_parts, to_outcome
from otelgw_exporters.dialects import langfuse
from otelgw_exporters.otlp_vendor import ReadableExporter, Shape, joined, regional
from otelgw_exporters.posting import explanation, packed
from otelgw_exporters.reading import Reading, iso_time

__all__ = ["LangfuseExporter", "LangfuseShape", "events"]

_INGESTION = "/api/public/ingestion"
_BATCH = 3_500_000  # bytes that the server's own SDKs put into a batch at most
_SPANS = 100  # in a batch: the answer has a line for each of their events
_PARTLY = 207
_NAMESPACE = uuid.UUID("2d3f1c0e-6f57-5c7d-9a53-5b0c3f6f7a10")
_LATER = frozenset({408, 425, 429, *range(500, 600)})


class LangfuseShape(Shape):
    """The trace, parent and names that a request's metadata asks for."""

    def change(self, span: ReadableSpan, reading: Reading, attributes: dict[str, Any]) -> None:
        super().change(span, reading, attributes)
        if reading.role == "generation" and (named := langfuse.generation_name(reading)):
            span._name = named
        if not reading.ours or span.context is None:
            return
        continued = bool(reading.metadata.get("existing_trace_id"))
        if reading.role == "server" and not continued:
            # The trace takes its name and what was said from its root, which a span with a parent is not by itself.
            attributes |= {"langfuse.internal.as_root": "true", "langfuse.internal.is_app_root": True}
        trace = langfuse.trace_id(reading)
        if trace is not None and trace != span.context.trace_id:
            span._context = _moved(span.context, trace)
            if reading.role == "server":
                span._parent = None
            elif span.parent is not None:
                span._parent = _moved(span.parent, trace)
        parent = langfuse.parent_id(reading)
        if reading.role == "server" and parent is not None:
            span._parent = SpanContext(span.context.trace_id, parent, True, TraceFlags(1))


def _moved(context: SpanContext, trace: int) -> SpanContext:
    return SpanContext(trace, context.span_id, context.is_remote, context.trace_flags, context.trace_state)


class LangfuseExporter(ReadableExporter):
    """Langfuse. Keywords are the options of the catalog row ``langfuse``; what is missing is read from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or a key is missing.
    """

    ROW = "langfuse"

    def __init__(self, *, name: str = "", **given: Any) -> None:
        super().__init__(name=name, **given)
        self._legacy = self.options["api"] == "ingestion"
        if self._legacy:
            self._url = joined(self.options["endpoint"] or regional(self._wire, self.options), _INGESTION)
            self._http.headers["content-type"] = "application/json"

    def shape(self) -> Shape:
        plain = super().shape()
        return LangfuseShape(*plain.given)

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if not self._legacy:
            return super().deliver(spans, deadline)
        generations = {
            id(call.server): call.span for call in calls.calls(spans) if call.server not in (None, call.span)
        }
        made = [events(self._shape(span, generations.get(id(span)))) for span in spans]
        named: dict[str, Verdict] = {}

        def send(part: Sequence[list[tuple[str, bytes]]]) -> Reply:
            body = b'{"batch":[' + b",".join(data for each in part for _, data in each) + b"]}"
            answer = http.send(self._http, self._url, packed(body) if self._gzip else body, deadline, self.mask)
            if isinstance(answer, Reply):
                return answer
            if answer.status == _PARTLY:
                told = document.read(answer.body)
                if not isinstance(told, dict):  # longer than what is read of an answer, or cut off
                    return Reply("too_large" if len(part) > 1 else "again", "HTTP 207 without a list that can be read")
                named.update(_refused(told, self.mask))
            return http.classify(answer, self.mask(explanation(answer)))

        decided = deliver_in_parts(list(_runs(made, min(self._max_bytes, _BATCH))), send, deadline)
        verdicts = list(to_outcome(decided).verdicts)
        for at, each in enumerate(made):
            bad = [named[key] for key, _ in each if key in named]
            if bad and verdicts[at] is DONE:
                verdicts[at] = next((verdict for verdict in bad if verdict.state == "retry"), bad[0])
        return Outcome(tuple(verdicts))


def _runs(made: Sequence[list[tuple[str, bytes]]], limit: int) -> Iterator[Sequence[list[tuple[str, bytes]]]]:
    """Yield runs of spans' events that fit into a request."""
    run: list[list[tuple[str, bytes]]] = []
    size = 0
    for each in made:
        own = sum(len(data) + 1 for _, data in each)
        if run and (size + own > limit or len(run) >= _SPANS):
            yield run
            run, size = [], 0
        run.append(each)
        size += own
    if run:
        yield run


def _refused(told: dict[str, Any], mask: Any) -> Iterator[tuple[str, Verdict]]:
    """Yield the events that a 207 says were not taken, and what that means for their spans."""
    errors = told.get("errors")
    for each in errors if isinstance(errors, list) else ():
        if not isinstance(each, dict):
            continue
        status = each.get("status")
        reason = mask(f"HTTP {status}: {each.get('message') or each.get('error') or ''}")
        if status in _LATER:
            yield str(each.get("id")), Verdict("retry", reason)
        elif status in (401, 403):
            yield str(each.get("id")), Verdict("retry", f"{reason} (mend the destination's keys)", OPERATOR_DELAY)
        else:
            yield str(each.get("id")), Verdict("dead", reason)


_TYPES = {"generation": "generation-create", "embedding": "generation-create"}


def events(span: ReadableSpan) -> list[tuple[str, bytes]]:
    """Return the ingestion events of a shaped span, each with its id: the same ids each time."""
    held = span.attributes or {}
    context = span.context
    trace = format_trace_id(context.trace_id) if context else ""
    observation = format_span_id(context.span_id) if context else ""
    start, end = iso_time(span.start_time or 0), iso_time(span.end_time or span.start_time or 0)
    kind = str(held.get("langfuse.observation.type") or "span")
    found = []
    if str(held.get("langfuse.internal.as_root")) == "true" or span.parent is None:
        found.append(("trace-create", _trace(span, trace, start)))
    body = {
        "id": observation,
        "traceId": trace,
        "parentObservationId": format_span_id(span.parent.span_id) if span.parent else None,
        "name": span.name,
        "startTime": start,
        "endTime": end,
        "level": held.get("langfuse.observation.level"),
        "statusMessage": held.get("langfuse.observation.status_message"),
        "metadata": _metadata(held, "observation") or None,
        "input": _value(held, "observation.input"),
        "output": _value(held, "observation.output"),
        "version": held.get("langfuse.version"),
        "environment": held.get("langfuse.environment"),
    }
    if kind in _TYPES:
        body |= {
            "completionStartTime": held.get("langfuse.observation.completion_start_time"),
            "model": held.get("langfuse.observation.model.name"),
            "modelParameters": _parameters(held),
            "usageDetails": _value(held, "observation.usage_details"),
            "costDetails": _value(held, "observation.cost_details"),
            "promptName": held.get("langfuse.observation.prompt.name"),
            "promptVersion": held.get("langfuse.observation.prompt.version"),
        }
    found.append((_TYPES.get(kind, "span-create"), body))
    made = []
    for kind_of, each in found:
        key = str(uuid.uuid5(_NAMESPACE, f"{kind_of}:{trace}:{observation}"))
        event = {"id": key, "timestamp": end, "type": kind_of, "body": _known(each)}
        made.append((key, document.write(event)))
    return made


def _trace(span: ReadableSpan, trace: str, start: str) -> dict[str, Any]:
    held = span.attributes or {}
    return {
        "id": trace,
        "timestamp": start,
        "name": held.get("langfuse.trace.name") or span.name,
        "userId": held.get("langfuse.user.id"),
        "sessionId": held.get("langfuse.session.id"),
        "tags": held.get("langfuse.trace.tags"),
        "metadata": _metadata(held, "trace") or None,
        "input": _value(held, "observation.input"),
        "output": _value(held, "observation.output"),
        "release": held.get("langfuse.release"),
        "version": held.get("langfuse.version"),
        "environment": held.get("langfuse.environment"),
    }


def _value(held: Any, name: str) -> Any:
    text = held.get(f"langfuse.{name}")
    return document.read(text) if isinstance(text, str) and text[:1] in ("{", "[") else text


def _metadata(held: Any, kind: str) -> dict[str, Any]:
    prefix = f"langfuse.{kind}.metadata."
    return {key.removeprefix(prefix): value for key, value in held.items() if key.startswith(prefix)}


def _parameters(held: Any) -> dict[str, Any] | None:
    """Return the parameters; the schema has whole numbers as two of its kinds at once, so they go as text."""
    given = _value(held, "observation.model.parameters")
    if not isinstance(given, dict):
        return None
    plain = (str, float, bool)
    return {key: value if isinstance(value, plain) else document.write(value).decode() for key, value in given.items()}


def _known(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}
