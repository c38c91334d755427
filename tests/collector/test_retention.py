"""What stays in the spool, and what goes when there is no room."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw_collector.pipeline import Batching, Retention
from otelgw_collector.retention import UNAUTHENTICATED, Stored, victims
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import all_done, all_retry
from tests.collector.destinations import Scripted, Spool, eventually, running

PLENTY = 1 << 40
SMALL = Batching(records=2, queue_records=4, linger=0.02, first=0.005)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def stored(
    key: str, changed: float = 0.0, size: int = 100, *, delivered: bool = True, stranger: bool = False
) -> Stored:
    return Stored(key, changed, size, stranger, delivered)


def test_delivered_segments_go_when_they_are_old_and_others_never() -> None:
    there = [stored("old", 100), stored("young", 190), stored("waiting", 0, delivered=False)]

    assert victims(there, Retention(60, 10_000), now=200, total=300, free=PLENTY) == ["old"]
    assert victims(there, Retention(0, 10_000), now=200, total=300, free=PLENTY) == ["old", "young"]


def test_beyond_the_limit_the_oldest_delivered_go_first_then_the_oldest_undelivered() -> None:
    there = [
        stored("waiting", 1, delivered=False),
        stored("young", 3),
        stored("waits longer", 0, delivered=False),
        stored("old", 2),
    ]
    keep = Retention(1e9, 150)

    assert victims(there, Retention(1e9, 350), now=9, total=400, free=PLENTY) == ["old"]
    assert victims(there, keep, now=9, total=400, free=PLENTY) == ["old", "young", "waits longer"]


def test_records_without_a_key_go_before_all_others_and_have_a_share_of_their_own() -> None:
    strangers = [stored(f"s{number}", number, delivered=False, stranger=True) for number in range(3)]
    own = stored("own", -1)
    assert victims([*strangers, own], Retention(1e9, 2000, 0.1), now=9, total=400, free=PLENTY) == ["s0"]
    assert victims([*strangers, own], Retention(1e9, 250, 1.0), now=9, total=400, free=PLENTY) == ["s0", "s1"]


def test_on_a_full_disk_nothing_is_kept_that_is_delivered() -> None:
    there = [stored("delivered", 100), stored("waiting", 0, delivered=False)]

    assert victims(there, Retention(1e9, 10_000), now=100, total=200, free=0) == ["delivered"]


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 100), st.booleans(), st.booleans()),
        max_size=12,
    ),
    st.integers(1, 800),
    st.floats(0, 100),
)
def test_an_undelivered_segment_goes_only_if_all_delivered_ones_are_gone_and_the_limit_asks_for_it(
    made: list[tuple[int, int, bool, bool]], cap: int, keep: float
) -> None:
    there = [Stored(str(index), *each) for index, each in enumerate(made)]
    by_key = {each.key: each for each in there}
    total = sum(each.size for each in there)
    gone = [by_key[key] for key in victims(there, Retention(keep, cap), now=50, total=total, free=PLENTY)]
    left = [each for each in there if each not in gone]

    assert sum(each.size for each in left) <= cap
    lost = [each for each in gone if not each.delivered and not each.unauthenticated]
    if lost:
        assert not any(each.delivered or each.unauthenticated for each in left)
        assert sum(each.size for each in left) + max(each.size for each in lost) > cap
        assert all(each.changed <= other.changed for each in lost for other in left)


def test_delivered_segments_stay_until_their_time_is_over(spool: Spool) -> None:
    for name in ("w0", "w1"):
        writer = SegmentWriter(spool.segments, name)
        writer.append(b"x")
        writer.close()
    aged = spool.segments / "w1-00000001.seg"
    os.utime(aged, (time.time() - 7200,) * 2)
    one = Scripted("one")
    with running(spool.pipeline(one.destination(), retention=Retention(3600))):
        eventually(lambda: len(one.names) == 2)
        eventually(lambda: not aged.exists())
    assert spool.files == ["w0-00000001.seg"]

    again = Scripted("one")
    with running(spool.pipeline(again.destination(), retention=Retention(3600))):
        time.sleep(0.3)
    assert again.names == []


def test_a_new_destination_does_not_get_what_was_delivered_before_it_was_there(spool: Spool) -> None:
    writer = SegmentWriter(spool.segments, "w0")
    writer.append(b"before")
    with running(spool.pipeline(Scripted("one").destination(), retention=Retention(3600))) as pipeline:
        eventually(lambda: pipeline.status()[0].counters.delivered == 1)
    writer.append(b"meanwhile")
    one, two = Scripted("one"), Scripted("two")
    with running(spool.pipeline(one.destination(), two.destination(), retention=Retention(3600))):
        eventually(lambda: one.names == two.names == ["meanwhile"])
    writer.close()


def test_beyond_the_limit_every_destination_counts_exactly_what_it_loses(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "otelgw_collector")
    writer = SegmentWriter(spool.segments, "w0", max_bytes=600)
    down = threading.Event()
    down.set()
    dead = Scripted("dead", lambda spans: all_retry(len(spans), "down") if down.is_set() else all_done(len(spans)))
    healthy = Scripted("healthy")
    retention = Retention(0.0, 3000)
    with running(spool.pipeline(dead.destination(SMALL), healthy.destination(SMALL), retention=retention)) as pipeline:
        for number in range(400):
            writer.append(f"{number:06}".encode())
            if number % 20 == 19:
                eventually(lambda count=number + 1: pipeline.status()[1].counters.delivered == count)
        writer.close()
        eventually(lambda: sum(path.stat().st_size for path in spool.segments.glob("*.seg")) <= 3000)
        down.clear()
        eventually(lambda: spool.files == [])
        first, second = pipeline.status()

    assert first.counters.dropped == 400 - len(dead.names) > 0
    assert first.counters.delivered == len(dead.names)
    assert dead.names == sorted(dead.names)
    assert dead.names[-1] == "000399"
    assert second.counters.dropped == 0
    assert caplog.text.count("undelivered records had to go") == 1
    assert "of dead" in caplog.text

    with running(spool.pipeline(Scripted("dead").destination(), Scripted("healthy").destination())) as pipeline:
        assert pipeline.status()[0].counters.dropped == first.counters.dropped


def test_strangers_records_make_room_first(spool: Spool) -> None:
    own = SegmentWriter(spool.segments, "w0")
    stranger = SegmentWriter(spool.segments, "w0" + UNAUTHENTICATED, max_bytes=300)
    for number in range(30):
        own.append(f"own{number:05}".encode())
        stranger.append(f"str{number:05}".encode())
    own.close()
    stranger.close()
    gate = threading.Event()
    one = Scripted("one", lambda spans: gate.wait(20) and all_done(len(spans)))
    with running(spool.pipeline(one.destination(SMALL), retention=Retention(0.0, 1000, 0.3))) as pipeline:
        eventually(lambda: pipeline.status()[0].counters.dropped)
        gate.set()
        eventually(lambda: spool.files == [])

    assert sum(name.startswith("own") for name in one.names) == 30
