"""Records that take the process down, and records from the future."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otelgw_collector import segment_format
from otelgw_collector.quarantine import Quarantine
from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import Scripted, Spool, eventually, running

ROOT = Path(__file__).parents[2]
DYING = """
import os, pathlib, sys, threading
from tests.collector.destinations import Scripted, Spool, decode, eventually
def deadly(payload):
    if payload == b"poison":
        os.kill(os.getpid(), 9)
    return decode(payload)
one = Scripted("one")
pipeline = Spool(pathlib.Path(sys.argv[1])).pipeline(one.destination(), decode=deadly)
threading.Thread(target=pipeline.run, daemon=True).start()
eventually(lambda: "after" in one.names, 30)
eventually(lambda: pipeline.status()[0].backlog == 0)
pipeline.stop(5)
print(",".join(sorted(set(one.names))), pipeline._decoder.quarantined)
"""


def test_after_three_deaths_a_record_is_set_aside_counted_and_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0")
    for payload in (b"before", b"poison", b"after"):
        writer.append(payload)
    writer.close()
    command = [sys.executable, "-c", DYING, str(tmp_path)]
    for _ in range(3):
        died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr

    lived = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert lived.returncode == 0, lived.stderr
    names, quarantined = lived.stdout.split()
    assert "after" in names
    assert "poison" not in names
    assert quarantined == "1"
    (kept,) = (spool.segments / "undecodable").iterdir()
    assert kept.read_bytes() == b"poison"
    assert "has ended the pipeline three times" in lived.stderr


def test_a_note_is_there_while_a_record_is_decoded_and_gone_after_it(tmp_path: Path) -> None:
    first = Quarantine(tmp_path / "decoding")
    first.note("w0-1.seg@777")
    first.clear()
    first.note("w0-1.seg@77")
    assert Quarantine(tmp_path / "decoding").found == ["w0-1.seg@77"]

    second = Quarantine(tmp_path / "decoding")
    second.note("w0-1.seg@77")
    second.clear()
    assert Quarantine(tmp_path / "decoding").found == []


def test_without_a_place_for_notes_decoding_goes_on(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "missing" / "decoding")
    quarantine.note("w0-1.seg@77")
    quarantine.clear()
    assert quarantine.found == []


def test_a_record_of_a_newer_version_is_set_aside_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    writer = SegmentWriter(spool.segments, "w0")
    monkeypatch.setattr(segment_format, "VERSION", 2)
    writer.append(b"from the future")
    monkeypatch.undo()
    writer.append(b"now")
    one, two = Scripted("one"), Scripted("two")
    with running(spool.pipeline(one.destination(), two.destination())):
        eventually(lambda: one.names == two.names == ["now"])
        writer.close()
        eventually(lambda: spool.files == [])

    (kept,) = (spool.segments / "undecodable" / "newer").iterdir()
    assert kept.read_bytes() == b"from the future"
    assert kept.stat().st_mode & 0o777 == 0o600
