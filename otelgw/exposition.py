"""Metrics as Prometheus reads them: the text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from otelgw.instruments import Instrument, prometheus_name
from otelgw.metrics import Family, Value
from otelgw.tally import Labels
from otelgw_collector.histogram import Histogram

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TYPES = {"counter": "counter", "updown": "gauge", "gauge": "gauge", "histogram": "histogram"}


def exposition(families: Iterable[Family]) -> str:
    """Return the text of ``families``."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    instrument: Instrument = family.instrument
    name = prometheus_name(instrument)
    yield f"# HELP {name} {instrument.description}"
    yield f"# TYPE {name} {_TYPES[instrument.kind]}"
    for labels, value in family.points:
        yield from _point(name, labels, value)


def _point(name: str, labels: Labels, value: Value) -> Iterator[str]:
    if not isinstance(value, Histogram):
        yield f"{name}{_braced(labels)} {value}"
        return
    for end, count in value.cumulative():
        yield f"{name}_bucket{_braced((*labels, ('le', end)))} {count}"
    yield f"{name}_sum{_braced(labels)} {value.total:.9g}"
    yield f"{name}_count{_braced(labels)} {value.count}"


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name.replace(".", "_")}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
