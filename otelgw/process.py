"""What the master and its children agree on: settings on standard input, which then tells by its end that the master
is gone, one byte line on a descriptor when the child is ready, and a lock for a role that only one process may have."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

from otelgw.config.settings import Settings
from otelgw.errors import StartError

__all__ = ["announce", "lock", "pack", "read_settings"]

_LENGTH = struct.Struct(">Q")
READY = b"ready\n"
_PATIENCE = 20.0  # seconds that an earlier process may still need to end


def pack(settings: Settings) -> bytes:
    """Return ``settings`` as a child reads them: 8 bytes of length, big-endian, then a pickle."""
    # Pickle is safe here: the bytes go through a pipe from the parent to its own child.
    payload = pickle.dumps(settings, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(payload)) + payload


def read_settings(stream: BinaryIO | None = None) -> Settings:
    """Return the settings that the master wrote.

    Raises:
        EOFError: the master closed the pipe before they were complete.
    """
    source = stream if stream is not None else sys.stdin.buffer
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    settings = pickle.loads(_exactly(source, length))  # noqa: S301 - written by our own parent
    if not isinstance(settings, Settings):
        raise TypeError("the master sent something else than settings")
    return settings


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError("the master closed the pipe")
    return data


def announce(descriptor: int) -> None:
    """Tell the master that this child is ready."""
    if descriptor >= 0:
        os.write(descriptor, READY)
        os.close(descriptor)


def lock(directory: Path, role: str, patience: float = _PATIENCE) -> int:
    """Return a descriptor that holds the lock on ``role`` in a state directory for as long as it is open.

    Blocks while another process holds it, ``patience`` seconds at most: at a reload the next one waits for the last.

    Raises:
        StartError: another process keeps it, or there is no such directory.
    """
    path = directory / f"{role}.lock"
    try:
        descriptor = _opened(path)
    except OSError as error:
        raise StartError(
            f"{path} cannot be opened: {error.strerror}. The state directory must be there and belong to this user."
        ) from None
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(descriptor)
                raise StartError(f"{directory}: another {role} (pid {holder}) is running on it; stop it.") from None
            time.sleep(0.05)
            continue
        with contextlib.suppress(OSError):  # the name is for people; a disk that is full or read-only takes none
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # A file that is there can be locked on a read-only disk, too.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
