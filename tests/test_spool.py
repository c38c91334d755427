"""The worker's side of the spool."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from otelgw import spool as spool_module
from otelgw.config import settings
from otelgw.selection import Trace
from otelgw.spool import Intent, Spool, killed
from otelgw.tracing import record as records
from otelgw.tracing.record import Caller
from otelgw_collector.retention import UNAUTHENTICATED
from otelgw_collector.segment_format import INTENT, RECORD, SETTLED, Entry
from otelgw_collector.segments import SegmentReader, find_segments
from otelgw_exporters import semconv
from tests.collector.disks import disk
from tests.tracing.records import CHAT, START, record


def entries(directory: Path, *, strangers: bool = False) -> list[Entry]:
    found: list[Entry] = []
    for name in find_segments(directory):
        if name.worker.endswith(UNAUTHENTICATED) == strangers:
            reader = SegmentReader(name.path)
            while more := reader.read():
                found += more
            reader.close()
    return found


def intent(**changes: Any) -> Intent:
    fields: dict[str, Any] = {
        "call_id": "call-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "generation_span_id": "00f067aa0ba902b7",
        "start": START,
        "route": "/v1/chat/completions",
        "target": CHAT,
        "caller": Caller(authenticated=True, key_hash="ab" * 32),
    }
    return Intent(**fields | changes)


def test_a_record_and_its_intent_are_on_disk_when_the_call_returns(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0")
    settles = spool.intend(intent())
    spool.append(b"record", settles=settles)

    first, second, third = entries(tmp_path)
    assert (first.kind, second.kind, third.kind) == (INTENT, RECORD, SETTLED)
    assert first.payload[:8] == third.payload == bytes.fromhex("b7ad6b7169203331")
    assert second.payload == b"record"
    spool.close()


def test_intents_can_be_turned_off(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0", settings.Spool(intents=False))
    assert spool.intend(intent()) == b""
    spool.append(b"record")
    assert [entry.kind for entry in entries(tmp_path)] == [RECORD]
    spool.close()


def test_a_disk_that_takes_no_note_does_not_stop_the_request(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Spool(tmp_path / "file" / "spool", "w0").intend(intent()) == b""


@pytest.mark.parametrize("afterwards", ["a record", "the end"])
def test_a_request_whose_record_found_no_room_is_not_taken_for_killed(tmp_path: Path, afterwards: str) -> None:
    with disk(tmp_path / "disk", "256k") as small:
        spool = Spool(small.path / "spool", "w0")
        settles = spool.intend(intent())
        small.fill()
        with pytest.raises(OSError, match="No space left"):
            spool.append(bytes(10_000), settles=settles)
        small.empty()
        if afterwards == "a record":
            spool.append(b"record")
            kinds = [INTENT, RECORD, SETTLED]
        else:
            spool.close()
            kinds = [INTENT, SETTLED]
        found = entries(small.path / "spool")
        assert [entry.kind for entry in found] == kinds
        assert found[-1].payload == settles
        spool.close()


def test_what_was_killed_is_a_trace_with_what_was_known_and_no_content(tmp_path: Path) -> None:
    from otelgw.config.settings import Tracing
    from otelgw.pipeline_main import decoder

    spool = Spool(tmp_path, "w0")
    spool.intend(intent(upstream_start=5_000_000))
    spool.close()
    (entry,) = entries(tmp_path)

    payload = killed(entry.payload[8:])

    made: Trace = decoder(Tracing(), "state")(payload)
    server, generation = made.spans
    assert made.failed
    for span in (server, generation):
        attributes = span.attributes or {}
        assert attributes[semconv.ERROR_TYPE] == "worker_killed"
        assert attributes[semconv.OTELGW_CALL_ID] == "call-1"
        assert attributes[semconv.OTELGW_KEY_HASH] == "ab" * 32
        assert not semconv.CONTENT & attributes.keys()
    assert (server.start_time, server.end_time) == (START, START + 5_000_000)
    assert records.decode(payload).content is False


def test_callers_without_a_key_have_a_quota_and_segments_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    spool = Spool(tmp_path, "w0", workers=5, clock=lambda: now[0])
    for second in (0.0, 0.0, 10.0):
        now[0] = second
        for _ in range(15):
            spool.append(b"refused", unauthenticated=True)
        spool.append(b"own")
    spool.close()

    assert len(entries(tmp_path, strangers=True)) == 20
    assert len(entries(tmp_path)) == 3
    assert spool.over_quota == 25
    assert caplog.text.count("without a key") == 1


class Disk:
    """Counts syncs, and holds them up until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[int] = []
        self.failing = False
        monkeypatch.setattr(spool_module.os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        if self.failing:
            raise OSError(5, "Input/output error")
        self.synced.append(os.fstat(handle).st_size)


def test_what_arrives_while_the_disk_is_syncing_shares_the_next_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    async def request(spool: Spool, number: int) -> None:
        spool.append(b"%d" % number)
        await spool.commit()

    async def run() -> None:
        spool = Spool(tmp_path, "w0", settings.Spool(fsync=True))
        await asyncio.gather(*(request(spool, number) for number in range(50)))
        size = find_segments(tmp_path)[0].path.stat().st_size
        assert max(disk.synced) >= size
        assert len(disk.synced) <= 6
        before = len(disk.synced)
        await request(spool, 51)
        assert len(disk.synced) > before
        spool.close()

    asyncio.run(run())


def test_without_fsync_nothing_is_synced_and_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)

    async def run() -> None:
        spool = Spool(tmp_path, "w0")
        spool.append(b"x")
        await spool.commit()
        spool.close()

    asyncio.run(run())
    assert disk.synced == []


def test_a_segment_that_is_left_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        spool = Spool(tmp_path, "w0", settings.Spool(fsync=True))
        spool._records._max_bytes = spool._records._limit = 60
        disk = Disk(monkeypatch)
        for _ in range(5):
            spool.append(b"x" * 20)
        await spool.commit()
        assert sum(size < 4096 for size in disk.synced) >= 5
        assert all(path.closed for path in map(SegmentReader, [name.path for name in find_segments(tmp_path)][:-1]))
        spool.close()

    asyncio.run(run())


def test_a_disk_that_refuses_to_sync_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    disk.failing = True

    async def run() -> None:
        spool = Spool(tmp_path, "w0", settings.Spool(fsync=True))
        spool.append(b"x")
        await asyncio.wait_for(spool.commit(), 10)
        assert spool.unsynced == 1
        spool.close()

    asyncio.run(run())
    assert "may not survive a power loss" in caplog.text


def test_the_record_of_a_request_is_what_the_gateway_writes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "w0")
    spool.append(records.encode(record()))
    spool.close()
    assert records.decode(entries(tmp_path)[0].payload) == record()
