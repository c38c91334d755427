"""Real servers that tests run against. ``python -m tests.servers build`` gets them; tests use what is there."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["SERVERS", "Server", "require"]


class Server(NamedTuple):
    """How to come by one server: ``find`` returns its program or None, ``build`` makes sure that it is there."""

    find: Callable[[], Path | None]
    build: Callable[[], Path]


def _of(module: str) -> Server:
    loaded = importlib.import_module(f"tests.servers.{module}")
    return Server(loaded.find, loaded.build)


# One line a server: its name, and the module beside this one that has ``find`` and ``build``.
SERVERS: Mapping[str, Server] = {
    "ddapm": _of("ddapm"),
    "azurite": _of("azurite"),
    "collector": _of("collector"),
    "dynalite": _of("dynalite"),
    "elasticsearch": _of("elasticsearch"),
    "fake_gcs": _of("fake_gcs"),
    "jaeger": _of("jaeger"),
    "kafka": _of("kafka"),
    "mlflow": _of("mlflow"),
    "moto": _of("moto"),
    "opensearch": _of("opensearch"),
    "phoenix": _of("phoenix"),
    "postgres": _of("postgres"),
    "redis": _of("redis"),
    "seaweedfs": _of("seaweedfs"),
    "sentry_relay": _of("sentry_relay"),
    "tempo": _of("tempo"),
    "zipkin": _of("zipkin"),
}


def require(name: str) -> Path:
    """Return a server's program. Where it is not there the test is skipped, or fails if OTELGW_REQUIRE names it."""
    found = SERVERS[name].find()
    if found is not None:
        return found
    reason = f"the server {name!r} is not there: python -m tests.servers build {name}"
    if name in {wanted.strip() for wanted in os.environ.get("OTELGW_REQUIRE", "").split(",")}:
        pytest.fail(reason)
    pytest.skip(reason)
