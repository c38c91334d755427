from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector import segment_format
from otelgw_collector.pipeline import Batching
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import DONE, Outcome, Verdict, all_done, all_retry
from tests.collector.destinations import Scripted, Spool, decode, eventually, running

ROOT = Path(__file__).parents[2]
SMALL = Batching(records=4, queue_records=8, linger=0.02, first=0.005)


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


def append(writer: SegmentWriter, names: list[str]) -> None:
    for name in names:
        writer.append(name.encode())


def test_every_destination_gets_every_record_and_the_segment_goes_when_all_are_done(
    spool: Spool, writer: SegmentWriter
) -> None:
    one, two = Scripted("one"), Scripted("two")
    append(writer, numbers(50))
    with running(spool.pipeline(one.destination(), two.destination())) as pipeline:
        append(writer, numbers(50, 50))
        eventually(lambda: len(one.names) == len(two.names) == 100)
        assert spool.files == ["w0-00000001.seg"]
        writer.close()
        eventually(lambda: spool.files == [])

        assert one.names == two.names == numbers(100)
        assert [status.state for status in pipeline.status()] == ["ok", "ok"]
        assert [status.counters.delivered for status in pipeline.status()] == [100, 100]
    assert one.closed.is_set()


def test_the_first_record_after_idle_goes_out_by_itself(spool: Spool, writer: SegmentWriter) -> None:
    one = Scripted("one")
    with running(spool.pipeline(one.destination(Batching(linger=3600, idle=0.2)))):
        for number in range(2):
            eventually(lambda number=number: len(one.tries) == number)
            time.sleep(0.25)
            append(writer, [str(number)])

        eventually(lambda: one.names == ["0", "1"])


def test_under_load_records_share_batches(spool: Spool, writer: SegmentWriter) -> None:
    one = Scripted("one")
    append(writer, numbers(600))
    with running(spool.pipeline(one.destination())):
        eventually(lambda: len(one.names) == 600)

    assert max(len(batch) for batch in one.tries) == 256
    assert len(one.tries) <= 4


def test_a_batch_is_limited_in_bytes_too(spool: Spool, writer: SegmentWriter) -> None:
    one = Scripted("one")
    append(writer, [f"{number}{'x' * 1000}" for number in range(20)])
    with running(spool.pipeline(one.destination(Batching(size=3500)))):
        eventually(lambda: len(one.names) == 20)

    assert max(len(batch) for batch in one.tries) == 3


def test_a_destination_that_hangs_delays_no_other(spool: Spool, writer: SegmentWriter) -> None:
    release = threading.Event()

    def hang(spans: Sequence[ReadableSpan]) -> Outcome:
        release.wait(30)
        return all_done(len(spans))

    stuck, healthy = Scripted("stuck", hang), Scripted("healthy")
    with running(spool.pipeline(stuck.destination(SMALL), healthy.destination())) as pipeline:
        append(writer, numbers(500))
        eventually(lambda: len(healthy.names) == 500)

        (status, _) = pipeline.status()
        assert status.queued <= SMALL.queue_records
        assert stuck.names == []
        release.set()
        eventually(lambda: len(stuck.names) == 500)

    assert stuck.names == healthy.names == numbers(500)


