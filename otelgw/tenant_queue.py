"""What waits for tenants' own destinations: records in a file of SQLite, by whose they are.

One connection in one process writes it. A record is here from before the pipeline lets go of it until its destination
has it, so that a tenant whose destination is down loses nothing, up to a cap, and holds up nobody.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Parcel", "TenantQueue"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parcel (
    number INTEGER PRIMARY KEY,
    route TEXT NOT NULL,
    record TEXT NOT NULL, -- its trace's and its SERVER span's id: the same record is kept once
    payload BLOB NOT NULL,
    kept_at REAL NOT NULL, -- seconds since the epoch
    UNIQUE (route, record)
);
"""
_SHARE = 4  # of all the room one route may take a fourth


class Parcel(NamedTuple):
    """One record for one route (a tenant's destination); ``number`` is 0 as long as it is not kept."""

    route: str
    record: str
    payload: bytes
    number: int = 0
    kept_at: float = 0.0


class TenantQueue:
    """The file at ``path`` holds at most ``cap`` bytes of records; beyond it a route's oldest go first.

    ``dropped`` counts records that had to go. All methods may be called by any thread, and raise ``sqlite3.Error``
    where the disk does not do its part.
    """

    def __init__(self, path: Path, cap: int, *, durable: bool = False) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._database.executescript(_SCHEMA)
        rows = self._database.execute("SELECT route, SUM(LENGTH(payload)) FROM parcel GROUP BY route")
        self._sizes: dict[str, int] = dict(rows.fetchall())
        self._total = sum(self._sizes.values())
        self.dropped = 0

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return self._total

    def routes(self) -> list[str]:
        """Return the routes that something waits for."""
        with self._lock:
            return list(self._sizes)

    def put(self, parcels: Iterable[Parcel]) -> set[str]:
        """Keep records, all or none; return the routes that have something now. What is kept already is kept once."""
        now = time.time()
        touched: set[str] = set()
        with self._transaction() as changes:
            for parcel in parcels:
                touched.add(parcel.route)
                cursor = self._database.execute(
                    "INSERT OR IGNORE INTO parcel (route, record, payload, kept_at) VALUES (?, ?, ?, ?)",
                    (parcel.route, parcel.record, parcel.payload, now),
                )
                if cursor.rowcount > 0:
                    changes[parcel.route] += len(parcel.payload)
            for route in touched:
                self._make_room(route, changes)
        return touched

    def take(self, route: str, most: int, size: int) -> list[Parcel]:
        """Return the oldest records of a route: at most ``most``, and ``size`` bytes unless one alone is larger."""
        with self._lock:
            cursor = self._database.execute(
                "SELECT route, record, payload, number, kept_at FROM parcel WHERE route = ? ORDER BY number LIMIT ?",
                (route, most),
            )
            found: list[Parcel] = []
            room = size
            for row in cursor:
                parcel = Parcel(*row)
                room -= len(parcel.payload)
                if found and room < 0:
                    break
                found.append(parcel)
            cursor.close()
            return found

    def remove(self, parcels: Sequence[Parcel]) -> None:
        """Let go of records."""
        with self._transaction() as changes:
            for parcel in parcels:
                self._delete(parcel.number, parcel.route, len(parcel.payload), changes)

    def discard(self, route: str) -> int:
        """Let go of everything of a route that is no more; return how many records that was."""
        with self._transaction() as changes:
            count = self._database.execute("DELETE FROM parcel WHERE route = ?", (route,)).rowcount
            changes[route] -= self._sizes.get(route, 0)
            self.dropped += count
        return count

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[defaultdict[str, int]]:
        """Run statements that are done together; by how many bytes routes grow is to be put into what this yields."""
        changes: defaultdict[str, int] = defaultdict(int)
        with self._lock:
            self._database.execute("BEGIN")
            try:
                yield changes
                self._database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise
            for route, change in changes.items():
                size = self._sizes.pop(route, 0) + change
                if size > 0:
                    self._sizes[route] = size
                self._total += change

    def _make_room(self, route: str, changes: defaultdict[str, int]) -> None:
        """Drop the oldest records of ``route`` until it keeps to its share, and to what is left of all the room."""
        while True:
            size = self._sizes.get(route, 0) + changes[route]
            left = self._cap - (self._total + sum(changes.values()) - size)
            if size <= min(self._cap // _SHARE, max(0, left)):
                break
            oldest = "SELECT number, LENGTH(payload) FROM parcel WHERE route = ? ORDER BY number LIMIT 1"
            row = self._database.execute(oldest, (route,)).fetchone()
            if row is None:
                break
            self._delete(row[0], route, row[1], changes)
            self.dropped += 1

    def _delete(self, number: int, route: str, size: int, changes: defaultdict[str, int]) -> None:
        if self._database.execute("DELETE FROM parcel WHERE number = ?", (number,)).rowcount > 0:
            changes[route] -= size
