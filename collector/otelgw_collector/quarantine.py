"""Notes of the record that each thread is decoding, in a file that outlives the process.

A record that takes the process down with it, out of memory or by a bug in a C library, would take down every next one
as well. So it is noted first; whoever starts finds the note, counts a death, and after three the record is passed over.
Writing a note is a copy into mapped memory: no system call.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

__all__ = ["DEATHS", "Quarantine"]

DEATHS = 3

_SLOT = 256  # bytes; a segment's name and an offset are shorter
_SLOTS = 256  # threads: one for the head, one for each destination; further ones leave no notes


class Quarantine:
    """The notes in the file ``path``. ``found`` are those of the process before; ``deaths`` is by record, see Ledger.

    Without a place to write there are no notes and no record is ever passed over.
    """

    def __init__(self, path: Path) -> None:
        self.found: list[str] = []
        self.deaths: dict[str, int] = {}
        self._slots: dict[int, int] = {}
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.ftruncate(descriptor, _SLOT * _SLOTS)
            # Blocks on disk now: a page that finds none later would end the process.
            content = os.pread(descriptor, _SLOT * _SLOTS, 0)
            os.pwrite(descriptor, bytes(_SLOT * _SLOTS), 0)
            self._map = mmap.mmap(descriptor, _SLOT * _SLOTS)
        except OSError:
            return
        finally:
            os.close(descriptor)
        notes = (content[at : at + _SLOT].partition(b"\0")[0] for at in range(0, len(content), _SLOT))
        self.found = [note.decode("ascii", "replace") for note in notes if note]

    def holds(self, record: str) -> bool:
        """True if ``record`` has cost three lives."""
        return self.deaths.get(record, 0) >= DEATHS

    def note(self, record: str) -> None:
        """Leave a note of ``record``, in the place of this thread's last one."""
        slot = self._slot()
        if self._map is not None and slot < _SLOTS:
            note = record.encode("ascii", "replace")[: _SLOT - 1] + b"\0"
            self._map[slot * _SLOT : slot * _SLOT + len(note)] = note

    def clear(self) -> None:
        """Take this thread's note away."""
        slot = self._slot()
        if self._map is not None and slot < _SLOTS:
            self._map[slot * _SLOT] = 0

    def _slot(self) -> int:
        thread = threading.get_ident()
        slot = self._slots.get(thread)
        if slot is None:
            with self._lock:
                slot = self._slots[thread] = len(self._slots)
        return slot
