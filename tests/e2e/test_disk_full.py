"""A disk that takes nothing costs records, which are counted, and never an answer."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.collector.disks import disk, mounted
from tests.e2e.moody import MoodyDestination
from tests.servers.gateway import GatewayProcess
from tests.servers.upstream import ScriptedUpstream

CONFIG = """
model_list:
- model_name: gpt-4o-mini
  litellm_params: {{model: openai/gpt-4o-mini, api_base: "{upstream}/v1", api_key: sk-x}}
otelgw:
  destinations: [{{name: otlp_http, endpoint: "{destination}"}}]
  spool: {{fsync: {fsync}}}
"""
PROMPT = "word " * 600


class Trouble(NamedTuple):
    """How a disk is broken and mended under a gateway that runs; ``before``: it has taken records before."""

    begin: Callable[[GatewayProcess], None]
    end: Callable[[GatewayProcess], None]
    before: bool = True


@contextmanager
def full(state: Path) -> Iterator[Trouble]:
    with disk(state, "8m") as small:
        yield Trouble(lambda _: small.fill(), lambda _: small.empty())


@contextmanager
def read_only(state: Path) -> Iterator[Trouble]:
    with mounted(state / "spool") as spool:
        yield Trouble(lambda _: spool.remount("ro"), lambda _: spool.remount("rw"), before=False)


@contextmanager
def limited(state: Path) -> Iterator[Trouble]:
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux limits another process")

    def limit(gateway: GatewayProcess, size: int) -> None:
        (worker,) = gateway.children("otelgw.worker")
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield Trouble(lambda gateway: limit(gateway, 65_536), lambda gateway: limit(gateway, resource.RLIM_INFINITY))


def ask(gateway: GatewayProcess, count: int) -> set[str]:
    """Ask ``count`` times, chats and streams; every answer must be whole. Returns the trace ids."""

    def call(number: int) -> str:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}], "stream": number % 2 == 0}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        assert "word" in answer.text
        return answer.headers["x-otelgw-trace-id"]

    with ThreadPoolExecutor(4) as callers:
        return set(callers.map(call, range(count)))


def readiness(gateway: GatewayProcess) -> dict[str, Any]:
    answer = httpx.get(f"{gateway.url}/health/readiness", timeout=30)
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("fsync", ["false", "true"], ids=["", "fsync"])
@pytest.mark.parametrize("trouble", [full, read_only, limited])
def test_a_disk_that_takes_nothing_costs_counted_records_and_no_answer(
    tmp_path: Path, trouble: Callable[[Path], Any], fsync: str
) -> None:
    state = tmp_path / "disk"
    with (
        trouble(state) as disturbed,
        MoodyDestination() as destination,
        ScriptedUpstream() as upstream,
        GatewayProcess(
            CONFIG.format(upstream=upstream.url, destination=destination.endpoint, fsync=fsync),
            tmp_path,
            env={"OTELGW_STATE_DIR": str(state)},
        ) as gateway,
    ):
        asked = ask(gateway, 10) if disturbed.before else set()
        disturbed.begin(gateway)
        asked |= ask(gateway, 80)
        assert readiness(gateway)["records_not_written"] > 0
        (pipeline,) = gateway.children("otelgw.pipeline_main")
        os.kill(pipeline, signal.SIGKILL)  # the next one starts on the broken disk
        asked |= ask(gateway, 10)
        disturbed.end(gateway)
        afterwards = ask(gateway, 10)
        gateway.wait_until(lambda: not destination.missing(afterwards))
        lost = readiness(gateway)["records_not_written"]
        gateway.wait_until(lambda: len(destination.missing(asked)) == lost)

        assert gateway.stop() == 0
        assert len(destination.taken) == len(asked) + len(afterwards) - lost
        log = gateway.errors.read_text()
    assert re.search(r"record not written: .*(No space left|Read-only|File too large)", log)
    assert "Traceback" not in log
