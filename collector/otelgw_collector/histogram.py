"""A histogram with fixed bounds, as Prometheus and OpenTelemetry have them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

__all__ = ["Histogram"]


class Histogram:
    """Counts by bucket; ``bounds`` are the buckets' upper ends, ascending, the last one without an end is added."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Yield (upper end, number of values up to it), the last end being ``+Inf``."""
        running = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            yield bound, running
