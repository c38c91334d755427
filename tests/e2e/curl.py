"""curl as a user runs it, without the user's settings and proxies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

__all__ = ["Answer", "curl", "program"]

_MARK = "\n--otelgw--"


class Answer(NamedTuple):
    """What curl got. ``headers`` are the last answer's, names in lower case; ``version`` is "1.1" or "2"."""

    status: int
    version: str
    headers: dict[str, str]
    body: bytes
    log: str


def program() -> str:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("no curl on this machine")
    return found


def curl(directory: Path, *arguments: str, body: bytes | None = None) -> Answer:
    """Run curl; ``body`` is its standard input, for ``@-``. An assertion error if curl itself fails."""
    heads, data = directory / "curl.head", directory / "curl.body"
    for path in (heads, data):
        path.write_bytes(b"")
    shown = f"{_MARK}%{{http_code}} %{{http_version}}"
    command = [program(), "-q", "-sS", "-v", "--noproxy", "*", "--max-time", "20", "-D", str(heads), "-o", str(data)]
    done = subprocess.run([*command, "-w", shown, *arguments], input=body or b"", capture_output=True, check=False)
    log = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, log
    status, _, version = done.stdout.decode().rpartition(_MARK)[2].partition(" ")
    return Answer(int(status), version, _headers(heads.read_text("latin-1")), data.read_bytes(), log)


def _headers(text: str) -> dict[str, str]:
    last: Any = text.strip().replace("\r\n", "\n").split("\n\n")[-1]
    pairs = (line.partition(":") for line in last.splitlines()[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}
