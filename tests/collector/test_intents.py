"""Requests that were in flight when their worker died."""

from __future__ import annotations

import fcntl
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
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.aside import Aside
from otelgw_collector.decoder import Decoder
from otelgw_collector.flow import Flow
from otelgw_collector.head import Head
from otelgw_collector.intents import Intents
from otelgw_collector.lane import Batching, Lane
from otelgw_collector.quarantine import Quarantine
from otelgw_collector.segment_format import INTENT, RECORD
from otelgw_collector.segments import SegmentReader, SegmentWriter
from otelgw_exporters.delivery import Outcome, all_done, all_retry
from tests.collector.destinations import Scripted, Spool, decode, eventually, running
from tests.collector.disks import disk

ROOT = Path(__file__).parents[2]
ONE_BY_ONE = Batching(records=1, linger=0.0, first=0.0)


def identity(number: int) -> bytes:
    return number.to_bytes(8, "big")


def killed(payload: bytes) -> bytes:
    return b"killed " + payload


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


class Busy(Scripted):
    """Takes everything but ``last``, one record at a time, and the first not before ``gate`` is open: so it never has
    nothing to do, and how far it is lags behind what the head has read."""

    def __init__(self, last: str) -> None:
        super().__init__("one", self._answer)
        self.gate = threading.Event()
        self.last = last

    def _answer(self, spans: Sequence[ReadableSpan]) -> Outcome:
        assert self.gate.wait(20)
        return all_retry(1, "down") if spans[0].name == self.last else all_done(1)

    @property
    def stuck(self) -> bool:
        return bool(self.tries) and self.tries[-1] == [self.last]


def test_a_request_in_flight_when_its_worker_is_killed_is_put_on_record(spool: Spool) -> None:
    program = f"""
import os, pathlib
from otelgw_collector.segment_format import INTENT, RECORD
from otelgw_collector.segments import SegmentWriter
writer = SegmentWriter(pathlib.Path({str(spool.segments)!r}), "w0_1_1", max_bytes=200)
for number in range(10):
    writer.append(number.to_bytes(8, "big") + b"r%d" % number, INTENT)
for number in range(9):
    writer.append(b"done%d" % number, settles=number.to_bytes(8, "big"))
os.kill(os.getpid(), 9)
"""
    died = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    one = Scripted("one")
    with running(spool.pipeline(one.destination(), killed=killed)):
        eventually(lambda: "killed r9" in one.names)
        eventually(lambda: spool.files == [])

    assert sorted(one.names) == sorted([f"done{number}" for number in range(9)] + ["killed r9"])


def test_what_is_in_flight_at_a_living_worker_is_left_alone_also_over_restarts(spool: Spool) -> None:
    writer = SegmentWriter(spool.segments, "w0_1_1")
    writer.append(identity(1) + b"slow", INTENT)
    writer.append(identity(2) + b"lost", INTENT)
    writer.append(b"other")
    one = Scripted("one")
    with running(spool.pipeline(one.destination(), killed=killed)):
        eventually(lambda: one.names == ["other"])
    again = Scripted("one")
    with running(spool.pipeline(again.destination(), killed=killed)):
        writer.append(b"slow is done", settles=identity(1))
        eventually(lambda: again.names == ["slow is done"])
        writer.close()
        eventually(lambda: again.names == ["slow is done", "killed lost"])
    last = Scripted("one")
    with running(spool.pipeline(last.destination(), killed=killed)):
        eventually(lambda: spool.files == [])
    assert last.names == []


