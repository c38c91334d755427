"""Where real servers are kept between runs: ``${OTELGW_CACHE:-~/.cache/otelgw}/<name>/<hash of the recipe>``."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["build_once", "cached", "go", "place"]


def place(name: str, recipe: bytes) -> Path:
    """Return the directory for what is built from ``recipe``."""
    root = os.environ.get("OTELGW_CACHE", "").strip()
    directory = Path(root) if root else Path.home() / ".cache" / "otelgw"
    return directory / name / hashlib.sha256(recipe).hexdigest()[:16]


def cached(name: str, recipe: bytes, file: str) -> Path | None:
    """Return ``file`` as built from ``recipe``; None if it is not there."""
    path = place(name, recipe) / file
    return path if path.is_file() else None


def build_once(name: str, recipe: bytes, file: str, build: Callable[[Path], Path]) -> Path:
    """Return ``file``; if it is not there, ``build`` it in an empty directory and keep what it returns."""
    if path := cached(name, recipe, file):
        return path
    home = place(name, recipe)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        built = build(Path(scratch))
        arriving = home / f"{file}.{os.getpid()}"
        shutil.move(built, arriving)
    arriving.replace(home / file)
    return home / file


def go() -> str:
    """Return the go command; also from Go's own install directory, which no PATH holds by default.

    Raises:
        FileNotFoundError: there is none.
    """
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise FileNotFoundError("go: install Go, the newest (go.dev/doc/install)")
    return found
