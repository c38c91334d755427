"""Records that wait for tenants' destinations outlast the process, and keep to their room."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelgw.tenant_queue import Parcel, TenantQueue

KIB = 1024


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[TenantQueue]:
    with contextlib.closing(TenantQueue(tmp_path / "tenants.db", 64 * KIB)) as made:
        yield made


def parcels(route: str, *numbers: int, size: int = 100) -> list[Parcel]:
    return [Parcel(route, f"record-{number}", bytes([number % 256]) * size) for number in numbers]


def test_records_come_back_in_order_until_they_are_removed(queue: TenantQueue) -> None:
    assert queue.put(parcels("a", 1, 2, 3) + parcels("b", 1)) == {"a", "b"}

    taken = queue.take("a", 2, KIB)
    assert [parcel.record for parcel in taken] == ["record-1", "record-2"]
    queue.remove(taken)
    assert [parcel.record for parcel in queue.take("a", 9, KIB)] == ["record-3"]
    assert queue.size == 200
    queue.remove(queue.take("a", 9, KIB))
    assert queue.routes() == ["b"]


def test_a_record_that_comes_twice_is_kept_once(queue: TenantQueue) -> None:
    queue.put(parcels("a", 1))
    queue.put(parcels("a", 1) + parcels("b", 1))

    assert len(queue.take("a", 9, KIB)) == len(queue.take("b", 9, KIB)) == 1


def test_one_batch_is_as_large_as_allowed_and_never_empty(queue: TenantQueue) -> None:
    queue.put(parcels("a", 1, 2, 3, size=600))

    assert len(queue.take("a", 9, 1300)) == 2
    assert len(queue.take("a", 9, 1)) == 1


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with contextlib.closing(TenantQueue(tmp_path / "tenants.db", 64 * KIB)) as queue:
        queue.put(parcels("a", 1, 2))
    with contextlib.closing(TenantQueue(tmp_path / "tenants.db", 64 * KIB)) as queue:
        assert (queue.routes(), queue.size) == (["a"], 200)


def test_a_route_beyond_its_share_loses_its_own_oldest_and_nobody_elses(queue: TenantQueue) -> None:
    queue.put(parcels("quiet", 1, size=KIB))
    queue.put(parcels("loud", *range(100), size=KIB))

    kept = queue.take("loud", 999, 999 * KIB)
    assert [parcel.record for parcel in kept] == [f"record-{number}" for number in range(84, 100)]
    assert queue.dropped == 84
    assert len(queue.take("quiet", 9, KIB)) == 1


def test_all_together_keep_to_the_cap(queue: TenantQueue) -> None:
    for route in range(10):
        queue.put(parcels(f"route-{route}", *range(16), size=KIB))

    assert queue.size <= 64 * KIB
    assert queue.dropped == 10 * 16 - queue.size // KIB


def test_what_belongs_to_nobody_any_more_is_let_go_of(queue: TenantQueue) -> None:
    queue.put(parcels("a", 1, 2) + parcels("b", 1))

    assert queue.discard("a") == 2
    assert (queue.routes(), queue.size, queue.dropped) == (["b"], 100, 2)


def test_a_disk_that_takes_nothing_changes_nothing(queue: TenantQueue) -> None:
    queue.put(parcels("a", 1))
    queue._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.Error):
        queue.put(parcels("a", *range(2, 40), size=KIB))

    assert (queue.size, len(queue.take("a", 99, KIB))) == (100, 1)


def test_the_file_is_its_owners_only(tmp_path: Path, queue: TenantQueue) -> None:
    queue.put(parcels("a", 1))

    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in tmp_path.iterdir()} == {0}
