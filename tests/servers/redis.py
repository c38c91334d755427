"""Redis or Valkey, as the system's package has it (Debian: ``redis-server`` or ``valkey-server``), in memory only.

::

    with Redis(require("redis")) as running:
        running.dsn
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["Redis", "build", "find"]

_PASSWORD = "redis-canary"


def find() -> Path | None:
    """Return the server's program; None if it is not installed."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


def build() -> Path:
    """Return the server; it is not built here.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = find()
    if found is None:
        raise FileNotFoundError("neither Redis nor Valkey is installed (Debian: apt-get install redis-server)")
    return found


class Redis(Process):
    """A running server with a password, which ``dsn`` has."""

    def __init__(self, program: Path, port: int = 0) -> None:
        port = port or free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", _PASSWORD]
        super().__init__(command, port)
        self.dsn = f"redis://:{_PASSWORD}@127.0.0.1:{port}/0"
