"""What a worker counts because there is no trace of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """What ended before it reached the application: unreadable or forbidden requests that were ``refused``, ``floods``
    that closed a connection, and ``timeouts`` of heads that came too slowly and of callers that did not read."""

    refused: int = 0
    floods: int = 0
    timeouts: int = 0
