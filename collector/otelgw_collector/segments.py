"""The spool: append-only segment files, one writer each; the pipeline only reads them and deletes whole ones.

A file is named ``<worker>-<seq>.seg``. It starts with 28 bytes, the same in every format: magic (7), format version
(1), a random id (8), the wall-clock time of its creation in nanoseconds (8) and the CRC-32 of these (4). Records
follow, little-endian::

    marker (4)  payload length (4)  crc32 (4)  record version (1)  kind (1)  payload

The marker is the first half of the file's random id. It lets a reader find the next record after damage without
guessing, and since no caller can know it, no request body can contain bytes that would pass for a record. The CRC-32
starts from the marker, version and kind, and runs over the payload.

A record's kind says what its payload is. ``RECORD`` is one finished request, ``OTLP`` an ExportTraceServiceRequest
from elsewhere. ``INTENT`` is written when a request is routed: an id of 8 bytes and what is known by then; ``SETTLED``,
right after the request's record, is that id again. What has the one and not the other was in flight when its worker
died. ``ADDRESSED`` is a record again, for one destination: ``otelgw_collector.address``.

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
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "ADDRESSED",
    "FORMAT",
    "INTENT",
    "OTLP",
    "OVERHEAD",
    "RECORD",
    "SETTLED",
    "VERSION",
    "Entry",
    "SegmentName",
    "SegmentReader",
    "SegmentWriter",
    "find_segments",
    "is_waiting",
    "name_of",
    "read_between",
]

FORMAT = 1
VERSION = 1  # of a record
RECORD, INTENT, SETTLED, ADDRESSED, OTLP = 1, 2, 3, 4, 5
MAX_PAYLOAD = 64 * 1024 * 1024

_MAGIC = b"otelgw\x00"
_HEADER = struct.Struct("<7sB8sQI")
_ENTRY = struct.Struct("<4sIIBB")
OVERHEAD = _ENTRY.size  # bytes of a record besides its payload
_NAME = re.compile(r"(?P<worker>[A-Za-z0-9_.]+)-(?P<seq>[0-9]{1,18})\.seg")
_CHUNK = 1024 * 1024
_SALVAGE = 1024 * 1024 * 1024  # bytes of CRC that the search for a lost marker may cost
# Version and kind of a record: where the fixed part of one may end.
_TAIL = re.compile(b"(?=[\x01-%c][%c-%c])" % (VERSION, RECORD, OTLP))
_ABANDONED = 60.0  # seconds after which an empty, unlocked file has no writer any more


class SegmentName(NamedTuple):
    """A segment file's place in its writer's sequence; sorts by writer, then by age."""

    worker: str
    seq: int
    path: Path


class Entry(NamedTuple):
    """One record of a segment. ``end`` is the offset of the first byte after it: the cursor once it is dealt with."""

    end: int
    kind: int
    version: int
    payload: bytes


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
        self._seed = 0
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
        parts = [self._header(payload, kind), payload]
        if settles:
            parts += [self._header(settles, SETTLED), settles]
        try:
            written = os.writev(self._fd, parts)
            if written != own:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self._cut_back()
            self._make_room(own)
            raise
        self._size += own

    def _header(self, payload: bytes, kind: int) -> bytes:
        check = crc32(payload, self._seed ^ (VERSION << 8 | kind))
        return _ENTRY.pack(self._marker, len(payload), check, VERSION, kind)

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
        if self._fd < 0 or self._size <= _HEADER.size:
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
        self._seed = int.from_bytes(self._marker, "little")
        self._size = _HEADER.size
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
                header = _pack_header(identity)
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


def _pack_header(identity: bytes, form: int = FORMAT) -> bytes:
    header = _HEADER.pack(_MAGIC, form, identity, time.time_ns(), 0)[:-4]
    return header + crc32(header).to_bytes(4, "little")


class _Parsed(NamedTuple):
    entries: list[Entry]
    consumed: int
    skipped: int


def _read_entry(buffer: bytes, at: int, base: int, marker: bytes) -> Entry | None:
    """Return the whole, undamaged record at ``at``; None if there is none."""
    if at < 0 or at + _ENTRY.size > len(buffer):
        return None
    mark, length, check, version, kind = _ENTRY.unpack_from(buffer, at)
    start = at + _ENTRY.size
    if mark != marker or length > MAX_PAYLOAD or start + length > len(buffer):
        return None
    payload = buffer[start : start + length]
    if crc32(payload, int.from_bytes(marker, "little") ^ (version << 8 | kind)) != check:
        return None
    return Entry(base + start + length, kind, version, payload)


def _parse(buffer: bytes, base: int, marker: bytes) -> _Parsed:
    """Return the records in ``buffer``, which holds a segment's bytes from offset ``base`` on.

    Bytes between two records that are no record are skipped. Bytes after the last record are left: they may be damage,
    or a record whose end is still to come.
    """
    entries: list[Entry] = []
    at = skipped = 0
    while at < len(buffer):
        entry = _read_entry(buffer, at, base, marker)
        if entry is None:
            gap = at
            while entry is None and (at := buffer.find(marker, at + 1)) >= 0:
                entry = _read_entry(buffer, at, base, marker)
            if entry is None:
                return _Parsed(entries, gap, skipped)
            skipped += at - gap
        entries.append(entry)
        at = entry.end - base
    return _Parsed(entries, at, skipped)


def _salvage_marker(buffer: bytes) -> bytes | None:
    """Return the marker of a segment whose header is destroyed: the one whose records take the most room.

    A record of any kind will do. What lies within a record that checks out is not looked at, so that a body that looks
    like a record counts only where the record around it is damaged, too.
    """
    found: Counter[bytes] = Counter()
    budget = _SALVAGE
    passed = 0
    for match in _TAIL.finditer(buffer):
        start = match.start() - _ENTRY.size + 2
        if start < passed:
            continue
        marker, length = buffer[start : start + 4], int.from_bytes(buffer[start + 4 : start + 8], "little")
        if start + _ENTRY.size + length > len(buffer):
            continue
        budget -= length
        if budget < 0:
            break
        entry = _read_entry(buffer, start, 0, marker)
        if entry is not None:
            passed = entry.end
            found[marker] += entry.end - start
    return max(found, key=found.__getitem__, default=None)


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
        header = os.pread(self._fd, _HEADER.size, 0)
        if len(header) < _HEADER.size and not (self._is_abandoned() and self.closed):
            raise BlockingIOError(errno.EAGAIN, "the segment has no header yet", str(self.path))
        self.supported = True
        self._marker: bytes | None = None
        identity = b""
        if len(header) == _HEADER.size and crc32(header[:-4]) == int.from_bytes(header[-4:], "little"):
            magic, version, identity, _, _ = _HEADER.unpack(header)
            self.supported = magic == _MAGIC and version <= FORMAT
            self._marker = identity[:4]
            self.offset = max(self.offset, _HEADER.size)
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
            parsed = _parse(buffer, self.offset, self._marker or b"")
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
        self._marker = _salvage_marker(os.pread(self._fd, end, 0))
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
