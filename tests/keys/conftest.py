"""The two databases that keys are kept in: SQLite in a file, and a real PostgreSQL, one cluster for all tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from otelgw.keys.store import Store, open_store
from tests.servers import require
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres(require("postgres")) as running:
        yield running


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with Redis(require("redis")) as running:
        yield running


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """A new, empty database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return urlsplit(postgres.dsn)._replace(path=f"/{name}").geturl()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.getfixturevalue("database_url") if request.param == "postgres" else ""
    opened = open_store(tmp_path, url)
    yield opened
    opened.close()
