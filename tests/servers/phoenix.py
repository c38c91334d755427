"""The real Phoenix, in an environment of its own. Its licence (Elastic 2.0) lets it stand for tests only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers import environment
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["build", "find", "running"]

_REQUIREMENTS = ("arize-phoenix==20.26.1",)


def find() -> Path | None:
    """Return Phoenix's program if it was installed."""
    return environment.find("phoenix", _REQUIREMENTS, "phoenix")


def build() -> Path:
    """Install Phoenix, unless it is there; takes a minute and 600 MB."""
    return environment.build("phoenix", _REQUIREMENTS, "phoenix")


def running(program: Path, directory: Path, more: Mapping[str, str] | None = None) -> Process:
    """Return a server that keeps its database in ``directory``; ``more`` are further variables."""
    port = free_port()
    env = {
        "PHOENIX_WORKING_DIR": str(directory),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        **(more or {}),
    }
    return Process([program, "serve"], port, env=env)
