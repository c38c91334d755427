"""PostgreSQL: a protocol and a server of its own."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn

__all__ = ["STAND_IN"]

STAND_IN = StandIn(
    options=lambda _: {"dsn": "postgresql://otelgw:postgres-secret-0123456789@127.0.0.1:1/postgres"},
    transport="local",
)
