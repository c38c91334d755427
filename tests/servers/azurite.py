"""Azurite, Microsoft's emulator of Azure Storage (npm ``azurite``): Blobs, with keys, SAS and tokens checked.

::

    with Azurite(require("azurite")) as running:
        running.url + "/devstoreaccount1/container"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.servers import npm
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["ACCOUNT", "KEY", "Azurite", "build", "find"]

_REQUIREMENT = "azurite@3.35.0"  # the newest that runs on Node 20
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of the emulator's account."""


def find() -> Path | None:
    """Return Azurite's Blob program; None if it is not installed."""
    return npm.find("azurite", _REQUIREMENT, "azurite-blob")


def build() -> Path:
    """Install Azurite, unless it is there; takes half a minute."""
    return npm.build("azurite", _REQUIREMENT, "azurite-blob")


class Azurite(Process):
    """A running Azurite, in memory. ``extra`` are further words of its command line."""

    def __init__(self, program: Path, extra: Sequence[str] = ()) -> None:
        port = free_port()
        words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
        super().__init__([program, *words, "--skipApiVersionCheck", "--disableTelemetry", *extra], port)
        if "--cert" in extra:
            self.url = f"https://127.0.0.1:{port}"
