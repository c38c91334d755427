"""What a vendor's table of attributes is, and how a span is put into a vendor's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from otelgw_exporters import semconv
from otelgw_exporters.reading import Reading

__all__ = ["Dialect", "More", "Names", "Value", "field_of", "prefixed"]

Value = Callable[[Reading], Any]
Names = Mapping[str, Value | str | bool]
More = Callable[[Reading], Iterator[tuple[str, Any]]]

_MESSAGES = semconv.CONTENT - {semconv.OTELGW_ERROR_MESSAGE}


def field_of(name: str) -> Value:
    """Return the value of a property of the reading."""

    def read(reading: Reading) -> Any:
        return getattr(reading, name)

    return read


def prefixed(prefix: str, name: str = "metadata") -> More:
    """Return the members of a mapping of the reading as attributes of their own."""

    def members(reading: Reading) -> Iterator[tuple[str, Any]]:
        for key, value in getattr(reading, name).items():
            yield prefix + key, value

    return members


@dataclass(frozen=True, eq=False, slots=True)
class Dialect:
    """One vendor's words. A table maps an attribute's name to a constant, or to what gives its value for a reading.

    ``every`` is for all spans of the gateway, ``server``, ``generation`` and ``attempt`` for one kind of them;
    spans of other applications get ``generation`` if they are one, and what they say themselves wins. ``content`` is
    what was asked and answered: on the generation, and on the SERVER span with the generation's values, because vendors
    show the root's. ``more`` gives attributes whose names are data.

    semconv
        the vocabulary in which OpenTelemetry's own names go out.
    dropped
        of the original attributes, what the vendor is told in its own words.
    marker
        an attribute that says that a span of another application is in this dialect already.
    failed_root
        the vendor tells by its root whether a trace failed: the SERVER span of a request that was refused, or whose
        generation failed, has an error, also where HTTP's conventions leave that open.
    """

    semconv: str = "otel-1.41"
    every: Names = field(default_factory=dict)
    server: Names = field(default_factory=dict)
    generation: Names = field(default_factory=dict)
    attempt: Names = field(default_factory=dict)
    content: Names = field(default_factory=dict)
    more: tuple[More, ...] = ()
    generation_more: tuple[More, ...] = ()
    dropped: frozenset[str] = frozenset()
    marker: str = ""
    failed_root: bool = False

    def attributes(self, reading: Reading, generation: Reading | None = None) -> dict[str, Any]:
        """Return the attributes of a span; ``generation`` is that of the request where the span is its SERVER span."""
        original = reading.span.attributes or {}
        shaped = semconv.profile(self.semconv).attributes(original)
        if self.marker and self.marker in original:
            return shaped
        added = dict(self._added(reading, generation))
        if not reading.ours:
            return {**added, **shaped}
        kept = {key: value for key, value in shaped.items() if key not in self.dropped}
        return {**kept, **added}

    def _added(self, reading: Reading, generation: Reading | None) -> Iterator[tuple[str, Any]]:
        tables: list[tuple[Names, Reading]] = []
        mores: tuple[More, ...] = ()
        if reading.ours:
            tables.append((self.every, reading))
            mores = self.more
        if reading.role == "generation":
            tables += [(self.generation, reading), (self.content, reading)]
            mores = (*self.more, *self.generation_more)
        elif reading.role == "server":
            tables += [(self.server, reading), (self.content, generation or reading)]
        elif reading.role == "attempt":
            tables.append((self.attempt, reading))
        for table, subject in tables:
            for name, value in table.items():
                given = value(subject) if callable(value) else value
                if given is not None and given != [] and given != "":
                    yield name, given
        for each in mores:
            yield from each(reading)


MESSAGES = _MESSAGES
"""The attributes that hold what was said, for dialects that have names of their own for it."""
