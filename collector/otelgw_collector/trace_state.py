"""A tracestate as it came, for spans that are built and not started."""

from __future__ import annotations

from functools import lru_cache

from opentelemetry.trace import TraceState

__all__ = ["carried"]


class _CarriedTraceState(TraceState):
    """A tracestate that is passed on as it came: the API's own drops what W3C's level 1 does not know."""

    def __init__(self, members: dict[str, str]) -> None:
        super().__init__()
        self._dict = members


@lru_cache(maxsize=256)
def carried(header: str) -> TraceState | None:
    """Return the value of a ``tracestate`` header for a span context; None for an empty one."""
    if not header:
        return None
    members: dict[str, str] = {}
    for member in header.split(","):
        key, separator, value = member.strip(" \t").partition("=")
        if separator:
            members.setdefault(key, value)
    return _CarriedTraceState(members)
