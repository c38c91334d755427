"""Every metric there is: its name, unit and buckets, as OpenTelemetry has them, and its name for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["INSTRUMENTS", "SECONDS", "Instrument", "prometheus_name"]

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""The bounds that the GenAI conventions give for durations."""

_TOKENS = tuple(4.0**power for power in range(14))  # the GenAI conventions' too
_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # the HTTP conventions'

Kind = Literal["counter", "updown", "gauge", "histogram"]


class Instrument(NamedTuple):
    """``unit`` is UCUM's. ``bounds`` are a histogram's buckets; empty where it brings its own.

    ``lasting``: it goes on from where it was when the gateway is started again.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    lasting: bool = False


_GEN_AI = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)
_HTTP = ("http.request.method", "http.response.status_code", "http.route", "url.scheme", "error.type")
_EACH = ("destination",)

INSTRUMENTS: Mapping[str, Instrument] = {
    each.name: each
    for each in (
        Instrument(
            "gen_ai.client.operation.duration",
            "histogram",
            "s",
            "GenAI operation duration.",
            (*_GEN_AI, "error.type"),
            SECONDS,
        ),
        Instrument(
            "gen_ai.client.operation.time_to_first_chunk",
            "histogram",
            "s",
            "Time to receive the first chunk of a streamed answer.",
            _GEN_AI,
            SECONDS,
        ),
        Instrument(
            "gen_ai.client.token.usage",
            "histogram",
            "{token}",
            "Number of input and output tokens used.",
            (*_GEN_AI, "gen_ai.token.type"),
            _TOKENS,
        ),
        Instrument(
            "http.server.request.duration", "histogram", "s", "Duration of HTTP server requests.", _HTTP, _REQUESTS
        ),
        Instrument(
            "otelgw.labels.dropped",
            "counter",
            "{label}",
            "Metadata, tags, users and sessions that callers attached in vain: of the wrong type, or too many.",
        ),
        Instrument(
            "otelgw.content.uploads",
            "counter",
            "{object}",
            "Content for the blob store by what became of it; what is `known` was there already.",
            ("outcome",),
        ),
        Instrument(
            "otelgw.destination.spans",
            "counter",
            "{span}",
            "Spans by what became of them; a retried one counts each time.",
            ("destination", "outcome"),
            lasting=True,
        ),
        Instrument(
            "otelgw.destination.dropped_records",
            "counter",
            "{record}",
            "Records that had to go undelivered because the spool was at its limit.",
            _EACH,
            lasting=True,
        ),
        Instrument(
            "otelgw.destination.withheld_records",
            "counter",
            "{record}",
            "Records that were not sent because selecting from them failed.",
            _EACH,
            lasting=True,
        ),
        Instrument("otelgw.destination.dead_letters", "updown", "{span}", "Dead letters that are kept.", _EACH),
        Instrument(
            "otelgw.destination.queued_records",
            "updown",
            "{record}",
            "Records in memory that wait for a destination.",
            _EACH,
        ),
        Instrument("otelgw.destination.backlog", "updown", "By", "Bytes of the spool that are not delivered.", _EACH),
        Instrument(
            "otelgw.destination.oldest_record.age",
            "gauge",
            "s",
            "Age of the oldest record that is not delivered.",
            _EACH,
        ),
        Instrument("otelgw.destination.up", "gauge", "", "1 unless the last delivery failed.", _EACH),
        Instrument(
            "otelgw.destination.delivery.duration", "histogram", "s", "Time of one try to deliver one batch.", _EACH
        ),
        Instrument("otelgw.spool.usage", "updown", "By", "Bytes of the spool on disk."),
        Instrument("otelgw.spool.limit", "updown", "By", "Bytes that the spool may take."),
        Instrument("otelgw.spool.undecodable_records", "counter", "{record}", "Records that could not be decoded."),
        Instrument("otelgw.spool.quarantined_records", "counter", "{record}", "Records that are not tried any more."),
        Instrument("otelgw.spool.newer_records", "counter", "{record}", "Records of a newer otelgw, set aside."),
        Instrument(
            "otelgw.spool.given_up_records", "counter", "{record}", "Records of a newer otelgw that had to make room."
        ),
        Instrument(
            "otelgw.spool.unwritten_records",
            "counter",
            "{record}",
            "Records that did not get into the spool: `disk` did not take them, or a stranger's `quota` was used up.",
            ("reason",),
            lasting=True,
        ),
        Instrument(
            "otelgw.spool.failed_syncs",
            "counter",
            "{sync}",
            "Times that the disk refused to sync; what was written may not survive a power loss.",
            lasting=True,
        ),
        Instrument(
            "otelgw.http.refusals",
            "counter",
            "{refusal}",
            "What ended before it reached the application, and has no trace.",
            ("reason",),
            lasting=True,
        ),
        Instrument(
            "otelgw.keys.uncounted_requests",
            "counter",
            "{request}",
            "Requests that were not counted as their key's limits ask for: Redis or the shared table was not there.",
            lasting=True,
        ),
        Instrument(
            "otelgw.tenants.spans",
            "counter",
            "{span}",
            "Spans for keys' and teams' own destinations by what became of them; a retried one counts each time.",
            ("outcome",),
            lasting=True,
        ),
        Instrument(
            "otelgw.tenants.dropped_records",
            "counter",
            "{record}",
            "Records that keys' and teams' own destinations never get: too many, tried for too long, or taken away.",
            lasting=True,
        ),
        Instrument(
            "otelgw.receiver.requests",
            "counter",
            "{request}",
            "OTLP requests by what they were answered.",
            ("protocol", "answer"),
            lasting=True,
        ),
        Instrument(
            "otelgw.receiver.spans",
            "counter",
            "{span}",
            "Spans from other applications; `loop`: they came from or through this gateway, `invalid`: without ids.",
            ("outcome",),
            lasting=True,
        ),
        Instrument(
            "otelgw.metrics.exports",
            "counter",
            "{export}",
            "Tries to send the metrics by OTLP.",
            ("outcome",),
        ),
        Instrument(
            "otelgw.pipeline.last_report.timestamp",
            "gauge",
            "s",
            "When the pipeline last said how it does, in seconds since the epoch.",
        ),
    )
}

_UNITS = {"s": "_seconds", "By": "_bytes"}


def prometheus_name(instrument: Instrument) -> str:
    """Return the name by OpenTelemetry's rules for Prometheus: unit as a suffix, ``_total`` after a counter's."""
    name = re.sub(r"[^a-zA-Z0-9_:]", "_", instrument.name) + _UNITS.get(instrument.unit, "")
    return f"{name}_total" if instrument.kind == "counter" else name
