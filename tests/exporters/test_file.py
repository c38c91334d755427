from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from otelgw_exporters.delivery import Outcome
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.file import FileExporter
from otelgw_exporters.lines import Appender
from tests.exporters.samples import generation, span
from tests.exporters.test_payload import check, sent
from tests.tracing.records import record
from tests.tracing.test_spans import build

ROOT = Path(__file__).parents[2]


def exporter(path: Path, **options: Any) -> FileExporter:
    return FileExporter(path=str(path), **options)


def request(number: int, **changes: Any) -> list[ReadableSpan]:
    """Return the spans of one request of the gateway."""
    ids = {"span_id": f"{number + 1:016x}", "generation_span_id": f"{number + 10_001:016x}"}
    attempts = [sent(span_id=f"{number + 20_001:016x}")]
    return build(record(call_id=f"call-{number}", attempts=attempts, **ids, **changes))


def deliver(made: FileExporter, spans: Sequence[ReadableSpan]) -> Outcome:
    return made.deliver(spans, time.monotonic() + 5)


def states(outcome: Outcome) -> list[str]:
    return [verdict.state for verdict in outcome.verdicts]


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_the_payload_of_a_call(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "calls.jsonl"
    made = exporter(path)

    outcome = deliver(made, [*request(0), *request(1), span(77)])
    deliver(made, request(2))

    assert states(outcome) == ["done"] * 7
    lines = read(path)
    assert [line["id"] for line in lines] == ["call-0", "call-1", "call-2"]
    for line in lines:
        check(line)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_as_otlp_a_line_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    made = exporter(path, format="otlp", semconv="otel-1.36")
    deliver(made, [generation(2), span(1), span(9, trace=0xFEED)])

    first, second = read(path)
    (resource,) = first["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    assert [each["spanId"] for each in scope["spans"]] == [f"{2:016x}", f"{1:016x}"]
    assert {each["traceId"] for each in scope["spans"]} == {f"{0xABCDEF:032x}"}
    assert second["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] == f"{0xFEED:032x}"
    assert resource["resource"]["attributes"][0]["key"] == "service.name"


def test_the_captured_bodies_are_in_otlp_only_where_they_are_asked_for(tmp_path: Path) -> None:
    for bodies in (False, True):
        path = tmp_path / f"{bodies}.jsonl"
        deliver(exporter(path, format="otlp", bodies=bodies), request(0))
        assert ("otelgw.request.body" in path.read_text()) is bodies


def test_a_long_trace_is_several_lines_that_readers_take(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    spans = [generation(number, text="x" * 100_000) for number in range(1, 9)]
    assert states(deliver(exporter(path, format="otlp"), spans)) == ["done"] * 8
    lines = path.read_bytes().splitlines()
    assert 1 < len(lines) < 8
    assert max(map(len, lines)) < 1024 * 1024
    assert sum(line.count(b'"traceId"') for line in lines) == 8


def test_the_path_tells_day_hour_service_and_process(tmp_path: Path) -> None:
    made = exporter(tmp_path / "{service}" / "{date}" / "{hour}-{pid}-{{x}}.jsonl")
    resource = Resource({"service.name": "../shop/ä b"})
    early, late = generation(2, parent=1), generation(3, parent=1)
    for each, start in ((early, 1_767_225_599), (late, 1_767_225_600)):  # the last second of 2025, the first of 2026
        each._resource = resource
        each._start_time = start * 1_000_000_000

    assert states(deliver(made, [early, late])) == ["done", "done"]

    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jsonl"))
    name = f"{os.getpid()}-{{x}}.jsonl"
    assert found == [f"_shop_ä_b/2025-12-31/23-{name}", f"_shop_ä_b/2026-01-01/00-{name}"]


@pytest.mark.parametrize("path", ["{when}.jsonl", "{date", "{date:>9}.jsonl", "{0}.jsonl", "{}", "{date!r}"])
def test_a_path_that_cannot_be_filled_in_is_refused_with_what_can(path: str) -> None:
    with pytest.raises(DestinationConfigError, match=r"file/mine: file: path: .*known fields are \{date\}"):
        FileExporter(name="file/mine", path=path)


def test_every_option_can_be_given_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PATH": f"{tmp_path}/x.jsonl", "FORMAT": "otlp", "MAX_BYTES": "900", "MAX_FILES": "1", "FSYNC": "true"}
    for name, value in variables.items():
        monkeypatch.setenv(f"OTELGW_FILE_{name}", value)
    made = FileExporter()
    for number in range(4):
        deliver(made, [span(number + 1)])

    assert "x.jsonl" in repr(made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.3.jsonl", "x.jsonl"]
    assert all("resourceSpans" in line for line in read(tmp_path / "x.jsonl"))
    monkeypatch.setenv("OTELGW_FILE_MAX_BYTES", "many")
    with pytest.raises(DestinationConfigError, match="OTELGW_FILE_MAX_BYTES"):
        FileExporter()


def test_a_full_file_gets_the_next_number_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    made = exporter(path, max_bytes=10_000)
    for number in range(0, 20, 4):
        spans = [span for n in range(number, number + 4) for span in request(n)]
        assert set(states(deliver(made, spans))) == {"done"}

    files = sorted(tmp_path.iterdir(), key=lambda each: (each != path, each.name))[1:]
    assert [each.name for each in files] == [f"calls.{n}.jsonl" for n in range(1, len(files) + 1)]
    assert all(0 < each.stat().st_size <= 10_000 for each in [*files, path])
    found = [line["id"] for each in [*files, path] for line in read(each)]
    assert found == [f"call-{number}" for number in range(20)]


def test_a_line_longer_than_a_file_gets_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    made = exporter(path, max_bytes=10)
    for number in range(3):
        assert set(states(deliver(made, request(number)))) == {"done"}
    names = ("calls.1.jsonl", "calls.2.jsonl", "calls.jsonl")
    assert [[line["id"] for line in read(tmp_path / name)] for name in names] == [["call-0"], ["call-1"], ["call-2"]]


def test_only_as_many_full_files_are_kept_as_are_wanted(tmp_path: Path) -> None:
    other = tmp_path / "calls.x.jsonl"
    other.write_text("not one of ours\n")
    made = exporter(tmp_path / "calls.jsonl", max_bytes=10, max_files=2)
    for number in range(6):
        deliver(made, request(number))
    kept = {"calls.4.jsonl", "calls.5.jsonl", "calls.jsonl", "calls.x.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_file_that_is_moved_away_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    made = exporter(path)
    deliver(made, request(0))
    path.rename(tmp_path / "rotated")
    deliver(made, request(1))
    assert [line["id"] for line in read(tmp_path / "rotated")] == ["call-0"]
    assert [line["id"] for line in read(path)] == ["call-1"]


def test_a_link_stays_a_link_when_its_file_is_full(tmp_path: Path) -> None:
    target = tmp_path / "disk" / "real.jsonl"
    target.parent.mkdir()
    link = tmp_path / "calls.jsonl"
    link.symlink_to(target)
    made = exporter(link, max_bytes=10)
    deliver(made, request(0))
    deliver(made, request(1))
    assert link.is_symlink()
    assert [line["id"] for line in read(target.with_name("real.1.jsonl"))] == ["call-0"]
    assert [line["id"] for line in read(link)] == ["call-1"]


LINES = [b'{"id":"%d","text":"%s"}\n' % (number, b"x" * (7 * number % 23)) for number in range(12)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 11), st.integers(1, 200))
def test_half_a_line_that_a_crash_left_is_no_obstacle(
    tmp_path_factory: pytest.TempPathFactory, whole: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "lines.jsonl"
    path.write_bytes(b"".join(LINES[:whole]) + LINES[whole][: min(cut, len(LINES[whole]) - 2)])
    appender = Appender(max_bytes=10**6, max_files=None, fsync=False, beginning=b'{"id":')
    assert list(appender.append(str(path), LINES[whole:], time.monotonic() + 5)) == [len(LINES) - whole]
    assert path.read_bytes() == b"".join(LINES)


@pytest.mark.parametrize("text", [b"a note without an end", b'{"id": "whole"}', b'{"id":"whole"}', b"\x00binary"])
def test_what_somebody_else_left_without_a_line_feed_is_kept(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_bytes(b"x" * 100_000 + b"\n" + text)
    deliver(exporter(path), request(0))
    first, second, third = path.read_bytes().splitlines()
    assert (first, second) == (b"x" * 100_000, text)
    assert json.loads(third)["id"] == "call-0"


def test_a_directory_in_the_files_place_is_retried_slowly_and_said(tmp_path: Path) -> None:
    made = exporter(tmp_path)
    outcome = deliver(made, request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after is not None
    assert outcome.after >= 60
    assert str(tmp_path) in outcome.reason
    assert "mend the destination's path" in outcome.reason
    assert made.export(request(0)) is SpanExportResult.FAILURE


def test_a_pipe_or_device_is_said_to_be_none_of_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        outcome = deliver(exporter(path), request(0))
        assert states(outcome) == ["retry"] * 3
        assert "no regular file" in outcome.reason


def test_one_path_that_cannot_be_written_does_not_hold_up_another(tmp_path: Path) -> None:
    (tmp_path / "2027-01-15").write_text("in the way of a directory")
    made = exporter(tmp_path / "{date}" / "calls.jsonl")
    spans = [*request(0), *request(1, start=1_900_000_000_000_000_000)]
    outcome = deliver(made, spans)
    assert states(outcome) == ["retry"] * 3 + ["done"] * 3
    assert len(list(tmp_path.glob("2030-*/calls.jsonl"))) == 1


def test_a_failed_write_is_taken_back_and_the_rest_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calls.jsonl"
    made = exporter(path)
    deliver(made, request(0))
    write = os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) > 1000:
            return write(descriptor, bytes(data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    outcome = deliver(made, [*request(1), *request(2)])
    monkeypatch.undo()

    assert states(outcome) == ["retry"] * 6
    assert "No space left" in outcome.reason
    assert outcome.after is None
    assert [line["id"] for line in read(path)] == ["call-0"]
    assert set(states(deliver(made, [*request(1), *request(2)]))) == {"done"}
    assert [line["id"] for line in read(path)] == ["call-0", "call-1", "call-2"]


def test_what_went_into_a_full_file_before_the_failure_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calls.jsonl"
    made = exporter(path, max_bytes=10)
    rename = Path.rename

    def full(self: Path, target: Any) -> Path:
        if str(target).endswith(".2.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    outcome = deliver(made, [*request(0), *request(1), *request(2)])
    assert states(outcome) == ["done"] * 6 + ["retry"] * 3
    assert [line["id"] for line in read(path)] == ["call-1"]


def test_a_delivery_counts_with_fsync_only_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "calls.jsonl"
    synced: list[str] = []
    named = Path("/proc/self/fd")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(str((named / str(descriptor)).readlink())))
    if not named.is_dir():
        pytest.skip("no /proc to tell which file a descriptor is of")
    deliver(exporter(path, fsync=True), request(0))
    assert synced == [str(path.parent), str(path)]
    deliver(exporter(path, fsync=False), request(1))
    assert len(synced) == 2

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    assert states(deliver(exporter(path, fsync=True), request(2))) == ["retry"] * 3
    assert [line["id"] for line in read(path)] == ["call-0", "call-1"]


def test_a_file_that_is_locked_for_too_long_is_retried(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "calls.jsonl"
    with path.open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        outcome = exporter(path).deliver(request(0), time.monotonic() + 0.05)
        assert states(outcome) == ["retry"] * 3
        assert "another process" in outcome.reason
    assert states(deliver(exporter(path), request(0))) == ["done"] * 3


def test_after_shutdown_nothing_is_written(tmp_path: Path) -> None:
    made = exporter(tmp_path / "calls.jsonl")
    made.shutdown()
    assert states(deliver(made, request(0))) == ["retry"] * 3
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys, time
sys.path[:0] = [{root!r}]
from otelgw_exporters.file import FileExporter
from tests.exporters.samples import generation
made = FileExporter(path=sys.argv[1], max_bytes=int(sys.argv[2]))
number = int(sys.argv[3])
while number % 1_000_000 < {count}:
    span = generation(number + 1, text="x" * (number * 37 % 3000))
    if made.deliver([span], time.monotonic() + 20).verdicts[0].state == "done":
        print(f"{{number + 1:016x}}", flush=True)
        number += 1
"""


def writer(path: Path, first: int, *, max_bytes: int = 200_000, count: int = 10**9) -> subprocess.Popen[str]:
    """Start a process that writes calls one by one, and prints the span id of each that it was told is delivered."""
    program = textwrap.dedent(WRITER).format(root=str(ROOT), count=count)
    command = [sys.executable, "-c", program, str(path), str(max_bytes), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_share_files_that_fill_up(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    started = [writer(path, number * 1_000_000, max_bytes=50_000, count=60) for number in range(1, 4)]
    told = [line for process in started for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in started] == [0, 0, 0]
    files = list(tmp_path.iterdir())
    found = [line["otelgw"]["span_id"] for each in files for line in read(each)]
    assert len(told) == 180
    assert sorted(found) == sorted(told)
    assert len(files) > 3
    assert all(each.stat().st_size <= 50_000 for each in files)


def _size(directory: Path) -> int:
    found = 0
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was full and has another name now
            found += path.stat().st_size
    return found


def test_what_was_told_to_be_delivered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    told: list[str] = []
    for attempt in range(4):
        before = _size(tmp_path)
        process = writer(path, (attempt + 1) * 1_000_000)
        deadline = time.monotonic() + 20
        while _size(tmp_path) < before + 100_000 * (attempt + 1) and time.monotonic() < deadline:
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        told += process.communicate(timeout=10)[0].split()
    deliver(exporter(path), request(0))
    found = [line["otelgw"]["span_id"] for each in tmp_path.iterdir() for line in read(each)]
    assert len(told) > 8
    assert set(told) <= set(found)
    assert len(set(found)) == len(found)
    assert len(found) <= len(told) + 4 + 1


LIMITED = """
import resource, sys, time
sys.path[:0] = [{root!r}]
from otelgw_exporters.file import FileExporter
from tests.exporters.samples import generation
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
made = FileExporter(path=sys.argv[1])
states = [made.deliver([generation(n + 1)], time.monotonic() + 5).verdicts[0] for n in range(20)]
print(sum(each.state == "done" for each in states), {{each.state for each in states}}, states[-1].reason)
"""


def test_a_disk_that_is_full_leaves_whole_lines_and_retries(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    program = textwrap.dedent(LIMITED).format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    count, _, rest = done.stdout.partition(" ")
    assert "'retry'" in rest
    assert "File too large" in rest
    assert len(read(path)) == int(count) > 0
