"""One child process of the master: its start, what it is told and tells, its restarts and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

from otelgw.config.env import process_environment
from otelgw.config.settings import Settings
from otelgw.process import pack

__all__ = ["PIPELINE", "RECEIVER", "WORKER", "Child"]

WORKER = "worker"
PIPELINE = "pipeline"
RECEIVER = "receiver"
_MODULES = {WORKER: "otelgw.worker", PIPELINE: "otelgw.pipeline_main", RECEIVER: "otelgw.receiver_main"}
# gRPC's core writes lines of its own to standard error, one for each failed try; what matters we say ourselves.
_QUIET = {"GRPC_VERBOSITY": "NONE"}
_FIRST_BACKOFF = 0.1
_LAST_BACKOFF = 10.0
_HEALTHY_AFTER = 30.0  # a child that lived this long starts its back-off anew
# ^C and a terminal's hang-up reach every process of the group; children leave them to the master, also while they are
# still loading and have said nothing about signals.
_MASTERS = frozenset({signal.SIGINT, signal.SIGHUP})


@dataclass(eq=False)
class Child:
    """``ready``: it said so. ``restart_at`` and ``kill_at`` are ``time.monotonic()``, 0 for never."""

    role: str
    index: int
    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    ready_fd: int = -1
    restart_at: float = 0.0
    retiring: bool = False
    kill_at: float = 0.0
    _started: float = 0.0
    _failures: int = 0
    _untold: memoryview = field(default_factory=lambda: memoryview(b""))

    @property
    def name(self) -> str:
        name = f"{self.role} {self.index}" if self.role == WORKER else self.role
        return f"{name} (pid {self.process.pid})" if self.process is not None else name

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self, listener: int) -> None:
        """Start the process; a worker inherits the descriptor ``listener``.

        Raises:
            OSError: there is no room for another process or descriptor.
        """
        reader, writer = os.pipe()
        command = [sys.executable, "-m", _MODULES[self.role], "--ready-fd", str(writer)]
        passed = [writer]
        if self.role == WORKER:
            command += ["--fd", str(listener), "--index", str(self.index)]
            passed.append(listener)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _MASTERS)
        try:
            self.process = subprocess.Popen(  # noqa: S603 - ourselves
                command, stdin=subprocess.PIPE, pass_fds=passed, bufsize=0, env=_QUIET | process_environment()
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(writer)
        self.ready, self.ready_fd, self._started = False, reader, time.monotonic()
        self._untold = memoryview(pack(self.settings))
        os.set_blocking(self.input_fd, False)
        self.tell()

    @property
    def input_fd(self) -> int:
        """The descriptor that leads to the process' standard input, -1 without a process."""
        stdin = self.process.stdin if self.process is not None else None
        return -1 if stdin is None or stdin.closed else stdin.fileno()

    @property
    def to_be_told(self) -> bool:
        return bool(self._untold) and self.input_fd >= 0

    def tell(self) -> None:
        """Send as much of the settings as the pipe takes."""
        try:
            while self._untold:
                self._untold = self._untold[os.write(self.input_fd, self._untold) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # It has ended; it says itself why, and so does its status.
            self._untold = memoryview(b"")

    def hear(self) -> None:
        """Take what came on the descriptor for being ready; its end means that the process has ended before."""
        self.ready = bool(os.read(self.ready_fd, 64))
        self._close_ready()

    def signal(self, number: int) -> None:
        if self.process is not None and self.alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the process now, and wait for its end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.close()

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self._untold = memoryview(b"")
        self._close_ready()

    def _close_ready(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1

    def plan_restart(self) -> float:
        """The process has ended by itself: return the seconds until it is started again."""
        now = time.monotonic()
        self._failures = 1 if now - self._started > _HEALTHY_AFTER else self._failures + 1
        wait = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(self._failures - 1, 20))
        self.restart_at = now + wait
        self.close()
        return float(wait)
