"""What each process counts for itself, added up."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from otelgw.tally import COUNTED, Counts, Labels, Tally, Totals

NAME = "otelgw.http.refusals"
REFUSED: tuple[str, Labels] = (NAME, (("reason", "refused"),))
FLOOD: tuple[str, Labels] = (NAME, (("reason", "flood"),))

_WRITES = """
import sys
from pathlib import Path
from otelgw.tally import Tally
counts = {(sys.argv[3], (("reason", "refused"),)): int(sys.argv[4])}
Tally(Path(sys.argv[1]), sys.argv[2], lambda: counts).write()
"""


def by_a_process_that_is_gone(state: Path, name: str, count: int) -> None:
    subprocess.run([sys.executable, "-c", _WRITES, str(state), name, NAME, str(count)], check=True)


def files(state: Path) -> set[str]:
    return {path.name for path in (state / COUNTED).iterdir()}


def test_the_counts_of_all_processes_are_added_up(tmp_path: Path) -> None:
    first: dict[tuple[str, Labels], int] = {REFUSED: 3, FLOOD: 0}
    second: Counts = {REFUSED: 4, FLOOD: 1}
    tally = Tally(tmp_path, "w0_1_1", lambda: first)
    tally.write()
    Tally(tmp_path, "w1_1_1", lambda: second).write()
    totals = Totals(tmp_path)

    assert totals() == {REFUSED: 7, FLOOD: 1}
    first[REFUSED] = 5
    tally.write()
    assert totals() == {REFUSED: 9, FLOOD: 1}


def test_the_counts_of_a_process_that_is_gone_stay_and_its_file_does_not(tmp_path: Path) -> None:
    by_a_process_that_is_gone(tmp_path, "w0_9_9", 4)
    mine: Counts = {REFUSED: 1}
    Tally(tmp_path, "w1_1_1", lambda: mine).write()
    totals = Totals(tmp_path)

    assert totals() == {REFUSED: 5}
    assert files(tmp_path) == {"total.json", "w1_1_1.json"}
    assert totals() == Totals(tmp_path)() == {REFUSED: 5}


def test_a_crash_while_a_file_is_taken_over_counts_nothing_twice(tmp_path: Path) -> None:
    by_a_process_that_is_gone(tmp_path, "w0_9_9", 4)
    kept = (tmp_path / COUNTED / "w0_9_9.json").read_bytes()
    Totals(tmp_path)()
    (tmp_path / COUNTED / "w0_9_9.json").write_bytes(kept)  # the sum was written, the file not yet deleted

    totals = Totals(tmp_path)

    assert totals() == {REFUSED: 4}
    assert files(tmp_path) == {"total.json"}
    assert totals() == {REFUSED: 4}


def test_counting_began_when_the_state_directory_was_new(tmp_path: Path) -> None:
    first = Totals(tmp_path)
    first()

    assert first.since > 0
    assert Totals(tmp_path).since == first.since


def test_reading_changes_nothing(tmp_path: Path) -> None:
    by_a_process_that_is_gone(tmp_path, "w0_9_9", 4)

    assert Totals(tmp_path).read() == {REFUSED: 4}
    assert files(tmp_path) == {"w0_9_9.json"}


def test_a_directory_that_is_not_there_costs_the_numbers_and_nothing_else(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    Tally(missing, "w0_1_1", lambda: {REFUSED: 1}).write()

    assert Totals(missing)() == {}
    assert not missing.exists()


def test_the_last_numbers_are_written_at_the_end_too(tmp_path: Path) -> None:
    counts: dict[tuple[str, Labels], int] = {}

    async def run() -> None:
        keeping = asyncio.get_running_loop().create_task(Tally(tmp_path, "w0_1_1", lambda: counts).keep())
        await asyncio.sleep(0)
        counts[REFUSED] = 2
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    asyncio.run(run())

    assert Totals(tmp_path)() == {REFUSED: 2}


@given(st.binary(max_size=60))
def test_a_file_that_is_none_is_passed_over(tmp_path_factory: object, data: bytes) -> None:
    state = tmp_path_factory.mktemp("state")  # type: ignore[attr-defined]
    (state / COUNTED).mkdir()
    (state / COUNTED / "w0_1_1.json").write_bytes(data)
    (state / COUNTED / "total.json").write_bytes(data)
    Tally(state, "w1_1_1", lambda: {REFUSED: 1}).write()

    assert Totals(state)()[REFUSED] >= 1


def test_its_files_are_for_nobody_else(tmp_path: Path) -> None:
    Tally(tmp_path, "w0_1_1", lambda: {REFUSED: 1}).write()
    path = tmp_path / COUNTED / "w0_1_1.json"

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
