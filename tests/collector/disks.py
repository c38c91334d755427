"""A disk of a test's own, which can be filled, emptied and made read-only. Only root may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["Disk", "disk", "mounted"]


class Disk:
    """``path`` is where it is mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filling = path / "filling"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filling.open("ab", buffering=0) as file:
            for size in (65_536, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def empty(self) -> None:
        """Take back what ``fill`` has done."""
        self._filling.unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes that are left."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def remount(self, mode: str) -> None:
        """Make it read-only, ``ro``, or writable, ``rw``; no file may be open for writing."""
        subprocess.run(["mount", "-o", f"remount,bind,{mode}", str(self.path)], check=True)


@contextmanager
def disk(directory: Path, size: str = "4m") -> Iterator[Disk]:
    """Mount an empty file system of ``size`` in ``directory``; the test is skipped where that is not possible."""
    with mounted(directory, "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as found:
        yield found


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Disk]:
    """Mount what ``options`` say in ``directory``; by default the directory itself, to be made read-only by itself."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        made = subprocess.run(
            ["mount", *(options or ("--bind", str(directory))), str(directory)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip(f"a file system of one's own takes the rights of root: {made.stderr.strip()}")
    try:
        yield Disk(directory)
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
