"""Keys in PostgreSQL, for gateways on several machines: ``general_settings.database_url``.

The tables' names begin with ``otelgw_``, so that the database can be one that others use too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from otelgw.keys.database import Duplicate, Execute, StoreError, migrate

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresDatabase"]

_CONNECT = 5  # seconds
_OPTIONS = "-c statement_timeout=5000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000"
_MIGRATION_LOCK = 0x6F74656C6777  # "otelgw": one process at a time brings the schema up to date


class PostgresDatabase:
    """``url`` is a ``postgresql://`` URL or a libpq connection string.

    Raises:
        StoreError: psycopg is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise StoreError("PostgreSQL needs psycopg: pip install 'otelgw[postgres]'") from None
        self._psycopg = psycopg
        self._url = url
        self._where = _shown(url)
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def exists(self) -> bool:
        return True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Execute]:
        with self._lock, self._mapped():
            connection = self._usable()
            with connection.transaction():
                yield _executor(connection)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._mapped():
            try:
                return _executor(self._usable())(sql, parameters)
            except self._psycopg.OperationalError:
                if self._connection is not None and not self._connection.closed:
                    raise
                # The server was restarted since; reading once more harms nobody.
                return _executor(self._usable())(sql, parameters)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _usable(self) -> psycopg.Connection[Any]:
        if self._connection is not None and not self._connection.closed and not self._connection.broken:
            return self._connection
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT,
            options=_OPTIONS,
            application_name="otelgw",
            prepare_threshold=None,  # a pooler in between may give every statement another session
        )
        try:
            with connection.transaction():
                execute = _executor(connection)
                execute("SELECT pg_advisory_xact_lock(?)", (_MIGRATION_LOCK,))
                migrate(execute, self._where)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.errors.UniqueViolation as error:
            raise Duplicate(f"{self._where}: {error.diag.constraint_name}") from None
        except self._psycopg.Error as error:
            # The message of a failed connection can repeat the connection string; the class and state do not.
            state = f", SQLSTATE {error.sqlstate}" if error.sqlstate else ""
            raise StoreError(f"{self._where}: {type(error).__name__}{state}") from None


def _executor(connection: psycopg.Connection[Any]) -> Execute:
    def execute(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = connection.execute(sql.replace("?", "%s"), parameters)
        return cursor.fetchall() if cursor.description is not None else []

    return execute


def _shown(url: str) -> str:
    """Return the part of a connection string that may be shown."""
    if "://" not in url:
        return "PostgreSQL"
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        return "PostgreSQL"
    return f"PostgreSQL at {parts.hostname or 'localhost'}:{port}{parts.path}"
