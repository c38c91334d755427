"""Keys on a gateway as it is started: two workers, a pipeline, curl and OpenAI's client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.keys.administration import MASTER, Admin
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import HttpReceiver

OWN_KEY = "sk-own-canary-0123456789"
CONFIG = """\
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {model: echo/echo, input_cost_per_token: 0.01, output_cost_per_token: 0.01}
general_settings: {master_key: %(master)s%(database)s}
otelgw:
  destinations: [{name: file/global, path: %(file)s}]
  tenants: {allow_networks: [127.0.0.0/8]}
  keys: [{key: os.environ/OWN_KEY, key_alias: own, rpm_limit: 20}]
"""


class Running:
    def __init__(self, process: GatewayProcess, admin: Admin, file: Path) -> None:
        self.process = process
        self.admin = admin
        self.file = file


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    processes: list[tuple[GatewayProcess, Admin]] = []

    def begin(database: str = "", name: str = "one") -> Running:
        directory = tmp_path / name
        directory.mkdir()
        file = directory / "global.jsonl"
        config = CONFIG % {
            "master": MASTER,
            "file": file,
            "database": f", database_url: {database}" if database else "",
        }
        environment = {"OWN_KEY": OWN_KEY, "OTELGW_SALT_KEY": "salt-canary"}
        process = GatewayProcess(config, directory, "--workers", "2", env=environment)
        process.__enter__()
        admin = Admin(process.url)
        processes.append((process, admin))
        return Running(process, admin, file)

    yield begin
    for process, admin in processes:
        admin.close()
        process.__exit__(None, None, None)


def ask(url: str, key: str) -> httpx.Response:
    """Ask on a connection of its own, which the kernel gives to either worker."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=20)


def test_a_limit_is_exact_over_the_workers_and_a_key_is_gone_at_once_in_all(start: Callable[..., Running]) -> None:
    running = start()
    url, admin = running.process.url, running.admin
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.extend(ask(url, OWN_KEY) for _ in range(8))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 20}
    left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers)
    assert left == [0] * 21 + list(range(1, 20))

    key = admin.key(key_alias="short-lived", user_id="u-1", user_email="u-1@example.com")
    assert {ask(url, key).status_code for _ in range(8)} == {200}
    admin.post("/key/delete", {"keys": [key]})
    # Not more often than one worker lets an address fail: after that it says 429.
    assert {ask(url, key).status_code for _ in range(5)} == {401}

    running.process.wait_until(lambda: running.file.exists() and "short-lived" in running.file.read_text())
    payloads = [json.loads(line) for line in running.file.read_text().splitlines()]
    metadata = next(each["metadata"] for each in payloads if each["metadata"]["user_api_key_alias"] == "short-lived")
    assert metadata["user_api_key_user_id"] == "u-1"
    assert metadata["user_api_key_user_email"] == "u-1@example.com"
    for secret in (key, OWN_KEY, MASTER, "salt-canary"):
        for path in [*running.process.state.rglob("*"), running.file, running.process.errors, running.process.output]:
            assert not path.is_file() or secret.encode() not in path.read_bytes(), f"{secret} is in {path}"


def test_openais_client_and_curl_see_what_a_limit_is(start: Callable[..., Running]) -> None:
    running = start()
    key = running.admin.key(rpm_limit=1)
    client = openai.OpenAI(api_key=key, base_url=f"{running.process.url}/v1", max_retries=0)
    messages: Any = [{"role": "user", "content": "hello"}]
    with client:
        first = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=messages)
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        assert first.parse().choices[0].message.content == "hello"
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert refused.value.code == "rate_limited"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60

    made = subprocess.run(
        [
            *("curl", "-s", "-X", "POST", f"{running.process.url}/key/generate"),
            *("-H", f"Authorization: Bearer {MASTER}", "-H", "Content-Type: application/json"),
            *("--data-raw", '{"models": ["gpt-4o-mini"], "max_budget": 0.03, "budget_duration": "1d"}'),
        ],
        capture_output=True,
        check=True,
    )
    spender = json.loads(made.stdout)["key"]
    with openai.OpenAI(api_key=spender, base_url=f"{running.process.url}/v1", max_retries=0) as client:
        for _ in range(2):
            stream = client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "hello"
        with pytest.raises(openai.RateLimitError) as exceeded:
            client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert exceeded.value.code == "insufficient_quota"
    running.process.wait_until(lambda: running.admin.get("/key/info", key=spender)["info"]["spend"] >= 0.03)


def test_a_worker_that_is_killed_takes_no_spending_along(start: Callable[..., Running]) -> None:
    running = start()
    key = running.admin.key(max_budget=0.05)
    spent = 0
    while ask(running.process.url, key).status_code == 200:
        spent += 1
        for pid in running.process.children("otelgw.worker"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.process.wait_until(lambda: _answers(running.process.url))

    assert spent == 3


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/liveliness", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_tenants_destinations_get_their_own_and_survive_the_gateways_restart(
    start: Callable[..., Running], database_url: str
) -> None:
    running = start(database_url)
    with HttpReceiver() as one, HttpReceiver() as other:

        def callback(receiver: HttpReceiver, secret: str) -> dict[str, Any]:
            variables = {"endpoint": receiver.endpoint, "headers": f"authorization={secret}"}
            return {"callback_name": "otlp_http", "callback_vars": variables}

        admin = running.admin
        added = admin.key(metadata={"logging": [callback(one, "secret-one")]})
        admin.post("/team/new", {"team_id": "t", "logging_policy": {"destinations": []}})
        admin.post("/team/t/callback", callback(other, "secret-other"))
        replaced = admin.key(team_id="t")

        with Admin(running.process.url) as caller:
            said = [{"role": "user", "content": "canary-one"}], [{"role": "user", "content": "canary-other"}]
            assert caller.ask(added, messages=said[0]).status_code == 200
            assert caller.ask(replaced, messages=said[1]).status_code == 200
        running.process.wait_until(lambda: one.spans and other.spans)

        everything = [b"".join(asked.body for asked in receiver.asked) for receiver in (one, other)]
        assert [b"canary-one" in each for each in everything] == [True, False]
        assert [b"canary-other" in each for each in everything] == [False, True]
        assert {asked.headers["authorization"] for asked in one.asked} == {"secret-one"}
        last = [{"role": "user", "content": "canary-last"}]
        assert admin.ask(MASTER, messages=last).status_code == 200
        running.process.wait_until(lambda: running.file.exists() and "canary-last" in running.file.read_text())
        content = running.file.read_text()
        assert "canary-one" in content
        assert "canary-other" not in content
        assert not list(running.process.state.glob("keys.db*"))
        for secret in ("secret-one", "secret-other", "postgres-canary"):
            for path in [*running.process.state.rglob("*"), running.process.errors, running.file]:
                assert not path.is_file() or secret.encode() not in path.read_bytes(), f"{secret} is in {path}"

        second = start(database_url, "two")
        before = len(one.spans)
        assert second.admin.ask(added).status_code == 200
        second.process.wait_until(lambda: len(one.spans) > before)
        second.admin.post("/key/update", {"key": added, "blocked": True})
        running.process.wait_until(lambda: ask(running.process.url, added).status_code == 401)
