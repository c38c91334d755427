"""One worker process by itself: what its master tells it, and what it tells its master."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from otelgw.config.settings import Server, Settings, Tracing
from otelgw.process import READY, announce, pack, read_settings
from tests.servers.gateway import deployment


class WorkerProcess:
    """``python -m otelgw.worker`` as the master starts it."""

    def __init__(self, settings: Settings) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.set_inheritable(True)
        port = self.listener.getsockname()[1]
        self.settings = replace(settings, server=replace(settings.server, port=port))
        self.url = f"http://127.0.0.1:{port}"
        self.ready_fd, writer = os.pipe()
        command = [
            sys.executable,
            "-m",
            "otelgw.worker",
            "--fd",
            str(self.listener.fileno()),
            "--ready-fd",
            str(writer),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[self.listener.fileno(), writer],
        )
        os.close(writer)
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.stdin, self.stderr = self.process.stdin, self.process.stderr

    def tell(self) -> None:
        self.stdin.write(pack(self.settings))
        self.stdin.flush()

    def is_ready(self) -> bool:
        """Wait for what it says, or for its end."""
        return os.read(self.ready_fd, 64) == READY

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stderr.close()
        os.close(self.ready_fd)
        self.listener.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "spool").mkdir()
    echo = deployment("http://127.0.0.1:9", alias="echo", transport="echo", provider="echo")
    return Settings(server=Server(drain=5), state_dir=str(tmp_path), deployments=(echo,))


@pytest.fixture
def worker(settings: Settings) -> Iterator[WorkerProcess]:
    running = WorkerProcess(settings)
    yield running
    running.close()


def test_it_says_that_it_is_ready_when_it_serves(worker: WorkerProcess) -> None:
    worker.tell()
    assert worker.is_ready()
    assert httpx.get(f"{worker.url}/health/liveliness").status_code == 200


def test_it_ends_quietly_when_its_master_ends_before_it_said_anything(worker: WorkerProcess) -> None:
    worker.stdin.close()
    assert worker.process.wait(10) == 1
    assert worker.stderr.read() == b""


def test_it_ends_when_its_master_has_gone(worker: WorkerProcess) -> None:
    worker.tell()
    assert worker.is_ready()
    worker.stdin.close()
    assert worker.process.wait(10) == 0
    assert b"the master is gone" in worker.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["drain", "retire"])
def test_it_ends_when_told_however_often(worker: WorkerProcess, number: signal.Signals) -> None:
    worker.tell()
    assert worker.is_ready()
    deadline = time.monotonic() + 20
    while worker.process.poll() is None and time.monotonic() < deadline:
        worker.process.send_signal(number)
    assert worker.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["interrupt", "hang-up"])
def test_signals_of_the_terminal_are_its_masters(worker: WorkerProcess, number: signal.Signals) -> None:
    worker.tell()
    assert worker.is_ready()
    worker.process.send_signal(number)
    assert httpx.get(f"{worker.url}/health/liveliness").status_code == 200


def test_it_takes_as_many_descriptors_as_it_may(settings: Settings) -> None:
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux can set the limits of another process")
    worker = WorkerProcess(settings)
    try:
        resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (256, 4096))
        worker.tell()
        assert worker.is_ready()
        assert resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
    finally:
        worker.close()


@pytest.mark.parametrize(("disabled", "files"), [(False, 1), (True, 0)])
def test_its_records_are_in_the_spool_unless_nothing_wants_them(settings: Settings, disabled: bool, files: int) -> None:
    worker = WorkerProcess(replace(settings, tracing=Tracing(disabled=disabled)))
    try:
        worker.tell()
        assert worker.is_ready()
        body: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
        assert httpx.post(f"{worker.url}/v1/chat/completions", json=body).status_code == 200
        found = list((Path(settings.state_dir) / "spool").iterdir())
        assert len(found) == files
        assert all(path.stat().st_size > 0 for path in found)
    finally:
        worker.close()


def test_settings_arrive_as_they_were_sent(settings: Settings) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        with os.fdopen(writer, "wb") as sink:
            sink.write(pack(settings))
        assert read_settings(source) == settings
        with pytest.raises(EOFError):
            read_settings(source)


def test_announcing_without_a_descriptor_is_nothing() -> None:
    announce(-1)
