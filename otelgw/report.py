"""What the pipeline tells the others about itself: two files in the state directory, replaced as a whole every second.

``pipeline.json`` is its state, for readiness and ``otelgw spool status``; ``metrics.prom`` is what ``/metrics``
answers.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.sdk.resources import Resource

from otelgw.config.settings import MetricsExport
from otelgw.exposition import exposition
from otelgw.metrics import Metrics, counted, of_health
from otelgw.tally import Totals, replace_file
from otelgw_collector.pipeline import Health

if TYPE_CHECKING:
    from otelgw.metrics_push import Push

__all__ = ["Reporter", "pushing", "read_metrics", "read_state"]

_STATE, _METRICS = "pipeline.json", "metrics.prom"


def pushing(settings: MetricsExport | None, resource: Resource) -> Push | None:
    """Return what sends the metrics by OTLP, at work; None where nobody asked for it.

    Raises:
        DestinationConfigError: a TLS file cannot be used.
    """
    if settings is None:
        return None
    from otelgw.metrics_push import Push  # gRPC is large, and most processes need none of it

    return Push(settings, resource)


class Reporter:
    """Writes the two files, and offers the metrics to ``push``, which sends them by OTLP."""

    def __init__(self, state_dir: Path, metrics: Metrics, push: Push | None = None) -> None:
        self._directory = state_dir
        self._metrics = metrics
        self._totals = Totals(state_dir)
        self._push = push

    def __call__(self, health: Health) -> None:
        """Write how things are.

        Raises:
            OSError: the disk does not take it; the files are as they were.
        """
        families = [*self._metrics.families(), *of_health(health), *counted(self._totals())]
        if self._push is not None:
            families += self._push.families()
            self._push.offer(families, self._totals.since)
        replace_file(self._directory / _STATE, msgspec.json.encode(_document(health)))
        replace_file(self._directory / _METRICS, exposition(families).encode())


def _document(health: Health) -> dict[str, Any]:
    return {
        "at": time.time(),
        "pid": os.getpid(),
        "spool": {"bytes": health.spool_size, "cap": health.spool_cap},
        "undecodable": health.undecodable,
        "quarantined": health.quarantined,
        "newer": health.newer,
        "given_up": health.given_up,
        "destinations": [
            {
                "name": status.name,
                "state": status.state,
                "error": status.error,
                "queued": status.queued,
                "backlog_bytes": status.backlog,
                "oldest_seconds": round(status.oldest, 3),
                "delivered": status.counters.delivered,
                "retried": status.counters.retried,
                "dead": status.counters.dead,
                "rejected": status.counters.rejected,
                "withheld": status.counters.unselected,
                "dropped": status.counters.dropped,
                "dead_letters": health.dead.get(status.name, 0),
            }
            for status in health.destinations
        ],
    }


def read_state(state_dir: str) -> dict[str, Any] | None:
    """Return what the pipeline said last, ``at`` (seconds since the epoch) included; None if it has said nothing."""
    try:
        document = msgspec.json.decode((Path(state_dir) / _STATE).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return document if isinstance(document, dict) else None


def read_metrics(state_dir: str) -> bytes:
    """Return what ``/metrics`` answers with; where no pipeline has said anything, what the others have counted."""
    try:
        return (Path(state_dir) / _METRICS).read_bytes()
    except OSError:
        return exposition(counted(Totals(Path(state_dir)).read())).encode()
