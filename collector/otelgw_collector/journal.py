"""A note of every batch before its first try, so that whatever ends the process, the next one makes the same batches.

Cursors are saved a few times a second; what was delivered since then is delivered again after a crash. With the notes
that is the same requests again, byte by byte, which a destination can recognise, and not the same spans in others.

A note is one write to a file that is only appended to: some microseconds a batch, and safe from the death of the
process. After a power loss notes may be missing; then spans come in other batches, and none is lost.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from zlib import crc32

import msgspec

from otelgw_collector.lane import Frozen

__all__ = ["Journal", "resumed"]

logger = logging.getLogger(__name__)

_LARGE = 256 * 1024  # bytes of the file after which it is written anew
_FULL = 16 * _LARGE  # bytes beyond which nothing is noted: the cursors cannot be saved for some reason
_HEAD = 8  # bytes before an entry: its length and its CRC-32


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    """A batch under its number, which counts up; without a batch: all with a lower number are dealt with."""

    destination: str
    number: int
    batch: Frozen | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class Journal:
    """The notes in the file ``path``; those of the process before are in ``found``, by destination, in order.

    Safe to be used by several threads. A disk that takes no note costs the note, never the delivery.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._notes: dict[str, deque[tuple[int, bytes]]] = {}
        self._size = 0
        self._refused = False
        self._descriptor = -1
        self.found: dict[str, list[Frozen]] = {}
        try:
            content = path.read_bytes()
        except OSError:
            return
        noted: dict[str, dict[int, Frozen]] = {}
        for entry in _entries(content):
            batches = noted.setdefault(entry.destination, {})
            if entry.batch is not None:
                batches[entry.number] = entry.batch
            else:
                noted[entry.destination] = {n: batch for n, batch in batches.items() if n >= entry.number}
        self.found = {name: list(batches.values()) for name, batches in noted.items()}

    def start(self, batches: Mapping[str, Sequence[Frozen]]) -> None:
        """Begin anew with what each destination is given first: batches 1, 2, 3 …"""
        for name, first in batches.items():
            self._notes[name] = deque((n, _packed(_Entry(name, n, batch))) for n, batch in enumerate(first, 1))
        self._write_anew()

    def begin(self, destination: str, number: int, batch: Frozen) -> None:
        """Note a batch that is about to be tried for the first time."""
        note = _packed(_Entry(destination, number, batch))
        with self._lock:
            if self._size < _FULL and self._append(note):
                self._notes.setdefault(destination, deque()).append((number, note))

    def saved(self, reached: Mapping[str, int]) -> None:
        """Forget the batches below the number that each destination had ``reached`` when its cursors were saved."""
        marks: list[bytes] = []
        with self._lock:
            for destination, number in reached.items():
                notes = self._notes.get(destination)
                if not notes or notes[0][0] >= number:
                    continue
                while notes and notes[0][0] < number:
                    notes.popleft()
                marks.append(_packed(_Entry(destination, number)))
            if self._size > _LARGE:
                self._write_anew()
            elif marks and not self._append(b"".join(marks)):
                self._empty()

    def _append(self, data: bytes) -> bool:
        if self._descriptor < 0:
            return False
        try:
            if os.write(self._descriptor, data) != len(data):
                os.ftruncate(self._descriptor, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._say(error)
            return False
        self._size += len(data)
        return True

    def _empty(self) -> None:
        """Better no note than one of a batch that is dealt with: a disk that takes nothing still takes this."""
        self._notes.clear()
        try:
            os.ftruncate(self._descriptor, 0)
            self._size = 0
        except OSError as error:
            self._say(error)

    def _write_anew(self) -> None:
        content = b"".join(note for notes in self._notes.values() for _, note in notes)
        scratch = self._path.with_name(f".{self._path.name}")
        try:
            fresh = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if content and os.write(fresh, content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                scratch.replace(self._path)
            except OSError:
                os.close(fresh)
                scratch.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._say(error)
            self._reopen()
            return
        self._let_go()
        self._descriptor, self._size = fresh, len(content)

    def _reopen(self) -> None:
        """Go on with the file as it is; at the start, when it is the last process's, without what is in it."""
        if self._descriptor >= 0:
            return
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        self._empty()

    def _say(self, error: OSError) -> None:
        if not self._refused:
            self._refused = True
            logger.warning(
                "batches cannot be noted before their first try, a crash may send their spans in others: %s",
                error.strerror,
            )

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._let_go()


def _packed(entry: _Entry) -> bytes:
    payload = _encode(entry)
    return len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload


def _entries(content: bytes) -> Iterator[_Entry]:
    """Yield the entries up to the first that is damaged, cut off or of another version."""
    at = 0
    while at + _HEAD <= len(content):
        length = int.from_bytes(content[at : at + 4], "little")
        payload = content[at + _HEAD : at + _HEAD + length]
        if len(payload) < length or crc32(payload) != int.from_bytes(content[at + 4 : at + _HEAD], "little"):
            return
        try:
            yield _decode(payload)
        except msgspec.DecodeError:
            return
        at += _HEAD + length


def resumed(saved: Frozen | None, begun: Sequence[Frozen], cursors: Mapping[str, int]) -> list[Frozen]:
    """Return the batches that a destination begins with, in order.

    ``saved`` is what was known of the one on its way when ``cursors`` were saved, ``begun`` are the notes.
    """
    later = [batch for batch in begun if any(run.end > cursors.get(run.segment, 0) for run in batch.whole)]
    if saved is None:
        return later
    same = next((index for index, batch in enumerate(later) if batch.whole == saved.whole), -1)
    return [saved, *later[same + 1 :]]
