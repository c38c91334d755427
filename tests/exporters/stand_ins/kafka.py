"""Kafka: a protocol and a server of its own."""

from __future__ import annotations

from tests.exporters.stand_ins import StandIn

__all__ = ["STAND_IN"]

STAND_IN = StandIn(
    options=lambda _: {
        "brokers": "127.0.0.1:1",
        "username": "gateway",
        "password": "kafka-secret-0123456789",
        "client": {"sasl.oauthbearer.client.secret": "other-secret-0123456789"},
    },
    transport="local",
)
