"""Keys in a file of SQLite: ``keys.db`` in the state directory, shared by the workers and the pipeline of one machine.

The journal is a rollback journal, not a write-ahead log: SQLite before 3.51.3 can corrupt a WAL file that several
processes write. Writes are rare and short, so what a WAL would gain is not needed here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from otelgw.keys.database import Duplicate, Execute, StoreError, migrate

__all__ = ["SqliteDatabase"]

_PATIENCE = 5.0  # seconds for another process's write to end


class SqliteDatabase:
    """``path`` is made by the first write, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def exists(self) -> bool:
        return self._connection is not None or self._path.exists()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Execute]:
        with self._lock, self._mapped():
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield lambda sql, parameters=(): connection.execute(sql, parameters).fetchall()
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if not self.exists():
            return []
        with self._lock, self._mapped():
            return self._opened().execute(sql, parameters).fetchall()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            # SQLite would make the file readable for everybody.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = TRUNCATE")
                connection.execute("BEGIN IMMEDIATE")
                migrate(lambda sql, parameters=(): connection.execute(sql, parameters).fetchall(), str(self._path))
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise Duplicate(f"{self._path}: {error}") from None
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from None
