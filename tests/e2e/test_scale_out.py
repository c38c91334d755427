"""What is meant for many machines, on this one: gateways, tiers and groups of Collectors, and what dies of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from benchmarks import soak
from tests.servers import require
from tests.servers.collector import Collector
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import GrpcReceiver
from tests.servers.ports import free_port

RECIPES = Path(__file__).parents[2] / "collector" / "recipes"


def test_gateways_kafka_and_a_group_of_collectors_lose_no_span_when_parts_of_it_die(tmp_path: Path) -> None:
    programs = {name: require(name) for name in ("collector", "kafka")}

    result = soak.run(500, tmp_path, programs, rate=100, session=2)

    assert result.spans == 501
    assert (result.missing, result.unknown, result.repeated_differently) == (0, 0, 0), result


def collector(name: str, directory: Path, env: dict[str, str], hostnames: list[str] | None = None) -> Collector:
    """Return the Collector of a recipe; ``hostnames`` are those of tier 2, where it sends to that."""
    tree: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    tree["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{free_port()}"
    for exporter in tree["exporters"].values():
        exporter["sending_queue"]["batch"]["flush_timeout"] = "50ms"
        exporter["retry_on_failure"] |= {"initial_interval": "100ms", "max_interval": "500ms"}
    if hostnames is not None:
        tree["exporters"]["load_balancing"]["resolver"] = {"static": {"hostnames": hostnames}}
    directory.mkdir(exist_ok=True)
    config = directory / f"{name}.yaml"
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return Collector(require("collector"), config, env={"OTELCOL_STATE": str(directory / "state"), **env})


@pytest.fixture
def backends() -> Iterator[list[GrpcReceiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(GrpcReceiver()) for _ in range(2)]


def ask(gateway: GatewayProcess, trace: int) -> None:
    """Call a gateway within a trace of the caller's."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"traceparent": f"00-{trace:032x}-{trace % (1 << 64):016x}-01"}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text


def test_a_trace_through_two_gateways_is_whole_in_one_collector_and_outlives_a_dead_tier(
    tmp_path: Path, backends: list[GrpcReceiver]
) -> None:
    tier2 = [
        collector("loadbalancing_tier2", tmp_path / f"tier2-{number}", {"BACKEND_ENDPOINT": f"127.0.0.1:{each.port}"})
        for number, each in enumerate(backends)
    ]
    hostnames = [f"127.0.0.1:{each.grpc}" for each in tier2]
    tier1 = [collector("loadbalancing_tier1", tmp_path / f"tier1-{number}", {}, hostnames) for number in range(2)]
    traces = [number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128) for number in range(1, 21)]
    with ExitStack() as stack:
        for number, each in enumerate(tier1):
            stack.enter_context(each)
            (tmp_path / f"gateway-{number}").mkdir()
        # Nobody of tier 2 is there yet: what the gateways hand over stays in tier 1, on its disk.
        for number, each in enumerate(tier1):
            sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{each.grpc}"}
            with GatewayProcess(None, tmp_path / f"gateway-{number}", env=sent) as gateway:
                for trace in traces:
                    ask(gateway, trace)
                assert gateway.stop() == 0, "it ends when all is delivered"
        tier1[0]._process.kill()
        tier1[0]._process.wait(10)
        for each in (*tier2, tier1[0]):
            stack.enter_context(each)
        tier1[0].eventually(lambda: len(arrived(backends)) == 2 * 3 * len(traces))
    held = [Counter(span.trace_id.hex() for span in backend.spans) for backend in backends]
    assert held[0].keys().isdisjoint(held[1])
    assert held[0].keys() | held[1].keys() == {f"{trace:032x}" for trace in traces}
    assert held[0]
    assert held[1]


def arrived(backends: list[GrpcReceiver]) -> set[bytes]:
    return {span.span_id for backend in backends for span in backend.spans}
