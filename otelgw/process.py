"""What the master and its children agree on: settings on standard input, which then tells by its end that the master
is gone, and one byte line on a descriptor when the child is ready."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import BinaryIO

from otelgw.config.settings import Settings

__all__ = ["announce", "pack", "read_settings"]

_LENGTH = struct.Struct(">Q")
READY = b"ready\n"


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
