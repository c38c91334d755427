"""The lock on a role that only one process may have."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from otelgw.errors import StartError
from otelgw.process import lock
from tests.collector.disks import disk


def test_a_lock_is_held_for_as_long_as_its_descriptor_is_open_and_names_its_holder(tmp_path: Path) -> None:
    held = lock(tmp_path, "pipeline")

    with pytest.raises(StartError, match=rf"another pipeline \(pid {os.getpid()}\) is running on it; stop it"):
        lock(tmp_path, "pipeline", patience=0.0)
    os.close(lock(tmp_path, "receiver", patience=0.0))
    os.close(held)
    os.close(lock(tmp_path, "pipeline", patience=0.0))


def test_the_next_one_waits_for_the_last(tmp_path: Path) -> None:
    held = lock(tmp_path, "pipeline")
    letting_go = threading.Timer(0.2, os.close, (held,))
    letting_go.start()
    os.close(lock(tmp_path, "pipeline"))
    letting_go.join()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    program = (
        f"import pathlib, time; from otelgw.process import lock; lock(pathlib.Path({str(tmp_path)!r}), 'pipeline')"
    )
    holder = subprocess.Popen([sys.executable, "-c", f"{program}; print(1, flush=True); time.sleep(60)"], stdout=-1)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StartError, match=str(holder.pid)):
        lock(tmp_path, "pipeline", patience=0.0)
    holder.kill()
    holder.communicate()
    os.close(lock(tmp_path, "pipeline"))


def test_without_a_directory_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be opened: No such file or directory"):
        lock(tmp_path / "missing", "pipeline")


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_disk_that_takes_nothing_does_not_keep_a_process_from_starting(tmp_path: Path, state: str) -> None:
    with disk(tmp_path / "disk", "64k") as small:
        os.close(lock(small.path, "pipeline"))
        (small.path / "pipeline.lock").write_text("")
        if state == "full":
            small.fill()
        else:
            small.remount("ro")
        started = time.monotonic()
        held = lock(small.path, "pipeline", patience=10.0)
        assert time.monotonic() - started < 9
        with pytest.raises(StartError, match="another pipeline"):
            lock(small.path, "pipeline", patience=0.0)
        os.close(held)
