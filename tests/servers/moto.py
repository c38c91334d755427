"""moto, an emulator of AWS (PyPI ``moto``): SQS, DynamoDB, S3, STS, and IAM that refuses what no policy allows.

::

    with Moto(require("moto")) as running:
        running.url
"""

from __future__ import annotations

from pathlib import Path

from tests.servers import environment
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["Moto", "build", "find"]

_REQUIREMENTS = ("moto[server,s3,sqs,dynamodb,sts,iam]==5.2.5",)


def find() -> Path | None:
    """Return moto's program; None if its environment was not made."""
    return environment.find("moto", _REQUIREMENTS, "moto_server")


def build() -> Path:
    """Make moto's environment, unless it is there; takes half a minute."""
    return environment.build("moto", _REQUIREMENTS, "moto_server")


class Moto(Process):
    """A running moto. ``unchecked`` is the number of calls after which IAM is enforced; without it, it never is."""

    def __init__(self, program: Path, unchecked: int | None = None) -> None:
        port = free_port()
        env = {} if unchecked is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(unchecked)}
        super().__init__([program, "-H", "127.0.0.1", "-p", str(port)], port, env=env)
