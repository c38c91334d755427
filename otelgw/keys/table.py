"""Counters that all workers of one machine share: a mapped file, one slot for each key or team with a limit.

A slot is guarded by a lock on its bytes of the file, which the kernel lets go when a process dies. Taking one, counting
and letting go costs a few microseconds; only requests of keys that have a limit come here. The file outlives the
processes, so that a restart forgets neither a minute's requests nor spending that is not in the store yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from otelgw.keys.schema import Quota, period_end

__all__ = ["WINDOW", "Changes", "Counted", "Refusal", "Slot", "Subject", "Table"]

WINDOW = 60.0
"""Seconds that rates are counted over. A window begins with the first request after the last one's end."""

_MAGIC = b"otelgw\x00\x01"
_HEADER = 4096
_GENERATION = struct.Struct("<Q")
_GENERATION_AT = 8
_SLOT = 128
_SLOTS = 65_536
_SIZE = _HEADER + _SLOTS * _SLOT
_PROBES = 64
_IDLE = 3600.0  # seconds after which a slot may be another subject's
_INSERTING = 0  # the byte that is locked while a slot is given to a subject
_LAYOUT = struct.Struct("<16sdqqdddd")


class Subject(NamedTuple):
    """What is limited: its name (``store.key_subject``) and its quota."""

    name: str
    quota: Quota


class Slot(NamedTuple):
    """One subject's counters. Times are seconds since the epoch, amounts are USD.

    ``spent`` is what the store knows, as of ``known_at``, in a period that ends at ``resets_at``; ``unsaved`` is what
    it does not know yet.
    """

    identity: bytes
    window: float = 0.0
    requests: int = 0
    tokens: int = 0
    spent: float = 0.0
    unsaved: float = 0.0
    resets_at: float = 0.0
    known_at: float = 0.0


class Counted(NamedTuple):
    """What is left of a subject's minute, after this request; None where that is not limited."""

    requests: int | None
    tokens: int | None
    resets_in: float


class Refusal(NamedTuple):
    """Which limit of which subject is used up (rpm, tpm or budget), and in how many seconds it will not be."""

    subject: Subject
    limit: str
    after: float


class Table:
    """The file at ``path``, made if it is not there. One per process; not for threads.

    Without a path the counters are this process's own: for a machine whose disk has no room for them.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        # Closing any descriptor of a file lets go of a process's locks on it: this one stays open.
        self._descriptor = -1 if path is None else _opened(path)
        try:
            self._map = mmap.mmap(self._descriptor, _SIZE)
        except BaseException:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            raise
        self._places: dict[str, int] = {}
        self.full = 0
        """Requests that were let through uncounted, because there was no slot for their key."""

    def close(self) -> None:
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def generation(self) -> int:
        """A number that changes whenever a key or a team does, on this machine."""
        return int(_GENERATION.unpack_from(self._map, _GENERATION_AT)[0])

    def changed(self) -> None:
        """Tell every worker that a key or a team has changed."""
        with self._locked([_INSERTING]):
            _GENERATION.pack_into(self._map, _GENERATION_AT, self.generation + 1)

    def take(self, subjects: Sequence[Subject], now: float, *, rates: bool = True) -> list[Counted] | Refusal:
        """Count one request of all ``subjects``, or of none of them if a limit of any is used up.

        ``rates=False`` looks at budgets only and counts nothing: the rates are counted elsewhere.
        """
        places = [self._place(subject.name, now) for subject in subjects]
        if -1 in places:
            self.full += 1
            return []
        with self._locked(places):
            slots = [_current(self._read(place), now) for place in places]
            for subject, slot in zip(subjects, slots, strict=True):
                refusal = _refusal(subject, slot, now, rates=rates)
                if refusal is not None:
                    return refusal
            if not rates:
                return []
            slots = [slot._replace(requests=slot.requests + 1) for slot in slots]
            for place, slot in zip(places, slots, strict=True):
                self._write(place, slot)
        return [_left(subject.quota, slot, now) for subject, slot in zip(subjects, slots, strict=True)]

    def charge(self, subjects: Sequence[Subject], tokens: int, cost: float, now: float) -> None:
        """Count what a request has used; tokens belong to the minute in which they are known."""
        for subject in subjects:
            place = self._place(subject.name, now)
            if place < 0:
                self.full += 1
                continue
            with self._locked([place]):
                slot = _current(self._read(place), now)
                slot = slot._replace(tokens=slot.tokens + tokens)
                if subject.quota.budget is not None:
                    # The period begins with the first spending; the store has the last word on when it ends.
                    resets_at = slot.resets_at or period_end(subject.quota.period, now)
                    slot = slot._replace(unsaved=slot.unsaved + cost, resets_at=resets_at)
                self._write(place, slot)

    def slot(self, name: str, now: float) -> Slot:
        """Return a subject's counters as of ``now``."""
        place = self._place(name, now)
        if place < 0:
            return Slot(b"")
        with self._locked([place]):
            return _current(self._read(place), now)

    def know(self, name: str, spent: float, resets_at: float, now: float, *, saved: float = 0.0) -> None:
        """Note what the store knows of a subject's spending; ``saved`` of what was unsaved is part of it."""
        place = self._place(name, now)
        if place < 0:
            return
        with self._locked([place]):
            slot = self._read(place)
            unsaved = max(0.0, slot.unsaved - saved)
            self._write(place, slot._replace(spent=spent, unsaved=unsaved, resets_at=resets_at, known_at=now))

    def forget(self, name: str, now: float) -> None:
        """Clear a subject's counters."""
        place = self._place(name, now)
        if place >= 0:
            with self._locked([place]):
                self._write(place, Slot(_identity(name)))

    def _place(self, name: str, now: float) -> int:
        """Return the number of a subject's slot, from 1 on; -1 if there is none to be had."""
        place = self._places.get(name)
        identity = _identity(name)
        if place is not None and self._map[_offset(place) : _offset(place) + 16] == identity:
            return place
        start = int.from_bytes(identity[:4], "little")
        candidates = [(start + step) % (_SLOTS - 1) + 1 for step in range(_PROBES)]
        with self._locked([_INSERTING]):
            found = next((each for each in candidates if self._read(each).identity == identity), -1)
            if found < 0:
                found = next((each for each in candidates if self._claim(each, identity, now)), -1)
        if found >= 0:
            self._places[name] = found
        return found

    def _claim(self, place: int, identity: bytes, now: float) -> bool:
        """Make a slot a subject's, if it is nobody's, or of somebody who has not been here for an hour."""
        with self._locked([place]):
            slot = self._read(place)
            idle = max(slot.window, slot.known_at) < now - _IDLE and not slot.unsaved
            if idle or not any(slot.identity):
                self._write(place, Slot(identity))
                return True
        return False

    def _read(self, place: int) -> Slot:
        return Slot(*_LAYOUT.unpack_from(self._map, _offset(place)))

    def _write(self, place: int, slot: Slot) -> None:
        _LAYOUT.pack_into(self._map, _offset(place), *slot)

    @contextlib.contextmanager
    def _locked(self, places: Sequence[int]) -> Iterator[None]:
        """Hold the slots' locks, taken in one order by everybody so that nobody waits in a circle."""
        taken = sorted(set(places)) if self._descriptor >= 0 else []
        for place in taken:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            for place in taken:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)


