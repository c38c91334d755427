"""The recipes of collector/recipes run by the real Collector, and what is sent through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.load import load
from otelgw.doctor import diagnose
from otelgw_exporters.otlp import OtlpGrpcExporter
from tests.servers import require
from tests.servers.collector import Collector
from tests.servers.gateway import GatewayProcess
from tests.servers.ports import free_port

__all__ = ["RECIPES", "ask", "examine", "gateway", "recipe", "send"]

RECIPES = Path(__file__).parents[2] / "collector" / "recipes"


def send(collector: Collector, spans: Sequence[ReadableSpan]) -> None:
    exporter = OtlpGrpcExporter(endpoint=f"http://127.0.0.1:{collector.grpc}")
    try:
        outcome = exporter.deliver(spans, time.monotonic() + 20)
        assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
    finally:
        exporter.shutdown()


def recipe(
    name: str, directory: Path, env: Mapping[str, str], change: Callable[[dict[str, Any]], None] | None = None
) -> Collector:
    """Return the Collector of a recipe, which sends on at once; ``change`` puts what a test needs otherwise."""
    tree = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    for exporter in tree["exporters"].values():
        exporter["sending_queue"]["batch"]["flush_timeout"] = "50ms"
    tree["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{free_port()}"
    if change is not None:
        change(tree)
    directory.mkdir(exist_ok=True)
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Collector(require("collector"), config, env={"OTELCOL_STATE": str(directory / "state"), **env})


@contextmanager
def gateway(collector: Collector, directory: Path) -> Iterator[GatewayProcess]:
    """Run a gateway without a config, told by OpenTelemetry's own variable to send to ``collector``."""
    directory.mkdir(exist_ok=True)
    sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc}"}
    with GatewayProcess(None, directory, env=sent) as running:
        yield running


def ask(running: GatewayProcess, content: str, model: str = "echo") -> str:
    """Make one call; return the id of its trace."""
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, trust_env=False)
    return answer.headers["x-otelgw-trace-id"]


def examine(collector: Collector, directory: Path) -> None:
    """Have the doctor send its trace to ``collector``."""
    path = directory / "doctor.yaml"
    path.write_text(f'otelgw: {{destinations: [{{name: otlp_grpc, endpoint: "http://127.0.0.1:{collector.grpc}"}}]}}\n')
    (found,) = diagnose(load(str(path), {"HOME": str(directory)}))
    assert found.ok, found
