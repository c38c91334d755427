"""The real OpenTelemetry Collector, built from collector/builder.yaml.

::

    with Collector(require("collector"), config, overrides={"receivers.otlp…": …}) as running:
        running.eventually(lambda: "chat echo" in running.output)
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from tests.servers.cache import build_once, cached, go
from tests.servers.ports import free_port

__all__ = ["Collector", "build", "find"]

MANIFEST = Path(__file__).parents[2] / "collector" / "builder.yaml"
PROGRAM = "otelcol-otelgw"
_LIMIT = 30.0  # seconds until it must be ready, or have printed what is waited for


def find() -> Path | None:
    """Return the Collector's program if it was built from the manifest as it is."""
    return cached("collector", MANIFEST.read_bytes(), PROGRAM)


def build() -> Path:
    """Build the Collector with ocb, unless it is there; takes five minutes of two cores."""
    return build_once("collector", MANIFEST.read_bytes(), PROGRAM, _build)


def _build(scratch: Path) -> Path:
    version = yaml.safe_load(MANIFEST.read_text())["dist"]["version"]
    env = {**os.environ, "GOBIN": str(scratch), "PATH": f"{Path(go()).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    ocb = f"go.opentelemetry.io/collector/cmd/builder@v{version}"
    subprocess.run([go(), "install", ocb], check=True, env=env, cwd=scratch)
    (scratch / MANIFEST.name).write_bytes(MANIFEST.read_bytes())
    subprocess.run([scratch / "builder", f"--config={MANIFEST.name}"], check=True, env=env, cwd=scratch)
    return scratch / "_build" / PROGRAM


class Collector:
    """A running Collector. ``config`` is a file; receivers named ``otlp`` are moved to free loopback ports.

    ``grpc`` and ``http`` are the ports it listens on; ``overrides`` are further settings, as ``--set`` takes them, and
    ``env`` further variables.
    """

    def __init__(
        self,
        program: Path,
        config: Path,
        overrides: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.grpc, self.http = free_port(), free_port()
        settings = {
            "receivers.otlp.protocols.grpc.endpoint": f"127.0.0.1:{self.grpc}",
            "receivers.otlp.protocols.http.endpoint": f"127.0.0.1:{self.http}",
            "service.telemetry.metrics.level": "none",
            **(overrides or {}),
        }
        self._env = {**os.environ, **(env or {})}
        self._command = [str(program), "--config", str(config)]
        self._command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        self._log = tempfile.NamedTemporaryFile(prefix="collector-", suffix=".log")  # noqa: SIM115 - closed in __exit__

    @property
    def output(self) -> str:
        """Everything that it has printed so far."""
        return Path(self._log.name).read_text(errors="replace")

    @property
    def spans(self) -> list[str]:
        """The spans that its debug exporter has printed in detail, one text each."""
        return re.split(r"^Span #\d+$", self.output, flags=re.MULTILINE)[1:]

    def eventually(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds; an assertion error with the output if it does not within 30 s."""
        deadline = time.monotonic() + _LIMIT
        while not condition():
            assert time.monotonic() < deadline, self.output
            assert self._process.poll() is None, self.output
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT, env=self._env)
        try:
            self.eventually(lambda: "Everything is ready" in self.output)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
