"""Calls for the tests of object stores, queues and tables, and what is found in a bucket."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import obstore
import zstandard
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters.delivery import Exporter, Outcome
from tests.exporters.test_payload import sent
from tests.tracing.records import CALLER, START, record
from tests.tracing.test_spans import build

__all__ = ["deliver", "found", "request", "states", "text_of"]

HOUR = 3_600_000_000_000


def request(
    number: int = 0, *, hours: int = 0, team: str | None = None, key: str | None = None, **changes: Any
) -> list[ReadableSpan]:
    """Return the spans of one request of the gateway, ``hours`` after the first."""
    ids = {"span_id": f"{number + 1:016x}", "generation_span_id": f"{number + 10_001:016x}"}
    caller = CALLER
    if team is not None:
        caller = replace(caller, team_alias=team, team_id=f"id of {team}" if team else "")
    if key is not None:
        caller = replace(caller, key_alias=key)
    attempts = [sent(span_id=f"{number + 20_001:016x}")]
    given = {"call_id": f"call-{number}", "start": START + hours * HOUR, "caller": caller, "attempts": attempts}
    return build(record(**{**given, **ids, **changes}))


def deliver(made: Exporter, spans: Sequence[ReadableSpan], seconds: float = 20) -> Outcome:
    return made.deliver(spans, time.monotonic() + seconds)


def states(outcome: Outcome) -> list[str]:
    return [verdict.state for verdict in outcome.verdicts]


def text_of(key: str, data: bytes) -> bytes:
    if key.endswith(".gz"):
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompress(data) if key.endswith(".zst") else data


def found(store: Any, prefix: str = "") -> dict[str, list[dict[str, Any]]]:
    """Return the objects of a store by their keys, as the JSON documents on their lines."""
    keys = [each["path"] for listed in obstore.list(store, prefix or None) for each in listed]
    read: Callable[[str], bytes] = lambda key: bytes(obstore.get(store, key).bytes())  # noqa: E731
    return {key: [json.loads(line) for line in text_of(key, read(key)).splitlines()] for key in sorted(keys)}
