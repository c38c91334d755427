from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from otelgw_collector.ledger import HEAD, Changes, Ledger
from tests.collector.disks import disk


def test_cursors_outlast_the_process_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.db"
    first = Ledger(path)
    assert first.save(Changes(cursors={"a": {"w0-1.seg:ff": 10, "w1-1.seg:ee": 20}, "b": {"w0-1.seg:ff": 5}}))
    assert first.save(Changes(cursors={"a": {"w0-1.seg:ff": 30}}))
    first.close()

    second = Ledger(path)

    assert second.cursors("a") == {"w0-1.seg:ff": 30, "w1-1.seg:ee": 20}
    assert second.cursors("b") == {"w0-1.seg:ff": 5}
    assert second.cursors("c") == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second.close()


def test_a_new_destination_begins_where_the_furthest_other_one_is_and_not_where_the_head_is(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "pipeline.db")
    ledger.enlist(["a", "b"])
    assert ledger.save(Changes(cursors={"a": {"s": 5}, "b": {"s": 7}, HEAD: {"s": 9, "t": 3}}))

    ledger.enlist(["a", "b", "c"])

    assert ledger.cursors("c") == {"s": 7}
    assert ledger.cursors(HEAD) == {"s": 9, "t": 3}
    ledger.close()


def test_what_is_saved_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.db"
    program = f"""
import os, pathlib
from otelgw_collector.ledger import Changes, Ledger
from tests.collector.disks import disk
ledger = Ledger(pathlib.Path({str(path)!r}))
ledger.save(Changes(cursors={{"a": {{"s": 7}}}}))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)

    ledger = Ledger(path)
    assert ledger.cursors("a") == {"s": 7}
    ledger.close()


def test_cursors_of_deleted_segments_are_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "pipeline.db")
    ledger.save(Changes(cursors={"a": {"one": 1, "two": 2}, "b": {"one": 1}}))

    ledger.keep(["two"])

    assert ledger.cursors("a") == {"two": 2}
    assert ledger.cursors("b") == {}
    ledger.close()


@pytest.mark.parametrize("damage", ["garbage", "newer", "torn"])
def test_a_file_that_cannot_be_read_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pipeline.db"
    if damage == "garbage":
        path.write_bytes(b"this is no database, and long enough to be looked at as one " * 100)
    elif damage == "newer":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        ledger = Ledger(path)
        ledger.save(Changes(cursors={"a": {f"segment {number}": number for number in range(2000)}}))
        ledger.close()
        os.truncate(path, path.stat().st_size // 2)

    ledger = Ledger(path)

    assert ledger.cursors("a") == {}
    assert ledger.save(Changes(cursors={"a": {"s": 1}}))
    ledger.close()
    again = Ledger(path)
    assert again.cursors("a") == {"s": 1}
    again.close()
    assert "set aside" in caplog.text
    assert any(".damaged-" in name.name for name in tmp_path.iterdir())


def test_without_a_place_to_write_the_ledger_lives_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path / "not there" / "pipeline.db")

    assert ledger.save(Changes(cursors={"a": {"s": 1}}))
    assert ledger.cursors("a") == {"s": 1}
    assert "in memory" in caplog.text
    ledger.close()


@pytest.mark.parametrize("killed", [True, False], ids=["after a kill", "after an orderly end"])
def test_on_a_full_disk_what_was_saved_is_known_and_what_follows_is_saved_when_there_is_room(
    tmp_path: Path, killed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with disk(tmp_path / "disk") as small:
        path = small.path / "pipeline.db"
        program = f"""
import os, pathlib
from otelgw_collector.ledger import Changes, Ledger
ledger = Ledger(pathlib.Path({str(path)!r}))
ledger.enlist(["a"])
ledger.save(Changes(cursors={{"a": {{"s": 7}}}}))
os.kill(os.getpid(), 9) if {killed} else ledger.close()
"""
        subprocess.run([sys.executable, "-c", program], check=False)
        small.fill()

        ledger = Ledger(path)
        ledger.enlist(["a"])
        assert ledger.cursors("a") == {"s": 7}
        many = {str(number): number for number in range(5000)}
        assert not ledger.save(Changes(cursors={"a": many}))
        assert not ledger.save(Changes(cursors={"a": many}))
        assert caplog.text.count("cannot be saved") == 1
        small.empty()
        assert ledger.save(Changes(cursors={"a": many}))
        ledger.close()

        again = Ledger(path)
        assert again.cursors("a") == {"s": 7, **many}
        again.close()


def test_on_a_read_only_disk_what_was_saved_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with disk(tmp_path / "disk") as small:
        ledger = Ledger(small.path / "pipeline.db")
        ledger.save(Changes(cursors={"a": {"s": 7}}))
        ledger.close()
        small.remount("ro")

        ledger = Ledger(small.path / "pipeline.db")
        assert ledger.cursors("a") == {"s": 7}
        ledger.close()
    assert "kept in memory only" in caplog.text
