"""Processes: start, wait until they listen, stop; and what a process tree used, read from /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "StartFailedError", "Usage", "free_port", "usage"]

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class StartFailedError(Exception):
    """A process did not start to listen; the text holds the end of its output."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system) so far and resident bytes now of a process tree, split by command line.

    ``pids`` are of the whole tree: two readings can be compared only when no process came or went between them.
    """

    request_path: float
    pipeline: float
    rss: int
    pids: frozenset[int]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _stat(pid: int) -> tuple[int, float, int]:
    """Return parent pid, CPU seconds and resident bytes. Fields are counted after the name, which may hold spaces."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK, int(fields[21]) * PAGE


def usage(root: int, pipeline_marker: str = "otelgw.pipeline_main") -> Usage:
    """Return what the tree under ``root`` used; processes whose command line holds the marker are the pipeline."""
    stats: dict[int, tuple[int, float, int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                stats[int(entry.name)] = _stat(int(entry.name))
    tree = {root}
    while more := {pid for pid, (parent, _, _) in stats.items() if parent in tree and pid not in tree}:
        tree |= more
    request_path = pipeline = 0.0
    rss = 0
    for pid in tree & stats.keys():
        _, cpu, resident = stats[pid]
        command = ""
        with contextlib.suppress(OSError):
            command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if pipeline_marker in command:
            pipeline += cpu
        else:
            request_path += cpu
            rss += resident
    return Usage(request_path, pipeline, rss, frozenset(tree))


class Process:
    """A server on 127.0.0.1 in a session of its own; its output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_ready(self) -> None:
        """Return once the port accepts connections.

        Raises:
            StartFailedError: the process ended, or half a minute passed.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._popen.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise StartFailedError(f"{self.name} does not listen on port {self.port}; its output ends with:\n{self.tail()}")

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()
