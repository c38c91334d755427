"""Which segments have to go: delivered ones when they are old, others when the spool is too large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["UNAUTHENTICATED", "Retention", "Stored", "victims"]

UNAUTHENTICATED = ".unauthenticated"
"""How the worker's name ends in the segments for records of callers without an accepted key."""

_FREE = 64 * 1024 * 1024  # bytes; with less room on the disk nothing is kept that is delivered


@dataclass(frozen=True, slots=True)
class Retention:
    """``delivered`` is how long delivered records are kept, in seconds; ``cap`` limits the spool in bytes.

    ``unauthenticated`` is the share of the cap for records of callers without an accepted key.
    """

    delivered: float = 0.0
    cap: int = 2 * 1024 * 1024 * 1024
    unauthenticated: float = 0.05


class Stored(NamedTuple):
    """A segment that nobody writes to any more. ``changed`` is its last write in seconds since the epoch."""

    key: str
    changed: float
    size: int
    unauthenticated: bool
    delivered: bool


def victims(stored: Iterable[Stored], retention: Retention, *, now: float, total: int, free: int) -> list[str]:
    """Return the keys of the segments to delete, in order.

    ``total`` are the bytes of the whole spool, also of what is being written; ``free`` those left on the disk. Records
    without a key go first, then what is delivered, each from the oldest on; what is not delivered anywhere goes last.
    """
    order = sorted(stored, key=lambda each: (not each.unauthenticated, not each.delivered, each.changed))
    own = sum(each.size for each in order if each.unauthenticated)
    quota = int(retention.cap * retention.unauthenticated)
    gone: list[str] = []
    for each in order:
        expired = each.delivered and (now - each.changed >= retention.delivered or free < _FREE)
        over = total > retention.cap or (each.unauthenticated and own > quota)
        if not (expired or over):
            continue
        gone.append(each.key)
        total -= each.size
        free += each.size
        own -= each.size if each.unauthenticated else 0
    return gone
