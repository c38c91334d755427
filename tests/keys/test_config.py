"""Keys and teams in the config file."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from otelgw.config.check import check
from otelgw.config.load import examine
from otelgw.config.settings import LoggingPolicy, Settings
from otelgw.keys.hashing import digest
from otelgw.keys.schema import Quota

KEY = "sk-config-canary-0123456789"
ENVIRONMENT = {"TEAM_KEY": KEY, "TENANT_SECRET": "tenant-secret-canary"}
LOGGING = "otelgw:\n  teams:\n  - team_id: a\n    metadata:\n      logging:\n"
HEAD = """\
general_settings: {master_key: sk-master-0123456789}
model_list: [{model_name: a, litellm_params: {model: echo/a}}]
"""


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + text)
    outcome = examine(str(path), ENVIRONMENT | (environment or {}), prices=False)
    assert outcome.findings.errors == ()
    return outcome.settings


def errors(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + text)
    report = check(str(path), ENVIRONMENT | (environment or {}))
    assert KEY not in str(report)
    return [line.partition("config.yaml:")[2] for line in report.errors]


def test_keys_and_teams_are_read_with_everything_they_say(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
otelgw:
  keys:
    - key: os.environ/TEAM_KEY
      key_alias: search
      user_id: u1
      user_email: u1@example.com
      team_id: t1
      models: gpt-4o, o1*
      rpm_limit: 10
      tpm_limit: 1000
      max_budget: 5
      budget_duration: 30d
      expires: 2030-01-31
      metadata:
        purpose: x
        logging:
          - callback_name: otlp_http
            callback_type: failure
            callback_vars: {endpoint: "https://tenant.example", headers: "authorization=os.environ/TENANT_SECRET"}
      logging_policy: {content: false, destinations: []}
    - {key_sha256: "%s"}
  teams:
    - {team_id: t1, team_alias: One, rpm_limit: 100, logging_policy: {enabled: false}}
"""
        % ("ab" * 32),
    )
    key, bare = settings.keys.keys
    (team,) = settings.keys.teams

    assert (key.hash, key.name, key.alias) == (digest(KEY), "sk-...6789", "search")
    assert (key.user_id, key.user_email, key.team_id) == ("u1", "u1@example.com", "t1")
    assert key.models == ("gpt-4o", "o1*")
    assert key.quota == Quota(10, 1000, 5.0, "30d")
    assert key.expires == 1896048000.0
    assert key.metadata == {"purpose": "x"}
    assert key.policy == LoggingPolicy(content=False, destinations=())
    (callback,) = key.logging
    assert (callback.name, callback.event, callback.confined) == ("otlp_http", "failure", False)
    assert callback.variables["endpoint"] == "https://tenant.example/v1/traces"
    assert callback.variables["headers"] == {"authorization": "tenant-secret-canary"}
    assert bare.hash == "ab" * 32
    assert (team.id, team.alias, team.quota.rpm, team.policy.enabled) == ("t1", "One", 100, False)
    assert settings.keys.tenants
    assert KEY.encode() not in pickle.dumps(settings)
    for secret in (KEY, "tenant-secret-canary"):
        assert secret not in repr(settings)


