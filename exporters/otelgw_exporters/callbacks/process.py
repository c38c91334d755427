"""One callback's process, seen from the pipeline: started when it is needed, asked, killed when it takes too long."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

from otelgw_exporters.callbacks.frames import HEAD, LARGEST, pack, unpack

__all__ = ["Ended", "Late", "Process"]

_START = 20.0  # seconds for the interpreter and the callback's own imports
_LEAVE = 2.5  # seconds for the end


class Late(NamedTuple):
    """There was no answer in time; the process goes on with what it was asked."""


class Ended(NamedTuple):
    """The process is gone. ``status`` is its exit status, negative for a signal."""

    status: int

    def __str__(self) -> str:
        return f"was killed by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"


class Process:
    """At most one process at a time. ``memory`` is what it may take for data, in bytes."""

    def __init__(self, memory: int, environment: dict[str, str] | None) -> None:
        self._memory = memory
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._received = b""

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def start(self, task: Any, deadline: float) -> Any:
        """Start it with its ``task`` and return what it says about it, or ``Late`` or ``Ended``."""
        self.kill()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "otelgw_exporters.callbacks.host"]
        command += ["--fd", str(theirs.fileno()), "--memory", str(self._memory)]
        try:
            self._child = subprocess.Popen(  # noqa: S603 - ourselves
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=self._environment
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel, self._received = ours, b""
        self.tell(pack(task), deadline)
        return self.hear(min(deadline, time.monotonic() + _START))

    def tell(self, frame: bytes, deadline: float) -> None:
        """Send a frame; one that cannot be sent shows when the answer is waited for."""
        channel = self._channel
        if channel is None:
            return
        with contextlib.suppress(OSError):
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            channel.sendall(frame)

    def hear(self, deadline: float) -> Any:
        """Return the answer to what it was told last, or ``Late`` or ``Ended``."""
        while True:
            if len(self._received) >= HEAD.size:
                (size,) = HEAD.unpack_from(self._received)
                end = HEAD.size + size
                if size > LARGEST:
                    return self._gone()
                if len(self._received) >= end:
                    data, self._received = self._received[HEAD.size : end], self._received[end:]
                    return unpack(data)
            left = deadline - time.monotonic()
            if left <= 0:
                return Late()
            came = self._read(left)
            if came is None:
                return Late()
            if not came:
                return self._gone()
            self._received += came

    def _read(self, seconds: float) -> bytes | None:
        """Return what has come; empty at its end, None when nothing came in time."""
        if self._channel is None:
            return b""
        try:
            self._channel.settimeout(seconds)
            return self._channel.recv(65536)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def _gone(self) -> Ended:
        child = self._child
        status = 0
        if child is not None:
            try:
                status = child.wait(_LEAVE)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait()
        self.kill()
        return Ended(status)

    def hang_up(self) -> None:
        """Let the process know that it is over; from any thread, while another waits for its answer."""
        channel = self._channel
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """End the process now."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def close(self) -> None:
        """Let the process end by itself, then end it."""
        self.hang_up()
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_LEAVE)
        self.kill()
