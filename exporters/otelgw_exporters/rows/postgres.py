"""PostgreSQL."""

from __future__ import annotations

from otelgw_exporters.rows import Option, Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    Row(
        "postgres",
        "otelgw_exporters.postgres:PostgresExporter",
        "PostgreSQL: a row of each call, with the standard payload as jsonb",
        options=(
            Option(
                "dsn",
                "text",
                "postgresql://user:password@host:5432/database, or host=… user=…; what it leaves out libpq's variables "
                "say (PGHOST, PGPASSWORD, PGSSLMODE …)",
                env=("OTELGW_POSTGRES_DSN",),
                secret=True,
                required=True,
            ),
            Option("table", "text", "table, or schema.table", "otelgw_calls", env=("OTELGW_POSTGRES_TABLE",)),
            Option("create", "flag", "make the table if it is not there", True),
            Option("timeout", "seconds", "for one statement", 10.0),
        ),
        proof="server",
        settings="dsn: os.environ/OTELGW_POSTGRES_DSN\n",
    ),
)
