"""Lines appended to a file that several processes may write: whole lines or none, and a new file when one is full.

Every append opens the file anew, under an advisory lock: a file that was moved or deleted meanwhile (logrotate) is no
longer written to, and a fork shares nothing. What an append could not finish is taken back. A line that a crash cut in
half is removed by the next append, if it begins as these lines do; it was never acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from otelgw_exporters import document

__all__ = ["Appender"]

_BLOCK = 64 * 1024
_PAUSE = 0.002  # seconds between two tries to get the lock
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})  # a file system without locks


class Appender:
    """Appends to files. Sizes are in bytes; ``max_files`` counts the full ones that are kept, None for all of them.

    ``beginning`` is what every line begins with.
    """

    def __init__(self, *, max_bytes: int, max_files: int | None, fsync: bool, beginning: bytes) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._fsync = fsync
        self._beginning = beginning

    def append(self, path: str, lines: Sequence[bytes], deadline: float) -> Iterator[int]:
        """Append ``lines``, each with its line feed; yield how many are in the file for good, as it goes.

        ``deadline`` is on ``time.monotonic`` and bounds the wait for other processes.

        Raises:
            OSError: the rest of the lines is not in the file.
        """
        at = 0
        while at < len(lines):
            with self._opened(path, deadline) as (descriptor, size):
                until, added = at, 0
                while until < len(lines) and (size + added + len(lines[until]) <= self._max_bytes or size + added == 0):
                    added += len(lines[until])
                    until += 1
                if until == at:
                    self._set_aside(path)
                    continue
                self._write(descriptor, b"".join(lines[at:until]), size)
            at = until
            yield at

    @contextlib.contextmanager
    def _opened(self, path: str, deadline: float) -> Iterator[tuple[int, int]]:
        """Give the descriptor and the size of the file at ``path``, locked and ending with a whole line."""
        while True:
            descriptor = self._open(path)
            try:
                _lock(descriptor, path, deadline)
                opened = os.fstat(descriptor)
                if not stat.S_ISREG(opened.st_mode):
                    raise OSError(errno.EINVAL, "is no regular file", path)
                if _is_at(path, opened):
                    yield descriptor, self._mended(descriptor, opened.st_size)
                    return
            finally:
                os.close(descriptor)

    def _open(self, path: str) -> int:
        # O_NONBLOCK: whoever names a pipe or a device by mistake is told so, instead of hanging in here.
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        directory = Path(path).parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags | os.O_CREAT, 0o600)
        if self._fsync:
            _sync_directory(directory)
        return descriptor

    def _write(self, descriptor: int, data: bytes, size: int) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if self._fsync:
                os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise

    def _mended(self, descriptor: int, size: int) -> int:
        """End an unfinished last line, or take it away where it is the beginning of one of ours; return the size."""
        if not size or os.pread(descriptor, 1, size - 1) == b"\n":
            return size
        start = _last_line(descriptor, size)
        begun = os.pread(descriptor, len(self._beginning), start)
        if self._beginning.startswith(begun) and document.read(os.pread(descriptor, size - start, start)) is None:
            os.ftruncate(descriptor, start)
            return start
        os.write(descriptor, b"\n")
        return size + 1

    def _set_aside(self, path: str) -> None:
        """Give the full file a name of its own: the next number; the oldest beyond ``max_files`` go."""
        target = Path(os.path.realpath(path))
        numbered = re.compile(rf"{re.escape(target.stem)}\.([1-9]\d*){re.escape(target.suffix)}")
        found = (numbered.fullmatch(name) for name in os.listdir(target.parent))  # noqa: PTH208 - names are what is wanted
        numbers = sorted(int(match[1]) for match in found if match)
        latest = numbers[-1] + 1 if numbers else 1
        target.rename(target.with_name(f"{target.stem}.{latest}{target.suffix}"))
        if self._max_files is not None:
            for number in [*numbers, latest][: -self._max_files]:
                with contextlib.suppress(FileNotFoundError):
                    target.with_name(f"{target.stem}.{number}{target.suffix}").unlink()
        if self._fsync:
            _sync_directory(target.parent)


def _lock(descriptor: int, path: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process is writing to it", path) from None
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return
        else:
            return


def _is_at(path: str, opened: os.stat_result) -> bool:
    """Say whether the opened file is still the one at ``path``; another process may have set it aside."""
    try:
        there = Path(path).stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


def _last_line(descriptor: int, size: int) -> int:
    """Return where the last line begins, in a file of ``size`` bytes that does not end with a line feed."""
    end = size
    while end:
        start = max(0, end - _BLOCK)
        feed = os.pread(descriptor, end - start, start).rfind(b"\n")
        if feed >= 0:
            return start + feed + 1
        end = start
    return 0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
