"""What each process counts for itself, added up over all of them: right with any number of workers, and after restarts.

A process writes its numbers to a file of its own under ``counters`` in the state directory. The pipeline adds the files
up; those of processes that are gone it takes over into its own, once each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

__all__ = ["COUNTED", "Counts", "Labels", "Tally", "Totals", "replace_file"]

Labels = tuple[tuple[str, str], ...]
Counts = Mapping[tuple[str, Labels], int]
"""By the instrument's name and the labels."""

COUNTED = "counters"
_TOTAL = "total.json"
_PERIOD = 0.5  # seconds between two looks at a process's numbers


class _File(msgspec.Struct, array_like=True):
    """``folded`` are the files that ``counts`` has taken over; ``since`` is in nanoseconds since the epoch."""

    counts: list[tuple[str, Labels, int]] = []
    pid: int = 0
    since: int = 0
    folded: list[str] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_File).decode


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, and nothing between.

    Raises:
        OSError: the disk does not take it; the file is as it was.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


class Tally:
    """The file of one process; ``read`` returns its numbers, which only grow. ``name`` must never come again."""

    def __init__(self, state_dir: Path, name: str, read: Callable[[], Counts]) -> None:
        self._path = state_dir / COUNTED / f"{name}.json"
        self._read = read
        self._written: Counts = {}

    def write(self) -> None:
        """Write the numbers if they have changed. A disk that takes none costs the numbers for now."""
        now = {key: count for key, count in self._read().items() if count}
        if now == self._written:
            return
        document = _File([(name, labels, count) for (name, labels), count in now.items()], os.getpid())
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._path, _encode(document))
            self._written = now

    async def keep(self) -> None:
        """Write whenever there is something new, until cancelled; the last numbers too."""
        try:
            while True:
                await asyncio.sleep(_PERIOD)
                self.write()
        finally:
            self.write()


class Totals:
    """The sum of all processes' files. For the pipeline, which is the only one to take files over."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / COUNTED
        self._own = _read(self._directory / _TOTAL)
        self._kept = self._own is not None
        self._own = self._own or _File(since=time.time_ns())

    @property
    def since(self) -> int:
        """When counting began, in nanoseconds since the epoch: the state directory's first time."""
        return self._own.since if self._own is not None else 0

    def read(self) -> Counts:
        """Return the sums, and leave the files as they are."""
        return self._sums()[0]

    def __call__(self) -> Counts:
        """Return the sums, and take over the files of processes that are gone."""
        sums, gone, present = self._sums()
        self._fold(gone, present)
        return sums

    def _sums(self) -> tuple[Counts, Mapping[str, _File], set[str]]:
        """Return the sums, the files of processes that are gone, and the names of all that there are."""
        own = self._own or _File()
        sums = {(name, labels): count for name, labels, count in own.counts}
        gone: dict[str, _File] = {}
        present: set[str] = set()
        for path in sorted(self._directory.glob("[!.]*.json")):
            found = _read(path) if path.name != _TOTAL else None
            if found is None:
                continue
            present.add(path.name)
            if path.name in own.folded:
                continue
            _add(sums, found)
            if not _is_alive(found.pid):
                gone[path.name] = found
        return sums, gone, present

    def _fold(self, gone: Mapping[str, _File], present: set[str]) -> None:
        """Take over the files of processes that are gone.

        The sum names them before they are deleted, so that a crash in between counts none of them twice.
        """
        own = self._own or _File()
        stale = present & set(own.folded)
        if gone or stale or not self._kept:
            sums = {(name, labels): count for name, labels, count in own.counts}
            for found in gone.values():
                _add(sums, found)
            rows = [(name, labels, count) for (name, labels), count in sums.items()]
            taken = _File(rows, since=own.since, folded=[*gone, *stale])
            try:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                replace_file(self._directory / _TOTAL, _encode(taken))
            except OSError:
                return
            self._own, self._kept = taken, True
            for name in taken.folded:
                with contextlib.suppress(OSError):
                    (self._directory / name).unlink(missing_ok=True)


def _add(sums: dict[tuple[str, Labels], int], found: _File) -> None:
    for name, labels, count in found.counts:
        sums[name, labels] = sums.get((name, labels), 0) + count


def _read(path: Path) -> _File | None:
    try:
        return _decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
