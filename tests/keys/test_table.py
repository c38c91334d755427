"""The counters that workers share: exact over processes, alive after their deaths."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otelgw.keys import table as tables
from otelgw.keys.schema import Quota
from otelgw.keys.table import Counted, Refusal, Subject, Table

NOW = 1_000_000.0
THREE = Subject("key:a", Quota(rpm=3))
TEAM = Subject("team:t", Quota(rpm=4))


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with contextlib.closing(Table(tmp_path / "limits.table")) as made:
        yield made


def test_a_minute_has_so_many_requests_and_then_a_new_one_begins(table: Table) -> None:
    taken = [table.take([THREE], NOW + second) for second in (0, 1, 2)]

    assert taken == [[Counted(2, None, 60.0)], [Counted(1, None, 59.0)], [Counted(0, None, 58.0)]]
    assert table.take([THREE], NOW + 30) == Refusal(THREE, "rpm", 30.0)
    assert table.take([THREE], NOW + 59.9) == Refusal(THREE, "rpm", pytest.approx(0.1, abs=1e-3))
    assert table.take([THREE], NOW + 60) == [Counted(2, None, 60.0)]


def test_what_is_refused_is_not_counted_anywhere(table: Table) -> None:
    other = Subject("key:b", Quota(rpm=100))
    for _ in range(4):
        table.take([other, TEAM], NOW)

    assert table.take([THREE, TEAM], NOW) == Refusal(TEAM, "rpm", 60.0)
    assert table.take([THREE], NOW) == [Counted(2, None, 60.0)]


def test_tokens_are_those_that_are_known_to_be_used(table: Table) -> None:
    limited = Subject("key:a", Quota(tpm=100))

    assert table.take([limited], NOW) == [Counted(None, 100, 60.0)]
    table.charge([limited], 99, 0.0, NOW + 1)
    assert table.take([limited], NOW + 2) == [Counted(None, 1, 58.0)]
    table.charge([limited], 50, 0.0, NOW + 3)
    assert table.take([limited], NOW + 4) == Refusal(limited, "tpm", 56.0)
    assert table.take([limited], NOW + 60) == [Counted(None, 100, 60.0)]


def test_a_budget_is_used_up_by_what_is_saved_and_what_is_not(table: Table) -> None:
    limited = Subject("key:a", Quota(budget=1.0, period="1h"))
    table.know("key:a", 0.6, NOW + 100, NOW)
    table.charge([limited], 0, 0.3, NOW)
    assert isinstance(table.take([limited], NOW), list)
    table.charge([limited], 0, 0.1, NOW)

    assert table.take([limited], NOW) == Refusal(limited, "budget", 100.0)
    table.know("key:a", 1.0, NOW + 100, NOW, saved=0.4)
    assert table.slot("key:a", NOW).unsaved == 0.0
    assert table.take([limited], NOW) == Refusal(limited, "budget", 100.0)
    assert isinstance(table.take([limited], NOW + 100), list)


def test_a_budgets_period_begins_with_the_first_spending(table: Table) -> None:
    limited = Subject("key:a", Quota(budget=1.0, period="1h"))
    table.charge([limited], 0, 2.0, NOW)

    assert table.take([limited], NOW + 10) == Refusal(limited, "budget", 3590.0)


def test_a_budget_of_nothing_lets_nothing_through(table: Table) -> None:
    limited = Subject("key:a", Quota(budget=0.0))

    assert isinstance(table.take([limited], NOW), Refusal)


def test_rates_that_are_counted_elsewhere_are_left_alone(table: Table) -> None:
    for _ in range(9):
        assert table.take([THREE], NOW, rates=False) == []

    assert table.slot("key:a", NOW).requests == 0


def test_a_clock_that_was_set_back_begins_a_new_minute(table: Table) -> None:
    for _ in range(3):
        table.take([THREE], NOW)

    assert isinstance(table.take([THREE], NOW - 1000), list)


def test_the_file_is_its_owners_and_has_all_its_room(tmp_path: Path, table: Table) -> None:
    state = (tmp_path / "limits.table").stat()

    assert stat.S_IMODE(state.st_mode) == 0o600
    assert state.st_blocks * 512 >= state.st_size


def test_without_a_file_a_worker_counts_for_itself() -> None:
    with contextlib.closing(Table(None)) as one, contextlib.closing(Table(None)) as other:
        assert [isinstance(one.take([THREE], NOW), list) for _ in range(4)] == [True, True, True, False]
        assert isinstance(other.take([THREE], NOW), list)
        one.changed()
        assert (one.generation, other.generation) == (1, 0)


def test_a_file_of_another_layout_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "limits.table").write_bytes(b"something else" * 1000)
    with contextlib.closing(Table(tmp_path / "limits.table")) as table:
        assert table.generation == 0
        assert isinstance(table.take([THREE], NOW), list)


def test_every_worker_sees_that_something_changed(tmp_path: Path, table: Table) -> None:
    with contextlib.closing(Table(tmp_path / "limits.table")) as other:
        before = other.generation
        table.changed()
        assert other.generation == before + 1


def test_an_idle_slot_is_given_away_and_one_with_unsaved_spending_is_not(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_SLOTS", 3)
    budget = Subject("key:owes", Quota(rpm=5, budget=9.0))
    table.charge([budget], 0, 1.0, NOW)
    table.take([THREE], NOW)

    late = NOW + 7200
    third = Subject("key:third", Quota(rpm=5))
    assert table.take([third], NOW) == []
    assert table.full == 1
    assert table.take([third], late) == [Counted(4, None, 60.0)]
    assert table.slot("key:owes", late).unsaved == 1.0


def test_ten_thousand_subjects_have_their_own_counters(table: Table) -> None:
    for number in range(10_000):
        table.take([Subject(f"key:{number}", Quota(rpm=9))] * 1, NOW)

    assert table.full == 0
    assert {table.slot(f"key:{number}", NOW).requests for number in range(0, 10_000, 97)} == {1}


def _take(path: str, count: int, results: Any) -> None:
    table = Table(Path(path))
    subject, team = Subject("key:a", Quota(rpm=500)), Subject("team:t", Quota(rpm=450))
    taken = sum(isinstance(table.take([subject, team], NOW), list) for _ in range(count))
    table.charge([subject], taken, 0.0, NOW)
    results.put(taken)
    table.close()


def test_workers_together_take_exactly_the_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    path = str(tmp_path / "limits.table")
    processes = [context.Process(target=_take, args=(path, 400, results)) for _ in range(3)]
    for process in processes:
        process.start()
    taken = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)

    with contextlib.closing(Table(Path(path))) as table:
        assert sum(taken) == 450
        assert table.slot("team:t", NOW).requests == 450
        assert table.slot("key:a", NOW).tokens == 450


def _hold(path: str, ready: Any) -> None:
    table = Table(Path(path))
    with table._locked([table._place("key:a", NOW)]):
        ready.set()
        signal.pause()


def test_a_worker_that_is_killed_lets_go_of_its_locks(tmp_path: Path, table: Table) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path / "limits.table"), ready))
    process.start()
    assert ready.wait(30)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(10)

    assert isinstance(table.take([THREE], NOW), list)
