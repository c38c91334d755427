"""Notes of batches before their first try."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.journal import Journal, resumed
from otelgw_collector.lane import Frozen, Item, Run, runs_of
from otelgw_collector.pipeline import Batching
from otelgw_collector.segment_format import INTENT, OVERHEAD
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import all_retry
from tests.collector.destinations import Scripted, Spool, eventually, running
from tests.collector.disks import disk

ROOT = Path(__file__).parents[2]


def batch(number: int, segment: str = "w0-1.seg:ff") -> Frozen:
    return Frozen((Run(segment, number * 100, number * 100 + 100, 4),))


def started(path: Path, *names: str) -> Journal:
    journal = Journal(path)
    journal.start(dict.fromkeys(names or ("one",), ()))
    return journal


def test_what_was_noted_is_there_after_a_kill_and_what_was_dealt_with_is_not(tmp_path: Path) -> None:
    program = f"""
import os, pathlib
from tests.collector.test_journal import batch, started
journal = started(pathlib.Path({str(tmp_path / "batches")!r}), "one", "two")
for number in range(1, 6):
    journal.begin("one", number, batch(number))
    journal.begin("two", number, batch(number))
journal.saved({{"one": 3, "two": 6}})
journal.begin("one", 6, batch(6))
os.kill(os.getpid(), 9)
"""
    died = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL

    found = Journal(tmp_path / "batches").found

    assert found == {"one": [batch(number) for number in (3, 4, 5, 6)], "two": []}
    assert (tmp_path / "batches").stat().st_mode & 0o777 == 0o600


def test_the_file_stays_small_and_keeps_what_is_on_its_way(tmp_path: Path) -> None:
    journal = started(tmp_path / "batches")
    for number in range(1, 20_001):
        journal.begin("one", number, batch(number))
        if number % 10 == 0:
            journal.saved({"one": number})
    journal.close()

    assert (tmp_path / "batches").stat().st_size < 300_000
    assert Journal(tmp_path / "batches").found == {"one": [batch(20_000)]}


@given(st.integers(0, 400), st.binary(max_size=20))
def test_a_torn_end_costs_no_note_before_it(tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "batches"
    journal = started(path)
    ends = []
    for number in range(1, 6):
        journal.begin("one", number, batch(number))
        ends.append(path.stat().st_size)
    journal.close()
    path.write_bytes(path.read_bytes()[:cut] + noise)

    found = Journal(path).found.get("one", [])

    whole = [batch(number) for number, end in enumerate(ends, 1) if end <= cut]
    assert found[: len(whole)] == whole
    assert found == [batch(number) for number in range(1, len(found) + 1)]


@given(st.binary(max_size=300))
def test_any_file_at_all_is_read_without_an_exception(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "batches"
    path.write_bytes(content)
    journal = started(path)
    journal.begin("one", 1, batch(1))
    journal.close()

    assert Journal(path).found == {"one": [batch(1)]}


def test_a_full_disk_costs_notes_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "otelgw_collector")
    with disk(tmp_path / "disk") as small:
        journal = started(small.path / "batches")
        journal.begin("one", 1, batch(1))
        small.fill()
        number = 1
        while not caplog.records:
            number += 1
            journal.begin("one", number, batch(number))
        journal.begin("one", number + 1, batch(number + 1))
        journal.saved({"one": number + 2})
        small.empty()
        journal.begin("one", number + 2, batch(number + 2))
        journal.close()
        assert Journal(small.path / "batches").found == {"one": [batch(number + 2)]}
        assert len(caplog.records) == 1

        small.fill()
        again = started(small.path / "batches")
        again.close()
        assert Journal(small.path / "batches").found == {}


def test_where_nothing_can_be_noted_deliveries_go_on(tmp_path: Path) -> None:
    journal = started(tmp_path / "missing" / "batches")
    journal.begin("one", 1, batch(1))
    journal.saved({"one": 2})
    journal.close()

    assert journal.found == {}


def test_what_is_saved_of_a_batch_prevails_over_its_note_and_what_followed_comes_after() -> None:
    saved = Frozen((Run("w0-1.seg:ff", 250, 300, 2),), frozenset({"a-b"}), batch(2).runs)

    assert resumed(saved, [batch(1), batch(2), batch(3)], {"w0-1.seg:ff": 200}) == [saved, batch(3)]
    assert resumed(None, [batch(1), batch(2), batch(3)], {"w0-1.seg:ff": 300}) == [batch(3)]
    assert resumed(saved, [], {}) == [saved]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=30))
def test_runs_say_of_every_record_where_it_is_in_order(shape: list[tuple[str, int]]) -> None:
    """``shape``: the segment of each record and how many spans it has."""
    offsets = dict.fromkeys("abc", 28)
    items, sources = [], []
    for segment, spans in shape:
        offsets[segment] += OVERHEAD + 50
        items.append(Item(segment, offsets[segment], 50, None))
        sources += items[-1:] * spans

    found = runs_of(items)

    assert runs_of(sources) == found
    size = OVERHEAD + 50
    places = [(run.segment, end) for run in found for end in range(run.start + size, run.end + 1, size)]
    assert places == [(item.segment, item.end) for item in items]
    assert sum(run.records for run in found) == len(items)


DYING = """
import os, pathlib, sys, threading, time
from otelgw_collector import pipeline
from otelgw_collector.pipeline import Batching
from otelgw_exporters.delivery import all_done
from tests.collector.destinations import Scripted, Spool, eventually
pipeline._SAVE = 3600.0  # nothing is saved but at the start
def take(spans):
    print(",".join(span.name for span in spans), flush=True)
    if len(one.tries) == 8:
        os.kill(os.getpid(), 9)
    time.sleep(0.01)
    return all_done(len(spans))
