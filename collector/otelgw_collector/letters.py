"""Dead letters: spans that a destination will never take, with the reason, and the records that they came from.

They are kept in ``pipeline.db`` until they are delivered after all or until they take more room than they may. Writing
is the ledger's; reading is anybody's, from a connection that cannot write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["TABLES", "Key", "Letter", "Stored", "count", "find", "listing", "read_only", "remove", "store", "trim"]

TABLES = """
CREATE TABLE IF NOT EXISTS dead_record (
    place TEXT PRIMARY KEY, -- segment's key @ offset after the record
    kind INTEGER NOT NULL,
    payload BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL, -- seconds since the epoch
    place TEXT NOT NULL,
    UNIQUE (destination, trace_id, span_id)
);
CREATE INDEX IF NOT EXISTS dead_letter_place ON dead_letter (place);
"""
_COLUMNS = "id, destination, trace_id, span_id, name, reason, at, place"
_REASON = 1000  # characters


class Key(NamedTuple):
    """What tells one dead letter from another; ids in hex."""

    destination: str
    trace_id: str
    span_id: str


class Letter(NamedTuple):
    """A span that died: whose, which, why, when (seconds since the epoch), and the record that it was in.

    ``place`` names the record; ``payload`` is empty where it could not be read any more.
    """

    key: Key
    name: str
    reason: str
    at: float
    place: str
    kind: int = 0
    payload: bytes = b""


class Stored(NamedTuple):
    """A dead letter as it is listed."""

    id: int
    destination: str
    trace_id: str
    span_id: str
    name: str
    reason: str
    at: float
    place: str


def store(database: sqlite3.Connection, found: Iterable[Letter]) -> None:
    """Write letters; a span that died before is the same letter again."""
    for letter in found:
        database.execute(
            f"INSERT OR REPLACE INTO dead_letter ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (*letter.key, letter.name, letter.reason[:_REASON], letter.at, letter.place),
        )
        if letter.payload:
            record = (letter.place, letter.kind, letter.payload)
            database.execute("INSERT OR IGNORE INTO dead_record VALUES (?, ?, ?)", record)


def remove(database: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """Remove letters, and the records that no other letter is about."""
    database.executemany("DELETE FROM dead_letter WHERE destination = ? AND trace_id = ? AND span_id = ?", keys)
    database.execute("DELETE FROM dead_record WHERE place NOT IN (SELECT place FROM dead_letter)")


def trim(database: sqlite3.Connection, most: int) -> int:
    """Remove the oldest letters until their records take at most ``most`` bytes; return how many letters went."""
    (size,) = database.execute("SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM dead_record").fetchone()
    removed = 0
    while size > most:
        place, length = database.execute(
            "SELECT place, LENGTH(payload) FROM dead_letter JOIN dead_record USING (place) ORDER BY id LIMIT 1"
        ).fetchone()
        removed += database.execute("DELETE FROM dead_letter WHERE place = ?", (place,)).rowcount
        database.execute("DELETE FROM dead_record WHERE place = ?", (place,))
        size -= length
    return removed


def read_only(path: Path) -> sqlite3.Connection:
    """Return a connection to ``pipeline.db`` that cannot write to it.

    Raises:
        sqlite3.OperationalError: there is no such file, or it cannot be read.
    """
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    database.execute("PRAGMA query_only = ON")
    return database


def count(database: sqlite3.Connection) -> dict[str, int]:
    """Return the number of dead letters by destination."""
    return dict(database.execute("SELECT destination, COUNT(*) FROM dead_letter GROUP BY destination"))


def listing(database: sqlite3.Connection, *, destination: str = "", most: int = 1000) -> list[Stored]:
    """Return dead letters, the oldest first."""
    where, values = ("WHERE destination = ?", [destination]) if destination else ("", [])
    query = f"SELECT {_COLUMNS} FROM dead_letter {where} ORDER BY id LIMIT ?"  # noqa: S608 - constants only
    return [Stored(*row) for row in database.execute(query, [*values, most])]


def find(database: sqlite3.Connection, ids: Sequence[int]) -> list[Letter]:
    """Return dead letters with their records."""
    marks = ", ".join("?" * len(ids))
    query = (
        f"SELECT destination, trace_id, span_id, name, reason, at, place, kind, payload "  # noqa: S608 - marks only
        f"FROM dead_letter LEFT JOIN dead_record USING (place) WHERE id IN ({marks}) ORDER BY id"
    )
    rows = database.execute(query, list(ids)).fetchall()
    return [
        Letter(Key(destination, trace_id, span_id), name, reason, at, place, kind or 0, payload or b"")
        for destination, trace_id, span_id, name, reason, at, place, kind, payload in rows
    ]
