"""Records that are set aside, and what a newer otelgw wrote."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from otelgw_collector import segment_format
from otelgw_collector.aside import Aside
from otelgw_collector.pipeline import Health, Retention
from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import Scripted, Spool, eventually, running
from tests.collector.disks import disk


def test_a_record_is_kept_once_in_a_private_file_also_over_restarts(tmp_path: Path) -> None:
    aside = Aside(tmp_path / "aside")
    assert aside.size == 0

    assert aside.keep("w0-1-99", b"bad", newer=False)
    assert not aside.keep("w0-1-99", b"bad", newer=False)
    assert aside.keep("w0-1-99", b"from the future", newer=True)
    again = Aside(tmp_path / "aside")

    assert not again.keep("w0-1-99", b"bad", newer=False)
    assert not again.keep("w0-1-99", b"from the future", newer=True)
    assert aside.size == again.size == 18
    (kept,) = again.newer
    assert kept.read_bytes() == b"from the future"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_flood_of_undecodable_records_takes_neither_the_disk_nor_memory(tmp_path: Path) -> None:
    aside = Aside(tmp_path / "aside")

    assert all(aside.keep(f"w0-1-{number}", b"bad", newer=False) for number in range(12_000))

    assert len(list((tmp_path / "aside").iterdir())) == 1000
    assert aside.size == 3000
    assert len(aside._gone) == 10_000
    assert not aside.keep("w0-1-11999", b"bad", newer=False)


def test_what_is_removed_does_not_come_back(tmp_path: Path) -> None:
    aside = Aside(tmp_path / "aside")
    aside.keep("w0-1-99", b"from the future", newer=True)
    (path,) = aside.newer

    aside.remove(path)

    assert aside.size == 0
    assert not aside.keep("w0-1-99", b"from the future", newer=True)
    assert not path.exists()


def test_a_full_disk_costs_the_copy_and_leaves_no_half_of_one(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "1m") as small:
        aside = Aside(small.path / "aside")
        aside.keep("first", b"bad", newer=False)
        small.fill()

        assert aside.keep("second", b"bad", newer=False)

        assert [path.name for path in (small.path / "aside").iterdir()] == ["first.record"]


def test_what_a_newer_otelgw_wrote_is_counted_and_goes_only_when_there_is_no_room_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "otelgw_collector")
    spool = Spool(tmp_path)
    spool.segments.mkdir()
    (spool.segments / "old-00000001.seg").write_bytes(segment_format.pack_header(b"12345678", form=2) + bytes(5000))
    writer = SegmentWriter(spool.segments, "w0")
    monkeypatch.setattr(segment_format, "VERSION", 2)
    for number in range(40):
        writer.append(b"%04d" % number + bytes(996))
    monkeypatch.undo()
    writer.append(b"now")
    writer.close()
    said: list[Health] = []
    one = Scripted("one")
    newer = spool.segments / "undecodable" / "newer"
    with running(spool.pipeline(one.destination(), report=said.append, retention=Retention(0.0, 1_000_000))):
        eventually(lambda: spool.files == ["old-00000001.seg"])
        eventually(lambda: said[-1].newer == 40)
        eventually(lambda: said[-1].spool_size == 45_028)
        assert len(list(newer.iterdir())) == 40

    again = Scripted("one")
    said.clear()
    with running(spool.pipeline(again.destination(), report=said.append, retention=Retention(0.0, 10_500))):
        eventually(lambda: said and said[-1].given_up == 31)
        assert said[-1].spool_size == 10_000

    assert spool.files == []
    assert one.names == ["now"]
    assert sorted(int(path.read_bytes()[:4]) for path in newer.iterdir()) == list(range(30, 40))
    assert "31 of a newer otelgw" in caplog.text
