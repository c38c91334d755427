"""A destination that takes connections and never answers: what it costs the pipeline, and what it costs the others."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORDS = 66 * 1024  # of three spans each
MIB = 160  # what the pipeline's memory may take; docs/reference/reliability.md says so


def lived(directory: Path, port: int, records: int, size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.collector.black_hole", str(directory), str(port), str(records), str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_black_hole_takes_bounded_memory_counts_what_it_loses_and_holds_up_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        found = lived(tmp_path, hole.getsockname()[1], RECORDS, 200)

    assert found["healthy"] == RECORDS * 3
    assert found["dropped_healthy"] == 0
    assert found["hole_delivered"] == 0, "the others had everything while it had nothing"
    assert found["mib"] < MIB, found
    assert found["dropped"] > 0
    assert found["dropped"] * 3 + found["hole"] == RECORDS * 3
    assert found["left"] == 0