one = Scripted("one", take)
spool = Spool(pathlib.Path(sys.argv[1]))
threading.Thread(target=spool.pipeline(one.destination(Batching(records=7, linger=0.01))).run, daemon=True).start()
time.sleep(60)
"""


def test_after_a_kill_everything_that_is_sent_again_is_sent_in_the_same_batches(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    writers = [SegmentWriter(spool.segments, f"w{number}") for number in range(3)]
    for number in range(90):
        writers[number * 7 % 3].append(str(number).encode())
    died = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    before = [line.split(",") for line in died.stdout.splitlines()]
    for number in range(90, 120):
        writers[0].append(str(number).encode())

    again = Scripted("one")
    with running(spool.pipeline(again.destination(Batching(records=50)))):
        eventually(lambda: len(set(again.names)) == 120)
        for writer in writers:
            writer.close()

    assert len(before) == 8
    assert again.tries[:8] == before
    assert sorted(again.names, key=int) == [str(number) for number in range(120)]


DELETING = """
import os, pathlib, sys, threading, time
from otelgw_collector import pipeline
from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import Scripted, Spool, eventually
pipeline._SAVE = 3600.0
spool = Spool(pathlib.Path(sys.argv[1]))
writers = [SegmentWriter(spool.segments, name) for name in ("w0", "w1")]
running = spool.pipeline(Scripted("one").destination())
threading.Thread(target=running.run, daemon=True).start()
eventually(lambda: running.status() and running.status()[0].state == "ok")
for writer in writers:
    writer.append(b"x")
eventually(lambda: running.status()[0].counters.delivered == 2)
writers[0].close()
eventually(lambda: len(spool.files) == 1)
os.kill(os.getpid(), 9)
"""


def test_no_segment_goes_before_it_is_saved_that_its_batches_are_delivered(tmp_path: Path) -> None:
    """Else what is left of such a batch would be sent again in another, and the rest counted as lost."""
    died = subprocess.run([sys.executable, "-c", DELETING, str(tmp_path)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    spool, one = Spool(tmp_path), Scripted("one")
    writer = SegmentWriter(spool.segments, "w2")
    writer.append(b"later")

    with running(spool.pipeline(one.destination())) as pipeline:
        eventually(lambda: "later" in one.names)
        assert pipeline.status()[0].counters.dropped == 0
    writer.close()

    assert one.tries == [["later"]]


SELECTING = """
import os, pathlib, sys, threading, time
from otelgw_collector.segment_format import INTENT
from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import Scripted, Spool, eventually
def select(spans):
    writer.append(bytes(8) + b"the next request", INTENT)
    time.sleep(1)
    return spans
