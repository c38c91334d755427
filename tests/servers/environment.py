"""Servers that are Python programs, each in a virtual environment of its own, so that none of them shapes another's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.cache import place

__all__ = ["build", "find"]

_DONE = "installed"
_MINORS = range(11, 16)


def _directory(name: str, requirements: Sequence[str], minor: int) -> Path:
    return place(name, "\n".join((f"3.{minor}", *requirements)).encode())


def find(name: str, requirements: Sequence[str], program: str = "python") -> Path | None:
    """Return ``program`` of the environment that has ``requirements`` (exact versions); None if it was not made.

    The Python in it may be another than the tests' own.
    """
    own = sys.version_info[1]
    for minor in (own, *(other for other in _MINORS if other != own)):
        directory = _directory(name, requirements, minor)
        if (directory / _DONE).is_file():
            return directory / "bin" / program
    return None


def build(name: str, requirements: Sequence[str], program: str = "python") -> Path:
    """Return ``program`` of the environment; makes it if it is not there."""
    if found := find(name, requirements, program):
        return found
    directory = _directory(name, requirements, sys.version_info[1])
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    python = directory / "bin" / "python"
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "-q", "install", *requirements], check=True)
    (directory / _DONE).touch()
    return directory / "bin" / program
