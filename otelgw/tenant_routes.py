"""Routes: the destinations of keys and teams, looked up by who calls."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from otelgw.config.settings import Keys
from otelgw.keys import callbacks
from otelgw.keys.directory import Directory
from otelgw.keys.grant import grant
from otelgw.keys.schema import Callback
from otelgw.tracing.record import Caller

__all__ = ["Route", "Routes"]

_FRESH = 5.0  # seconds for which a tenant's destinations are taken to be as they were
_KNOWN = 20_000  # tenants whose destinations are remembered


class Route(NamedTuple):
    """One destination of one tenant. ``id`` names it for as long as its owner has it; it shows no credential."""

    id: str
    owner: str
    callback: Callback
    host: str

    @property
    def names(self) -> frozenset[str]:
        """What a caller may call it, in lower case."""
        return callbacks.answers(self.callback.name)


class Routes:
    """What ``directory`` says of routes, remembered for a moment. All methods may be called from any thread.

    ``changes`` returns a number that is another one after every change of a key or team that was made on this machine.
    All methods raise ``StoreError`` where the store cannot be asked.
    """

    def __init__(self, keys: Keys, directory: Directory, changes: Callable[[], int] = lambda: 0) -> None:
        self._keys = keys
        self._directory = directory
        self._changes = changes
        self._known: OrderedDict[tuple[str, str], tuple[float, int, list[Route]]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, caller: Caller) -> list[Route]:
        """Return a caller's destinations; those of its team where the key is no more."""
        who = (caller.key_hash, caller.team_id)
        now, changes = time.monotonic(), self._changes()
        with self._lock:
            held = self._known.get(who)
        if held is not None and now - held[0] < _FRESH and held[1] == changes:
            return held[2]
        found = self._directory.find(caller.key_hash)
        if found is not None:
            allowed = grant(found.key, found.team)
            routes = self._routes(allowed.owner, allowed.logging) if allowed.policy.enabled else []
        else:
            routes = self._of_owner(f"team:{caller.team_id}") if caller.team_id else []
        with self._lock:
            self._known[who] = (now, changes, routes)
            self._known.move_to_end(who)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return routes

    def find(self, route_id: str) -> Route | None:
        """Return the route of this id as it is now; None if its owner has it no more."""
        return next((each for each in self._of_owner(route_id.partition("/")[0]) if each.id == route_id), None)

    def _of_owner(self, owner: str) -> list[Route]:
        kind, _, name = owner.partition(":")
        if kind == "team":
            team = self._directory.team(name)
            return self._routes(owner, team.logging) if team is not None else []
        found = self._directory.find(name)
        return self._routes(owner, found.key.logging) if found is not None else []

    def _routes(self, owner: str, logging: Sequence[Callback]) -> list[Route]:
        seen: dict[str, int] = {}
        found = []
        for callback in logging:
            name = f"{callback.name}/{callback.event}"
            number = seen[name] = seen.get(name, 0) + 1
            name = f"{owner}/{name}" + (f"/{number}" if number > 1 else "")
            found.append(Route(name, owner, callback, callbacks.host_of(callback, owner, self._keys)))
        return found
