"""The spool: append-only segment files, one writer each; the pipeline only reads them and deletes whole ones.

A file is named ``<worker>-<seq>.seg``; ``otelgw_collector.segment_format`` says what is in it.

The writer holds an exclusive flock while the file is open, so a segment is closed exactly when the lock can be had:
after a roll, after ``close`` and after the death of the process, however it died. A writer that has no room for a
segment holds the lock of an empty file ``<worker>.waiting`` instead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from otelgw_collector.segment_format import (
    HEADER,
    MAX_PAYLOAD,
    OVERHEAD,
    RECORD,
    SETTLED,
    Entry,
    pack_entry,
    pack_header,
    parse,
    read_header,
    salvage_marker,
)

__all__ = ["SegmentName", "SegmentReader", "SegmentWriter", "find_segments", "is_waiting", "name_of", "read_between"]

_NAME = re.compile(r"(?P<worker>[A-Za-z0-9_.]+)-(?P<seq>[0-9]{1,18})\.seg")
_CHUNK = 1024 * 1024
_JOINED = 64 * 1024  # bytes up to which joining what is written costs less than writing it in parts
_ABANDONED = 60.0  # seconds after which an empty, unlocked file has no writer any more


class SegmentName(NamedTuple):
    """A segment file's place in its writer's sequence; sorts by writer, then by age."""

    worker: str
    seq: int
    path: Path


def find_segments(directory: Path) -> list[SegmentName]:
    """Return the segments in ``directory``, each writer's oldest first; none if there is no such directory."""
    try:
        names = [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(found for name in names if (found := name_of(directory / name)) is not None)


def name_of(path: Path) -> SegmentName | None:
    """Return what a segment's file name says; None if the file is no segment."""
    match = _NAME.fullmatch(path.name)
    return SegmentName(match["worker"], int(match["seq"]), path) if match else None


def is_waiting(directory: Path, worker: str) -> bool:
    """True while a writer lives that has no segment, for want of room; what a dead one has left is removed."""
    path = directory / f"{worker}.waiting"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    return False


class SegmentWriter:
    """Appends payloads to the segments of one worker. Not thread-safe: one writer belongs to one event loop.

    A segment is followed by a new one when it would outgrow ``max_bytes`` or is ``max_age`` seconds old at the next
    append; ``clock`` counts seconds. Nothing is created before the first append.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        *,
        max_bytes: int = 32 * 1024 * 1024,
        max_age: float = 60.0,
        durable: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not _NAME.fullmatch(f"{worker}-0.seg"):
            raise ValueError(f"worker name {worker!r} is no part of a file name: use letters, digits, _ and .")
        self._directory = directory
        self._worker = worker
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._durable = durable
        self._stale: list[int] = []
        self._new = False  # the directory does not have the current file's name for sure yet
        self._clock = clock
        self._fd = -1
        self._waiting = -1
        self._limit = max_bytes
        self._seq = 0
        self._size = 0
        self._roll_at = 0.0
        self._marker = b""
        self.path: Path | None = None

    def append(self, payload: bytes, kind: int = RECORD, settles: bytes = b"") -> None:
        """Write one record with one system call; it survives the death of this process from then on.

        ``settles`` is the id of the intent that this is the record of; both are in the file or neither.

        Raises:
            OSError: the record could not be written; the file is as it was before.
            ValueError: the payload is larger than 64 MiB.
        """
        length = len(payload)
        if length > MAX_PAYLOAD:
            raise ValueError(f"a record of {length} bytes is larger than the spool takes ({MAX_PAYLOAD})")
        own = OVERHEAD + length + (OVERHEAD + len(settles) if settles else 0)
        if self._fd < 0 or self._size + own > self._limit or self._clock() >= self._roll_at:
            self._roll()
        parts = [pack_entry(self._marker, payload, kind), payload]
        if settles:
            parts += [pack_entry(self._marker, settles, SETTLED), settles]
        try:
            written = os.write(self._fd, b"".join(parts)) if own <= _JOINED else os.writev(self._fd, parts)
            if written != own:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self._cut_back()
            self._make_room(own)
            raise
        self._size += own

    def unsynced(self) -> list[int]:
        """Return descriptors of everything that may not have reached the disk; the caller syncs and closes them."""
        handles, self._stale = self._stale, []
        if self._fd >= 0:
            handles.append(os.dup(self._fd))
        if self._new:
            handles.append(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            self._new = False
        return handles

    def close(self) -> None:
        """Close the current segment and with that give it to the reader; a later append starts a new one."""
        self._leave()
        self._wait_no_more()
        for handle in self._stale:
            os.close(handle)
        self._stale.clear()

    def _leave(self) -> None:
        if self._fd >= 0:
            if self._durable:
                self._stale.append(self._fd)
            else:
                os.close(self._fd)
            self._fd = -1

    def _cut_back(self) -> None:
        """Take a partly written record out again; a file that cannot be mended gets no further records."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._leave()

    def _make_room(self, wanted: int) -> None:
        """Give the segment to the reader where the disk is full: only whole ones are deleted once they are delivered,
        and this one might be all that there is to delete."""
        if self._fd < 0 or self._size <= HEADER:
            return
        try:
            disk = os.fstatvfs(self._fd)
        except OSError:
            return
        if disk.f_bavail * disk.f_frsize >= wanted or not self._wait():
            return
        # Closed at once, not with the next sync: where every record is refused there is none.
        with contextlib.suppress(OSError):
            if self._durable:
                os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _wait(self) -> bool:
        """Leave a sign that this writer lives, though none of its segments is open; False if that cannot be."""
        try:
            self._waiting = os.open(
                self._directory / f"{self._worker}.waiting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._wait_no_more()
            return False
        return True

    def _wait_no_more(self) -> None:
        if self._waiting >= 0:
            with contextlib.suppress(OSError):
                (self._directory / f"{self._worker}.waiting").unlink(missing_ok=True)
            os.close(self._waiting)
            self._waiting = -1

    def _roll(self) -> None:
        try:
            fd, path, identity = self._create()
        except OSError:
            if self._fd < 0:
                raise
            # Out of file handles, say: the open segment still takes records, so none is lost.
            self._roll_at = self._clock() + 1.0
            self._limit = self._size + _CHUNK
            return
        self._leave()
        self._fd, self.path, self._new = fd, path, True
        self._wait_no_more()
        self._marker = identity[:4]
        self._size = HEADER
        self._limit = self._max_bytes
        self._roll_at = self._clock() + self._max_age

    def _create(self) -> tuple[int, Path, bytes]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._seq:
            taken = (name.seq for name in find_segments(self._directory) if name.worker == self._worker)
            self._seq = max(taken, default=0)
        identity = os.urandom(8)
        seq = self._seq + 1
        while True:
            path = self._directory / f"{self._worker}-{seq:08d}.seg"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                seq += 1
                continue
            try:
                # A reader leaves an empty file alone, so the lock is always held before the header can be seen.
                fcntl.flock(fd, fcntl.LOCK_EX)
                header = pack_header(identity)
                if os.write(fd, header) != len(header):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                if os.fstat(fd).st_nlink:
                    self._seq = seq
                    return fd, path, identity
            except OSError:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
            os.close(fd)


class SegmentReader:
    """Reads one segment from an offset on, across damage, while it may still be written to.

    ``key`` names the segment for ever: file name and random id, so a cursor is never applied to another file of the
    same name. ``offset`` is where the next read starts. ``skipped`` counts bytes that were no record. ``supported`` is
    False for a file of a newer format, which is left alone.

    Raises:
        FileNotFoundError: the segment is gone.
        BlockingIOError: the writer has not finished the file's header; try again later.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.skipped = 0
        self._closed = False
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_header()
        except OSError:
            os.close(self._fd)
            raise

    def _read_header(self) -> None:
        header = os.pread(self._fd, HEADER, 0)
        if len(header) < HEADER and not (self._is_abandoned() and self.closed):
            raise BlockingIOError(errno.EAGAIN, "the segment has no header yet", str(self.path))
        told = read_header(header)
        self.supported = told is None or told.supported
        self._marker = told.marker if told else None
        identity = told.identity if told else b""
        if told:
            self.offset = max(self.offset, HEADER)
        self.key = f"{self.path.name}:{identity.hex()}"

    def _is_abandoned(self) -> bool:
        return time.time() - os.fstat(self._fd).st_mtime > _ABANDONED

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return os.fstat(self._fd).st_size

    @property
    def closed(self) -> bool:
        """True once no writer has the segment open; it never grows again."""
        if not self._closed:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._closed = True
        return self._closed

    @property
    def finished(self) -> bool:
        """True when everything has been read and nothing will be added."""
        return self.closed and self.offset >= self.size

    def read(self, max_bytes: int = _CHUNK, until: int | None = None) -> list[Entry]:
        """Return the next records, about ``max_bytes`` of them, and move ``offset`` past them and past damage.

        With ``until``, an offset that another reader of this segment has reached, reading ends there. An empty list
        means that there is nothing further for now.
        """
        bounded = until is not None or self.closed  # asked before reading: what comes later is not the end
        end = self.size if until is None else until
        if self._marker is None and not self._find_marker(bounded, end):
            return []
        span = max_bytes
        while self.offset < end:
            buffer = os.pread(self._fd, min(span, end - self.offset), self.offset)
            parsed = parse(buffer, self.offset, self._marker or b"")
            self.skipped += parsed.skipped
            at_end = self.offset + len(buffer) >= end or not buffer
            if at_end and bounded:
                self.skipped += end - self.offset - parsed.consumed
                self.offset = end
            else:
                self.offset += parsed.consumed
            if parsed.entries or at_end:
                return parsed.entries
            span = span * 2
        return []

    def _find_marker(self, bounded: bool, end: int) -> bool:
        self._marker = salvage_marker(os.pread(self._fd, end, 0))
        if self._marker is None and bounded:
            self.skipped += max(0, end - self.offset)
            self.offset = max(self.offset, end)
        return self._marker is not None

    def delete(self) -> bool:
        """Delete the file if it is finished; False if somebody writes to it."""
        try:
            # Held while looking and deleting: a writer that was suspended before its header sees the file gone.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self.size > self.offset:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            return False
        self.path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Release the file handle."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_between(path: Path, start: int, end: int) -> list[Entry]:
    """Return the records between two offsets of a segment; none if they are not there any more."""
    found: list[Entry] = []
    try:
        reader = SegmentReader(path, start)
    except OSError:
        return found
    try:
        while reader.offset < end and (entries := reader.read(end - reader.offset, end)):
            found += entries
    except OSError:
        return found
    finally:
        reader.close()
    return found
