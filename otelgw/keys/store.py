"""Where keys and teams that came over HTTP are kept, and what has been spent on each. Every method blocks.

All methods raise ``StoreError`` where the database cannot be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from otelgw.keys.database import Database, Duplicate, Execute
from otelgw.keys.schema import Key, Team

__all__ = ["Found", "Spend", "Store", "key_subject", "open_store", "team_subject"]

_S = TypeVar("_S", Key, Team)

_ALIAS_TAKEN = "another key has this key_alias; choose another one"
# An UPDATE that changes nothing keeps every other writer off the row, in both databases.
_LOCKED_KEY = "UPDATE otelgw_key SET hash = hash WHERE hash = ? RETURNING document"
_LOCKED_TEAM = "UPDATE otelgw_team SET id = id WHERE id = ? RETURNING document"
_INSERT_KEY = """
INSERT INTO otelgw_key (hash, alias, user_id, team_id, document, created_at) VALUES (?, ?, ?, ?, ?, ?)
"""
_ADD = """
INSERT INTO otelgw_spend (subject, amount, resets_at) VALUES (?, ?, ?)
ON CONFLICT (subject) DO UPDATE SET
    amount = CASE WHEN otelgw_spend.resets_at > 0 AND otelgw_spend.resets_at <= ?
        THEN excluded.amount ELSE otelgw_spend.amount + excluded.amount END,
    resets_at = CASE WHEN otelgw_spend.resets_at <= ? THEN excluded.resets_at ELSE otelgw_spend.resets_at END
