"""What is measured: the upstream itself, nginx in front of it, and the gateway under each of its servers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Process, free_port

__all__ = ["EXTRA", "NAMES", "Backends", "Target", "start_backends", "start_target"]

NAMES = ("direct", "nginx", "otelgw-hypercorn", "otelgw-uvicorn")
EXTRA = ("otelgw-hypercorn-fsync", "otelgw-uvicorn-fsync", "otelgw-hypercorn-eight", "otelgw-uvicorn-eight")
KEY = "sk-otelgw-benchmark"

NGINX = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

# A known model, so that the price is resolved and the cost computed; content capture and the spool are on by default.
GATEWAY = """
model_list:
  - model_name: bench
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-upstream
general_settings:
  master_key: {key}
otelgw:
  spool:
    fsync: {fsync}
  destinations:
"""
DESTINATION = """
    - name: otlp_http/d{number}
      endpoint: http://127.0.0.1:{sink}/{name}{number}/v1/traces
"""


@dataclass(frozen=True, slots=True)
class Target:
    """One way to the upstream. ``process`` is None where there is none of its own to account for."""

    name: str
    port: int
    process: Process | None = None
    exports: bool = False

    @property
    def pid(self) -> int:
        """The root of the target's process tree, 0 without one."""
        return self.process.pid if self.process else 0


@dataclass(frozen=True, slots=True)
class Backends:
    """The upstream that every target calls, and the receiver that the gateway's spans are sent to."""

    upstream: Process
    sink: Process

    def generations(self, name: str) -> int:
        """Return how many generation spans with content the target ``name`` has delivered so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.sink.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/stats")
            stats = json.load(connection.getresponse())
        delivered: int = stats["generations"].get(f"/{name}/v1/traces", 0)
        return delivered


def _environment() -> dict[str, str]:
    """The environment without settings that would change what is measured."""
    own = ("OTEL_", "OTELGW_", "LITELLM_")
    return {
        name: value for name, value in os.environ.items() if not name.startswith(own) and "proxy" not in name.lower()
    }


@contextlib.contextmanager
def _running(process: Process) -> Iterator[Process]:
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def start_backends(directory: Path) -> Iterator[Backends]:
    """Run the upstream and the sink."""

    def module(name: str) -> Process:
        port = free_port()
        command = [sys.executable, "-m", f"benchmarks.{name}", "--port", str(port)]
        return Process(name, command, port, directory / f"{name}.log", _environment())

    with _running(module("upstream")) as upstream, _running(module("sink")) as sink:
        yield Backends(upstream, sink)


@contextlib.contextmanager
def start_target(name: str, backends: Backends, directory: Path) -> Iterator[Target | None]:
    """Run the target ``name``; None where a program that it needs is not installed."""
    if name == "direct":
        yield Target(name, backends.upstream.port)
        return
    directory = directory / name
    directory.mkdir()
    process = _nginx(backends, directory) if name == "nginx" else _gateway(name, backends, directory)
    if process is None:
        yield None
        return
    with _running(process):
        yield Target(name, process.port, process, exports=name != "nginx")


def _nginx(backends: Backends, directory: Path) -> Process | None:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port, upstream=backends.upstream.port))
    return Process("nginx", [program, "-c", str(config)], port, directory / "log", _environment())


def _gateway(name: str, backends: Backends, directory: Path) -> Process:
    port = free_port()
    config = directory / "config.yaml"
    server, _, variant = name.removeprefix("otelgw-").partition("-")
    text = GATEWAY.format(upstream=backends.upstream.port, key=KEY, fsync=str(variant == "fsync").lower())
    for number in range(8 if variant == "eight" else 1):
        text += DESTINATION.format(sink=backends.sink.port, name=name, number=number or "")
    config.write_text(text)
    command = [str(Path(sys.executable).with_name("otelgw")), "serve", "--config", str(config)]
    command += ["--server", server, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    env = _environment() | {"OTELGW_STATE_DIR": str(directory / "state")}
    return Process(name, command, port, directory / "log", env)
