"""Callbacks in Python behind the whole gateway, as a user runs it: the seeds' files and configs, unchanged."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from otelgw.report import read_state
from tests.e2e.test_seeds import BLOCKS, block_with, needs_seeds
from tests.servers.gateway import GatewayProcess
from tests.servers.upstream import ScriptedUpstream

QUESTION = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "good morning good sir"}]}


def ask(process: GatewayProcess, **changes: Any) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        return client.post(f"{process.url}/chat/completions", json={**QUESTION, **changes}, timeout=30)


def keys(upstream: ScriptedUpstream) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": f"{upstream.url}/v1"}


def of(process: GatewayProcess, name: str) -> dict[str, Any]:
    state = read_state(str(process.state)) or {"destinations": []}
    return next((each for each in state["destinations"] if each["name"] == name), {})


def printed(process: GatewayProcess) -> str:
    return process.output.read_text(errors="replace")


def python(*words: str) -> str:
    return next(b.text for b in BLOCKS if b.language == "python" and all(word in b.text for word in words))


@needs_seeds
def test_the_seeds_callback_prints_what_it_is_given_to_the_gateways_standard_output(
    standing: ScriptedUpstream, tmp_path: Path
) -> None:
    config = block_with("yaml", "callbacks: custom_callbacks.proxy_handler_instance").replace(
        "\n - model_name", "\n  - model_name"
    )
    (tmp_path / "custom_callbacks.py").write_text(python("proxy_handler_instance", "async_log_failure_event"))
    with GatewayProcess(config, tmp_path, env=keys(standing)) as process:
        assert ask(process, user="ishaan-app", temperature=0.2).status_code == 200
        process.wait_until(lambda: "Proxy Metadata" in printed(process))
        text = printed(process)
        assert re.search(r"Pre-API Call\nPost-API Call\nOn Async Success!", text)
        assert "Messages: [{'role': 'user', 'content': 'good morning good sir'}]" in text
        assert "User: ishaan-app" in text
        assert "content='echo: good morning good sir'" in text
        assert ask(process, model="no-such-model").status_code == 404
        process.wait_until(lambda: "On Async Failure !" in printed(process))


def test_a_callback_sees_which_credentials_were_sent_and_none_of_them(
    standing: ScriptedUpstream, tmp_path: Path
) -> None:
    (tmp_path / "shows.py").write_text(
        "def handler(kwargs, *_):\n    print(kwargs['litellm_params']['proxy_server_request']['headers'])\n"
    )
    config = """\
model_list:
  - model_name: gpt-3.5-turbo
    litellm_params: {model: gpt-3.5-turbo}
litellm_settings: {callbacks: shows.handler}
"""
    headers = {"authorization": "Bearer CANARY-1", "cookie": "session=CANARY-2", "x-api-key": "CANARY-3"}
    with GatewayProcess(config, tmp_path, env=keys(standing)) as process:
        with httpx.Client(trust_env=False) as client:
            answer = client.post(f"{process.url}/chat/completions", json=QUESTION, headers=headers, timeout=30)
        assert answer.status_code == 200
        process.wait_until(lambda: "'host'" in printed(process))
        text = printed(process)
    for name in headers:
        assert f"'{name}': 'REDACTED'" in text
    assert "CANARY" not in text + process.errors.read_text()


@needs_seeds
def test_the_callback_of_2023_is_dead_letters_and_nothing_else_is_the_worse_for_it(
    standing: ScriptedUpstream, tmp_path: Path
) -> None:
    (tmp_path / "custom_callbacks.py").write_text(python("log_success_event", "Response: {response}"))
    config = f"""\
model_list:
  - model_name: gpt-3.5-turbo
    litellm_params: {{model: gpt-3.5-turbo}}
litellm_settings: {{callbacks: custom_callbacks.proxy_handler_instance}}
otelgw: {{destinations: [{{name: file, path: {tmp_path}/calls.jsonl}}]}}
"""
    name = "callback/custom_callbacks.proxy_handler_instance"
    with GatewayProcess(config, tmp_path, env=keys(standing)) as process:
        for _ in range(3):
            assert ask(process).status_code == 200
        process.wait_until(lambda: of(process, name).get("dead_letters") == 9)
        process.wait_until(lambda: len((tmp_path / "calls.jsonl").read_text().splitlines()) == 3)
        errors = process.errors.read_text()
    assert printed(process).count("On Success") == 3
    assert errors.count("NameError: name 'response' is not defined") == 1


def test_a_callback_that_blocks_delays_no_request_and_no_other_destination_and_ends_with_the_gateway(
    standing: ScriptedUpstream, tmp_path: Path
) -> None:
    (tmp_path / "blocks.py").write_text(
        "import os, time\n\ndef handler(*_):\n    print('pid', os.getpid())\n    time.sleep(600)\n"
    )
    config = f"""\
model_list:
  - model_name: gpt-3.5-turbo
    litellm_params: {{model: gpt-3.5-turbo}}
otelgw:
  destinations:
    - {{name: callback/blocks, target: blocks.handler, timeout: 600}}
    - {{name: file, path: {tmp_path}/calls.jsonl}}
"""
    with GatewayProcess(config, tmp_path, env=keys(standing)) as process:
        for _ in range(4):
            assert ask(process).status_code == 200
        process.wait_until((tmp_path / "calls.jsonl").exists)
        process.wait_until(lambda: len((tmp_path / "calls.jsonl").read_text().splitlines()) == 4)
        process.wait_until(lambda: "pid" in printed(process))
        pid = int(printed(process).split()[1])
        os.kill(pid, 0)
        (pipeline,) = process.children("otelgw.pipeline_main")
        os.kill(pipeline, signal.SIGKILL)
        process.wait_until(lambda: not _lives(pid))
        process.wait_until(lambda: printed(process).count("pid") == 2)
        pid = int(printed(process).split()[3])
        for _ in range(2):  # the second ends it now, without the time for what is under way
            process.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("target", ["nowhere.handler", "s3://bucket/mine.handler"])
def test_a_callback_that_cannot_be_loaded_is_an_error_before_anything_is_served(tmp_path: Path, target: str) -> None:
    process = GatewayProcess(f"litellm_settings: {{callbacks: ['{target}']}}\n", tmp_path)
    assert process.process.wait(30) == 2
    assert "litellm_settings.callbacks[0]: " in process.errors.read_text()
