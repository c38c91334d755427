"""Zipkin's own server, the one jar that the project publishes, with everything in memory.

::

    with Zipkin(require("zipkin")) as zipkin:
        zipkin.endpoint                   # where it takes spans in Zipkin's JSON
        zipkin.trace(trace_id)            # the spans of a trace, as its query API tells them
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.servers import maven
from tests.servers.cache import build_once, cached
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["Zipkin", "build", "find"]

_ARTIFACT = "io.zipkin:zipkin-server:3.5.1:jar:exec"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAR = "zipkin.jar"
# For a server that starts fast and stays small, not for one that runs long.
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def find() -> Path | None:
    """Return the server's jar if it was fetched, and a Java to run it with."""
    return cached("zipkin", _ARTIFACT.encode(), _JAR) if maven.has_java() else None


def build() -> Path:
    """Fetch the server, and a Java, unless they are there; 131 MB and 100 MB.

    Raises:
        FileNotFoundError: Maven is not installed.
    """
    maven.fetch_java()
    return build_once("zipkin", _ARTIFACT.encode(), _JAR, _fetch)


def _fetch(scratch: Path) -> Path:
    program = shutil.which("mvn")
    if program is None:
        raise FileNotFoundError("mvn: install Maven")
    command = [program, "-q", "-B", _COPY, f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={scratch}"]
    subprocess.run(command, check=True, cwd=scratch)
    (jar,) = scratch.glob("*.jar")
    return jar


class Zipkin(Process):
    """A running Zipkin. ``endpoint`` is the whole URL that takes spans; ``url`` is that of its query API."""

    def __init__(self, jar: Path) -> None:
        port = free_port()
        java = [
            maven.java_home() / "bin" / "java",
            "-Xms64m",
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ]
        # QUERY_PORT would have it listen on every address.
        listener = {"ip": "127.0.0.1", "port": str(port), "protocols[0]": "http"}
        words = [f"--armeria.ports[0].{name}={value}" for name, value in listener.items()]
        env = {"STORAGE_TYPE": "mem", "SELF_TRACING_ENABLED": "false"}
        super().__init__([*java, "-jar", jar, *words], port, env=env, ready=self._is_up)
        self.endpoint = f"{self.url}/api/v2/spans"

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace, in Zipkin's JSON; none while it has no such trace."""
        answer = httpx.get(f"{self.url}/api/v2/trace/{trace_id}", timeout=10, trust_env=False)
        if answer.status_code == 404:
            return []
        assert answer.is_success, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def search(self, tag: str) -> list[list[dict[str, Any]]]:
        """Return the traces with a span that has ``tag``, as ``name=value``."""
        query = {"serviceName": "otelgw", "annotationQuery": tag}
        answer = httpx.get(f"{self.url}/api/v2/traces", params=query, timeout=10, trust_env=False)
        assert answer.is_success, answer.text
        found: list[list[dict[str, Any]]] = answer.json()
        return found
