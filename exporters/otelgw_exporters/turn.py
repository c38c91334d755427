"""Offering the processor to whoever waits for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

__all__ = ["offer_turn"]


def _sched_yield() -> Callable[[], object]:
    try:
        # Not os.sched_yield, which lets go of the interpreter's lock as well: what that costs this process's own
        # threads is a third of what they do.
        return ctypes.PyDLL(None).sched_yield
    except (OSError, AttributeError):  # no POSIX
        return int


offer_turn = _sched_yield()
"""Let another process run, if one waits for this core. Where cores are short one that computes for long makes others
wait for the rest of its time slice, whatever its priority. Costs less than a microsecond."""
