"""PostgreSQL: a row of each call, by its delivery identity, so that what is sent twice is there once.

A batch is one statement with one parameter. Needs psycopg 3: ``pip install 'otelgw[postgres]'``.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, document, http, options, payload
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import OPERATOR_DELAY, Reply
from otelgw_exporters.errors import DestinationConfigError, naming
from otelgw_exporters.posting import Limits, Piece, Posting, write_array

if TYPE_CHECKING:
    from psycopg import Connection, Error

__all__ = ["PostgresExporter"]

_LIMITS = Limits(1000, 8_000_000)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TABLE = "otelgw_calls"
_LOCK = 0x07E1_0001  # of the session that makes the table; any number that nobody else uses
_COLUMNS: tuple[tuple[str, str], ...] = (
    ("id", "text"),
    ("call_id", "text"),
    ("trace_id", "text"),
    ("span_id", "text"),
    ("session_id", "text"),
    ("start_time", "timestamptz"),
    ("end_time", "timestamptz"),
    ("time_to_first_chunk", "double precision"),
    ("status", "text"),
    ("error_type", "text"),
    ("error_message", "text"),
    ("call_type", "text"),
    ("provider", "text"),
    ("model", "text"),
    ("model_group", "text"),
    ("key_hash", "text"),
    ("key_alias", "text"),
    ("team_id", "text"),
    ("team_alias", "text"),
    ("end_user", "text"),
    ("tags", "text[]"),
    ("prompt_tokens", "bigint"),
    ("completion_tokens", "bigint"),
    ("total_tokens", "bigint"),
    ("cost", "numeric"),
    ("payload", "jsonb"),
)
# SQLSTATEs, by their beginning; the longest that fits counts. What is not here passes, as a lost connection does.
_OPERATOR: Mapping[str, str] = {
    "28": "mend the user or the password in the destination's dsn",
    "3D": "there is no such database: make it, or mend the destination's dsn",
    "3F": "there is no such schema: make it, or mend the destination's table",
    "42501": "the role lacks the right: GRANT INSERT, SELECT on the table, or CREATE on its schema",
    "42P01": "there is no such table: set create: true, or make it from schema/postgres.sql",
    "42": "the table is not the one that is expected: compare it with schema/postgres.sql",
}
_REFUSED = ("21", "22", "23", "54")


class PostgresExporter(Posting):
    """Inserts rows. Keywords are the options of the catalog row ``postgres``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or psycopg is missing.
    """

    def __init__(self, *, name: str = "postgres", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("postgres"), given)
            self._table = _names(chosen["table"])
            self._dsn, self._shown, secrets = _target(chosen["dsn"], chosen["timeout"])
        super().__init__(name, timeout=chosen["timeout"], limits=_LIMITS)
        self._create: bool = chosen["create"]
        self._mask = http.Masked(secrets)
        self._connection: Connection[Any] | None = None
        self._lock = threading.Lock()

    def encode(self, call: Call) -> bytes | None:
        data = payload.encoded(call)
        read = document.read(data)
        if rb"\u0000" in data:
            read = _without_nul(read)
        return document.write(_row(call.identity, read))

    def send(self, part: Sequence[Piece], deadline: float) -> Reply:
        rows = write_array(part).decode()

        def insert(connection: Connection[Any]) -> Reply:
            connection.execute(self._statement(), (rows,))
            return Reply("accepted")

        return self._with_connection(insert, deadline)

    def read_back(self, spans: Sequence[ReadableSpan], deadline: float) -> str:
        """Return nothing if every call of ``spans`` is in the table; else what is wrong."""
        wanted = [call.identity for call in payload.calls(spans)]

        def find(connection: Connection[Any]) -> Reply:
            from psycopg import sql

            query = sql.SQL("SELECT count(*) FROM {} WHERE id = ANY(%s)").format(sql.Identifier(*self._table))
            (count,) = connection.execute(query, (wanted,)).fetchone() or (0,)
            return Reply("accepted" if count == len(wanted) else "refused", f"{count} of {len(wanted)} rows are there")

        reply = self._with_connection(find, deadline)
        return "" if reply.kind == "accepted" else reply.reason

    def _with_connection(self, work: Callable[[Connection[Any]], Reply], deadline: float) -> Reply:
        """Do ``work`` in a transaction of its own."""
        import psycopg

        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return Reply("again", f"{self._shown}: busy")
        try:
            connection = self._connected(deadline)
            with self._bounded(connection, deadline), connection.transaction():
                return work(connection)
        except (psycopg.Error, OSError) as error:
            self._drop()
            if self._stopped.is_set():
                return Reply("again", "the destination is shut down")
            return _classified(error, self._shown, self._mask)
        finally:
            self._lock.release()

    def _connected(self, deadline: float) -> Connection[Any]:
        import psycopg

        connection = self._connection
        if connection is None or connection.closed:
            # libpq counts whole seconds, and takes less than two for two.
            left = max(2, int(deadline - time.monotonic()))
            connection = psycopg.connect(self._dsn, connect_timeout=left, autocommit=True)
            self._connection = connection
            with self._bounded(connection, deadline):
                self._made(connection)
        return connection

    def _made(self, connection: Connection[Any]) -> None:
        """Make the table if that is wanted and it is not there."""
        from psycopg import sql

        if not self._create:
            return
        name = sql.Identifier(*self._table).as_string(connection)
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            (there,) = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() or (None,)
            if there is None:
                text = files("otelgw_exporters").joinpath("schema/postgres.sql").read_text(encoding="utf-8")
                connection.execute(text.replace(_TABLE, name).encode())

    @contextlib.contextmanager
    def _bounded(self, connection: Connection[Any], deadline: float) -> Iterator[None]:
        """Have what is waited for end at ``deadline``, also where the network says nothing any more."""
        timer = threading.Timer(max(0.01, deadline - time.monotonic()), _cut, (connection,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _statement(self) -> Any:
        from psycopg import sql

        columns = sql.SQL(", ").join(sql.Identifier(name) for name, _ in _COLUMNS)
        typed = sql.SQL(", ").join(sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in _COLUMNS)
        return sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM jsonb_to_recordset(%s::jsonb) AS r({}) ON CONFLICT (id) DO NOTHING"
        ).format(sql.Identifier(*self._table), columns, columns, typed)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def shutdown(self) -> None:
        super().shutdown()
        connection = self._connection
        if connection is not None:
            _cut(connection)
        with self._lock:
            self._drop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._shown}>"


def _names(table: str) -> tuple[str, ...]:
    names = tuple(table.split("."))
    if len(names) > 2 or not all(map(_IDENTIFIER.fullmatch, names)):
        raise DestinationConfigError(f"table: {table!r} is no table; write name, or schema.name")
    return names


def _target(dsn: str, timeout: float) -> tuple[str, str, dict[str, str]]:
    """Return the connection string, what of it may be shown, and its secrets."""
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError:
        raise DestinationConfigError("PostgreSQL needs psycopg: pip install 'otelgw[postgres]'") from None
    try:
        found = conninfo_to_dict(dsn)
    except ProgrammingError:
        raise DestinationConfigError("dsn: write postgresql://user:password@host:5432/database") from None
    given: dict[str, Any] = {
        "application_name": "otelgw",
        "keepalives_idle": 30,
        "tcp_user_timeout": int(timeout * 1000),
        **found,
    }
    shown = f"postgresql://{found.get('host') or 'PGHOST'}:{found.get('port') or 5432}/{found.get('dbname') or ''}"
    secrets = {name: str(found[name]) for name in ("password", "sslpassword") if found.get(name)}
    return make_conninfo(**given), shown, secrets


def _cut(connection: Connection[Any]) -> None:
    """Break a connection under whoever waits for it."""
    with contextlib.suppress(Exception), socket.socket(fileno=_duplicate(connection)) as held:
        held.shutdown(socket.SHUT_RDWR)


def _duplicate(connection: Connection[Any]) -> int:
    return os.dup(connection.fileno())


def _classified(error: Error | OSError, shown: str, mask: Callable[[str], str]) -> Reply:
    """Return what an error means for the rows of its statement."""
    state: str = getattr(error, "sqlstate", None) or ""
    said = mask(" ".join(str(error).split()))
    reason = f"{shown}: {f'{state}: ' if state else ''}{said}"
    if not state and "authentication failed" in str(error):
        state = "28"
    if not state and "does not exist" in str(error):
        state = "3D"
    hint = next((_OPERATOR[start] for start in (state, state[:2]) if start in _OPERATOR), "")
    if hint:
        return Reply("again", f"{reason} ({hint})", OPERATOR_DELAY)
    return Reply("refused" if state.startswith(_REFUSED) else "again", reason)


def _without_nul(value: Any) -> Any:
    """Return a value without the one character that PostgreSQL stores nowhere."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list) else value


def _row(identity: str, read: Mapping[str, Any]) -> dict[str, Any]:
    held, beyond, told = read["metadata"], read["otelgw"], read["error_information"]
    return {
        "id": identity,
        "call_id": read["id"],
        "trace_id": beyond["trace_id"],
        "span_id": beyond["span_id"],
        "session_id": beyond["session_id"],
        "start_time": _time(read["startTime"]),
        "end_time": _time(read["endTime"]),
        "time_to_first_chunk": beyond["time_to_first_chunk"],
        "status": read["status"],
        "error_type": beyond["error_type"],
        "error_message": told["error_message"] or None,
        "call_type": read["call_type"],
        "provider": read["custom_llm_provider"],
        "model": read["model"],
        "model_group": read["model_group"],
        "key_hash": held["user_api_key_hash"],
        "key_alias": held["user_api_key_alias"],
        "team_id": held["user_api_key_team_id"],
        "team_alias": held["user_api_key_team_alias"],
        "end_user": read["end_user"] or None,
        "tags": read["request_tags"],
        "prompt_tokens": read["prompt_tokens"],
        "completion_tokens": read["completion_tokens"],
        "total_tokens": read["total_tokens"],
        "cost": read["hidden_params"]["response_cost"],
        "payload": read,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
