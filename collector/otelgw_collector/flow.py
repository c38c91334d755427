"""What the head and the couriers share: how far the head is, and whether the pipeline is coming to its end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from otelgw_collector.intents import KILLED

__all__ = ["Flow", "Position"]


class Position(NamedTuple):
    """How far the head has read in a segment."""

    path: Path
    offset: int


@dataclass(slots=True)
class Flow:
    """Shared state. ``positions``, by segment key, and every lane are guarded by ``lock``.

    ``stop_at``, on the pipeline's clock, is set once the pipeline is to stop; from then on ``head_done`` says that the
    head has found nothing new. ``abandoned`` ends every courier as soon as it looks.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    positions: dict[str, Position] = field(default_factory=dict)
    stop_at: float | None = None
    head_done: bool = False
    abandoned: bool = False
    failure: BaseException | None = None

    @property
    def draining(self) -> bool:
        """True once the pipeline is to stop."""
        return self.stop_at is not None

    def behind(self, read: Mapping[str, int]) -> dict[str, Position]:
        """Return the segments in which the head is further than ``read``, in the order in which they are to be read.

        The caller holds the lock.
        """
        found = ((key, position) for key, position in self.positions.items() if read.get(key, 0) < position.offset)
        return dict(sorted(found, key=_order))


def _order(found: tuple[str, Position]) -> tuple[bool, Path]:
    path = found[1].path
    return path.name.startswith(KILLED), path
