"""Datadog's own test agent (PyPI ``ddapm-test-agent``): what an agent takes, over the trace API and OTLP.

::

    with Ddapm(require("ddapm")) as running:
        running.requests()
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.servers import environment
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["Ddapm", "Taken", "build", "find"]

_REQUIREMENTS = ("ddapm-test-agent==1.69.1",)


def find() -> Path | None:
    """Return the agent's program; None if its environment was not made."""
    return environment.find("ddapm", _REQUIREMENTS, "ddapm-test-agent")


def build() -> Path:
    """Make the agent's environment, unless it is there; takes half a minute."""
    return environment.build("ddapm", _REQUIREMENTS, "ddapm-test-agent")


class Taken(NamedTuple):
    """A request that the agent took; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Ddapm(Process):
    """A running test agent. ``otlp`` is where it takes OTLP over HTTP."""

    def __init__(self, program: Path) -> None:
        port, otlp, grpc = free_port(), free_port(), free_port()
        self.otlp = f"http://127.0.0.1:{otlp}"
        command = [program, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--otlp-http-port", str(otlp), "--otlp-grpc-port", str(grpc)]
        super().__init__(command, port)

    def requests(self) -> list[Taken]:
        """Return what it has taken, in order."""
        with httpx.Client(trust_env=False) as client:
            found: list[dict[str, Any]] = client.get(f"{self.url}/test/session/requests").json()
        return [
            Taken(
                httpx.URL(each["url"]).path,
                {name.lower(): value for name, value in each["headers"].items()},
                base64.b64decode(each["body"]),
            )
            for each in found
        ]

    def otlp_spans(self) -> list[dict[str, Any]]:
        """Return the OTLP requests that it has taken, as JSON."""
        with httpx.Client(trust_env=False) as client:
            text = client.get(f"{self.otlp}/test/session/traces").text
        found: list[dict[str, Any]] = json.loads(text)
        return found
