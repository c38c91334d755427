"""When a destination that did not take a batch is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from otelgw_exporters.delivery import backoff

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter, in seconds. A destination's own wish prevails, up to ``most_asked``.

    A batch that has been tried for ``limit`` seconds is given up; 0 means never.
    """

    first: float = 0.5
    most: float = 30.0
    most_asked: float = 3600.0
    limit: float = 0.0

    def asked(self, after: float | None) -> float:
        """Return the seconds that a destination's answer asks to wait at least."""
        return min(after or 0.0, self.most_asked)

    def delay(self, tries: int, after: float | None, jitter: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after ``tries`` failed ones, the last of which asked for ``after``."""
        return max(self.asked(after), backoff(tries, first=self.first, most=self.most, jitter=jitter))
