"""Sentry: spans by OTLP, and each failed call as an error event, from which Sentry makes issues.

Sentry drops the events of spans that come by OTLP, so an exception that is not an event of its own is not seen there.
Events go first: their ids are the calls', so that one that comes twice is one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from otelgw_exporters import document, http, payload, semconv
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import DONE, OPERATOR_DELAY, Outcome, Reply, Verdict, all_retry, deliver_in_parts
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.failure import failure_of
from otelgw_exporters.otlp_vendor import VendorExporter
from otelgw_exporters.posting import explanation
from otelgw_exporters.reading import Reading

__all__ = ["SentryExporter", "event"]

_NAMESPACE = uuid.UUID("c0a3e1de-5f7d-5d0e-9c53-0a6c4f5e8b13")
_OTLP, _ENVELOPE = "/integration/otlp/v1/traces", "/envelope/"
_SECOND = 1_000_000_000


class SentryExporter(VendorExporter):
    """Sentry. Keywords are the options of the catalog row ``sentry``; what is missing is read from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the DSN is missing.
    """

    ROW = "sentry"

    def __init__(self, *, name: str = "", **given: Any) -> None:
        super().__init__(name=name, **given)
        parts = urlsplit(self.options["dsn"])
        base, _, project = parts.path.rstrip("/").rpartition("/")
        self._usable = bool(parts.username and project)
        host = parts.netloc.rpartition("@")[2]
        self._api = f"{parts.scheme}://{host}{base}/api/{project}"
        self._url = f"{self._api}{_OTLP}"
        auth = f"Sentry sentry_version=7, sentry_client=otelgw, sentry_key={parts.username}"
        self._http.headers["x-sentry-auth"] = auth
        self.mask = http.Masked({"dsn": self.options["dsn"], "key": parts.username or "", "auth": auth})
        self._errors = self._rate("sample_rate")
        self._traces = self._rate("traces_sample_rate")
        kept = {key: value for key, value in self._http.headers.items() if key != "content-encoding"}
        self._events = http.client(self.name, headers=kept | {"content-type": "application/x-sentry-envelope"})

    def url(self) -> str:
        return str(self.options["dsn"])

    def _rate(self, option: str) -> float:
        try:
            rate = float(self.options[option])
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= 1:
            raise DestinationConfigError(f"destination {self.name}: {option}: expected a number from 0 to 1")
        return rate

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if not self._usable:
            reason = "the DSN has no key or no project: mend the destination's dsn"
            return all_retry(len(spans), reason, OPERATOR_DELAY)
        told = self._failures(spans, deadline)
        verdicts: list[Verdict] = [told.get(at, DONE) for at in range(len(spans))]
        wanted = [at for at, span in enumerate(spans) if verdicts[at].state != "retry" and _taken(span, self._traces)]
        outcome = super().deliver([spans[at] for at in wanted], deadline)
        for at, verdict in zip(wanted, outcome.verdicts, strict=True):
            if verdicts[at] is DONE or verdict.state == "retry":
                verdicts[at] = verdict
        return Outcome(tuple(verdicts), outcome.rejected, outcome.message)

    def _failures(self, spans: Sequence[ReadableSpan], deadline: float) -> dict[int, Verdict]:
        """Send the events of failed calls; return what became of the spans of those that were not taken."""
        made = []
        for call in payload.calls(spans):
            tree = event(call, self.options) if _taken(call.span, self._errors) else None
            if tree is not None:
                made.append((call, tree))

        def send(part: Sequence[tuple[Call, dict[str, Any]]]) -> Reply:
            body = envelope(part[0][1])
            until = min(deadline, time.monotonic() + self.timeout)
            answer = http.send(self._events, f"{self._api}{_ENVELOPE}", body, until, self.mask)
            return answer if isinstance(answer, Reply) else http.classify(answer, self.mask(explanation(answer)))

        found: dict[int, Verdict] = {}
        for part, reply in deliver_in_parts([[each] for each in made], send, deadline):
            state = {"again": "retry", "accepted": "done"}.get(reply.kind, "dead")
            if state != "done":
                verdict = Verdict("retry" if state == "retry" else "dead", reply.reason, reply.after)
                found |= {at: verdict for call, _ in part for at in call.positions}
        return found

    def shutdown(self) -> None:
        super().shutdown()
        self._events.close()


def _taken(span: ReadableSpan, rate: float) -> bool:
    """Say whether a span's trace is in the sample; the same traces each time."""
    return span.context is None or (span.context.trace_id & (1 << 56) - 1) < rate * (1 << 56)


def envelope(tree: dict[str, Any]) -> bytes:
    """Return an event as an envelope of one item."""
    data = document.write(tree)
    header = document.write({"event_id": tree["event_id"]})
    item = document.write({"type": "event", "length": len(data), "content_type": "application/json"})
    return b"\n".join((header, item, data)) + b"\n"


def event(call: Call, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event of a failed call; None for one that succeeded."""
    failure = failure_of(call.span, call.server, call.attempts[-1] if call.attempts else None)
    if not failure.type:
        return None
    reading = Reading(call.span)
    context = call.span.context
    tags = {
        "error.type": failure.type,
        "status": failure.code,
        "model": reading.text(semconv.GEN_AI_REQUEST_MODEL),
        "provider": reading.text(semconv.GEN_AI_PROVIDER_NAME),
        "team": reading.text(semconv.OTELGW_TEAM_ALIAS),
    }
    made: dict[str, Any] = {
        "event_id": uuid.uuid5(_NAMESPACE, call.identity).hex,
        "timestamp": reading.end / _SECOND,
        "platform": "other",
        "level": "error",
        "logger": "otelgw",
        "environment": options["environment"],
        "release": options["release"],
        "transaction": (call.server or call.span).name,
        "exception": {"values": [{"type": failure.exception, "value": failure.message or failure.type}]},
        "user": {"id": reading.user} if reading.user else None,
        "tags": {key: value for key, value in tags.items() if value},
        "extra": reading.metadata or None,
    }
    if context is not None:
        made["contexts"] = {
            "trace": {
                "trace_id": format_trace_id(context.trace_id),
                "span_id": format_span_id(context.span_id),
                "op": f"gen_ai.{reading.get(semconv.GEN_AI_OPERATION_NAME) or 'request'}",
                "status": "internal_error",
            }
        }
    return {key: value for key, value in made.items() if value is not None}