@pytest.mark.parametrize("name", ["w0_1_1", "killed_1"])
def test_what_settles_an_intent_is_read_after_it_however_much_there_is_to_read(spool: Spool, name: str) -> None:
    """A segment is read a piece at a time, and others in between."""
    first = SegmentWriter(spool.segments, "w0_1_1", max_bytes=4_000_000)
    for number in range(30):
        first.append(b"x" * 100_000 + b"%08d" % number)
    first.append(identity(1) + b"late", INTENT)
    first.close()
    second = SegmentWriter(spool.segments, name)
    second.append(b"done", settles=identity(1))
    lane = Lane(Scripted("one").destination(), {})
    lane.following = True
    decoder = Decoder({RECORD: decode}, Aside(spool.segments / "undecodable"), Quarantine(spool.ledger))
    head = Head(spool.segments, [lane], decoder, Flow(), killed=killed)
    while head.look():
        pass
    second.close()
    head.look()

    assert head.intents.workers == set()
    assert not head.bury()
    head.close()


def test_a_worker_that_waits_for_room_is_not_dead_and_one_that_dies_waiting_is(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "512k") as small:
        spool = Spool(small.path)
        program = f"""
import pathlib, sys
from otelgw_collector.segment_format import INTENT
from otelgw_collector.segments import SegmentWriter
writer = SegmentWriter(pathlib.Path({str(spool.segments)!r}), "w0_1_1")
writer.append(bytes(8) + b"in flight", INTENT)
writer.append(b"record")
print("begun", flush=True)
sys.stdin.readline()
try:
    writer.append(bytes(100_000))
except OSError:
    print("full", flush=True)
sys.stdin.readline()
"""
        worker = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        one = Scripted("one")
        with running(spool.pipeline(one.destination(), killed=killed)):
            assert worker.stdout.readline() == b"begun\n"
            eventually(lambda: one.names == ["record"])
            small.fill()
            worker.stdin.write(b"\n")
            assert worker.stdout.readline() == b"full\n"
            eventually(lambda: spool.files == [])  # it is deleted, and nothing else is there
            small.empty()
            time.sleep(0.5)
            assert one.names == ["record"]
            worker.kill()
            worker.communicate()
            eventually(lambda: one.names == ["record", "killed in flight"])
            eventually(lambda: not list(spool.segments.glob("*.waiting")))


def test_an_intent_that_cannot_be_read_stops_nothing(spool: Spool) -> None:
    def broken(payload: bytes) -> bytes:
        if payload == b"bad":
            raise ValueError
        return killed(payload)

    writer = SegmentWriter(spool.segments, "w0_1_1")
    writer.append(identity(1) + b"bad", INTENT)
    writer.append(identity(2) + b"good", INTENT)
    writer.close()
    one = Scripted("one")
    with running(spool.pipeline(one.destination(), killed=broken)):
        eventually(lambda: one.names == ["killed good"])
        eventually(lambda: spool.files == [])


def test_a_killed_request_is_told_of_once_though_the_destination_lags_over_a_restart(spool: Spool) -> None:
    """What the records of the killed have settled is not begun again by reading their worker's segment again."""
    one, again = Busy("killed r3"), Scripted("one")
    writer = SegmentWriter(spool.segments, "w0_1_1")
    with running(spool.pipeline(one.destination(ONE_BY_ONE), killed=killed)) as pipeline:
        eventually(lambda: pipeline.status()[0].state == "ok")
        writer.append(b"first")
        for number in (1, 2, 3):
            writer.append(identity(number) + b"r%d" % number, INTENT)
        writer.close()
        eventually(lambda: pipeline.status()[0].queued == 4)
        one.gate.set()
        eventually(lambda: one.stuck)

    with running(spool.pipeline(again.destination(ONE_BY_ONE), killed=killed)):
        eventually(lambda: spool.files == [])

    assert one.names == ["first", "killed r1", "killed r2"]
    assert again.names == ["killed r3"]


