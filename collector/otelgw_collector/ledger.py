"""What the pipeline knows over restarts, in ``pipeline.db``: cursors, counters, frozen batches, dead letters.

One connection, owned by the pipeline's reading thread: SQLite before 3.51.3 can corrupt a WAL file that two connections
write or checkpoint. A cursor is at-least-once bookkeeping: losing the latest ones means sending some spans again, with
the same ids, and never losing one. What belongs together is saved together: no cursor is ever past a span that died
without its dead letter being there.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from otelgw_collector import letters
from otelgw_collector.letters import Key, Letter

__all__ = ["HEAD", "Changes", "Ledger"]

logger = logging.getLogger(__name__)

HEAD = ""
"""Whose cursors say how far the head has read: what has begun and what is settled is known up to there."""

_SCHEMA = 2
_QUIET = 60.0  # seconds between two log lines on a disk that takes no changes
_TABLES = (
    """
CREATE TABLE IF NOT EXISTS cursor (
    destination TEXT NOT NULL, -- or HEAD
    segment TEXT NOT NULL, -- SegmentReader.key
    offset INTEGER NOT NULL, -- of the first byte that is not dealt with
    PRIMARY KEY (destination, segment)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS destination (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (
    destination TEXT NOT NULL,
    name TEXT NOT NULL, -- a field of lane.Counters
    value INTEGER NOT NULL,
    PRIMARY KEY (destination, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frozen (
    destination TEXT PRIMARY KEY,
    batch TEXT NOT NULL -- lane.Frozen as JSON
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS suspect (
    record TEXT PRIMARY KEY, -- segment's file name @ offset after the record
    deaths INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intent (
    id BLOB PRIMARY KEY,
    worker TEXT NOT NULL,
    payload BLOB NOT NULL
) WITHOUT ROWID;
"""
    + letters.TABLES
)


@dataclass(slots=True)
class Changes:
    """What is to be saved in one go. Cursors, counters and frozen batches are by destination.

    A frozen batch of None is one that is done. ``intents`` are (id, worker, payload).
    """

    cursors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    frozen: Mapping[str, str | None] = field(default_factory=dict)
    taken_up: Sequence[Key] = ()
    dead: Sequence[Letter] = ()
    intents: Sequence[tuple[bytes, str, bytes]] = ()
    settled: Sequence[bytes] = ()

    def __bool__(self) -> bool:
        return bool(
            any(self.cursors.values())
            or any(self.counters.values())
            or self.frozen
            or self.taken_up
            or self.dead
            or self.intents
            or self.settled
        )


class Ledger:
    """To be used by one thread, the one that made it. ``most_dead`` bytes of records are kept for dead letters.

    A file that is damaged or of a newer version is set aside and a new one begun; where none can be written, the
    ledger lives in memory and begins with what the file says. Either is logged, and never refuses the start.
    """

    def __init__(self, path: Path, most_dead: int = 256 * 1024 * 1024) -> None:
        self._most_dead = most_dead
        self._told_at = float("-inf")
        self._database = _open(path)

    def enlist(self, destinations: Iterable[str]) -> None:
        """Note which destinations there are. One that is new begins where the furthest of the known ones is.

        So it does not get what was delivered to the others before it was configured; the very first ones get all.
        """
        known = {name for (name,) in self._database.execute("SELECT name FROM destination")}
        furthest = self._database.execute(
            "SELECT segment, MAX(offset) FROM cursor WHERE destination <> ? GROUP BY segment", (HEAD,)
        ).fetchall()
        try:
            with self._database:
                for name in set(destinations) - known:
                    rows = [(name, segment, offset) for segment, offset in furthest] if known else []
                    self._database.executemany("INSERT OR IGNORE INTO cursor VALUES (?, ?, ?)", rows)
                    self._database.execute("INSERT INTO destination VALUES (?)", (name,))
        except sqlite3.Error as error:
            logger.warning("new destinations cannot be noted: %s", error)

    def cursors(self, destination: str) -> dict[str, int]:
        """Return a destination's cursor, or HEAD's, in each segment that it has begun; elsewhere it starts at 0."""
        rows = self._database.execute("SELECT segment, offset FROM cursor WHERE destination = ?", (destination,))
        return dict(rows.fetchall())

    def counters(self, destination: str) -> dict[str, int]:
        """Return a destination's counters by name."""
        rows = self._database.execute("SELECT name, value FROM counter WHERE destination = ?", (destination,))
        return dict(rows.fetchall())

    def frozen(self, destination: str) -> str | None:
        """Return the batch that the destination was being given when the pipeline ended."""
        row = self._database.execute("SELECT batch FROM frozen WHERE destination = ?", (destination,)).fetchone()
        return row[0] if row else None

    def intents(self) -> list[tuple[bytes, str, bytes]]:
        """Return the requests that were in flight when the pipeline ended: id, worker, payload."""
        return self._database.execute("SELECT id, worker, payload FROM intent").fetchall()

    def dead(self) -> dict[str, int]:
        """Return the number of dead letters by destination."""
        return letters.count(self._database)

    def accuse(self, records: Iterable[str]) -> dict[str, int]:
        """Count one more death on each of ``records``; return the deaths on every record that has any."""
        try:
            with self._database:
                self._database.executemany(
                    "INSERT INTO suspect VALUES (?, 1) ON CONFLICT (record) DO UPDATE SET deaths = deaths + 1",
                    [(record,) for record in records],
                )
        except sqlite3.Error as error:
            logger.warning("deaths on a record cannot be counted: %s", error)
        return dict(self._database.execute("SELECT record, deaths FROM suspect").fetchall())

    def save(self, changes: Changes) -> bool:
        """Store ``changes``, all or none; False, and logged, if the disk does not take them."""
        try:
            with self._database:
                removed = self._write(changes)
        except sqlite3.Error as error:
            self._tell("the pipeline's state cannot be saved, a restart would send spans again: %s", error)
            return False
        if removed:
            logger.warning("dead letters take too much room: the %d oldest are removed", removed)
        return True

    def _write(self, changes: Changes) -> int:
        database = self._database
        database.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", _rows(changes.cursors))
        database.executemany("INSERT OR REPLACE INTO counter VALUES (?, ?, ?)", _rows(changes.counters))
        for name, batch in changes.frozen.items():
            if batch is None:
                database.execute("DELETE FROM frozen WHERE destination = ?", (name,))
            else:
                database.execute("INSERT OR REPLACE INTO frozen VALUES (?, ?)", (name, batch))
        database.executemany("INSERT OR REPLACE INTO intent VALUES (?, ?, ?)", changes.intents)
        database.executemany("DELETE FROM intent WHERE id = ?", [(each,) for each in changes.settled])
        if changes.taken_up:
            letters.remove(database, changes.taken_up)
        if not changes.dead:
            return 0
        letters.store(database, changes.dead)
        return letters.trim(database, self._most_dead)

    def keep(self, segments: Iterable[str], unread: AbstractSet[str] = frozenset()) -> None:
        """Drop the cursors in all segments but these, and what is suspected of records in the others.

        ``unread`` are the names of files whose keys are not known, but which may be read another time.
        """
        kept = set(segments)
        names = {key.partition(":")[0] for key in kept} | unread
        try:
            with self._database:
                known = {key for (key,) in self._database.execute("SELECT DISTINCT segment FROM cursor")}
                past = [(key,) for key in known - kept if key.partition(":")[0] not in unread]
                self._database.executemany("DELETE FROM cursor WHERE segment = ?", past)
                suspects = [record for (record,) in self._database.execute("SELECT record FROM suspect")]
                gone = [(record,) for record in suspects if record.rpartition("@")[0] not in names]
                self._database.executemany("DELETE FROM suspect WHERE record = ?", gone)
        except sqlite3.Error as error:
            self._tell("cursors of deleted segments cannot be removed: %s", error)

    def _tell(self, text: str, error: sqlite3.Error) -> None:
        now = time.monotonic()
        if now - self._told_at >= _QUIET:
            self._told_at = now
            logger.warning(text, error)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _rows(values: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    return [(name, key, value) for name, mapping in values.items() for key, value in mapping.items()]


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError as error:
        return _without_room(path, error)
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        logger.error("%s is set aside as %s, everything in the spool is sent again: %s", path, aside.name, error)  # noqa: TRY400
        try:
            for suffix in ("", "-wal", "-shm"):
                companion = path.with_name(path.name + suffix)
                if companion.exists():
                    companion.rename(aside.with_name(aside.name + suffix))
            return _connect(path)
        except (OSError, sqlite3.Error) as failure:
            logger.error("%s cannot be used, cursors are kept in memory only: %s", path, failure)  # noqa: TRY400
    return _prepare(sqlite3.connect(":memory:"))


def _without_room(path: Path, reason: sqlite3.Error) -> sqlite3.Connection:
    """Return a connection that knows what the file says where nothing can be written beside it.

    On a full disk the file itself can still be used, by one connection that shares it with nobody; it takes changes
    again as soon as there is room. On a read-only one there is only a copy in memory.
    """
    try:
        found = _connect(path, alone=True)
    except sqlite3.Error:
        logger.error("%s cannot be used, cursors are kept in memory only: %s", path, reason)  # noqa: TRY400
    else:
        logger.error("%s cannot be shared with readers until a restart: %s", path, reason)
        return found
    memory = sqlite3.connect(":memory:")
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            source.backup(memory)
            memory.execute("PRAGMA quick_check(1)")
        finally:
            source.close()
        return _prepare(memory)
    except sqlite3.Error:
        memory.close()
        return _prepare(sqlite3.connect(":memory:"))


def _connect(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
    database = sqlite3.connect(path)
    try:
        if alone:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
        return _prepare(database)
    except sqlite3.Error:
        database.close()
        raise


def _prepare(database: sqlite3.Connection) -> sqlite3.Connection:
    # NORMAL: a commit costs no fsync; a power cut may take back the last ones, which is only a repetition.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > _SCHEMA:
        raise sqlite3.DatabaseError(f"it was written by a newer otelgw (schema {version}, known is {_SCHEMA})")
    if version < _SCHEMA:  # otherwise nothing is written: the disk may be full
        database.executescript(_TABLES)
        database.execute(f"PRAGMA user_version = {_SCHEMA}")
        database.commit()
    return database
