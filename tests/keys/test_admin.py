"""Keys and teams over HTTP, as LiteLLM's clients use them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otelgw.config.settings import Auth, Keys
from otelgw.keys.hashing import digest
from otelgw.keys.schema import Key, Quota, Team
from otelgw.tracing.record import encode
from tests.keys.administration import MASTER, Admin
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream

OWN_KEY = "sk-own-0123456789abcdef"
CREDENTIAL = "sk-lf-credential-canary"
CALLBACK = {
    "callback_name": "otlp_http",
    "callback_type": "success",
    "callback_vars": {"endpoint": "https://tenant.example/v1/traces", "headers": f"authorization={CREDENTIAL}"},
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    keys = Keys(
        keys=(Key(digest(OWN_KEY), alias="own", team_id="own-team", quota=Quota(rpm=100)),),
        teams=(Team("own-team", alias="Own"),),
        salt_key="a salt key",
    )
    auth = Auth(master_key_sha256=hashlib.sha256(MASTER.encode()).hexdigest())
    state = str(tmp_path_factory.mktemp("state"))
    rows = [deployment(upstream.url), deployment(upstream.url, "gpt-4o")]
    with RunningGateway(rows, auth=auth, keys=keys, state_dir=state) as running:
        yield running


@pytest.fixture
def admin(gateway: RunningGateway) -> Iterator[Admin]:
    made = Admin(gateway.url)
    yield made
    made.close()
    assert gateway.gateway.keys is not None
    gateway.gateway.keys._logins._failures.clear()
    while not gateway.spool.records.empty():
        gateway.spool.records.get()


def test_a_key_that_was_made_can_be_used_and_looked_at(admin: Admin) -> None:
    made = admin.post(
        "/key/generate",
        {
            "key_alias": "search",
            "user_id": "u-1",
            "user_email": "u-1@example.com",
            "models": ["gpt-4o-mini"],
            "rpm_limit": 10,
            "tpm_limit": 1000,
            "max_budget": 2.5,
            "budget_duration": "30d",
            "duration": "1h",
            "metadata": {"purpose": "test"},
        },
    )

    assert made["key"].startswith("sk-")
    assert made["token"] == made["token_id"] == digest(made["key"])
    assert made["key_name"] == f"sk-...{made['key'][-4:]}"
    assert made["expires"] is not None
    assert admin.ask(made["key"]).status_code == 200
    for name in (made["key"], made["token"]):
        info = admin.get("/key/info", key=name)
        assert info["key"] == made["token"]
        assert info["info"] == {name: value for name, value in made.items() if name not in {"key", "token_id"}}


def test_a_key_is_changed_field_by_field_and_null_clears_one(admin: Admin) -> None:
    key = admin.key(rpm_limit=5, models=["gpt-4o"], key_alias="changing", max_budget=1, budget_duration="1h")

    changed = admin.post("/key/update", {"key": key, "rpm_limit": None, "models": [], "user_id": "u"})

    assert (changed["rpm_limit"], changed["models"], changed["user_id"]) == (None, [], "u")
    assert (changed["key_alias"], changed["max_budget"], changed["budget_duration"]) == ("changing", 1.0, "1h")
    assert admin.post("/key/update", {"key": key, "duration": "1s"})["expires"] is not None
    assert admin.post("/key/update", {"key": key, "duration": None})["expires"] is None


def test_a_blocked_or_deleted_key_is_refused_with_its_next_request(admin: Admin) -> None:
    key, other = admin.key(), admin.key(key_alias="gone")
    assert admin.ask(key).status_code == admin.ask(other).status_code == 200

    admin.post("/key/update", {"key": key, "blocked": True})
    assert admin.post("/key/delete", {"key_aliases": ["gone"]}) == {"deleted_keys": [digest(other)]}

    for each, says in ((key, "blocked"), (other, "not known")):
        answer = admin.ask(each)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert says in answer.json()["error"]["message"]


def test_who_tries_keys_keeps_out_no_key_that_is_in_use(admin: Admin) -> None:
    used, new = admin.key(), admin.key()
    assert admin.ask(used).status_code == 200
    while admin.ask("sk-guessed").status_code != 429:
        pass
    admin.key()  # from now on the store is asked about every key again
    assert admin.ask(used).status_code == 200
    assert admin.ask(new).status_code == 429
    admin.post("/key/delete", {"keys": [used]})
    assert admin.ask(used).status_code == 401
    assert admin.ask(used).status_code == 429


def test_an_expired_key_is_refused_and_its_trace_says_whose_it_was(admin: Admin, gateway: RunningGateway) -> None:
    key = admin.key(key_alias="short", expires="2001-01-01T00:00:00Z")
    gateway.record()

    answer = admin.ask(key)
    record = gateway.record()

    assert answer.status_code == 401
    assert (record.caller.authenticated, record.caller.key_alias) == (False, "short")
    assert (record.error_type, record.request.size) == ("unauthorized", 0)


def test_keys_are_listed_by_page_and_owner(admin: Admin) -> None:
    team = admin.post("/team/new", {"team_alias": "Lists"})["team_id"]
    keys = [admin.key(team_id=team, user_id=f"owner-{number}") for number in range(3)]

    found = admin.get("/key/list", team_id=team, size=2)
    rest = admin.get("/key/list", team_id=team, size=2, page=2, return_full_object="true")

    assert (found["total_count"], found["current_page"], found["total_pages"]) == (3, 1, 2)
    assert {*found["keys"], rest["keys"][0]["token"]} == {digest(key) for key in keys}
    assert admin.get("/key/list", user_id="owner-1")["keys"] == [digest(keys[1])]
    assert admin.get("/key/list", key_alias="nobody")["keys"] == []


def test_a_team_shows_its_keys_and_takes_them_along(admin: Admin) -> None:
    team = admin.post("/team/new", {"team_id": "crew", "team_alias": "Crew", "models": ["gpt-4o-mini"], "rpm_limit": 9})
    key = admin.key(team_id="crew", key_alias="crew key")

    assert (team["team_id"], team["team_alias"], team["rpm_limit"]) == ("crew", "Crew", 9)
    assert [each["key_alias"] for each in admin.get("/team/info", team_id="crew")["keys"]] == ["crew key"]
    assert admin.ask(key, "gpt-4o").status_code == 403
    assert admin.post("/team/update", {"team_id": "crew", "models": None})["data"]["models"] == []
    assert admin.ask(key, "gpt-4o").status_code == 200
    assert "crew" in {each["team_id"] for each in admin.get("/team/list")}
    assert admin.post("/team/delete", {"team_ids": ["crew", "unknown"]}) == {
        "deleted_teams": ["crew"],
        "deleted_keys": [digest(key)],
    }
    assert admin.ask(key).status_code == 401


def test_models_are_limited_in_calls_and_in_the_list(admin: Admin, gateway: RunningGateway) -> None:
    key = admin.key(models=["gpt-4o-*"])
    gateway.record()

    answer = admin.ask(key, "gpt-4o")
    record = gateway.record()

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert answer.json()["error"]["param"] == "model"
    assert (record.error_type, record.caller.authenticated, record.attempts) == ("forbidden", True, [])
    with Admin(gateway.url, key) as holder:
        assert [model["id"] for model in holder.get("/v1/models")["data"]] == ["gpt-4o-mini"]
        assert holder.get("/v1/models/gpt-4o", 404)["error"]["code"] == "model_not_found"


def test_a_spans_caller_is_everything_that_is_known_of_the_key(admin: Admin, gateway: RunningGateway) -> None:
    team = admin.post("/team/new", {"team_alias": "Span team"})["team_id"]
    key = admin.key(key_alias="spans", user_id="u-9", user_email="u-9@example.com", team_id=team)
    for _ in range(2):
        gateway.record()

    admin.ask(key)
    for span in gateway.spans():
        attributes = span.attributes or {}
        assert attributes["otelgw.key.hash"] == digest(key)
        assert attributes["otelgw.key.alias"] == "spans"
        assert attributes["otelgw.key.user_id"] == "u-9"
        assert attributes["otelgw.key.user_email"] == "u-9@example.com"
        assert attributes["otelgw.team.id"] == team
        assert attributes["otelgw.team.alias"] == "Span team"


@pytest.mark.parametrize("path", ["/key/generate", "/key/delete", "/team/new", "/team/x/callback"])
@pytest.mark.parametrize("who", ["nobody", "stranger", "key"])
def test_only_the_master_key_may_manage(admin: Admin, gateway: RunningGateway, path: str, who: str) -> None:
    key = {"nobody": "", "stranger": "sk-wrong-0123456789abcdef", "key": OWN_KEY}[who]

    with Admin(gateway.url, key) as caller:
        code = caller.post(path, {}, 403 if who == "key" else 401)["error"]["code"]

    assert code == ("forbidden" if who == "key" else "unauthorized")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/key/generate", {"rpm_limitt": 1}, "rpm_limitt"),
        ("/key/generate", {"rpm_limit": -1}, "rpm_limit"),
        ("/key/generate", {"rpm_limit": "many"}, "rpm_limit"),
        ("/key/generate", {"duration": "soon"}, "duration"),
        ("/key/generate", {"expires": "tomorrow"}, "expires"),
        ("/key/generate", {"budget_duration": "30d"}, "budget_duration"),
        ("/key/generate", {"max_parallel_requests": 0}, "max_parallel_requests"),
        ("/key/generate", {"allowed_routes": ["/v1/models"]}, "allowed_routes"),
        ("/key/generate", {"team_id": "no-such-team"}, "team_id"),
        ("/key/generate", {"key": "sk-short"}, "key"),
        ("/key/generate", {"key": "sk-with space-0123456789"}, "key"),
        ("/key/generate", {"key": OWN_KEY}, "key"),
        ("/key/generate", {"key_alias": "tab\tin it"}, "key_alias"),
        ("/key/generate", {"metadata": []}, "metadata"),
        ("/key/generate", {"metadata": {"logging": "all"}}, "metadata.logging"),
        ("/key/generate", {"metadata": {"logging": [{}]}}, "metadata.logging.0.callback_name"),
        ("/key/generate", {"metadata": {"x": "y" * 70_000}}, "metadata"),
        ("/key/generate", {"logging_policy": {"conten": False}}, "logging_policy.conten"),
        ("/key/update", {"rpm_limit": 1}, "key"),
        ("/key/update", {"key": OWN_KEY, "rpm_limit": 1}, "key"),
        ("/key/delete", {}, "keys"),
        ("/key/delete", {"keys": [OWN_KEY]}, "key"),
        ("/team/new", {"team_id": "a/b"}, "team_id"),
        ("/team/new", {"team_id": "own-team"}, "team_id"),
        ("/team/new", {"members_with_roles": [{"role": "admin"}]}, "members_with_roles"),
        ("/team/update", {"team_alias": "x"}, "team_id"),
        ("/team/update", {"team_id": "own-team", "team_alias": "x"}, "team_id"),
        ("/team/delete", {"team_ids": "own-team"}, "team_ids"),
        ("/team/delete", {"team_ids": ["own-team"]}, "team_id"),
        ("/team/own-team/callback", CALLBACK, "team_id"),
        ("/key/generate", ["a list"], None),
    ],
)
def test_what_cannot_be_done_is_said_with_the_field_at_fault(
    admin: Admin, gateway: RunningGateway, path: str, body: Any, param: str | None
) -> None:
    message = admin.refused(path, body, param)
    record = gateway.record()

    assert message.endswith(".")
    assert (record.status, record.error_type) == (400, "invalid_request")
    assert record.route == path.replace("own-team", "{id}")


@pytest.mark.parametrize(
    ("method", "path"), [("post", "/team/unknown/disable_logging"), ("get", "/team/unknown/callback")]
)
def test_what_is_not_there_is_not_found(admin: Admin, method: str, path: str) -> None:
    assert getattr(admin, method)(path, status=404)["error"]["code"] == "not_found"
    assert admin.get("/key/info", 404, key="sk-unknown")["error"]["param"] == "key"
    assert admin.get("/team/info", 404, team_id="unknown")["error"]["param"] == "team"
    assert admin.post("/key/update", {"key": "sk-unknown"}, 404)
    assert admin.post("/key/delete", {"keys": ["sk-unknown"]}, 404)
    assert admin.post("/team/update", {"team_id": "unknown"}, 404)


def test_a_body_that_is_no_json_and_one_that_is_too_large_are_refused(admin: Admin) -> None:
    for content, status in ((b'{"a"', 400), (b"[" * 100_000, 400), (b" " * 2_000_000, 413)):
        assert admin._http.post("/key/generate", content=content).status_code == status


@pytest.mark.parametrize("path", ["/key/generat", "/key", "/team/a/b/callback", "/v1/key/generate"])
def test_no_other_path_manages_anything(admin: Admin, path: str) -> None:
    assert admin.post(path, {}, 404)["error"]["code"] == "not_found"


def test_an_alias_is_given_once(admin: Admin) -> None:
    admin.key(key_alias="taken")

    assert "key_alias" in admin.refused("/key/generate", {"key_alias": "taken"}, None)


def test_a_key_of_ones_own_is_taken_as_it_is(admin: Admin) -> None:
    assert admin.key(key="my-own-key-0123456789") == "my-own-key-0123456789"
    assert admin.ask("my-own-key-0123456789").status_code == 200
    assert "exists already" in admin.refused("/key/generate", {"key": "my-own-key-0123456789"}, None)


def test_a_teams_destinations_are_added_replaced_and_turned_off(admin: Admin) -> None:
    admin.post("/team/new", {"team_id": "logs"})

    added = admin.post("/team/logs/callback", CALLBACK)
    admin.post("/team/logs/callback", {**CALLBACK, "callback_type": "failure"})
    admin.post("/team/logs/callback", CALLBACK)

    assert added["status"] == "success"
    assert added["data"]["metadata"]["logging"][0]["callback_name"] == "otlp_http"
    shown = admin.get("/team/logs/callback")["data"]
    assert shown["success_callbacks"] == shown["failure_callbacks"] == ["otlp_http"]
    assert shown["callback_vars"]["endpoint"] == "https://tenant.example/v1/traces"

    off = admin.post("/team/logs/disable_logging")
    assert off["data"] == {
        "team_id": "logs",
        "success_callbacks": [],
        "failure_callbacks": [],
        "callback_vars": {},
        "logging_enabled": False,
    }
    assert "logging is off" in admin.refused("/team/logs/callback", CALLBACK, "team_id")
    admin.post("/team/update", {"team_id": "logs", "logging_policy": {"enabled": True}})
    assert admin.post("/team/logs/callback", CALLBACK)


def test_a_key_without_logging_leaves_no_record(admin: Admin, gateway: RunningGateway) -> None:
    key = admin.key(logging_policy={"enabled": False})
    gateway.record()

    assert admin.ask(key).status_code == 200
    assert gateway.no_record()


def test_metadata_without_logging_leaves_the_destinations_as_they_are(admin: Admin) -> None:
    key = admin.key(metadata={"logging": [CALLBACK]})

    changed = admin.post("/key/update", {"key": key, "metadata": {"a": 1}})
    assert changed["metadata"]["logging"][0]["callback_name"] == "otlp_http"
    hidden = {"logging": [{**CALLBACK, "callback_vars": {"headers": "***REDACTED***"}}]}
    assert "send the value itself" in admin.refused("/key/update", {"key": key, "metadata": hidden}, "headers")
    changed = admin.post("/key/update", {"key": key, "metadata": {"logging": []}})
    assert changed["metadata"] == {}


def test_no_credential_comes_back_or_is_kept_or_recorded_in_the_clear(
    admin: Admin, gateway: RunningGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    admin.post("/team/new", {"team_id": "secret"})
    answers = [
        admin.post("/team/secret/callback", CALLBACK),
        admin.get("/team/secret/callback"),
        admin.get("/team/info", team_id="secret"),
        admin.get("/team/list"),
        admin.post("/key/generate", {"metadata": {"logging": [CALLBACK]}}),
        admin.get("/key/list", return_full_object="true", size=1000),
        admin.post("/team/secret/callback", {**CALLBACK, "callback_type": CREDENTIAL}, 400),
        admin.post("/team/secret/callback", {**CALLBACK, "callback_vars": {"endpoint": CREDENTIAL}}, 400),
        admin.post("/team/secret/callback", {**CALLBACK, "callback_vars": {"headers": [CREDENTIAL]}}, 400),
        admin.post("/team/secret/disable_logging"),
    ]
    key = answers[4]["key"]
    records = b"".join(encode(gateway.record()) for _ in range(gateway.spool.records.qsize()))
    kept = b"".join(path.read_bytes() for path in Path(gateway.settings.state_dir).iterdir())

    assert CREDENTIAL not in str(answers)
    assert "***REDACTED***" in str(answers)
    for secret in (CREDENTIAL, key, MASTER):
        assert secret.encode() not in records
        assert secret.encode() not in kept
        assert secret not in "".join(capfd.readouterr())


def test_answers_with_keys_in_them_are_not_to_be_kept(admin: Admin) -> None:
    answer = admin._http.post("/key/generate", json={})

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-otelgw-trace-id"]
