"""The store's schema, one numbered file of SQL a step. A released file never changes; a change is a further file.

The SQL is what SQLite and PostgreSQL both take. Statements end with ``;`` at the end of a line.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

__all__ = ["Migration", "migrations"]


class Migration(NamedTuple):
    """``version`` is that of the schema afterwards."""

    version: int
    statements: tuple[str, ...]


def migrations() -> tuple[Migration, ...]:
    """Return all steps in order."""
    found = []
    for file in sorted(files(__package__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            statements = tuple(part.strip() for part in file.read_text("utf-8").split(";\n") if part.strip())
            found.append(Migration(int(file.name.partition("_")[0]), statements))
    return tuple(found)
