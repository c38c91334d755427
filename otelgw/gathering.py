"""Putting together what records that follow each other become, for destinations that send many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan

from otelgw.selection import Ready, Trace
from otelgw_exporters.sheaf import Sheaf, Sheaves

__all__ = ["gatherer", "together"]

Gather = Callable[[Sequence[Sequence[ReadableSpan]]], Sheaf | None]


def gatherer(gather: Gather | None) -> Callable[[Sequence[Trace]], None] | None:
    """Return the function that has ``gather`` make a sheaf of records that were made ready one after the other."""
    return None if gather is None else _gatherer(gather)


def _gatherer(gather: Gather) -> Callable[[Sequence[Trace]], None]:
    def gather_all(traces: Sequence[Trace]) -> None:
        run: list[Ready] = []
        for trace in traces:
            if type(trace) is Ready and trace.sheaf is None:
                run.append(trace)
            else:
                _bind(run, gather)
                run = []
        _bind(run, gather)

    return gather_all


def _bind(run: Sequence[Ready], gather: Gather) -> None:
    sheaf = gather([trace.spans for trace in run]) if len(run) > 1 else None
    if sheaf is not None:
        for trace in run:
            trace.sheaf = sheaf


def together(traces: Sequence[Trace]) -> Sequence[ReadableSpan] | None:
    """Return the spans of records that are all made ready, as few sheaves as may be; None if one is not."""
    parts: list[Sheaf | Sequence[ReadableSpan]] = []
    at = 0
    while at < len(traces):
        trace = traces[at]
        if type(trace) is not Ready:
            return None
        sheaf = trace.sheaf
        # By all of its records: destinations that do not choose the same share those that both have.
        if sheaf is not None and [each.spans for each in traces[at : at + len(sheaf.records)]] == sheaf.records:
            parts.append(sheaf)
            at += len(sheaf.records)
        else:
            parts.append(trace.spans)
            at += 1
    return Sheaves(parts)
