"""What the pipeline and the callback's process say to each other: MessagePack, each piece after its length."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["HEAD", "LARGEST", "pack", "unpack"]

HEAD = struct.Struct(">I")
"""Of the length in bytes, before each frame."""

LARGEST = 1 << 30


def _known(value: Any) -> Any:
    """Return a value of a type that MessagePack has no word for as one that it has."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) else str(value)


_encode = msgspec.msgpack.Encoder(enc_hook=_known).encode
_decode = msgspec.msgpack.Decoder().decode


def pack(value: Any) -> bytes:
    """Return a frame.

    Raises:
        ValueError, TypeError, OverflowError: the value cannot be said, or is larger than a frame may be.
    """
    data = _encode(value)
    if len(data) > LARGEST:
        raise ValueError("too large")
    return HEAD.pack(len(data)) + data


def unpack(data: bytes) -> Any:
    """Return the value of a frame, its length taken off."""
    return _decode(data)
