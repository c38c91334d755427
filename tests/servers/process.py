"""A real server as a child process, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Process"]

_LIMIT = 60.0  # seconds until it must be ready


class Process:
    """Starts ``command`` and waits until it is ``ready``: by default until it listens on ``port``, on loopback."""

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        *,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._command = [str(word) for word in command]
        self._env = {**os.environ, **(env or {})}
        self._ready = ready or self._listens
        self._log = tempfile.NamedTemporaryFile(prefix="server-", suffix=".log")  # noqa: SIM115 - closed in __exit__

    @property
    def output(self) -> str:
        """Everything that it has printed so far."""
        return Path(self._log.name).read_text(errors="replace")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
            return True
        return False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, env=self._env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + _LIMIT
        try:
            while not self._ready():
                assert self._process.poll() is None, self.output
                assert time.monotonic() < deadline, self.output
                time.sleep(0.05)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A group of its own, so that what the server starts itself ends with it.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
                break
        self._log.close()
