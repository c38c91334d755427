"""What is kept of a body while it passes: all of a small one, head and tail of a large one, a hash of everything else.

Memory is bounded twice: per body, and by one budget for all captures in flight in a worker.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from otelgw.tracing.record import Capture

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["BodyCapture", "Budget", "is_text"]

_TEXT = ("application/json", "text/", "application/x-ndjson", "application/jsonl", "application/x-www-form-urlencoded")
_LONGEST_TYPE = 64  # characters
_BLOCK, _LARGE_BLOCK = 4 * 1024, 16 * 1024  # bytes that are charged at once
_STARVED = 16 * 1024  # what a capture may still keep of the tail when the worker's budget is used up


def is_text(content_type: str) -> bool:
    """Return whether bodies of this media type are recorded as they are: JSON, server-sent events and text."""
    # The same few come with every request; a long one is a boundary, which comes once.
    return _is_text(content_type) if len(content_type) <= _LONGEST_TYPE else _judge(content_type)


def _judge(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence.startswith(_TEXT) or essence.endswith(("+json", "/xml", "+xml"))


_is_text = lru_cache(maxsize=256)(_judge)


class Budget:
    """Bytes that all captures of a worker may hold together."""

    __slots__ = ("total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0


class BodyCapture:
    """Collects one body. ``keep=False`` keeps only size and hash.

    Instead of ``add``, what there is ``room`` for may be appended to ``chunks``, and ``room`` lessened by it.
    """

    __slots__ = ("_budget", "_charged", "_hash", "_keep", "_limit", "_size", "_tail", "chunks", "room")

    def __init__(self, limit: int, budget: Budget, *, keep: bool = True) -> None:
        self._limit = limit
        self._budget = budget
        self._keep = keep
        self._charged = 0
        self._tail = bytearray()
        self._hash: _Hash | None = None if keep else hashlib.sha256()
        self._size = 0  # where there is a hash
        self.chunks: list[bytes] = []
        self.room = 0  # bytes that are charged and not taken yet; none where only head and tail are kept

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return self._charged - self.room if self._hash is None else self._size

    def add(self, chunk: bytes) -> None:
        length = len(chunk)
        if length > self.room and not self._reserve(length):
            self._add_cut(chunk)
            return
        self.room -= length
        self.chunks.append(chunk)

    def _reserve(self, length: int) -> bool:
        """Charge what is to come, some chunks at once; False if there is no room for the next one to be kept whole."""
        if self._hash is not None:
            return False
        size = self.size
        free = self._budget.total - self._budget.used
        # As much again as there is: a long stream does not come here for every few of its chunks. What is charged and
        # never taken is missing to other captures, so not more.
        block = max(_BLOCK, min(size, _LARGE_BLOCK))
        wanted = min(max(length, block), self._limit - size) - self.room
        wanted = max(min(wanted, free), 0)
        if self.room + wanted < length:
            return False
        self.room += wanted
        self._charged += wanted
        self._budget.used += wanted
        return True

    def _add_cut(self, chunk: bytes) -> None:
        """Keep head and tail only; the hash starts with what was held so far."""
        if self._hash is None:
            self._hash = hashlib.sha256()
            held = b"".join(self.chunks)
            self._hash.update(held)
            half = self._limit // 2
            self.room = 0
            self._size = len(held)
            self.chunks = [held[:half]]
            self._tail += held[half:]
        self._hash.update(chunk)
        self._size += len(chunk)
        if not self._keep:
            return
        starved = self._budget.used >= self._budget.total
        room = min(self._limit // 2, _STARVED) if starved else self._limit // 2
        head = len(self.chunks[0]) if self.chunks else 0
        if not self._tail and head < room and not starved:
            self.chunks = [b"".join(self.chunks) + chunk[: room - head]]
            chunk = chunk[room - head :]
        self._tail += chunk
        # Trimmed only at twice the room, so that trimming is not paid on every chunk.
        if len(self._tail) > 2 * room:
            del self._tail[:-room]
        self._settle(len(self.chunks[0]) + len(self._tail) if self.chunks else len(self._tail))

    def _settle(self, held: int) -> None:
        self._budget.used += held - self._charged
        self._charged = held

    def finish(self, content_type: str = "", encoding: str = "") -> Capture:
        """Return the capture and give the budget back; nothing can be added any more."""
        size = self.size
        self._settle(0)
        head = b"".join(self.chunks)
        if self._hash is None:
            return Capture(content_type=content_type, encoding=encoding, size=size, head=head)
        return Capture(
            content_type=content_type,
            encoding=encoding,
            size=size,
            head=head,
            tail=bytes(self._tail[-(self._limit // 2) :]),
            sha256=self._hash.hexdigest(),
        )
