"""However often and whenever the pipeline dies: nothing is lost, and what is sent again is sent in the same batch.

Workers live and die beside it. ``DEATHS_SEED`` decides who dies when, not how the system schedules what runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from otelgw_collector.segment_format import INTENT
from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import eventually, running
from tests.collector.mortal import DESTINATIONS, build

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("DEATHS_SEED") or random.SystemRandom().randrange(10**6))
LIVES = 20 if os.environ.get("CI") else 8


class Workers:
    """Three workers at a time. ``expected`` is what the destinations have to be given."""

    def __init__(self, spool: Path, rng: random.Random) -> None:
        self._spool = spool
        self._rng = rng
        self._number = self._names = 0
        self._all = [self._born() for _ in range(3)]
        self.expected: set[str] = set()

    def _born(self) -> tuple[SegmentWriter, list[bytes]]:
        self._names += 1
        size = self._rng.choice((100, 400, 2000, 100_000))
        return SegmentWriter(self._spool, f"w{self._names}_1", max_bytes=size), []

    def step(self) -> None:
        """One of them begins or ends a request, or writes something else, or dies."""
        slot, what = self._rng.randrange(3), self._rng.random()
        writer, in_flight = self._all[slot]
        self._number += 1
        name = b"%08d" % self._number
        if what < 0.3:
            writer.append(name + name, INTENT)
            in_flight.append(name)
        elif what < 0.6 and in_flight:
            name = in_flight.pop(self._rng.randrange(len(in_flight)))
            writer.append(b"done " + name, settles=name)
            self.expected.add("done " + name.decode())
        elif what < 0.96:
            writer.append(name)
            self.expected.add(name.decode())
        else:
            self._die(slot)

    def _die(self, slot: int) -> None:
        writer, in_flight = self._all[slot]
        writer.close()
        self.expected.update("killed " + name.decode() for name in in_flight)
        self._all[slot] = self._born()

    def die(self) -> None:
        for slot in range(3):
            self._die(slot)


@contextmanager
def one_life_after_the_other(home: Path, retention: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.collector.mortal", str(home), str(retention)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mortal:
        yield mortal
        assert mortal.stdin is not None
        mortal.stdin.close()
        assert mortal.wait(20) == 0


def told(mortal: subprocess.Popen[str], line: str) -> int:
    assert mortal.stdin is not None
    assert mortal.stdout is not None
    mortal.stdin.write(f"{line}\n")
    mortal.stdin.flush()
    return int(mortal.stdout.readline())


def tries(home: Path) -> dict[str, dict[str, list[list[str]]]]:
    """Return by destination and record every batch that it was in."""
    found: dict[str, dict[str, list[list[str]]]] = {name: {} for name in DESTINATIONS}
    for line in (home / "tries").read_text().split("\n")[:-1]:
        destination, batch = json.loads(line)
        for name in batch:
            found[destination].setdefault(name, []).append(batch)
    return found


@pytest.mark.parametrize("retention", [0.0, 3600.0], ids=["deleted at once", "kept"])
def test_however_often_it_dies_all_is_delivered_and_what_comes_again_comes_in_the_same_batch(
    tmp_path: Path, retention: float
) -> None:
    print(f"DEATHS_SEED={SEED}")
    rng = random.Random(SEED)
    workers = Workers(tmp_path / "spool", rng)
    with one_life_after_the_other(tmp_path, retention) as mortal:
        for life in range(LIVES):
            child = told(mortal, str(SEED * 1000 + life))
            end = time.monotonic() + rng.uniform(0.05, 0.8)
            while time.monotonic() < end:
                for _ in range(rng.randrange(4)):
                    workers.step()
                time.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.3:
                workers.die()
            if rng.random() < 0.3:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
                time.sleep(rng.uniform(0, 0.6))
            told(mortal, "")
    workers.die()
    with running(build(tmp_path, retention), 20):
        eventually(lambda: all(each.keys() >= workers.expected for each in tries(tmp_path).values()))

    for name, batches in tries(tmp_path).items():
        assert batches.keys() == workers.expected, name
        assert {each: all_ for each, all_ in batches.items() if any(batch != all_[0] for batch in all_)} == {}, name