class Changes:
    """``Table.generation`` as another process sees it, from any of its threads; 0 as long as there is no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __call__(self) -> int:
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return 0
        found = os.pread(self._descriptor, _GENERATION.size, _GENERATION_AT)
        return int(_GENERATION.unpack(found)[0]) if len(found) == _GENERATION.size else 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _opened(path: Path) -> int:
    """Return a descriptor of the file, which has all its room: writing to a map of one that has not would be deadly on
    a full disk."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, _INSERTING)
        if os.fstat(descriptor).st_size != _SIZE or os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
            os.ftruncate(descriptor, 0)
            for start in range(0, _SIZE, _HEADER):
                os.pwrite(descriptor, bytes(_HEADER), start)
            os.pwrite(descriptor, _MAGIC, 0)
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, _INSERTING)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _identity(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _offset(place: int) -> int:
    return _HEADER + (place - 1) * _SLOT


def _current(slot: Slot, now: float) -> Slot:
    """Return a slot with what is over left out: its minute, its budget's period."""
    if not slot.window <= now < slot.window + WINDOW:
        slot = slot._replace(window=now, requests=0, tokens=0)
    if slot.resets_at and now >= slot.resets_at:
        slot = slot._replace(spent=0.0, resets_at=0.0)
    return slot


def _refusal(subject: Subject, slot: Slot, now: float, *, rates: bool) -> Refusal | None:
    quota = subject.quota
    if quota.budget is not None and slot.spent + slot.unsaved >= quota.budget:
        return Refusal(subject, "budget", max(0.0, slot.resets_at - now))
    if not rates:
        return None
    left = slot.window + WINDOW - now
    if quota.rpm is not None and slot.requests >= quota.rpm:
        return Refusal(subject, "rpm", left)
    if quota.tpm is not None and slot.tokens >= quota.tpm:
        return Refusal(subject, "tpm", left)
    return None


def _left(quota: Quota, slot: Slot, now: float) -> Counted:
    return Counted(
        None if quota.rpm is None else max(0, quota.rpm - slot.requests),
        None if quota.tpm is None else max(0, quota.tpm - slot.tokens),
        slot.window + WINDOW - now,
    )
