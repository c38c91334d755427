"""Servers that are Python programs, each in a virtual environment of its own, so that none of them shapes another's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.cache import place

__all__ = ["build", "find"]

_DONE = "installed"


def _recipe(requirements: Sequence[str]) -> bytes:
    return "\n".join((f"{sys.version_info[0]}.{sys.version_info[1]}", *requirements)).encode()


def find(name: str, requirements: Sequence[str], program: str = "python") -> Path | None:
    """Return ``program`` of the environment that has ``requirements`` (exact versions); None if it was not made."""
    directory = place(name, _recipe(requirements))
    return directory / "bin" / program if (directory / _DONE).is_file() else None


def build(name: str, requirements: Sequence[str], program: str = "python") -> Path:
    """Return ``program`` of the environment; makes it if it is not there."""
    if found := find(name, requirements, program):
        return found
    directory = place(name, _recipe(requirements))
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    python = directory / "bin" / "python"
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "-q", "install", *requirements], check=True)
    (directory / _DONE).touch()
    return directory / "bin" / program