RETURNING amount, resets_at
"""


class Spend(NamedTuple):
    """USD spent in a period that ends at ``resets_at`` (seconds since the epoch; 0 is never)."""

    amount: float = 0.0
    resets_at: float = 0.0


class Found(NamedTuple):
    """A key with its team, and what has been spent on both, by subject."""

    key: Key
    team: Team | None
    spent: Mapping[str, Spend]


def key_subject(key_hash: str) -> str:
    """Return what a key is counted under."""
    return f"key:{key_hash}"


def team_subject(team_id: str) -> str:
    """Return what a team is counted under."""
    return f"team:{team_id}"


def open_store(state_dir: Path, database_url: str) -> Store:
    """Return the store of a gateway: PostgreSQL where a URL is configured, else a file in the state directory.

    Nothing is opened yet.

    Raises:
        StoreError: psycopg is not installed.
    """
    if database_url:
        from otelgw.keys.store_postgres import PostgresDatabase

        return Store(PostgresDatabase(database_url))
    from otelgw.keys.store_sqlite import SqliteDatabase

    return Store(SqliteDatabase(state_dir / "keys.db"))


class Store:
    """Queries on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def exists(self) -> bool:
        """Say whether there is anything to look for."""
        return self._database.exists()

    def close(self) -> None:
        self._database.close()

    def find(self, key_hash: str) -> Found | None:
        """Return what is known of a key."""
        rows = self._database.read("SELECT document FROM otelgw_key WHERE hash = ?", (key_hash,))
        if not rows:
            return None
        key = _decoded(rows[0][0], Key)
        team = self.team(key.team_id) if key.team_id else None
        subjects = [key_subject(key_hash)] + ([team_subject(team.id)] if team is not None else [])
        return Found(key, team, self.spent(subjects))

    def team(self, team_id: str) -> Team | None:
        rows = self._database.read("SELECT document FROM otelgw_team WHERE id = ?", (team_id,))
        return _decoded(rows[0][0], Team) if rows else None

    def hash_of_alias(self, alias: str) -> str:
        """Return the hash of the key with this alias; empty without one."""
        rows = self._database.read("SELECT hash FROM otelgw_key WHERE alias = ?", (alias,))
        return str(rows[0][0]) if rows else ""

    def keys(self, wanted: Mapping[str, str], *, limit: int = 100, offset: int = 0) -> tuple[list[Key], int]:
        """Return keys, the newest first, and how many there are. ``wanted``: alias, user_id, team_id or hash."""
        where = " AND ".join(f"{column} = ?" for column in wanted) or "1 = 1"
        values = tuple(wanted.values())
        total = self._database.read(f"SELECT COUNT(*) FROM otelgw_key WHERE {where}", values)  # noqa: S608 - columns
        rows = self._database.read(
            f"SELECT document FROM otelgw_key WHERE {where} ORDER BY created_at DESC, hash LIMIT ? OFFSET ?",  # noqa: S608
            (*values, limit, offset),
        )
        return [_decoded(document, Key) for (document,) in rows], total[0][0] if total else 0

    def teams(self) -> list[Team]:
        """Return every team, the newest first."""
        rows = self._database.read("SELECT document FROM otelgw_team ORDER BY created_at DESC, id")
        return [_decoded(document, Team) for (document,) in rows]

    def add_key(self, key: Key) -> None:
        """Keep a new key.

        Raises:
            Duplicate: the key or its alias is there already; says which.
        """
        with self._database.transaction() as execute:
            if execute("SELECT 1 FROM otelgw_key WHERE hash = ?", (key.hash,)):
                raise Duplicate("this key exists already; leave `key` out to have one made")
            _check_alias(execute, key)
            execute(
                _INSERT_KEY,
                (key.hash, key.alias or None, key.user_id, key.team_id, _encoded(key), key.created_at),
            )

    def add_team(self, team: Team) -> None:
        """Keep a new team.

        Raises:
            Duplicate: there is one with this id.
        """
        with self._database.transaction() as execute:
            if execute("SELECT 1 FROM otelgw_team WHERE id = ?", (team.id,)):
                raise Duplicate("a team with this team_id exists already; use /team/update")
            execute(
                "INSERT INTO otelgw_team (id, alias, document, created_at) VALUES (?, ?, ?, ?)",
                (team.id, team.alias or None, _encoded(team), team.created_at),
            )

    def change_key(self, key_hash: str, change: Callable[[Key], Key]) -> Key | None:
        """Replace a key by what ``change`` makes of it, and return that; None if there is no such key.

        Raises:
            Duplicate: the new alias is another key's.
        """
        with self._database.transaction() as execute:
            key = _changed(execute, _LOCKED_KEY, key_hash, change, Key)
            if key is not None:
                _check_alias(execute, key)
                execute(
                    "UPDATE otelgw_key SET alias = ?, user_id = ?, team_id = ?, document = ? WHERE hash = ?",
                    (key.alias or None, key.user_id, key.team_id, _encoded(key), key_hash),
                )
        return key

    def change_team(self, team_id: str, change: Callable[[Team], Team]) -> Team | None:
        """Replace a team by what ``change`` makes of it, and return that; None if there is no such team."""
        with self._database.transaction() as execute:
            team = _changed(execute, _LOCKED_TEAM, team_id, change, Team)
            if team is not None:
                execute(
                    "UPDATE otelgw_team SET alias = ?, document = ? WHERE id = ?",
                    (team.alias or None, _encoded(team), team_id),
                )
        return team

    def delete_keys(self, hashes: Iterable[str]) -> list[str]:
        """Delete keys and what is known of their spending; return those that there were."""
        if not self.exists():
            return []
        gone = []
        with self._database.transaction() as execute:
            for key_hash in hashes:
                if execute("DELETE FROM otelgw_key WHERE hash = ? RETURNING hash", (key_hash,)):
                    execute("DELETE FROM otelgw_spend WHERE subject = ?", (key_subject(key_hash),))
                    gone.append(key_hash)
        return gone

    def delete_team(self, team_id: str) -> list[str] | None:
        """Delete a team together with its keys; return the keys' hashes, None if there is no such team."""
        if not self.exists():
            return None
        with self._database.transaction() as execute:
            if not execute("DELETE FROM otelgw_team WHERE id = ? RETURNING id", (team_id,)):
                return None
            execute("DELETE FROM otelgw_spend WHERE subject = ?", (team_subject(team_id),))
            rows = execute("DELETE FROM otelgw_key WHERE team_id = ? RETURNING hash", (team_id,))
            for (key_hash,) in rows:
                execute("DELETE FROM otelgw_spend WHERE subject = ?", (key_subject(key_hash),))
        return [str(key_hash) for (key_hash,) in rows]

    def spent(self, subjects: Sequence[str]) -> dict[str, Spend]:
        """Return what has been spent on each of ``subjects``; nothing has, where nothing is known."""
        found = dict.fromkeys(subjects, Spend())
        for subject in subjects:
            rows = self._database.read("SELECT amount, resets_at FROM otelgw_spend WHERE subject = ?", (subject,))
            if rows:
                found[subject] = Spend(*map(float, rows[0]))
        return found

    def add_spend(self, subject: str, amount: float, now: float, resets_at: float) -> Spend:
        """Add USD to a subject's spending and return all of it; ``resets_at`` ends a period that begins now."""
        with self._database.transaction() as execute:
            rows = execute(_ADD, (subject, amount, resets_at, now, now))
        return Spend(*map(float, rows[0]))


def _check_alias(execute: Execute, key: Key) -> None:
    taken = execute("SELECT hash FROM otelgw_key WHERE alias = ?", (key.alias,)) if key.alias else []
    if taken and taken[0][0] != key.hash:
        raise Duplicate(_ALIAS_TAKEN)


def _changed(execute: Execute, sql: str, name: str, change: Callable[[_S], _S], kind: type[_S]) -> _S | None:
    rows = execute(sql, (name,))
    return change(_decoded(rows[0][0], kind)) if rows else None


def _encoded(subject: Key | Team) -> str:
    return msgspec.json.encode(subject).decode()


def _decoded(document: Any, kind: type[_S]) -> _S:
    return msgspec.json.decode(document, type=kind)
