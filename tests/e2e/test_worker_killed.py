"""A request that was in flight when its worker was killed is on record all the same."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.servers.gateway import GatewayProcess
from tests.servers.upstream import Pause, Script, ScriptedUpstream, Stall, chat

CONFIG = """
model_list:
- model_name: gpt-4o-mini
  litellm_params: {{model: openai/gpt-4o-mini, api_base: "{url}/v1", api_key: sk-x}}
otelgw:
  destinations: [console]
  spool: {{intents: {intents}}}
"""
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "CANARY"}]}


def _ask(url: str) -> None:
    try:
        httpx.post(f"{url}/v1/chat/completions", json=BODY, timeout=20)
    except httpx.TransportError:
        return


@pytest.mark.parametrize("intents", ["true", "false"])
def test_a_killed_workers_requests_become_traces_unless_intents_are_off(tmp_path: Path, intents: str) -> None:
    stalled = Script((Pause(0.01), Stall()))
    with ScriptedUpstream([stalled, chat("hello")]) as upstream:
        config = CONFIG.format(url=upstream.url, intents=intents)
        with GatewayProcess(config, tmp_path) as gateway:
            asking = threading.Thread(target=_ask, args=(gateway.url,))
            asking.start()
            gateway.wait_until(lambda: upstream.requests)
            (worker,) = gateway.children("otelgw.worker")
            os.kill(worker, signal.SIGKILL)
            asking.join(20)
            gateway.wait_until(lambda: gateway.children("otelgw.worker") not in ([], [worker]))
            gateway.wait_until(lambda: _answered(gateway.url))
            gateway.wait_until(lambda: '"status_code": "UNSET"' in gateway.output.read_text())
            if intents == "true":
                gateway.wait_until(lambda: "worker_killed" in gateway.output.read_text())
        printed = gateway.output.read_text()

    spans = [span for span in _spans(printed) if span["attributes"].get("error.type") == "worker_killed"]
    if intents == "false":
        assert spans == []
        return
    assert {span["name"] for span in spans} == {"POST /v1/chat/completions", "chat gpt-4o-mini"}
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    assert "CANARY" not in json.dumps(spans)


def _answered(url: str) -> bool:
    try:
        return httpx.post(f"{url}/v1/chat/completions", json=BODY, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _spans(text: str) -> list[dict]:
    decoder = json.JSONDecoder()
    spans = []
    at = 0
    while (at := text.find("{", at)) >= 0:
        span, at = decoder.raw_decode(text, at)
        spans.append(span)
    return spans
