"""Limits in requests: what is counted, what is refused, and what the answers say about it."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from otelgw.config.settings import Auth, Keys
from otelgw.keys.hashing import digest
from otelgw.tracing.record import Price
from tests.keys.administration import MASTER, Admin
from tests.servers import scripts
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.redis import Redis
from tests.servers.upstream import ScriptedUpstream, openai

AUTH = Auth(master_key_sha256=hashlib.sha256(MASTER.encode()).hexdigest())
PRICE = Price("config", input_per_token=0.01, output_per_token=0.02)


@pytest.fixture(scope="module")
def standing() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(standing: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    yield standing
    standing.answer_with(openai)


@pytest.fixture(scope="module")
def gateway(standing: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    state = str(tmp_path_factory.mktemp("state"))
    rows = [deployment(standing.url, price=PRICE), deployment(standing.url, "free")]
    with RunningGateway(rows, auth=AUTH, state_dir=state) as running:
        yield running


@pytest.fixture
def admin(gateway: RunningGateway) -> Iterator[Admin]:
    with Admin(gateway.url) as made:
        yield made
    assert gateway.gateway.keys is not None
    gateway.gateway.keys._logins._failures.clear()
    while not gateway.spool.records.empty():
        gateway.spool.records.get()


def spent(admin: Admin, key: str, expected: float) -> dict[str, Any]:
    """Wait until what was spent is in the store."""
    deadline = time.monotonic() + 10
    while True:
        info = dict(admin.get("/key/info", key=key)["info"])
        if info["spend"] == pytest.approx(expected) or time.monotonic() > deadline:
            assert info["spend"] == pytest.approx(expected)
            return info
        time.sleep(0.05)


def test_requests_beyond_the_limit_get_429_and_their_traces_say_why(admin: Admin, gateway: RunningGateway) -> None:
    key = admin.key(rpm_limit=2, key_alias="two")
    gateway.record()
    first, second, third = (admin.ask(key) for _ in range(3))

    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert [each.headers["x-ratelimit-remaining-requests"] for each in (first, second, third)] == ["1", "0", "0"]
    assert {each.headers["x-ratelimit-limit-requests"] for each in (first, second, third)} == {"2"}
    assert {each.headers["x-litellm-key-rpm-limit"] for each in (first, second, third)} == {"2"}
    assert third.headers["x-litellm-key-tpm-limit"] == "None"
    assert 1 <= int(third.headers["retry-after"]) <= 60
    assert third.headers["x-ratelimit-reset-requests"].endswith("s")
    assert third.json()["error"] == {
        "message": "The key's 2 requests a minute are used up.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limited",
    }
    records = [gateway.record() for _ in range(3)]
    assert [record.error_type for record in records] == ["", "", "rate_limited"]
    assert (records[2].status, records[2].caller.key_alias, records[2].attempts) == (429, "two", [])


def test_a_keys_limit_replaces_the_upstreams_own_headers(admin: Admin, upstream: ScriptedUpstream) -> None:
    theirs = [(b"x-ratelimit-limit-requests", b"10000"), (b"x-ratelimit-remaining-tokens", b"5")]
    upstream.answer_with(lambda _: scripts.chat(headers=theirs))

    limited, free = admin.ask(admin.key(rpm_limit=9)), admin.ask(admin.key())

    assert limited.headers.get_list("x-ratelimit-limit-requests") == ["9"]
    assert "x-ratelimit-remaining-tokens" not in limited.headers
    assert free.headers.get_list("x-ratelimit-limit-requests") == ["10000"]


def test_a_team_is_limited_as_a_whole(admin: Admin) -> None:
    team = admin.post("/team/new", {"rpm_limit": 2})["team_id"]
    one, other = admin.key(team_id=team), admin.key(team_id=team, rpm_limit=10)

    assert [admin.ask(key).status_code for key in (one, other, one, other)] == [200, 200, 429, 429]
    assert "The team's 2 requests" in admin.ask(one).text
    assert admin.ask(admin.key()).status_code == 200


def test_a_limit_of_nothing_lets_nothing_through(admin: Admin) -> None:
    assert admin.ask(admin.key(rpm_limit=0)).status_code == 429
    assert admin.ask(admin.key(tpm_limit=0)).status_code == 429
    assert admin.ask(admin.key(max_budget=0)).status_code == 429


def test_looking_around_counts_as_nothing(admin: Admin, gateway: RunningGateway) -> None:
    key = admin.key(rpm_limit=1)
    with Admin(gateway.url, key) as holder:
        for _ in range(3):
            assert holder.get("/v1/models")["object"] == "list"

    assert admin.ask(key).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_charged_as_the_answer_reports_them(
    admin: Admin, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    def answer(_: scripts.Received) -> scripts.Script:
        usage = {"prompt_tokens": 70, "completion_tokens": 29, "total_tokens": 99}
        if stream:
            return scripts.chat_stream(include_usage=True, usage=usage)
        return scripts.chat(usage=usage)

    upstream.answer_with(answer)
    key = admin.key(tpm_limit=100)

    first, second, third = (admin.ask(key, stream=stream) for _ in range(3))

    assert [each.status_code for each in (first, second, third)] == [200, 200, 429]
    assert [each.headers["x-ratelimit-remaining-tokens"] for each in (first, second, third)] == ["100", "1", "0"]
    assert "usage" not in first.text or not stream
    assert "100 tokens a minute" in third.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_is_charged_with_the_cost_and_kept(admin: Admin, upstream: ScriptedUpstream, *, stream: bool) -> None:
    def answer(_: scripts.Received) -> scripts.Script:
        usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        return scripts.chat_stream(include_usage=True, usage=usage) if stream else scripts.chat(usage=usage)

    upstream.answer_with(answer)
    key = admin.key(max_budget=0.9, budget_duration="1h")

    statuses = [admin.ask(key, stream=stream) for _ in range(3)]

    assert [each.status_code for each in statuses] == [200, 200, 429]
    refused = statuses[2]
    assert refused.json()["error"]["type"] == refused.json()["error"]["code"] == "insufficient_quota"
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert spent(admin, key, 1.0)["budget_reset_at"] is not None


def test_a_budget_that_was_raised_lets_calls_through_again(admin: Admin) -> None:
    key = admin.key(max_budget=0.01)
    assert admin.ask(key).status_code == 200
    assert admin.ask(key).headers["retry-after"] == "3600"

    admin.post("/key/update", {"key": key, "max_budget": 100})

    assert admin.ask(key).status_code == 200


def test_what_failed_or_is_free_costs_nothing(admin: Admin, upstream: ScriptedUpstream) -> None:
    key = admin.key(max_budget=0.05, tpm_limit=20)
    upstream.answer_with(lambda _: scripts.error(500))
    assert [admin.ask(key).status_code for _ in range(3)] == [500] * 3
    upstream.answer_with(openai)
    assert admin.ask(key, "free").status_code == 200

    assert admin.get("/key/info", key=key)["info"]["spend"] == 0.0


def test_an_answer_that_does_not_say_what_it_used_is_estimated(admin: Admin, upstream: ScriptedUpstream) -> None:
    silent = json.loads(scripts.chat_body("word " * 400))
    del silent["usage"]
    upstream.answer_with(lambda _: scripts.answer(body=json.dumps(silent).encode()))
    key = admin.key(tpm_limit=300)

    assert [admin.ask(key).status_code for _ in range(2)] == [200, 429]


def test_leaving_early_is_not_free(admin: Admin, gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(lambda _: scripts.spaced(scripts.chat_stream("word " * 60), 0.005))
    key = admin.key(tpm_limit=10)
    for _ in range(gateway.spool.records.qsize()):
        gateway.spool.records.get()

    body = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with httpx.stream(
        "POST", f"{gateway.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
    ) as answer:
        events = answer.iter_lines()
        for _ in range(60):
            next(events)
    assert gateway.record().error_type == "client_disconnect"

    assert admin.ask(key).status_code == 429


def test_a_keys_spending_is_written_down_when_the_gateway_stops(upstream: ScriptedUpstream, tmp_path: Any) -> None:
    rows = [deployment(upstream.url, price=PRICE)]
    with RunningGateway(rows, auth=AUTH, state_dir=str(tmp_path)) as first, Admin(first.url) as admin:
        key = admin.key(max_budget=0.15)
        assert admin.ask(key).status_code == 200
    (tmp_path / "limits.table").unlink()

    with RunningGateway(rows, auth=AUTH, state_dir=str(tmp_path)) as second, Admin(second.url) as admin:
        assert admin.get("/key/info", key=key)["info"]["spend"] == pytest.approx(0.17)
        assert admin.ask(key).status_code == 429


def test_guessing_is_slowed_down_and_keys_in_use_are_not(admin: Admin, gateway: RunningGateway) -> None:
    key, unused = admin.key(), admin.key()
    assert admin.ask(key).status_code == 200
    statuses = [admin.ask(f"sk-guess-{number:030d}").status_code for number in range(14)]
    refused = admin.ask("sk-guess-more")

    assert statuses[:10] == [401] * 10
    assert statuses[-2:] == [429] * 2
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 70
    assert admin.ask(key).status_code == 200
    assert admin.get("/key/list")["total_count"] > 0
    assert admin.ask(unused).status_code == 429
    while (record := gateway.record()).status != 429:
        pass
    assert (record.error_type, record.caller.authenticated, record.request.size) == ("rate_limited", False, 0)


def test_a_login_that_failed_continues_nobodys_trace(admin: Admin, gateway: RunningGateway) -> None:
    while not gateway.spool.records.empty():
        gateway.spool.records.get()
    theirs = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    headers = {**theirs, "authorization": "Bearer sk-guess"}
    for _ in range(12):
        httpx.post(f"{gateway.url}/v1/chat/completions", headers=headers, json={})

    assert {gateway.record().parent_span_id for _ in range(12)} == {""}


def test_machines_count_together_in_redis(upstream: ScriptedUpstream, redis: Redis, tmp_path: Any) -> None:
    rows = [deployment(upstream.url)]
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
    from otelgw.keys.schema import Key, Quota

    own = f"sk-shared-{time.time_ns():020d}"
    keys = Keys(keys=(Key(digest(own), quota=Quota(rpm=5, tpm=10_000)),), redis_url=redis.dsn)
    with (
        RunningGateway(rows, auth=AUTH, keys=keys, state_dir=str(directories[0])) as one,
        RunningGateway(rows, auth=AUTH, keys=keys, state_dir=str(directories[1])) as other,
        Admin(one.url) as first,
        Admin(other.url) as second,
    ):
        answers = [machine.ask(own) for _ in range(4) for machine in (first, second)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert answers[3].headers["x-ratelimit-remaining-requests"] == "1"
    assert int(answers[4].headers["x-ratelimit-remaining-tokens"]) < 10_000


def test_without_redis_each_machine_counts_for_itself(upstream: ScriptedUpstream, tmp_path: Any) -> None:
    from otelgw.keys.schema import Key, Quota

    own = "sk-fallback-0123456789abcdef"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    keys = Keys(keys=(Key(digest(own), quota=Quota(rpm=2)),), redis_url=f"redis://127.0.0.1:{port}/0")
    rows = [deployment(upstream.url)]
    with RunningGateway(rows, auth=AUTH, keys=keys, state_dir=str(tmp_path)) as running, Admin(running.url) as admin:
        assert [admin.ask(own).status_code for _ in range(3)] == [200, 200, 429]
        assert running.gateway.keys is not None
        assert running.gateway.keys.uncounted >= 2


def test_a_store_that_cannot_be_asked_is_no_reason_to_refuse_a_known_key(
    upstream: ScriptedUpstream, tmp_path: Any
) -> None:
    rows = [deployment(upstream.url)]
    with RunningGateway(rows, auth=AUTH, state_dir=str(tmp_path)) as running, Admin(running.url) as admin:
        key, unused = admin.key(), admin.key()
        assert admin.ask(key).status_code == 200
        assert running.gateway.keys is not None
        running.gateway.keys.directory.store.close()
        (tmp_path / "keys.db").write_bytes(b"broken" * 1000)
        running.gateway.keys.changed()

        assert admin.ask(key).status_code == 200
        broken = admin.ask(unused)
        assert (broken.status_code, broken.json()["error"]["code"]) == (503, "keys_unavailable")
        assert broken.headers["retry-after"] == "5"
        assert admin.post("/key/generate", {}, 503)["error"]["code"] == "keys_unavailable"


def test_a_disk_without_room_for_the_counters_refuses_nobody(
    upstream: ScriptedUpstream, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "limits.table").mkdir()
    rows = [deployment(upstream.url)]
    with RunningGateway(rows, auth=AUTH, state_dir=str(tmp_path)) as running, Admin(running.url) as admin:
        key = admin.key(rpm_limit=2)
        assert [admin.ask(key).status_code for _ in range(3)] == [200, 200, 429]
        admin.post("/key/delete", {"keys": [key]})
        assert admin.ask(key).status_code == 401

    assert "every worker counts for itself" in caplog.text