def test_a_destination_that_is_down_for_a_while_loses_nothing_and_is_told_of_once(
    spool: Spool, writer: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otelgw_collector")
    down = threading.Event()
    down.set()
    flaky = Scripted("flaky", lambda spans: all_retry(len(spans), "down") if down.is_set() else all_done(len(spans)))
    with running(spool.pipeline(flaky.destination(SMALL))) as pipeline:
        append(writer, numbers(300))
        eventually(lambda: len(flaky.tries) >= 5)
        (status,) = pipeline.status()
        assert (status.state, status.error, status.queued <= 8) == ("retrying", "down", True)
        assert all(batch == flaky.tries[0] for batch in flaky.tries)

        down.clear()
        eventually(lambda: len(flaky.names) == 300)
        (status,) = pipeline.status()
        assert (status.state, status.error) == ("ok", "")

    assert flaky.names == numbers(300)
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("destination flaky: not delivering, retrying: down") == 1
    assert messages.count("destination flaky: delivering again") == 1


def test_only_the_spans_that_were_not_taken_are_tried_again(spool: Spool, writer: SegmentWriter) -> None:
    def half(spans: Sequence[ReadableSpan]) -> Outcome:
        later = Verdict("retry", "busy")
        return Outcome(tuple(later if span.name in {"1", "3"} and len(picky.tries) == 1 else DONE for span in spans))

    picky = Scripted("picky", half)
    append(writer, numbers(5))
    with running(spool.pipeline(picky.destination())) as pipeline:
        eventually(lambda: len(picky.names) == 5)
        (status,) = pipeline.status()

    assert picky.tries == [numbers(5), ["1", "3"]]
    assert (status.counters.delivered, status.counters.retried) == (5, 2)


def test_a_dead_span_is_counted_and_passed_over(
    spool: Spool, writer: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    def pick(spans: Sequence[ReadableSpan]) -> Outcome:
        return Outcome(
            tuple(Verdict("dead", "no good") if span.name == "2" else DONE for span in spans), 1, "dropped 1"
        )

    picky = Scripted("picky", pick)
    append(writer, numbers(4))
    with running(spool.pipeline(picky.destination())) as pipeline:
        eventually(lambda: len(picky.names) == 3)
        eventually(lambda: pipeline.status()[0].counters.dead == 1)
        counters = pipeline.status()[0].counters

    assert (counters.delivered, counters.rejected) == (2, 1)
    assert "can never be delivered, they are dead letters now: no good" in caplog.text
    assert "dropped by the destination: dropped 1" in caplog.text


def test_an_exporter_that_raises_gives_up_only_the_span_it_stumbles_over(spool: Spool, writer: SegmentWriter) -> None:
    def stumble(spans: Sequence[ReadableSpan]) -> Outcome:
        if any(span.name == "7" for span in spans):
            raise RuntimeError("bug")
        return all_done(len(spans))

    buggy = Scripted("buggy", stumble)
    append(writer, numbers(20))
    with running(spool.pipeline(buggy.destination())) as pipeline:
        eventually(lambda: len(buggy.names) == 19)
        eventually(lambda: pipeline.status()[0].counters.dead == 1)

    assert "7" not in buggy.names


def test_a_restart_goes_on_where_the_last_delivery_ended(spool: Spool, writer: SegmentWriter) -> None:
    first, behind = Scripted("one"), Scripted("two", lambda spans: all_retry(len(spans), "down"))
    append(writer, numbers(30))
    with running(spool.pipeline(first.destination(), behind.destination())):
        eventually(lambda: len(first.names) == 30)
    append(writer, numbers(10, 30))

    second, caught_up = Scripted("one"), Scripted("two")
    with running(spool.pipeline(second.destination(), caught_up.destination())):
        eventually(lambda: len(second.names) == 10 and len(caught_up.names) == 40)

    assert second.names == numbers(10, 30)
    assert caught_up.names == numbers(40)


def test_a_killed_pipeline_repeats_at_most_what_was_delivered_last(spool: Spool, writer: SegmentWriter) -> None:
    """SIGKILL: nothing is saved on the way out."""
    append(writer, numbers(1000))
    program = f"""
import os, pathlib, threading, time
from otelgw_collector.pipeline import Batching
from otelgw_exporters.delivery import all_done
from tests.collector.destinations import Scripted, Spool, eventually
one = Scripted("one", lambda spans: time.sleep(0.05) or all_done(len(spans)))
pipeline = Spool(pathlib.Path({str(spool.ledger.parent)!r})).pipeline(one.destination(Batching(records=20)))
threading.Thread(target=pipeline.run, daemon=True).start()
eventually(lambda: len(one.names) >= 300)
print(len(one.names), flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    delivered = int(killed.stdout)

    two = Scripted("one")
    with running(spool.pipeline(two.destination())):
        eventually(lambda: two.names[-1:] == ["999"])

    assert 0 < int(two.names[0]) <= delivered
    assert two.names == numbers(1000)[int(two.names[0]) :]


def test_the_segments_of_dead_workers_are_delivered_and_deleted(spool: Spool) -> None:
    for worker in ("w0_11_1", "w1_12_1"):
        writer = SegmentWriter(spool.segments, worker, max_bytes=200)
        append(writer, [f"{worker}/{number}" for number in range(20)])
        writer.close()
    assert len(spool.files) > 4
    one = Scripted("one")
    with running(spool.pipeline(one.destination())):
        eventually(lambda: spool.files == [])

    assert sorted(one.names) == sorted(f"{worker}/{n}" for worker in ("w0_11_1", "w1_12_1") for n in range(20))


def test_segments_without_records_are_deleted(spool: Spool) -> None:
    """What a writer leaves that dies before its first record."""
    spool.segments.mkdir(mode=0o700)
    (spool.segments / "w0-00000001.seg").write_bytes(segment_format.pack_header(b"12345678"))
    (spool.segments / "w1-00000001.seg").touch()
    os.utime(spool.segments / "w1-00000001.seg", (0, 0))
    one = Scripted("one")
    with running(spool.pipeline(one.destination())) as pipeline:
        eventually(lambda: spool.files == [])
        (spool.segments / "w2-00000001.seg").write_bytes(segment_format.pack_header(b"12345679"))
        eventually(lambda: spool.files == [])
        assert pipeline.status()[0].state == "ok"


def test_a_long_backlog_of_segments_does_not_exhaust_file_handles(spool: Spool) -> None:
    writer = SegmentWriter(spool.segments, "w0", max_bytes=60)
    append(writer, numbers(120))
    writer.close()
    assert len(spool.files) > 50
    one = Scripted("one", lambda spans: all_retry(len(spans), "down") if down.is_set() else all_done(len(spans)))
    down = threading.Event()
    down.set()
    with running(spool.pipeline(one.destination(SMALL))):
        eventually(lambda: len(one.tries) > 2)
        assert len([fd for fd in Path("/dev/fd").iterdir() if _leads_to(fd, spool.segments)]) < 5
        down.clear()
        eventually(lambda: spool.files == [])

    assert one.names == numbers(120)


def _leads_to(descriptor: Path, directory: Path) -> bool:
    try:
        return descriptor.resolve().is_relative_to(directory)
    except OSError:
        return False


def test_a_segment_that_somebody_deletes_is_lost_and_stops_nothing(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    for worker in ("w0", "w1"):
        writer = SegmentWriter(spool.segments, worker)
        append(writer, [f"{worker}/{number}" for number in range(20)])
        writer.close()
    gate = threading.Event()
    one = Scripted("one", lambda spans: gate.wait(20) and all_done(len(spans)))
    with running(spool.pipeline(one.destination(SMALL))):
        eventually(lambda: one.tries)
        (spool.segments / "w1-00000001.seg").unlink()
        gate.set()
        eventually(lambda: spool.files == [])

    assert one.names == [f"w0/{number}" for number in range(20)]
    assert "w1-00000001.seg is lost" in caplog.text


def test_a_record_that_cannot_be_decoded_is_kept_aside_and_passed_over(
    spool: Spool, writer: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    append(writer, ["before", "undecodable \u00e4", "after"])
    writer.append(b"unknown", kind=9)
    one, two = Scripted("one"), Scripted("two")
    with running(spool.pipeline(one.destination(), two.destination(SMALL))) as pipeline:
        eventually(lambda: len(one.names) == len(two.names) == 2)
        eventually(lambda: pipeline.undecodable == 2)
        writer.close()
        eventually(lambda: spool.files == [])

    kept = sorted(path.read_bytes() for path in (spool.segments / "undecodable").iterdir())
    assert kept == ["undecodable \u00e4".encode(), b"unknown"]
    assert "must not be logged" not in caplog.text
    assert "cannot be decoded (ValueError)" in caplog.text


def test_damage_is_logged_and_the_rest_arrives(
    spool: Spool, writer: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    append(writer, numbers(10))
    assert writer.path is not None
    with writer.path.open("r+b") as file:
        file.seek(28 + 15 * 4 + 5)
        file.write(b"\xff\xff")
    one = Scripted("one")
    with running(spool.pipeline(one.destination())):
        eventually(lambda: len(one.names) == 9)
        writer.close()
        eventually(lambda: spool.files == [])

    assert "15 bytes before offset" in caplog.text


def test_a_segment_of_a_newer_format_is_left_as_it_is(spool: Spool, writer: SegmentWriter) -> None:
    spool.segments.mkdir(mode=0o700)
    newer = spool.segments / "old-00000001.seg"
    newer.write_bytes(segment_format.pack_header(b"12345678", form=2) + b"anything")
    append(writer, ["one"])
    one = Scripted("one")
    with running(spool.pipeline(one.destination())):
        eventually(lambda: one.names == ["one"])
        writer.close()
        eventually(lambda: spool.files == [newer.name])


def test_what_was_delivered_of_a_segment_that_cannot_be_read_for_a_while_is_not_sent_again(
    spool: Spool, writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scripted("one")
    append(writer, numbers(3))
    with running(spool.pipeline(one.destination())):
        eventually(lambda: len(one.names) == 3)
    with monkeypatch.context() as older:
        older.setattr(segment_format, "FORMAT", segment_format.FORMAT - 1)  # an otelgw that does not know the format
        with running(spool.pipeline(one.destination())):
            time.sleep(0.5)
    append(writer, numbers(2, 3))
    with running(spool.pipeline(one.destination())):
        eventually(lambda: len(one.names) >= 5)

    assert one.names == numbers(5)


def test_selection_decides_and_a_failing_one_withholds_its_record_only(spool: Spool, writer: SegmentWriter) -> None:
    def select(spans: list[ReadableSpan]) -> Sequence[ReadableSpan]:
        if spans[0].name == "3":
            raise RuntimeError("bug in a redaction")
        return spans if int(spans[0].name) % 2 else ()

    one = Scripted("one")
    append(writer, numbers(8))
    with running(spool.pipeline(one.destination(select=select))) as pipeline:
        eventually(lambda: len(one.names) == 3)
        assert pipeline.status()[0].counters.unselected == 1
        writer.close()
        eventually(lambda: spool.files == [])

    assert one.names == ["1", "5", "7"]


def test_a_record_is_prepared_when_it_is_read_and_as_it_is_where_that_fails(
    spool: Spool, writer: SegmentWriter
) -> None:
    one, seen = Scripted("one"), []

    def prepare(spans: list[ReadableSpan]) -> list[ReadableSpan]:
        if spans[0].name == "1":
            raise ValueError("not this one")
        return decode(b"ready " + spans[0].name.encode())

    def select(spans: list[ReadableSpan]) -> list[ReadableSpan]:
        seen.append(spans[0].name)
        return spans

    with running(spool.pipeline(one.destination(prepare=prepare, select=select))) as pipeline:
        eventually(lambda: pipeline.status()[0].state == "ok")  # it follows the head
        append(writer, numbers(3))
        eventually(lambda: len(one.names) == 3)

    assert one.names == seen == ["ready 0", "1", "ready 2"]


def test_a_destination_without_room_has_nothing_prepared_that_it_reads_again_later(
    spool: Spool, writer: SegmentWriter
) -> None:
    release, prepared = threading.Event(), []

    def hang(spans: Sequence[ReadableSpan]) -> Outcome:
        release.wait(30)
        return all_done(len(spans))

    def prepare(spans: list[ReadableSpan]) -> list[ReadableSpan]:
        prepared.append(spans[0].name)
        return spans

    stuck, healthy = Scripted("stuck", hang), Scripted("healthy")
    with running(spool.pipeline(stuck.destination(SMALL, prepare=prepare), healthy.destination())):
        append(writer, numbers(100))
        eventually(lambda: len(healthy.names) == 100)
        assert len(prepared) <= SMALL.queue_records + SMALL.records
        release.set()
        eventually(lambda: sorted(stuck.names, key=int) == numbers(100))


def test_without_destinations_the_spool_is_left_as_it_is(spool: Spool, writer: SegmentWriter) -> None:
    append(writer, ["one"])
    writer.close()
    with running(spool.pipeline()):
        time.sleep(0.1)

    assert len(spool.files) == 1


# The end


def test_stopping_delivers_what_is_on_disk_without_waiting_for_batches(spool: Spool, writer: SegmentWriter) -> None:
    slow = Scripted("slow", lambda spans: time.sleep(0.02) or all_done(len(spans)))
    append(writer, numbers(200))
    with running(spool.pipeline(slow.destination(Batching(records=10, queue_records=20, linger=60, first=60))), 20):
        pass

    assert slow.names == numbers(200)


def test_stopping_does_not_wait_for_a_destination_that_is_down(spool: Spool, writer: SegmentWriter) -> None:
    down, up = Scripted("down", lambda spans: all_retry(len(spans), "down", 60.0)), Scripted("up")
    append(writer, numbers(20))
    started = time.monotonic()
    with running(spool.pipeline(down.destination(), up.destination()), limit=30):
        eventually(lambda: len(up.names) == 20 and down.tries)
    assert time.monotonic() - started < 15
    writer.close()

    assert len(spool.files) == 1
    again = Scripted("down")
    with running(spool.pipeline(again.destination(), Scripted("up").destination())):
        eventually(lambda: again.names == numbers(20))


def test_stopping_waits_as_long_as_a_destination_asks_for_if_there_is_time(spool: Spool, writer: SegmentWriter) -> None:
    def busy_twice(spans: Sequence[ReadableSpan]) -> Outcome:
        return all_retry(len(spans), "busy", 0.2) if len(one.tries) <= 2 else all_done(len(spans))

    one = Scripted("one", busy_twice)
    append(writer, ["x"])
    with running(spool.pipeline(one.destination()), limit=20):
        eventually(lambda: one.tries)

    assert one.names == ["x"]
    assert min(later - earlier for earlier, later in zip(one.times, one.times[1:], strict=False)) >= 0.2


def test_stopping_leaves_a_hanging_destination_behind_at_the_limit(spool: Spool, writer: SegmentWriter) -> None:
    release = threading.Event()
    stuck = Scripted("stuck", lambda spans: release.wait(30) and all_done(len(spans)))
    append(writer, numbers(3))
    started = time.monotonic()
    with running(spool.pipeline(stuck.destination()), limit=0.5):
        eventually(lambda: stuck.tries)
    spent = time.monotonic() - started
    release.set()

    assert spent < 10
    again = Scripted("stuck")
    with running(spool.pipeline(again.destination())):
        eventually(lambda: again.names == numbers(3))


def test_what_an_exporter_says_when_it_is_closed_in_mid_delivery_is_no_verdict(
    spool: Spool, writer: SegmentWriter
) -> None:
    def broken_off(_: Sequence[ReadableSpan]) -> Outcome:
        one.closed.wait(20)
        raise OSError("Bad file descriptor")

    one, again = Scripted("one", broken_off), Scripted("one")
    append(writer, ["x"])
    with running(spool.pipeline(one.destination()), limit=0.1):
        eventually(lambda: one.tries)

    with running(spool.pipeline(again.destination())):
        eventually(lambda: again.names == ["x"])


def test_a_thread_that_fails_ends_the_pipeline_with_an_error(spool: Spool, writer: SegmentWriter) -> None:
    class Leaving(Scripted):
        def deliver(self, spans: Any, deadline: float) -> Outcome:
            raise SystemExit

    append(writer, ["x"])
    with pytest.raises(RuntimeError, match="thread has failed"), running(spool.pipeline(Leaving("one").destination())):
        pass


def test_a_batch_is_the_same_after_a_restart_and_its_spans_are_sent_once(spool: Spool, writer: SegmentWriter) -> None:
    """Frozen before its first try: what has been taken of it stays taken, what follows does not join it."""

    def half(spans: Sequence[ReadableSpan]) -> Outcome:
        return Outcome(tuple(DONE if int(span.name) % 2 else Verdict("retry", "busy") for span in spans))

    first, again = Scripted("one", half), Scripted("one")
    append(writer, numbers(6))
    with running(spool.pipeline(first.destination())):
        eventually(lambda: len(first.tries) >= 2)
    append(writer, numbers(4, 6))
    with running(spool.pipeline(again.destination())):
        eventually(lambda: len(again.names) == 7)
        writer.close()
        eventually(lambda: spool.files == [])

    assert first.tries[1] == again.tries[0] == ["0", "2", "4"]
    assert again.names == ["0", "2", "4", "6", "7", "8", "9"]


def test_a_frozen_batch_whose_segment_is_gone_is_counted(spool: Spool, writer: SegmentWriter) -> None:
    append(writer, numbers(3))
    with running(spool.pipeline(Scripted("one", lambda spans: all_retry(len(spans), "down")).destination())) as first:
        eventually(lambda: first.status()[0].state == "retrying")
    writer.close()
    (spool.segments / "w0-00000001.seg").unlink()
    append(writer, ["next"])
    one = Scripted("one")
    with running(spool.pipeline(one.destination())) as pipeline:
        eventually(lambda: one.names == ["next"])
        assert pipeline.status()[0].counters.dropped == 3


def test_counters_go_on_after_a_restart(spool: Spool, writer: SegmentWriter) -> None:
    for expected in (3, 6):
        append(writer, numbers(3))
        with running(spool.pipeline(Scripted("one").destination())) as pipeline:
            eventually(lambda each=pipeline, count=expected: each.status()[0].counters.delivered == count)