def take(spans):
    os.kill(os.getpid(), 9)
spool = Spool(pathlib.Path(sys.argv[1]))
writer = SegmentWriter(spool.segments, "w0")
running = spool.pipeline(Scripted("one", take).destination(select=select))
threading.Thread(target=running.run, daemon=True).start()
eventually(lambda: running.status() and running.status()[0].state == "ok")
writer.append(b"x")
time.sleep(60)
"""


def test_what_is_being_selected_when_the_head_reads_on_is_not_lost_by_a_kill(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", SELECTING, str(tmp_path)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL

    one = Scripted("one")
    with running(Spool(tmp_path).pipeline(one.destination())):
        eventually(lambda: one.names == ["x"])


def test_nothing_is_tried_for_the_first_time_when_it_cannot_be_noted_any_more(tmp_path: Path) -> None:
    def select(spans: Sequence[ReadableSpan]) -> Sequence[ReadableSpan]:
        assert one.closed.wait(20)  # the pipeline has come to its end
        return spans

    spool = Spool(tmp_path)
    one, again = Scripted("one"), Scripted("one")
    writer = SegmentWriter(spool.segments, "w0")
    writer.append(b"x")
    with running(spool.pipeline(one.destination(select=select)), limit=0.5):
        pass
    writer.close()
    with running(spool.pipeline(again.destination())):
        eventually(lambda: again.names == ["x"])

    assert one.tries == []


def test_what_was_in_flight_is_known_after_a_kill_though_its_records_are_only_noted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0_1_1")
    for number in range(90):
        writer.append(number.to_bytes(8, "big") + str(number).encode(), INTENT)
        if number != 40:
            writer.append(str(number).encode(), settles=number.to_bytes(8, "big"))
    died = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], cwd=ROOT, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    writer.close()

    again = Scripted("one")
    with running(spool.pipeline(again.destination(), killed=lambda payload: b"killed " + payload)):
        eventually(lambda: spool.files == [])

    assert [name for name in again.names if name.startswith("killed")] == ["killed 40"]
    assert len(set(again.names)) == 90


def test_what_a_dead_worker_left_is_put_on_record_once_also_by_two_pipelines(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0_1_1")
    for number in range(20):
        writer.append(number.to_bytes(8, "big") + str(number).encode(), INTENT)
    writer.close()
    program = (
        DYING.replace("spool.pipeline(", "spool.pipeline(killed=lambda payload: b'killed ' + payload, *(")
        .replace("linger=0.01))).run", "linger=0.01)),)).run")
        .replace("== 8", "== 2")
    )
    died = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr

    again = Scripted("one")
    with running(spool.pipeline(again.destination(), killed=lambda payload: b"killed " + payload)):
        eventually(lambda: spool.files == [])

    assert sorted(again.names) == sorted(f"killed {number}" for number in range(20))


def test_a_batch_that_is_done_is_not_missed_when_its_segment_is_gone(tmp_path: Path) -> None:
    """The file of notes is not written anew each time: an old note must not count as a loss."""
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0")
    writer.append(b"1")
    writer.close()
    with running(spool.pipeline(Scripted("one").destination())):
        eventually(lambda: spool.files == [])
    assert (tmp_path / "batches").stat().st_size > 0
    with running(spool.pipeline(Scripted("one").destination())) as pipeline:
        assert pipeline.status()[0].counters.dropped == 0


def test_the_notes_of_a_destination_that_is_down_take_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0")
    down = Scripted("down", lambda spans: all_retry(len(spans), "down"))
    with running(spool.pipeline(down.destination(Batching(records=1)))):
        for number in range(200):
            writer.append(str(number).encode())
        eventually(lambda: len(down.tries) > 20)
        assert (tmp_path / "batches").stat().st_size < 1000
    writer.close()
    assert spool.files
