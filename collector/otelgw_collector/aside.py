"""Records that are set aside: one file for each that could not be decoded, and for each that a newer otelgw wrote."""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import NamedTuple

__all__ = ["NEWER", "Aside", "Kept"]

logger = logging.getLogger(__name__)

NEWER = "newer"
"""The directory, below that of the undecodable records, of those that a newer otelgw wrote and one can read again."""

_MOST = 1000  # undecodable records; what comes after is counted and logged only
_REMEMBERED = 10_000  # records that are known to have been met, though there is no file of them


class Kept(NamedTuple):
    """A file: its last change in seconds since the epoch, its size in bytes."""

    changed: float
    size: int


class Aside:
    """Keeps records in ``directory``, which is made when there is the first. Safe to be used by several threads.

    At most 1000 undecodable ones are kept, for somebody to look at. Those of a newer otelgw are not limited here:
    ``newer`` are the files, for whoever keeps the spool within its limit. ``size`` are the bytes of all.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._unreadable = _files(directory)
        self._newer = _files(directory / NEWER)
        self._gone: dict[Path, None] = {}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        with self._lock:
            return sum(kept.size for files in (self._unreadable, self._newer) for kept in files.values())

    @property
    def newer(self) -> dict[Path, Kept]:
        """The records that a newer otelgw wrote."""
        with self._lock:
            return dict(self._newer)

    def keep(self, name: str, payload: bytes, *, newer: bool) -> bool:
        """Keep a record; False if it has been met before: by another thread, or before a restart."""
        directory = self._directory / NEWER if newer else self._directory
        path = directory / f"{name}.record"
        with self._lock:
            files = self._newer if newer else self._unreadable
            if path in files or path in self._gone:
                return False
            if (newer or len(files) < _MOST) and (kept := _write(path, payload)) is not None:
                files[path] = kept
            else:
                self._remember(path)
            return True

    def _remember(self, path: Path) -> None:
        self._gone[path] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def remove(self, path: Path) -> None:
        """Delete a record of a newer otelgw.

        Raises:
            OSError: it cannot be deleted.
        """
        path.unlink(missing_ok=True)
        with self._lock:
            self._newer.pop(path, None)
            self._remember(path)


def _write(path: Path, payload: bytes) -> Kept | None:
    """Write a private file; None, and logged, if the disk does not take it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(payload)
        status = path.stat()
    except OSError as error:
        logger.warning("a record that is set aside cannot be kept: %s", error.strerror)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    return Kept(status.st_mtime, status.st_size)


def _files(directory: Path) -> dict[Path, Kept]:
    found: dict[Path, Kept] = {}
    try:
        for path in directory.glob("*.record"):
            status = path.stat()
            found[path] = Kept(status.st_mtime, status.st_size)
    except OSError as error:
        logger.warning("%s cannot be read: %s", directory, error.strerror)
    return found
