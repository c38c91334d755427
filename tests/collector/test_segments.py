from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelgw_collector import segment_format
from otelgw_collector.segment_format import INTENT, OTLP, RECORD
from otelgw_collector.segments import SegmentReader, SegmentWriter, find_segments
from tests.collector.disks import disk

HEADER = 28
ENTRY = 14


def read_all(directory: Path) -> list[bytes]:
    """Everything that a reader finds in every segment, none of which has a writer any more."""
    found = []
    for name in find_segments(directory):
        reader = SegmentReader(name.path)
        while not reader.finished:
            found += [entry.payload for entry in reader.read()]
        reader.close()
    return found


def written(directory: Path, payloads: list[bytes]) -> Path:
    writer = SegmentWriter(directory, "w0")
    for payload in payloads:
        writer.append(payload)
    writer.close()
    assert writer.path is not None
    return writer.path


def test_records_come_back_as_they_were_in_private_files(tmp_path: Path) -> None:
    path = written(tmp_path / "spool", [b"one", b"", b"x" * 3_000_000])

    assert read_all(tmp_path / "spool") == [b"one", b"", b"x" * 3_000_000]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_is_created_before_the_first_record(tmp_path: Path) -> None:
    SegmentWriter(tmp_path / "spool", "w0").close()

    assert not (tmp_path / "spool").exists()


