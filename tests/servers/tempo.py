"""A real Grafana Tempo with several tenants, its blocks in a directory, built from its own module.

Its v2 tags cannot be named to Go, because the module's path lacks ``/v2``; this commit, of May 2023 and between v2.1
and v2.2, is the newest found that the Go checksum database vouches for.

::

    with Tempo(require("tempo")) as tempo:
        tempo.grpc                        # where it takes OTLP by gRPC, for the tenant in X-Scope-OrgID
        tempo.trace(trace_id, "team-a")   # the spans of a trace, as its query API tells them
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

__all__ = ["Tempo", "build", "find"]

_MODULE = "github.com/grafana/tempo@v1.5.1-0.20230524121406-1dc1bfe7085b"
_PROGRAM = "tempo"
# Tempo's codec has to be registered after gRPC's own. Go 1.21 and newer go by the packages' names, so it has to say so.
_ORDER = """\
package gogocodec

import _ "google.golang.org/grpc/encoding/proto"
"""
_RECIPE = f"{_MODULE}\n{_ORDER}".encode()

_CONFIG = """\
multitenancy_enabled: true
server:
  {{http_listen_address: 127.0.0.1, http_listen_port: {query}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {own}}}
usage_report: {{reporting_enabled: false}}
distributor:
  ring: {{kvstore: {{store: inmemory}}, instance_addr: 127.0.0.1}}
  receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}}}
ingester:
  lifecycler:
    {{address: 127.0.0.1, min_ready_duration: 0s, ring: {{kvstore: {{store: inmemory}}, replication_factor: 1}}}}
compactor:
  ring: {{kvstore: {{store: inmemory}}, instance_addr: 127.0.0.1, wait_stability_min_duration: 0s}}
querier: {{frontend_worker: {{frontend_address: "127.0.0.1:{own}"}}}}
storage: {{trace: {{backend: local, local: {{path: {home}/blocks}}, wal: {{path: {home}/wal}}}}}}
"""


def find() -> Path | None:
    """Return Tempo's program if it was built."""
    return cached("tempo", _RECIPE, _PROGRAM)


def build() -> Path:
    """Build Tempo, unless it is there; takes a few minutes of two cores."""
    return build_once("tempo", _RECIPE, _PROGRAM, _build)


def _build(scratch: Path) -> Path:
    told = subprocess.run(
        [go(), "mod", "download", "-json", _MODULE], check=True, cwd=scratch, stdout=subprocess.PIPE, text=True
    )
    # As the main module: its go.sum and its replacements count, and no other checksums have to be found.
    source = scratch / "source"
    # Of its vendor directory a module keeps the list only, which Go would take for the whole.
    shutil.copytree(json.loads(told.stdout)["Dir"], source, ignore=shutil.ignore_patterns("vendor"))
    for each in (source, *source.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    (source / "pkg" / "gogocodec" / "order.go").write_text(_ORDER)
    program = scratch / _PROGRAM
    # purego: without assembly that reaches into a part of Go's runtime which is closed today.
    command = [go(), "build", "-tags", "purego", "-trimpath", "-ldflags=-s -w", "-o", str(program), "./cmd/tempo"]
    env = {**os.environ, "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip()}
    subprocess.run(command, check=True, cwd=source, env=env)
    return program


class Tempo(Process):
    """A running Tempo. ``grpc`` is the port where it takes OTLP; ``url`` is that of its query API."""

    def __init__(self, program: Path) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="tempo-")
        self.grpc, query = free_port(), free_port()
        config = Path(self._home.name, "tempo.yaml")
        config.write_text(_CONFIG.format(grpc=self.grpc, query=query, own=free_port(), home=self._home.name))
        super().__init__([program, f"-config.file={config}"], query, ready=self._is_up)

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def trace(self, trace_id: str, tenant: str) -> list[dict[str, Any]]:
        """Return a tenant's spans of a trace, in OTLP's JSON as Tempo writes it, each with its ``resource``; none while
        it has no such trace.
        """
        headers = {"X-Scope-OrgID": tenant}
        answer = httpx.get(f"{self.url}/api/traces/{trace_id}", headers=headers, timeout=10, trust_env=False)
        if answer.status_code == 404:
            return []
        assert answer.is_success, answer.text
        return [
            span | {"resource": batch["resource"]}
            for batch in answer.json()["batches"]
            for scope in batch["scopeSpans"]
            for span in scope["spans"]
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # told to end it flushes its blocks, which nobody will read
        super().__exit__(kind, error, trace)
        self._home.cleanup()
