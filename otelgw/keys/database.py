"""What a database has to do for the store, and what goes wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from otelgw.errors import OtelgwError
from otelgw.keys.migrations import migrations

__all__ = ["Database", "Duplicate", "Execute", "StoreError", "migrate"]

Execute = Callable[..., list[tuple[Any, ...]]]
"""``execute(sql, parameters=())`` runs one statement, ``?`` for each parameter, and returns its rows."""


class StoreError(OtelgwError):
    """The store of keys cannot be used now; says which and why, and never with a password."""


class Duplicate(StoreError):
    """A row with this name is there already."""


class Database(Protocol):
    """One connection, for any thread, one at a time. Everything blocks; everything raises ``StoreError``."""

    def exists(self) -> bool:
        """Say whether there is anything to read; nothing is made for the sake of an answer."""
        ...

    def transaction(self) -> AbstractContextManager[Execute]:
        """Run statements that are done together, or not at all; makes the database and brings it up to date first."""
        ...

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one SELECT; none where there is no database."""
        ...

    def close(self) -> None: ...


def migrate(execute: Execute, where: str) -> None:
    """Bring the schema up to date, in the transaction of ``execute``, which must keep every other writer out.

    Raises:
        StoreError: a newer version of otelgw has been here.
    """
    execute("CREATE TABLE IF NOT EXISTS otelgw_schema (version INTEGER NOT NULL)")
    rows = execute("SELECT MAX(version) FROM otelgw_schema")
    version = rows[0][0] or 0
    steps = migrations()
    if version > steps[-1].version:
        raise StoreError(
            f"{where}: its schema is version {version}, and this otelgw knows up to {steps[-1].version}. "
            "It was written by a newer otelgw; use that one."
        )
    for step in steps:
        if step.version > version:
            for statement in step.statements:
                execute(statement)
            execute("INSERT INTO otelgw_schema VALUES (?)", (step.version,))
