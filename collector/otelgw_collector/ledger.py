"""How far each destination has come in each segment, kept over restarts in ``pipeline.db``.

One connection, owned by the pipeline's reading thread: SQLite before 3.51.3 can corrupt a WAL file that two connections
write or checkpoint. A cursor is at-least-once bookkeeping: losing the latest ones means sending some spans again, with
the same ids, and never losing one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["Ledger"]

logger = logging.getLogger(__name__)

_SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS cursor (
    destination TEXT NOT NULL,
    segment TEXT NOT NULL, -- SegmentReader.key
    offset INTEGER NOT NULL, -- of the first byte that is not dealt with
    PRIMARY KEY (destination, segment)
) WITHOUT ROWID;
"""


class Ledger:
    """Cursors per destination and segment. To be used by one thread, the one that made it.

    A file that is damaged or of a newer version is set aside and a new one begun; where none can be written, the
    ledger lives in memory. Either is logged, and never refuses the start.
    """

    def __init__(self, path: Path) -> None:
        self._database = _open(path)

    def cursors(self, destination: str) -> dict[str, int]:
        """Return a destination's cursor in each segment that it has begun; elsewhere it starts at the beginning."""
        rows = self._database.execute("SELECT segment, offset FROM cursor WHERE destination = ?", (destination,))
        return dict(rows.fetchall())

    def save(self, cursors: Mapping[str, Mapping[str, int]]) -> bool:
        """Store cursors by destination and segment; False, and logged, if the disk does not take them."""
        rows = [(name, segment, offset) for name, offsets in cursors.items() for segment, offset in offsets.items()]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            logger.warning("the pipeline's cursors cannot be saved, a restart would send spans again: %s", error)
            return False
        return True

    def keep(self, segments: Iterable[str]) -> None:
        """Drop the cursors in all segments but these; the others are deleted."""
        kept = set(segments)
        try:
            with self._database:
                known = {key for (key,) in self._database.execute("SELECT DISTINCT segment FROM cursor")}
                self._database.executemany("DELETE FROM cursor WHERE segment = ?", [(key,) for key in known - kept])
        except sqlite3.Error as error:
            logger.warning("cursors of deleted segments cannot be removed: %s", error)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError as error:
        logger.error("%s cannot be used, cursors are kept in memory only: %s", path, error)  # noqa: TRY400
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


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
    database = sqlite3.connect(path)
    try:
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
    database.executescript(_TABLES)
    database.execute(f"PRAGMA user_version = {_SCHEMA}")
    database.commit()
    return database
