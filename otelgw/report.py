"""What the pipeline tells the others about itself: two files in the state directory, replaced as a whole every second.

``pipeline.json`` is its state, for readiness and ``otelgw spool status``; ``metrics.prom`` is what ``/metrics``
answers.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from otelgw.metrics import Metrics, exposition
from otelgw_collector.pipeline import Health

__all__ = ["Reporter", "read_metrics", "read_state"]

_STATE, _METRICS = "pipeline.json", "metrics.prom"


class Reporter:
    """Writes the two files."""

    def __init__(self, state_dir: Path, metrics: Metrics) -> None:
        self._directory = state_dir
        self._metrics = metrics

    def __call__(self, health: Health) -> None:
        """Write how things are.

        Raises:
            OSError: the disk does not take it; the files are as they were.
        """
        _replace(self._directory / _STATE, msgspec.json.encode(_document(health)))
        _replace(self._directory / _METRICS, exposition(health, self._metrics).encode())


def _document(health: Health) -> dict[str, Any]:
    return {
        "at": time.time(),
        "pid": os.getpid(),
        "spool": {"bytes": health.spool_size, "cap": health.spool_cap},
        "undecodable": health.undecodable,
        "quarantined": health.quarantined,
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


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, and nothing between."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def read_state(state_dir: str) -> dict[str, Any] | None:
    """Return what the pipeline said last, ``at`` (seconds since the epoch) included; None if it has said nothing."""
    try:
        document = msgspec.json.decode((Path(state_dir) / _STATE).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return document if isinstance(document, dict) else None


def read_metrics(state_dir: str) -> bytes:
    """Return what ``/metrics`` answers with; empty if the pipeline has said nothing yet."""
    try:
        return (Path(state_dir) / _METRICS).read_bytes()
    except OSError:
        return b""
