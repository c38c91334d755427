"""The gateway for tests: the real application behind a real server on a loopback socket, in a thread of its own.

::

    with RunningGateway([deployment(upstream.url)]) as gateway:
        httpx.post(gateway.url + "/v1/chat/completions", ...)
        record = gateway.record()          # waits for the next record
        spans = gateway.spans(record)

Records go to memory instead of segment files; everything else is what a worker runs. ``GatewayProcess`` starts the
whole thing instead, master, workers and pipeline, as a user does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import httpx
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelgw.app import build
from otelgw.config.settings import Auth, Deployment, Limits, Server, Settings, Timeouts, Tracing
from otelgw.http.gateway import Gateway
from otelgw.http.servers import SERVERS
from otelgw.spool import Intent
from otelgw.tracing.limits import AttributeLimits
from otelgw.tracing.record import Record, decode
from otelgw.tracing.spans import build as build_spans
from tests.servers.ports import free_port

__all__ = ["GatewayProcess", "MemorySpool", "RunningGateway", "deployment"]

ROOT = Path(__file__).parents[2]
UPSTREAM_KEY = "sk-upstream-canary"


def deployment(url: str, alias: str = "gpt-4o-mini", **changes: Any) -> Deployment:
    """Return an OpenAI deployment whose upstream is at ``url``."""
    base = f"{url}/v1"
    row = Deployment(
        id=f"id-{alias}",
        alias=alias,
        provider="openai",
        otel_provider="openai",
        model=alias,
        base_url=base,
        urls={path: f"{base}/{path}" for path in ("chat/completions", "completions", "embeddings")},
        auth=((b"authorization", f"Bearer {UPSTREAM_KEY}".encode()),),
        timeouts=Timeouts(connect=2, first_byte=5, idle=5, total=20),
    )
    return replace(row, **changes)


class MemorySpool:
    """Keeps records instead of writing them."""

    def __init__(self) -> None:
        self.records: queue.Queue[Record] = queue.Queue()
        self.payloads: list[bytes] = []
        self.intents: list[Intent] = []
        self.failing: OSError | None = None

    def intend(self, intent: Intent) -> bytes:
        self.intents.append(intent)
        return bytes.fromhex(intent.span_id)

    async def commit(self) -> None:
        """Memory is as durable as this spool gets."""

    def append(self, payload: bytes, *, settles: bytes = b"", unauthenticated: bool = False) -> None:
        if self.failing is not None:
            raise self.failing
        self.payloads.append(payload)
        self.records.put(decode(payload))


class RunningGateway:
    """One worker's application and server in a thread."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        *,
        server: Mapping[str, Any] | None = None,
        auth: Auth | None = None,
        limits: Limits | None = None,
        tracing: Tracing | None = None,
        transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
        **settings: Any,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.settings = Settings(
            server=Server(**{"port": self.port, "drain": 5.0, **(server or {})}),
            deployments=tuple(deployments),
            auth=auth or Auth(),
            limits=limits or Limits(),
            tracing=tracing or Tracing(),
            **settings,
        )
        self.spool = MemorySpool()
        self._transports = transports
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self.gateway: Gateway
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.server.certfile else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the gateway did not start")
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(15)
        if self._thread.is_alive():
            raise TimeoutError("the gateway did not stop")
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # a thread has no other way to tell
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.gateway = build(self.settings, self.spool, self._transports)
        descriptor = os.dup(self._listener.fileno())
        self._listener.close()
        await SERVERS[self.settings.server.kind](self.gateway, self.settings, descriptor, self._stop, self._ready.set)

    def call(self, coroutine: Any, seconds: float = 15) -> Any:
        """Run a coroutine on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def record(self, seconds: float = 5) -> Record:
        """Return the next record."""
        return self.spool.records.get(timeout=seconds)

    def no_record(self, seconds: float = 0.3) -> bool:
        """Return whether no record comes within ``seconds``."""
        with contextlib.suppress(queue.Empty):
            self.spool.records.get(timeout=seconds)
            return False
        return True

    def spans(self, record: Record | None = None) -> list[ReadableSpan]:
        """Return the spans of ``record``, or of the next one: SERVER first."""
        made = build_spans(
            record or self.record(),
            Resource({"service.name": "otelgw"}),
            InstrumentationScope("otelgw"),
            AttributeLimits(),
        )
        return sorted(made, key=lambda span: (span.start_time or 0, -(span.end_time or 0)))


class GatewayProcess:
    """``python -m otelgw.cli serve`` with a config file, as a user runs it; state and output in a directory.

    ``group``: in a process group of its own, as from a shell.
    """

    def __init__(
        self,
        config: str | None,
        directory: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        group: bool = False,
    ) -> None:
        self.port = free_port()
        self.directory = directory
        self.state = directory / "state"
        self.output = directory / "output.txt"
        self.errors = directory / "errors.txt"
        command = [sys.executable, "-m", "otelgw.cli", "serve", "--port", str(self.port), *arguments]
        if config is not None:
            self.config = directory / "config.yaml"
            self.config.write_text(config)
            command += ["--config", str(self.config)]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
        kept |= {"OTELGW_STATE_DIR": str(self.state), "PYTHONPATH": os.environ.get("PYTHONPATH", "")} | dict(env or {})
        with self.output.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=directory, env=kept, start_new_session=group
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.wait_until(lambda: self._is_ready() or self.process.poll() is not None)
        except BaseException:
            self.process.kill()
            raise
        if self.process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {self.process.returncode}: {self.errors.read_text()}")
        return self

    def _is_ready(self) -> bool:
        return re.search(r"^otelgw \d", self.errors.read_text(errors="replace"), re.MULTILINE) is not None

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
                raise

    def stop(self, seconds: float = 20) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def children(self, module: str) -> list[int]:
        """Return the pids of the children that run ``module``."""
        listed = subprocess.run(
            ["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        rows = [line.split(None, 2) for line in listed]
        return [int(pid) for pid, parent, args in rows if int(parent) == self.process.pid and module in args]

    def wait_until(self, condition: Any, seconds: float = 90) -> None:
        """Wait for ``condition`` to be true; long, because the pipeline yields to whatever else a busy machine does."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"waited {seconds} s in vain; log: {self.errors.read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.02)
