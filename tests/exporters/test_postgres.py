"""A real PostgreSQL: what is stored, what stands in the way, what it costs nobody."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.tracing.record import capture_whole
from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.postgres import PostgresExporter
from tests.exporters.samples import generation
from tests.exporters.test_file import request
from tests.exporters.test_payload import check
from tests.servers import require
from tests.servers.postgres import Postgres
from tests.tracing.records import record, scenarios
from tests.tracing.test_spans import build

Keep = Callable[[Exporter], Exporter]
FIXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres(require("postgres")) as running:
        yield running


@pytest.fixture
def database(server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database that the exporters write to, the table gone."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS otelgw_calls CASCADE")
        connection.execute("DROP SCHEMA IF EXISTS logs CASCADE")
        yield connection


@pytest.fixture
def make(server: Postgres, database: psycopg.Connection[Any], closing: Keep) -> Callable[..., PostgresExporter]:
    def run(**given: Any) -> PostgresExporter:
        made = PostgresExporter(**{"dsn": server.dsn, **given})
        closing(made)
        return made

    return run


Make = Callable[..., PostgresExporter]


def deliver(made: Exporter, spans: Sequence[ReadableSpan], seconds: float = 20) -> Outcome:
    return made.deliver(spans, time.monotonic() + seconds)


def only(outcome: Outcome) -> str:
    (state,) = {verdict.state for verdict in outcome.verdicts}
    return state


def count(database: psycopg.Connection[Any], table: str = "otelgw_calls") -> int:
    found = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert found is not None
    return int(found[0])


def test_a_call_is_a_row_with_its_facts_and_its_payload(make: Make, database: psycopg.Connection[Any]) -> None:
    outcome = deliver(make(), build(scenarios()["success"]))
    assert only(outcome) == "done", outcome
    with database.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute("SELECT * FROM otelgw_calls").fetchone()
    assert row is not None
    check(row["payload"])
    assert row["id"] == "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7"
    expected = {
        "call_id": "call-1", "session_id": "s-1", "status": "success", "provider": "openai", "model": "gpt-4o",
        "model_group": "gpt", "key_alias": "search", "team_id": "t-1", "end_user": "u-1", "tags": ["blue"],
        "prompt_tokens": 1117, "completion_tokens": 46, "error_type": None,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert float(row["cost"]) == 0.001209
    assert row["start_time"].timestamp() == row["payload"]["startTime"]


def test_every_kind_of_call_can_be_stored(make: Make, database: psycopg.Connection[Any]) -> None:
    made = make()
    for name, each in scenarios().items():
        database.execute("DROP TABLE IF EXISTS otelgw_calls")
        made._drop()
        assert only(deliver(made, build(each))) == "done", name


def test_what_is_sent_twice_is_there_once(make: Make, database: psycopg.Connection[Any]) -> None:
    for made in (make(), make()):
        for _ in range(2):
            assert only(deliver(made, [*request(0), *request(1), *request(1)])) == "done"
    assert count(database) == 2


def test_a_thousand_requests_with_one_call_id_stay_a_thousand_rows(
    make: Make, database: psycopg.Connection[Any]
) -> None:
    spans = [generation(number, **{"otelgw.call_id": "same"}) for number in range(1, 1001)]
    assert only(deliver(make(), spans)) == "done"
    assert count(database) == 1000


def test_exporters_that_start_at_once_make_one_table(make: Make, database: psycopg.Connection[Any]) -> None:
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda number=number: outcomes.append(deliver(make(), request(number))))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [only(outcome) for outcome in outcomes] == ["done"] * 6
    assert count(database) == 6


def test_the_table_can_be_elsewhere_and_made_by_hand(make: Make, database: psycopg.Connection[Any]) -> None:
    database.execute("CREATE SCHEMA logs")
    assert only(deliver(make(table="logs.calls"), request(0))) == "done"
    assert count(database, "logs.calls") == 1
    without = make(create=False)
    outcome = deliver(without, request(0))
    assert (only(outcome), outcome.after) == ("retry", OPERATOR_DELAY)
    assert "42P01" in outcome.reason
    assert "set create: true, or make it from schema/postgres.sql" in outcome.reason
    database.execute(files("otelgw_exporters").joinpath("schema/postgres.sql").read_bytes())
    assert only(deliver(without, request(0))) == "done"


def test_a_role_that_may_only_insert_is_enough(make: Make, server: Postgres, database: psycopg.Connection[Any]) -> None:
    database.execute(files("otelgw_exporters").joinpath("schema/postgres.sql").read_bytes())
    database.execute("DROP ROLE IF EXISTS writer")
    database.execute("CREATE ROLE writer LOGIN PASSWORD 'writer-secret'")
    made = make(dsn=f"postgresql://writer:writer-secret@127.0.0.1:{server.port}/postgres")
    outcome = deliver(made, request(0))
    assert (only(outcome), outcome.after) == ("retry", OPERATOR_DELAY)
    assert "GRANT INSERT, SELECT on the table" in outcome.reason
    database.execute("GRANT INSERT, SELECT ON otelgw_calls TO writer")
    assert only(deliver(made, request(0))) == "done"
    database.execute("DROP TABLE otelgw_calls")
    database.execute("DROP ROLE writer")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda dsn: dsn.replace("otelgw:postgres-canary", "otelgw:CANARY-wrong"), "mend the user or the password"),
        (lambda dsn: dsn.replace("/postgres", "/nowhere"), "there is no such database"),
        (lambda dsn: dsn.replace("otelgw:", "nobody:"), "mend the user or the password"),
    ],
)
def test_what_only_the_operator_can_mend_is_tried_again_slowly_and_said(
    make: Make, server: Postgres, change: Callable[[str], str], part: str
) -> None:
    outcome = deliver(make(dsn=change(server.dsn)), request(0))
    assert (only(outcome), outcome.after) == ("retry", OPERATOR_DELAY)
    assert part in outcome.reason
    assert "CANARY" not in outcome.reason
    assert "postgres-canary" not in outcome.reason


def test_a_server_that_is_not_there_or_says_nothing_costs_no_more_than_the_deadline(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        outcome = deliver(make(dsn=f"postgresql://u:p@127.0.0.1:{port}/x"), request(0), 2.5)
    assert (only(outcome), outcome.after) == ("retry", None)
    outcome = deliver(make(dsn=f"postgresql://u:p@127.0.0.1:{port}/x"), request(0))
    assert only(outcome) == "retry"
    assert "refused" in outcome.reason.lower()


def test_a_statement_that_waits_for_a_lock_is_given_up_at_the_deadline(
    make: Make, server: Postgres, database: psycopg.Connection[Any]
) -> None:
    made = make()
    assert only(deliver(made, request(0))) == "done"
    with psycopg.connect(server.dsn) as other:
        other.execute("LOCK TABLE otelgw_calls")
        assert only(deliver(made, request(1), 0.5)) == "retry"
    assert only(deliver(made, request(1))) == "done"
    assert count(database) == 2


def test_a_server_that_is_restarted_loses_nothing_and_nothing_twice(
    make: Make, server: Postgres, database: psycopg.Connection[Any]
) -> None:
    made = make()
    assert only(deliver(made, request(0))) == "done"
    server.stop()
    assert only(deliver(made, [*request(0), *request(1)])) == "retry"
    server.start()
    assert only(deliver(made, [*request(0), *request(1)])) == "done"
    with psycopg.connect(server.dsn) as fresh:
        assert count(fresh) == 2


def test_one_row_that_is_refused_does_not_keep_the_others(make: Make, database: psycopg.Connection[Any]) -> None:
    made = make()
    deliver(made, request(9))
    database.execute("ALTER TABLE otelgw_calls ADD CHECK (call_id <> 'call-1')")
    outcome = deliver(made, [*request(0), *request(1), *request(2)])
    assert [verdict.state for verdict in outcome.verdicts] == ["done"] * 3 + ["dead"] * 3 + ["done"] * 3
    assert "23514" in outcome.reason
    assert count(database) == 3


@settings(max_examples=25, deadline=None, suppress_health_check=FIXED)
@given(text=st.text(max_size=40) | st.text("\0\\u0'\"%{}", max_size=12))
def test_any_text_can_be_stored(make: Make, database: psycopg.Connection[Any], text: str) -> None:
    database.execute("DROP TABLE IF EXISTS otelgw_calls")
    asked = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": text}]}).encode()
    outcome = deliver(make(), build(record(request=capture_whole(asked, "application/json"))))
    assert only(outcome) == "done", outcome
    found = database.execute("SELECT payload->'messages'->0->>'content' FROM otelgw_calls").fetchone()
    assert found is not None
    assert found[0] == text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def test_what_was_stored_is_read_back(make: Make) -> None:
    made = make()
    deliver(made, request(0))
    assert made.read_back(request(0), time.monotonic() + 10) == ""
    assert made.read_back([*request(0), *request(1)], time.monotonic() + 10) == "1 of 2 rows are there"


def test_a_shutdown_ends_a_delivery_that_waits(make: Make, server: Postgres) -> None:
    made = make()
    deliver(made, request(0))
    with psycopg.connect(server.dsn) as other:
        other.execute("LOCK TABLE otelgw_calls")
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(deliver(made, request(1), 60)))
        thread.start()
        deadline = time.monotonic() + 10
        while not _waiting(server) and time.monotonic() < deadline:
            time.sleep(0.02)
        made.shutdown()
        thread.join(10)
        assert not thread.is_alive()
    assert only(outcomes[0]) == "retry"


def _waiting(server: Postgres) -> bool:
    with psycopg.connect(server.dsn) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        found = connection.execute(query).fetchone()
    return found is not None and found[0] > 0


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"dsn": "what is this"}, "dsn: write postgresql://"),
        ({"table": "a.b.c"}, "is no table"),
        ({"table": 'calls"; DROP TABLE x'}, "is no table"),
        ({"dsn": None}, "dsn is missing; set it, or the variable OTELGW_POSTGRES_DSN"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(given: dict[str, Any], part: str) -> None:
    with pytest.raises(DestinationConfigError, match=part):
        PostgresExporter(**{"dsn": "postgresql://u:p@127.0.0.1:1/x", **given})