def test_a_reader_goes_on_from_an_offset_and_sees_what_is_appended(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w0")
    writer.append(b"one")
    assert writer.path is not None
    first = SegmentReader(writer.path)
    (entry,) = first.read()
    assert (first.read(), first.finished) == ([], False)

    writer.append(b"two")
    second = SegmentReader(writer.path, entry.end)

    assert [entry.payload for entry in second.read()] == [b"two"]
    assert [entry.payload for entry in first.read()] == [b"two"]
    assert first.key == second.key
    writer.close()
    assert first.finished
    first.close()
    second.close()


def test_a_new_segment_begins_by_size_and_by_age_and_closes_the_old_one(tmp_path: Path) -> None:
    now = [0.0]
    writer = SegmentWriter(tmp_path, "w0", max_bytes=HEADER + 2 * (ENTRY + 10), max_age=60, clock=lambda: now[0])
    for _ in range(3):
        writer.append(b"0123456789")
    assert [name.seq for name in find_segments(tmp_path)] == [1, 2]
    now[0] = 60.0
    writer.append(b"0123456789")
    writer.append(b"larger than any segment may be" * 10)

    names = find_segments(tmp_path)

    assert [name.seq for name in names] == [1, 2, 3, 4]
    readers = [SegmentReader(name.path) for name in names]
    assert [reader.closed for reader in readers] == [True, True, True, False]
    writer.close()
    assert sum(len(reader.read()) for reader in readers) == 5
    for reader in readers:
        reader.close()


def test_a_later_writer_of_the_same_name_goes_on_counting_and_gets_another_key(tmp_path: Path) -> None:
    first = written(tmp_path, [b"one"])
    with_first = SegmentReader(first)
    second = written(tmp_path, [b"two"])
    assert [name.path for name in find_segments(tmp_path)] == [first, second]

    first.unlink()
    second.unlink()
    again = SegmentReader(written(tmp_path, [b"three"]))

    assert again.path.name == with_first.path.name
    assert again.key != with_first.key
    again.close()
    with_first.close()


def test_two_writers_of_one_name_at_once_never_share_a_segment(tmp_path: Path) -> None:
    writers = [SegmentWriter(tmp_path, "w0") for _ in range(2)]
    for writer in writers:
        writer.append(b"x")

    names = find_segments(tmp_path)
    readers = [SegmentReader(name.path) for name in names]

    assert len({name.seq for name in names}) == 2
    assert not any(reader.closed for reader in readers)
    for closable in (*writers, *readers):
        closable.close()


@pytest.mark.parametrize("name", ["", "a/b", "a-b", "a b", "../a"])
def test_a_name_that_could_leave_the_directory_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file name"):
        SegmentWriter(tmp_path, name)


def test_a_record_beyond_the_limit_is_refused_and_the_segment_stays_whole(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w0")
    writer.append(b"one")
    with pytest.raises(ValueError, match="larger than"):
        writer.append(bytes(segment_format.MAX_PAYLOAD + 1))
    writer.append(b"two")
    writer.close()

    assert read_all(tmp_path) == [b"one", b"two"]


def limit_file_size(size: int) -> None:
    """What a full disk does: a write stops in the middle, then fails."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk_is_an_error_of_that_record_and_the_file_stays_well_formed(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SegmentWriter(tmp_path, "w0")
    writer.append(b"one")
    try:
        limit_file_size(1000)
        for _ in range(3):
            with pytest.raises(OSError, match=r"space|large") as failure:
                writer.append(b"x" * 2000)
            assert failure.value.errno in {errno.ENOSPC, errno.EFBIG}
        writer.append(b"small enough")
    finally:
        limit_file_size(soft)
    writer.append(b"y" * 2000)
    writer.close()

    assert read_all(tmp_path) == [b"one", b"small enough", b"y" * 2000]


def test_without_room_for_a_first_segment_the_error_is_the_callers_and_nothing_is_left(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = SegmentWriter(tmp_path, "w0")
    try:
        limit_file_size(HEADER - 1)
        with pytest.raises(OSError, match=r"space|large"):
            writer.append(b"one")
    finally:
        limit_file_size(soft)
    assert find_segments(tmp_path) == []

    writer.append(b"two")
    writer.close()
    assert read_all(tmp_path) == [b"two"]


def test_where_no_new_segment_can_be_made_the_old_one_takes_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    writer = SegmentWriter(tmp_path, "w0", max_age=60, clock=lambda: now[0])
    writer.append(b"one")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now[0] = 61.0
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        writer.append(b"two")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    now[0] = 63.0
    writer.append(b"three")
    writer.close()

    assert [name.seq for name in find_segments(tmp_path)] == [1, 2]
    assert read_all(tmp_path) == [b"one", b"two", b"three"]


def test_a_killed_writer_leaves_every_appended_record_and_a_closed_segment(tmp_path: Path) -> None:
    program = f"""
import os, pathlib
from otelgw_collector.segments import SegmentWriter
writer = SegmentWriter(pathlib.Path({str(tmp_path)!r}), "w0")
for number in range(1000):
    writer.append(b"%d" % number)
print("ready", flush=True)
os.read(0, 1)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"ready\n"
    reader = SegmentReader(find_segments(tmp_path)[0].path)
    assert not reader.closed

    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()

    assert [entry.payload for entry in reader.read()] == [b"%d" % number for number in range(1000)]
    assert reader.finished
    reader.close()


def test_a_file_without_its_header_belongs_to_its_writer_for_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "w0-00000001.seg"
    path.touch()
    with pytest.raises(BlockingIOError):
        SegmentReader(path)

    os.utime(path, (time.time() - 120,) * 2)
    reader = SegmentReader(path)

    assert reader.finished
    assert reader.delete()
    assert not path.exists()
    reader.close()


def test_a_segment_that_is_written_to_or_not_read_to_its_end_is_not_deleted(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w0")
    writer.append(b"one")
    assert writer.path is not None
    reader = SegmentReader(writer.path)
    reader.read()
    assert not reader.delete()
    writer.append(b"two")
    writer.close()
    assert not reader.delete()

    reader.read()

    assert reader.delete()
    assert find_segments(tmp_path) == []
    reader.close()


def test_a_segment_of_a_newer_format_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "w0-00000001.seg"
    path.write_bytes(segment_format.pack_header(b"12345678", form=2) + b"whatever comes then")
    reader = SegmentReader(path)

    assert not reader.supported
    reader.close()


def test_no_payload_can_pass_for_a_record(tmp_path: Path) -> None:
    """What a caller could forge, after damage to the record that holds it: a record of another segment."""
    forged = written(tmp_path / "other", [b"forged"]).read_bytes()[HEADER:]
    path = written(tmp_path / "spool", [b"one", forged * 3, b"two"])
    with path.open("r+b") as file:
        file.seek(HEADER + ENTRY + 3 + 4)  # the length of the second record
        file.write(b"\xff")

    assert read_all(tmp_path / "spool") == [b"one", b"two"]


def test_a_torn_tail_is_waited_for_while_the_writer_lives_and_given_up_after(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w0")
    writer.append(b"one")
    writer.append(b"two" * 100)
    assert writer.path is not None
    whole = writer.path.read_bytes()
    os.truncate(writer.path, len(whole) - 1)
    reader = SegmentReader(writer.path)
    assert [entry.payload for entry in reader.read()] == [b"one"]
    assert reader.read() == []
    assert reader.skipped == 0

    with writer.path.open("ab") as file:
        file.write(whole[-1:])
    assert [entry.payload for entry in reader.read()] == [b"two" * 100]

    os.truncate(writer.path, len(whole) - 50)
    late = SegmentReader(writer.path)
    writer.close()
    assert [entry.payload for entry in late.read()] == [b"one"]
    assert late.finished
    assert late.skipped == ENTRY + 250
    reader.close()
    late.close()


def test_a_live_segment_is_read_past_damage_without_waiting_for_its_end(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "w0")
    for payload in (b"one", b"two", b"three"):
        writer.append(payload)
    assert writer.path is not None
    with writer.path.open("r+b") as file:
        file.seek(HEADER + ENTRY + 3 + 4)
        file.write(b"\x00\xff")  # a length that reaches beyond the file
    reader = SegmentReader(writer.path)

    assert [entry.payload for entry in reader.read()] == [b"one", b"three"]
    assert reader.skipped == ENTRY + 3
    writer.close()
    reader.close()


payload_lists = st.lists(
    st.one_of(st.binary(max_size=200), st.integers(0, 5).map(lambda n: b"\x01\x01" * 50 * n), st.just(b"otelgw\x00")),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(payload_lists, st.data())
def test_a_cut_file_loses_no_record_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("spool"), payloads)
    cut = data.draw(st.integers(0, path.stat().st_size))
    os.truncate(path, cut)
    os.utime(path, (0, 0))

    found = read_all(path.parent)

    ends = [HEADER + sum(ENTRY + len(payload) for payload in payloads[: index + 1]) for index in range(len(payloads))]
    assert found == [payload for payload, end in zip(payloads, ends, strict=True) if end <= cut]


@settings(max_examples=300, deadline=None)
@given(payload_lists, st.data())
def test_an_overwritten_file_loses_only_the_records_that_were_hit(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("spool"), payloads)
    size = path.stat().st_size
    start = data.draw(st.integers(0, size - 1))
    noise = data.draw(st.binary(min_size=1, max_size=60))[: size - start]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(noise)

    found = read_all(path.parent)

    untouched, offset = [], HEADER
    for payload in payloads:
        end = offset + ENTRY + len(payload)
        if end <= start or offset >= start + len(noise):
            untouched.append(payload)
        offset = end
    remaining = iter(found)
    assert all(payload in remaining for payload in untouched), (found, untouched)
    assert all(payload in payloads for payload in found)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([RECORD, INTENT, OTLP, "settling"]), payload_lists), min_size=1, max_size=8),
    st.integers(1, HEADER),
    st.binary(min_size=1, max_size=HEADER),
)
def test_a_record_of_any_kind_is_found_after_a_destroyed_header(
    tmp_path_factory: pytest.TempPathFactory, written_as: list[tuple[int | str, list[bytes]]], start: int, noise: bytes
) -> None:
    writer = SegmentWriter(tmp_path_factory.mktemp("spool"), "w0")
    expected = []
    for kind, payloads in written_as:
        for payload in payloads:
            if kind == "settling":
                writer.append(payload, settles=b"12345678")
                expected += [payload, b"12345678"]
            else:
                writer.append(payload, int(kind))
                expected.append(payload)
    writer.close()
    assert writer.path is not None
    with writer.path.open("r+b") as file:
        file.seek(HEADER - start)
        file.write(noise[:start])

    assert read_all(writer.path.parent) == expected


def test_after_a_destroyed_header_a_forged_record_in_a_damaged_one_leads_nobody_astray(tmp_path: Path) -> None:
    forged = SegmentWriter(tmp_path / "elsewhere", "w0")
    forged.append(b"forged")
    forged.close()
    assert forged.path is not None
    body = forged.path.read_bytes()[HEADER:]
    path = written(tmp_path / "spool", [b"x" + body * 3, b"one", b"two", body, b"three" * 100])
    with path.open("r+b") as file:
        file.write(b"\xff" * (HEADER + ENTRY + 1))

    assert read_all(tmp_path / "spool") == [b"one", b"two", body, b"three" * 100]


@pytest.mark.parametrize("durable", [False, True])
def test_a_full_disk_gives_the_segment_to_the_reader_so_that_deleting_it_makes_room(
    tmp_path: Path, durable: bool
) -> None:
    with disk(tmp_path / "disk", "1m") as small:
        writer = SegmentWriter(small.path / "spool", "w0", durable=durable)
        taken = 0
        with pytest.raises(OSError, match="No space left"):
            while True:
                writer.append(b"%06d" % taken + bytes(5000))
                taken += 1
        for _ in range(20):
            with pytest.raises(OSError, match="No space left"):
                writer.append(bytes(5000))
        only, *further = find_segments(small.path / "spool")
        assert len(further) <= 1
        reader = SegmentReader(only.path)
        assert [int(entry.payload[:6]) for entry in reader.read(2**21)] == list(range(taken))
        assert reader.delete()
        reader.close()

        writer.append(b"there is room again")
        writer.close()
        assert read_all(small.path / "spool") == [b"there is room again"]
        assert list(small.path.glob("spool/*.waiting")) == []


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=500))
def test_any_file_at_all_is_read_without_an_exception(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("spool") / "w0-1.seg"
    path.write_bytes(content)
    os.utime(path, (0, 0))

    read_all(path.parent)
