"""Counts what callers attached to their requests in vain, and says so in the log: at first, then ever more rarely."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import semconv

__all__ = ["DroppedLabels"]

log = logging.getLogger(__name__)


class DroppedLabels:
    """``total`` labels of ``requests`` requests were of no use, or too many."""

    def __init__(self) -> None:
        self.total = self.requests = 0

    def note(self, spans: Sequence[ReadableSpan]) -> None:
        """Note the spans of one request."""
        count = (spans[0].attributes or {}).get(semconv.OTELGW_LABELS_DROPPED) if spans else None
        if not isinstance(count, int):
            return
        self.requests += 1
        self.total += count
        if self.requests.bit_count() == 1:
            log.warning(
                "metadata, tags or user of the wrong type, or too many: %d left out of %d requests so far; "
                "%s on their spans says how many",
                self.total,
                self.requests,
                semconv.OTELGW_LABELS_DROPPED,
            )
