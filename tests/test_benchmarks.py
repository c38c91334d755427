"""The benchmark runs, accounts for every process, and notices a wrong answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.processes import PROC, usage
from benchmarks.targets import start_backends

ROOT = Path(__file__).parents[1]

if not (PROC / "self/stat").exists():
    pytest.skip("the benchmark reads CPU times from /proc", allow_module_level=True)


def test_the_gateway_is_measured_and_every_generation_reaches_the_sink(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks", "--only", "direct,otelgw-hypercorn", "--rounds", "1"]
    command += ["--concurrency", "4", "--requests", "200", "--streams", "4", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    cells = {(cell["target"], cell["kind"]): cell for cell in json.loads(out.read_text())["cells"]}
    assert cells.keys() == {(t, k) for t in ("direct", "otelgw-hypercorn") for k in ("requests", "streams")}
    measured = cells["otelgw-hypercorn", "requests"]
    assert measured["missing"] == 0
    assert measured["cpu"] > 0
    assert measured["pipeline_cpu"] > 0
    assert "otelgw-hypercorn" in done.stdout


def test_a_wrong_answer_stops_the_measurement(tmp_path: Path) -> None:
    with start_backends(tmp_path) as backends:
        port = backends.upstream.port
        request = load.request_bytes(port, b"{}", key="sk-any")
        answer = load.fetch(port, request)
        assert answer.status == 200
        assert len(load.run(port, request, answer, count=50, concurrency=4).latency) == 50
        with pytest.raises(load.LoadError, match="unexpected answer"):
            load.run(port, request, load.Answer(200, answer.body + b" "), count=50, concurrency=4)


def test_cpu_of_children_is_counted_and_the_pipeline_apart() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}, 'marked'])"
    before = usage(os.getpid(), "marked")
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        after = usage(os.getpid(), "marked")
        process.communicate("\n")
    assert len(after.pids - before.pids) == 2
    assert after.pipeline >= 0.29
    assert before.pipeline == 0.0