def test_an_answered_request_is_never_shown_as_killed_though_the_destination_lags_over_a_restart(spool: Spool) -> None:
    now = 0.0
    one, again = Busy("last"), Scripted("one")
    writer = SegmentWriter(spool.segments, "w0_1_1", clock=lambda: now)
    with running(spool.pipeline(one.destination(ONE_BY_ONE), killed=killed)) as pipeline:
        eventually(lambda: pipeline.status()[0].state == "ok")
        writer.append(b"first")
        writer.append(identity(1) + b"r1", INTENT)
        now = 100.0  # the next segment
        writer.append(b"answered 1", settles=identity(1))
        writer.append(b"next")
        writer.append(b"last")
        eventually(lambda: pipeline.status()[0].queued == 4)
        one.gate.set()
        eventually(lambda: one.stuck)
    writer.close()

    with running(spool.pipeline(again.destination(ONE_BY_ONE), killed=killed)):
        eventually(lambda: spool.files == [])

    assert again.names == ["last"]


def _head(spool: Spool, lane: Lane[list[ReadableSpan]], cursors: dict[str, int] | None = None) -> Head[Any]:
    decoder = Decoder({RECORD: decode}, Aside(spool.segments / "undecodable"), Quarantine(spool.ledger))
    return Head(spool.segments, [lane], decoder, Flow(), cursors=cursors or {}, killed=killed)


def test_nobody_is_put_on_record_while_such_a_segment_waits_for_its_turn(spool: Spool) -> None:
    """It may be of the same requests: written by a process that died before it had saved that."""
    for name, payload, kind, settles in (
        ("w0_1_1", identity(1) + b"r1", INTENT, b""),
        ("w1_1_1", b"one", RECORD, b""),
        ("w1_1_1", b"two", RECORD, b""),
        ("killed_1", b"killed r1", RECORD, identity(1)),
    ):
        writer = SegmentWriter(spool.segments, name)
        writer.append(payload, kind, settles)
        writer.close()
    held = os.open(spool.segments / "w1_1_1-00000001.seg", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as by a worker that has not left it yet: the next one has to wait
    head = _head(spool, Lane(Scripted("one").destination(), {}))
    while head.look():
        pass

    assert not head.bury()
    os.close(held)
    while head.look():
        pass

    assert not head.bury()
    assert head.intents.workers == set()
    assert len(spool.files) == 4
    head.close()


def test_a_segment_that_is_found_late_is_read_from_where_each_destination_is(spool: Spool) -> None:
    writer = SegmentWriter(spool.segments, "w0_1_1")
    writer.append(b"1")
    writer.append(b"2")
    assert writer.path is not None
    reader = SegmentReader(writer.path)
    lane = Lane(Scripted("one").destination(), {})
    lane.following = True
    head = _head(spool, lane, {reader.key: reader.read()[0].end})
    while head.look():
        pass

    assert lane.read.get(reader.key, 0) == 0
    assert not lane.following
    reader.close()
    head.close()
    writer.close()


# An id that comes twice, as when a segment is read again.
@example([("begin", 0), ("save", 0), ("settle", 0), ("begin", 0), ("save", 0), ("restart", 0)])
@given(st.lists(st.tuples(st.sampled_from(["begin", "settle", "save", "restart"]), st.integers(0, 4)), max_size=40))
def test_what_is_kept_over_restarts_is_what_is_open(steps: list[tuple[str, int]]) -> None:
    """As after a crash, entries that were read since the last save are read again."""
    stored: dict[bytes, tuple[str, bytes]] = {}
    unsaved: list[tuple[str, int]] = []
    intents = Intents()
    expected: set[bytes] = set()

    def read(step: str, number: int) -> None:
        if step == "begin":
            intents.begin("w", identity(number) + b"x")
        else:
            intents.settle(identity(number))

    for step, number in steps:
        if step == "save":
            opened, settled = intents.changes()
            stored.update({key: (worker, payload) for key, worker, payload in opened})
            for key in settled:
                stored.pop(key, None)
            intents.saved()
            unsaved.clear()
        elif step == "restart":
            intents = Intents([(key, *value) for key, value in stored.items()])
            for again in unsaved:
                read(*again)
        else:
            read(step, number)
            unsaved.append((step, number))
            (expected.add if step == "begin" else expected.discard)(identity(number))
    assert {key for key, _ in intents.left_by({"w"})} == expected
