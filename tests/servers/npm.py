"""Servers that are Node programs, each with a tree of packages of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers.cache import place

__all__ = ["build", "find"]

_DONE = "installed"


def find(name: str, requirement: str, program: str) -> Path | None:
    """Return ``program`` of the package ``requirement`` (``name@exact version``); None if it is not installed."""
    directory = place(name, requirement.encode())
    found = directory / "node_modules" / ".bin" / program
    return found if shutil.which("node") and (directory / _DONE).is_file() else None


def build(name: str, requirement: str, program: str) -> Path:
    """Return ``program`` of the package; installs it if it is not there.

    Raises:
        FileNotFoundError: npm is not installed.
    """
    if found := find(name, requirement, program):
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm: install Node.js 20 or newer, with npm")
    directory = place(name, requirement.encode())
    directory.mkdir(parents=True, exist_ok=True)
    quiet = ("--no-audit", "--no-fund", "--no-save", "--loglevel=error")
    subprocess.run([npm, "install", *quiet, "--prefix", str(directory), requirement], check=True, cwd=directory)
    (directory / _DONE).touch()
    return directory / "node_modules" / ".bin" / program