def test_litellms_default_team_settings_are_teams_with_destinations(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
litellm_settings:
  default_team_settings:
    - team_id: "dbe2f686-a686-4896-864a-4c3924458709"
      success_callback: ["otlp_http"]
      failure_callback: otlp_http
      endpoint: https://tenant.example
      headers: authorization=os.environ/TENANT_SECRET
otelgw:
  keys: [{key: os.environ/TEAM_KEY, team_id: dbe2f686-a686-4896-864a-4c3924458709}]
""",
    )
    (team,) = settings.keys.team_logging

    assert team.id == "dbe2f686-a686-4896-864a-4c3924458709"
    assert [(each.name, each.event) for each in team.logging] == [("otlp_http", "success_and_failure")]
    assert team.logging[0].variables["headers"] == {"authorization": "tenant-secret-canary"}


def test_a_bare_database_url_in_the_environment_does_nothing(tmp_path: Path) -> None:
    environment = {"DATABASE_URL": "postgresql://u:p@db.example/x"}

    assert load(tmp_path, "", environment).keys.database_url == ""


def test_the_database_and_redis_are_those_of_the_config(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("redis")
    path = tmp_path / "config.yaml"
    path.write_text(
        "general_settings: {master_key: sk-master-0123456789, database_url: os.environ/DATABASE_URL}\n"
        "otelgw: {auth: {redis_url: 'redis://:pw-canary@cache.example/1'}}\n"
    )
    settings = examine(str(path), {"DATABASE_URL": "postgresql://u:pw-canary@db.example/x"}, prices=False).settings

    assert settings.keys.database_url == "postgresql://u:pw-canary@db.example/x"
    assert settings.keys.redis_url == "redis://:pw-canary@cache.example/1"
    assert "pw-canary" not in repr(settings)


@pytest.mark.parametrize("name", ["OTELGW_SALT_KEY", "LITELLM_SALT_KEY"])
def test_a_salt_key_makes_tenants_possible_also_without_a_destination(tmp_path: Path, name: str) -> None:
    text = "litellm_settings: {callbacks: []}\n"
    without, having = load(tmp_path, text), load(tmp_path, text, {name: "salt-canary"})

    assert (without.keys.tenants, without.tracing.disabled) == (False, True)
    assert (having.keys.tenants, having.tracing.disabled) == (True, False)
    assert "salt-canary" not in repr(having)


def test_what_the_config_says_of_every_destination_holds_for_tenants(tmp_path: Path) -> None:
    text = "litellm_settings: {redact_user_api_key_info: true}\n"
    settings = load(tmp_path, text + "otelgw: {redact: {presets: [email]}, sampler: always_off}\n")

    template = settings.keys.template
    assert template.redact_user_api_key_info
    assert template.redaction.presets == ("email",)
    assert template.sampling == "parent"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("otelgw: {keys: [{key_alias: x}]}", 3, "needs either `key` or `key_sha256`"),
        ("otelgw: {keys: [{key: sk-short}]}", 3, "at least 20 ASCII characters"),
        ("otelgw: {keys: [{key_sha256: abc}]}", 3, "key_sha256"),
        ("otelgw: {keys: [{key: os.environ/UNSET_KEY}]}", 3, "UNSET_KEY"),
        ("otelgw:\n  keys:\n    - {key: os.environ/TEAM_KEY, rpm_limitt: 1}", 5, "did you mean `rpm_limit`"),
        ("otelgw:\n  keys:\n    - {key: os.environ/TEAM_KEY, team_id: nope}", 5, "no such team"),
        ("otelgw:\n  keys:\n    - key: os.environ/TEAM_KEY\n    - key: os.environ/TEAM_KEY", 6, "as otelgw.keys[0]"),
        ("otelgw:\n  keys:\n    - key: sk-master-0123456789", 5, "same key as the master_key"),
        ("otelgw: {keys: [{key: os.environ/TEAM_KEY, budget_duration: 30d}]}", 3, "needs a max_budget"),
        ("otelgw: {keys: [{key: os.environ/TEAM_KEY, max_budget: 1, budget_duration: x}]}", 3, "length of time"),
        ("otelgw: {keys: [{key: os.environ/TEAM_KEY, expires: soon}]}", 3, "must be a date"),
        ("otelgw: {keys: [{key: os.environ/TEAM_KEY, logging_policy: {contents: false}}]}", 3, "contents"),
        ("otelgw: {teams: [{team_id: a b}]}", 3, "letters, digits"),
        ("otelgw: {teams: [{team_id: a}, {team_id: a}]}", 3, "another team's"),
        ("otelgw: {keys: [{key: os.environ/TEAM_KEY, metadata: {logging: all}}]}", 3, "must be a list"),
        (f"{LOGGING}      - callback_name: otlp_htp", 8, "otlp_htp"),
        (LOGGING + "      - {callback_name: otlp_http, callback_vars: {endpoit: x}}", 8, "endpoit"),
        ("litellm_settings: {default_team_settings: [{success_callback: [otlp_http]}]}", 3, "needs a `team_id`"),
        ("litellm_settings: {default_team_settings: [{team_id: a, success_callback: [nope]}]}", 3, "nope"),
        (
            "litellm_settings: {default_team_settings: [{team_id: a, success_callback: [otlp_http], x_key: 1}]}",
            3,
            "none of this team's callbacks",
        ),
        ("otelgw: {tenants: {allow_networks: [everywhere]}}", 3, "allow_networks"),
        ("otelgw: {auth: {redis_url: cache.example}}", 3, "redis://"),
    ],
)
def test_what_is_wrong_with_a_key_is_shown_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    found = errors(tmp_path, text)

    assert len(found) == 1
    assert found[0].startswith(f"{line}: ")
    assert says in found[0]


def test_two_keys_with_one_alias_are_refused(tmp_path: Path) -> None:
    own, other = "{key: os.environ/TEAM_KEY, key_alias: a}", "{key: sk-another-0123456789, key_alias: a}"
    found = errors(tmp_path, f"otelgw:\n  keys:\n    - {own}\n    - {other}\n")

    assert [line[:2] for line in found] == ["6:"]
    assert "alias of otelgw.keys[0]" in found[0]


def test_keys_need_a_master_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("otelgw: {keys: [{key: os.environ/TEAM_KEY}]}\n")

    (error,) = check(str(path), ENVIRONMENT).errors
    assert "master_key" in error


def test_a_database_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("general_settings: {master_key: sk-master-0123456789, database_url: 'mysql://u:pw-canary@x/y'}\n")
    report = check(str(path), {})

    assert "postgresql://" in report.errors[0]
    assert "pw-canary" not in str(report)
