"""Requests that were begun and are not on record yet. What a dead worker leaves among them was killed with it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

__all__ = ["IDENTITY", "KILLED", "Intents"]

IDENTITY = 8  # bytes at the beginning of an INTENT's payload; the whole payload of a SETTLED
KILLED = "killed_"
"""How the worker's name begins in the segments for the records of requests whose worker died."""


class Intents:
    """Intents by id. ``known`` are (id, worker, payload) from before a restart. Reading an entry twice does no harm."""

    def __init__(self, known: Iterable[tuple[bytes, str, bytes]] = ()) -> None:
        self._open = {identity: (worker, payload) for identity, worker, payload in known}
        self._stored = set(self._open)
        self._new: dict[bytes, None] = {}
        self._gone: dict[bytes, None] = {}

    @property
    def workers(self) -> set[str]:
        """The workers that have begun something."""
        return {worker for worker, _ in self._open.values()}

    def begin(self, worker: str, payload: bytes) -> None:
        """Take in an INTENT."""
        identity = payload[:IDENTITY]
        self._open[identity] = (worker, payload[IDENTITY:])
        self._new[identity] = None
        self._gone.pop(identity, None)

    def settle(self, identity: bytes) -> None:
        """Take in a SETTLED."""
        if self._open.pop(identity, None) is None:
            return
        self._new.pop(identity, None)
        if identity in self._stored:
            self._gone[identity] = None

    def left_by(self, dead: AbstractSet[str]) -> list[tuple[bytes, bytes]]:
        """Return (id, payload) of what dead workers have begun."""
        return [(identity, payload) for identity, (worker, payload) in self._open.items() if worker in dead]

    def changes(self) -> tuple[list[tuple[bytes, str, bytes]], list[bytes]]:
        """Return what has begun and what has been settled since ``saved`` was called."""
        return [(identity, *self._open[identity]) for identity in self._new], list(self._gone)

    def saved(self) -> None:
        """Note that the changes are safe."""
        self._stored.update(self._new)
        self._stored.difference_update(self._gone)
        self._new.clear()
        self._gone.clear()
