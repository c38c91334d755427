"""Keys and teams in SQLite and in a real PostgreSQL: the same promises."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otelgw.config.settings import LoggingPolicy
from otelgw.keys import migrations
from otelgw.keys.database import Duplicate, StoreError
from otelgw.keys.hashing import digest
from otelgw.keys.schema import Callback, Key, Quota, Team
from otelgw.keys.store import Spend, Store, key_subject, open_store
from tests.servers.postgres import Postgres

DATA = Path(__file__).parent / "data"
KEY = Key(
    hash=digest("sk-one"),
    name="sk-...-one",
    alias="one",
    user_id="u1",
    user_email="u1@example.com",
    team_id="t1",
    models=("gpt-*",),
    quota=Quota(rpm=3, tpm=100, budget=1.5, period="30d"),
    expires=2e9,
    metadata={"a": {"b": [1, None]}},
    logging=(Callback("otlp_http", "failure", sealed="v1.xyz", confined=True),),
    policy=LoggingPolicy(content=False, destinations=("console",)),
    created_at=1.0,
)
TEAM = Team(id="t1", alias="team one", quota=Quota(rpm=9), created_at=1.0)


def test_what_is_kept_comes_back_whole(store: Store) -> None:
    store.add_team(TEAM)
    store.add_key(KEY)

    found = store.find(KEY.hash)

    assert found is not None
    assert (found.key, found.team) == (KEY, TEAM)
    assert store.hash_of_alias("one") == KEY.hash
    assert store.keys({"team_id": "t1"}) == ([KEY], 1)
    assert store.teams() == [TEAM]


def test_nothing_is_made_for_the_sake_of_looking(tmp_path: Path) -> None:
    store = open_store(tmp_path, "")

    assert (store.find("x"), store.team("t"), store.keys({}), store.teams()) == (None, None, ([], 0), [])
    assert store.delete_keys(["x"]) == []
    assert store.delete_team("t") is None
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with contextlib.closing(open_store(tmp_path, "")) as store:
            store.add_team(TEAM)
    finally:
        os.umask(before)

    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_sqlite_keeps_no_write_ahead_log(tmp_path: Path) -> None:
    with contextlib.closing(open_store(tmp_path, "")) as store:
        store.add_team(TEAM)

    with contextlib.closing(sqlite3.connect(tmp_path / "keys.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() != ("wal",)
    assert not (tmp_path / "keys.db-wal").exists()


@pytest.mark.parametrize(
    ("twice", "says"),
    [
        (lambda store: store.add_key(KEY), "exists already"),
        (lambda store: store.add_key(msgspec.structs.replace(KEY, hash=digest("two"))), "key_alias"),
        (lambda store: store.add_team(TEAM), "/team/update"),
    ],
)
def test_a_name_is_given_once(store: Store, twice: Callable[[Store], None], says: str) -> None:
    store.add_team(TEAM)
    store.add_key(KEY)

    with pytest.raises(Duplicate, match=says):
        twice(store)


def test_any_number_of_keys_have_no_alias(store: Store) -> None:
    for number in range(3):
        store.add_key(Key(hash=digest(str(number))))

    assert store.keys({})[1] == 3


def test_a_change_is_made_to_what_is_there(store: Store) -> None:
    store.add_key(KEY)
    store.add_key(Key(hash=digest("two"), alias="two"))

    changed = store.change_key(KEY.hash, lambda key: msgspec.structs.replace(key, alias="renamed"))

    assert changed is not None
    assert store.hash_of_alias("renamed") == KEY.hash
    assert store.hash_of_alias("one") == ""
    assert store.change_key("unknown", lambda key: key) is None
    assert store.change_team("unknown", lambda team: team) is None
    with pytest.raises(Duplicate):
        store.change_key(KEY.hash, lambda key: msgspec.structs.replace(key, alias="two"))
    assert store.hash_of_alias("renamed") == KEY.hash


def test_what_is_deleted_is_gone_with_what_was_spent(store: Store) -> None:
    store.add_team(TEAM)
    store.add_key(KEY)
    store.add_spend(key_subject(KEY.hash), 1.0, 0.0, 0.0)

    assert store.delete_keys([KEY.hash, "unknown"]) == [KEY.hash]
    assert store.find(KEY.hash) is None
    assert store.spent([key_subject(KEY.hash)]) == {key_subject(KEY.hash): Spend()}


def test_a_team_takes_its_keys_along(store: Store) -> None:
    store.add_team(TEAM)
    store.add_key(KEY)
    store.add_key(Key(hash=digest("other")))

    assert store.delete_team("t1") == [KEY.hash]
    assert store.keys({})[1] == 1
    assert store.delete_team("t1") is None


def test_pages_hold_every_key_once(store: Store) -> None:
    for number in range(7):
        store.add_key(Key(hash=digest(str(number)), created_at=float(number // 2)))

    pages = [store.keys({}, limit=3, offset=offset)[0] for offset in (0, 3, 6)]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert len({key.hash for page in pages for key in page}) == 7


def test_spending_adds_up_until_its_period_ends(store: Store) -> None:
    assert store.add_spend("key:a", 1.0, now=100.0, resets_at=200.0) == Spend(1.0, 200.0)
    assert store.add_spend("key:a", 0.5, now=150.0, resets_at=250.0) == Spend(1.5, 200.0)
    assert store.add_spend("key:a", 0.25, now=200.0, resets_at=300.0) == Spend(0.25, 300.0)
    assert store.spent(["key:a", "key:b"]) == {"key:a": Spend(0.25, 300.0), "key:b": Spend()}


def test_spending_without_a_period_goes_on_until_there_is_one(store: Store) -> None:
    store.add_spend("key:a", 1.0, now=100.0, resets_at=0.0)

    assert store.add_spend("key:a", 1.0, now=1e9, resets_at=0.0) == Spend(2.0, 0.0)
    assert store.add_spend("key:a", 1.0, now=1e9, resets_at=2e9) == Spend(3.0, 2e9)


def _spend(directory: str, url: str) -> None:
    store = open_store(Path(directory), url)
    for _ in range(20):
        store.add_spend("key:a", 1.0, 0.0, 0.0)
        store.change_team("t1", lambda team: msgspec.structs.replace(team, metadata={"n": team.metadata["n"] + 1}))
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_that_write_at_once_lose_nothing(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("database_url") if kind == "postgres" else ""
    processes = [
        multiprocessing.get_context("spawn").Process(target=_spend, args=(str(tmp_path), url)) for _ in range(3)
    ]
    store = open_store(tmp_path, url)
    store.add_team(Team(id="t1", metadata={"n": 0}))
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    team, spent = store.team("t1"), store.spent(["key:a"])
    store.close()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert spent["key:a"].amount == 60
    assert team is not None
    assert team.metadata == {"n": 60}


def _dump(store: Store) -> dict[str, Any]:
    return {"keys": store.keys({})[0], "teams": store.teams()}


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_of_the_first_version_is_brought_up_to_date_with_its_data(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    statements = (DATA / "version-1.sql").read_text().split(";\n")
    url = ""
    if kind == "postgres":
        import psycopg

        url = request.getfixturevalue("database_url")
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in filter(str.strip, statements):
                connection.execute(statement)
    else:
        with sqlite3.connect(tmp_path / "keys.db") as file:
            file.executescript(";\n".join(statements))
        file.close()

    store = open_store(tmp_path, url)

    assert _dump(store) == {"keys": [KEY], "teams": [TEAM]}
    assert store.add_spend(key_subject(KEY.hash), 1.0, 0.0, 0.0) == Spend(1.0)
    store.close()


def test_a_store_of_a_newer_version_is_left_alone(store: Store, tmp_path: Path) -> None:
    store.add_team(TEAM)
    newest = migrations.migrations()[-1].version
    with store._database.transaction() as execute:
        execute("INSERT INTO otelgw_schema VALUES (?)", (newest + 1,))
    store.close()

    with pytest.raises(StoreError, match="newer otelgw"):
        store.teams()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [step.version for step in migrations.migrations()] == list(range(1, len(migrations.migrations()) + 1))


def test_postgres_that_was_restarted_is_connected_to_again(postgres: Postgres, database_url: str) -> None:
    store = open_store(Path(), database_url)
    store.add_team(TEAM)
    postgres.stop()
    with pytest.raises(StoreError) as refused:
        store.teams()
    postgres.start()

    assert store.teams() == [TEAM]
    store.close()
    assert "postgres-canary" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:pw-canary@127.0.0.1:1/x", "host=127.0.0.1 port=1 password=pw-canary", "postgresql://:bad:"]
)
def test_a_database_that_is_not_there_is_said_without_its_password(url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as refused:
        open_store(Path(), url).teams()

    assert "pw-canary" not in str(refused.value)
    assert str(refused.value).startswith("PostgreSQL")


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"no database" * 100)

    with pytest.raises(StoreError, match="not a database"):
        open_store(tmp_path, "").teams()
