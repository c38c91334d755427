"""The real Jaeger v2, with everything in memory, built from its own module with the checksums that it carries.

Its v2 tags cannot be named to Go, because the module's path lacks ``/v2``; v1.76.0 is the same commit as v2.13.0. The
interface is a placeholder in a build like this one; the query API is whole.

::

    with Jaeger(require("jaeger")) as jaeger:
        jaeger.grpc, jaeger.http          # where it takes OTLP
        jaeger.trace(trace_id)            # the spans of a trace, as its query API tells them
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.servers.cache import build_once, cached, go
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["Jaeger", "build", "find"]

_MODULE = "github.com/jaegertracing/jaeger@v1.76.0"
_PROGRAM = "jaeger"

_CONFIG = """\
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 10000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}}}
"""


def find() -> Path | None:
    """Return Jaeger's program if it was built."""
    return cached("jaeger", _MODULE.encode(), _PROGRAM)


def build() -> Path:
    """Build Jaeger, unless it is there; takes five minutes of two cores."""
    return build_once("jaeger", _MODULE.encode(), _PROGRAM, _build)


def _build(scratch: Path) -> Path:
    told = subprocess.run(
        [go(), "mod", "download", "-json", _MODULE], check=True, cwd=scratch, stdout=subprocess.PIPE, text=True
    )
    # As the main module: its go.sum and its replacements count, and no other checksums have to be found.
    source = scratch / "source"
    shutil.copytree(json.loads(told.stdout)["Dir"], source)
    for each in (source, *source.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    program = scratch / _PROGRAM
    command = [go(), "build", "-trimpath", "-ldflags=-s -w", "-o", str(program), "./cmd/jaeger"]
    env = {**os.environ, "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip()}
    subprocess.run(command, check=True, cwd=source, env=env)
    return program


class Jaeger(Process):
    """A running Jaeger. ``grpc`` and ``http`` are the ports where it takes OTLP; ``url`` is that of its query API."""

    def __init__(self, program: Path) -> None:
        self.grpc, self.http, query = free_port(), free_port(), free_port()
        self._config = tempfile.NamedTemporaryFile("w", prefix="jaeger-", suffix=".yaml")  # noqa: SIM115 - see __exit__
        text = _CONFIG.format(grpc=self.grpc, http=self.http, query=query, query_grpc=free_port())
        self._config.write(text)
        self._config.flush()
        super().__init__([program, "--config", self._config.name], query, ready=self._is_up)

    def _is_up(self) -> bool:
        return "Everything is ready" in self.output

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace, in Jaeger's JSON; none while it has no such trace."""
        answer = httpx.get(f"{self.url}/api/traces/{trace_id}", timeout=10, trust_env=False)
        if answer.status_code == 404:
            return []
        assert answer.is_success, answer.text
        (trace,) = answer.json()["data"]
        processes = trace["processes"]
        return [span | {"process": processes[span["processID"]]} for span in trace["spans"]]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(
                self._process.pid, signal.SIGKILL
            )  # told to end it waits for its clients, and has nothing to lose
        super().__exit__(kind, error, trace)
        self._config.close()
