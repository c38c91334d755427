"""dynalite, a DynamoDB on LevelDB (npm ``dynalite``): strict about limits where moto is not.

::

    with Dynalite(require("dynalite")) as running:
        running.url
"""

from __future__ import annotations

from pathlib import Path

from tests.servers import npm
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["Dynalite", "build", "find"]

_REQUIREMENT = "dynalite@4.0.0"


def find() -> Path | None:
    """Return dynalite's program; None if it is not installed."""
    return npm.find("dynalite", _REQUIREMENT, "dynalite")


def build() -> Path:
    """Install dynalite, unless it is there; takes some seconds."""
    return npm.build("dynalite", _REQUIREMENT, "dynalite")


class Dynalite(Process):
    """A running dynalite, in memory; tables are there as soon as they are created."""

    def __init__(self, program: Path) -> None:
        port = free_port()
        super().__init__([program, "--port", str(port), "--host", "127.0.0.1", "--createTableMs", "0"], port)
