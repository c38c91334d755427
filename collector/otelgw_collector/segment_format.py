"""The bytes of a segment: a header, then records; packed, parsed and found again after damage.

A segment starts with 28 bytes, the same in every format: magic (7), format version (1), a random id (8), the wall-clock
time of its creation in nanoseconds (8) and the CRC-32 of these (4). Records follow, little-endian::

    marker (4)  payload length (4)  crc32 (4)  record version (1)  kind (1)  payload

The marker is the first half of the segment's random id. It lets a reader find the next record after damage without
guessing, and since no caller can know it, no request body can contain bytes that would pass for a record. The CRC-32
starts from the marker, version and kind, and runs over the payload.

A record's kind says what its payload is. ``RECORD`` is one finished request, ``OTLP`` an ExportTraceServiceRequest
from elsewhere. ``INTENT`` is written when a request is routed: an id of 8 bytes and what is known by then; ``SETTLED``,
right after the request's record, is that id again. What has the one and not the other was in flight when its worker
died. ``ADDRESSED`` is a record again, for one destination: ``otelgw_collector.address``.
"""

from __future__ import annotations

import re
import struct
import time
from collections import Counter
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "ADDRESSED",
    "FORMAT",
    "HEADER",
    "INTENT",
    "MAX_PAYLOAD",
    "OTLP",
    "OVERHEAD",
    "RECORD",
    "SETTLED",
    "VERSION",
    "Entry",
    "Header",
    "Parsed",
    "pack_entry",
    "pack_header",
    "parse",
    "read_header",
    "salvage_marker",
]

FORMAT = 1
VERSION = 1  # of a record
RECORD, INTENT, SETTLED, ADDRESSED, OTLP = 1, 2, 3, 4, 5
MAX_PAYLOAD = 64 * 1024 * 1024

_MAGIC = b"otelgw\x00"
_HEADER = struct.Struct("<7sB8sQI")
_ENTRY = struct.Struct("<4sIIBB")
HEADER = _HEADER.size  # bytes before the first record
OVERHEAD = _ENTRY.size  # bytes of a record besides its payload
_SALVAGE = 1024 * 1024 * 1024  # bytes of CRC that the search for a lost marker may cost
# Version and kind of a record: where the fixed part of one may end.
_TAIL = re.compile(b"(?=[\x01-%c][%c-%c])" % (VERSION, RECORD, OTLP))


_new = tuple.__new__  # of a named tuple, without the call of its own constructor


class Entry(NamedTuple):
    """One record of a segment. ``end`` is the offset of the first byte after it: the cursor once it is dealt with."""

    end: int
    kind: int
    version: int
    payload: bytes


class Header(NamedTuple):
    """What an undamaged header says: the random id, and whether the format is one that this release reads."""

    identity: bytes
    supported: bool

    @property
    def marker(self) -> bytes:
        """What each record of the segment starts with."""
        return self.identity[:4]


def pack_header(identity: bytes, form: int = FORMAT) -> bytes:
    """Return the header of a segment that is created now; ``identity`` is its random id of 8 bytes."""
    header = _HEADER.pack(_MAGIC, form, identity, time.time_ns(), 0)[:-4]
    return header + crc32(header).to_bytes(4, "little")


def read_header(header: bytes) -> Header | None:
    """Return what a segment's first bytes say; None if they are damaged or not all there."""
    if len(header) < HEADER or crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
        return None
    magic, version, identity, _, _ = _HEADER.unpack(header)
    return Header(identity, magic == _MAGIC and version <= FORMAT)


def pack_entry(marker: bytes, payload: bytes, kind: int) -> bytes:
    """Return what stands before ``payload`` in a segment with this marker."""
    check = crc32(payload, int.from_bytes(marker, "little") ^ (VERSION << 8 | kind))
    return _ENTRY.pack(marker, len(payload), check, VERSION, kind)


class Parsed(NamedTuple):
    """The records in some bytes; how many of the bytes they take, and how many between them were no record."""

    entries: list[Entry]
    consumed: int
    skipped: int


def _read_entry(buffer: bytes, at: int, base: int, marker: bytes) -> Entry | None:
    """Return the whole, undamaged record at ``at``; None if there is none."""
    found: list[Entry] = []
    if at >= 0:
        _read_run(buffer, at, base, marker, found, once=True)
    return found[0] if found else None


def parse(buffer: bytes, base: int, marker: bytes) -> Parsed:
    """Return the records in ``buffer``, which holds a segment's bytes from offset ``base`` on.

    Bytes between two records that are no record are skipped. Bytes after the last record are left: they may be damage,
    or a record whose end is still to come.
    """
    entries: list[Entry] = []
    at = skipped = 0
    while at < len(buffer):
        at = _read_run(buffer, at, base, marker, entries)
        gap, entry = at, None
        while entry is None and (at := buffer.find(marker, at + 1)) >= 0:
            entry = _read_entry(buffer, at, base, marker)
        if entry is None:
            return Parsed(entries, gap, skipped)
        skipped += at - gap
        entries.append(entry)
        at = entry.end - base
    return Parsed(entries, at, skipped)


def _read_run(buffer: bytes, at: int, base: int, marker: bytes, entries: list[Entry], *, once: bool = False) -> int:
    """Add the whole, undamaged records that follow each other from ``at`` on, or the one; return where the next is."""
    seed, head, most = int.from_bytes(marker, "little"), _ENTRY.size, len(buffer)
    while at + head <= most:
        mark, length, check, version, kind = _ENTRY.unpack_from(buffer, at)
        start = at + head
        end = start + length
        if mark != marker or length > MAX_PAYLOAD or end > most:
            break
        payload = buffer[start:end]
        if crc32(payload, seed ^ (version << 8 | kind)) != check:
            break
        entries.append(_new(Entry, (base + end, kind, version, payload)))
        at = end
        if once:
            break
    return at


def salvage_marker(buffer: bytes) -> bytes | None:
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
