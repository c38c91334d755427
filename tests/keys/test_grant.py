"""What a key and its team let a caller do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from otelgw.errors import RequestRefused
from otelgw.keys.grant import grant
from otelgw.keys.schema import Callback, Key, Quota, Team
from otelgw.keys.table import Subject

KEY = Key(hash="ab" * 32, alias="a", user_id="u", user_email="u@example.com", team_id="t")
TEAM = Team("t", alias="Team")


@pytest.mark.parametrize(
    ("of_key", "of_team", "model", "allowed"),
    [
        ((), (), "anything", True),
        (("gpt-4o",), (), "gpt-4o", True),
        (("gpt-4o",), (), "gpt-4o-mini", False),
        (("gpt-*",), (), "gpt-4o-mini", True),
        (("openai/*",), (), "openai/o1/x", True),
        ((), ("gpt-4o",), "o1", False),
        (("o1",), ("gpt-4o",), "o1", False),
        (("all-team-models",), ("gpt-4o",), "gpt-4o", True),
        (("all-team-models",), ("gpt-4o",), "o1", False),
        (("all-proxy-models",), (), "o1", True),
        (("all-proxy-models",), ("gpt-4o",), "o1", False),
        (("*",), (), "o1", True),
        (("gpt-4O",), (), "gpt-4o", False),
    ],
)
def test_a_model_is_allowed_by_key_and_team(
    of_key: tuple[str, ...], of_team: tuple[str, ...], model: str, allowed: bool
) -> None:
    made = grant(msgspec.structs.replace(KEY, models=of_key), msgspec.structs.replace(TEAM, models=of_team))

    assert made.allows(model) is allowed


@pytest.mark.parametrize("route", ["/v1/responses/{id}", "/v1/responses/{id}/cancel", "/v1/files", "/v1/responses"])
@pytest.mark.parametrize(
    ("of_key", "of_team", "says"),
    [
        ({"models": ("gpt-4o",)}, {}, "limited to some models"),
        ({}, {"models": ("gpt-4o",)}, "limited to some models"),
        ({"quota": Quota(budget=1.0)}, {}, "has a budget"),
        ({}, {"quota": Quota(budget=0.0)}, "has a budget"),
        ({"quota": Quota(rpm=1, tpm=1)}, {}, ""),
        ({}, {}, ""),
    ],
)
def test_a_limited_key_makes_no_calls_that_may_be_of_any_model_or_at_any_cost(
    route: str, of_key: dict[str, Any], of_team: dict[str, Any], says: str
) -> None:
    made = grant(msgspec.structs.replace(KEY, **of_key), msgspec.structs.replace(TEAM, **of_team))

    made.check_model("gpt-4o", route)
    if says:
        with pytest.raises(RequestRefused, match=says):
            made.check_model("", route)
    else:
        made.check_model("", route)


@pytest.mark.parametrize(
    ("key", "team", "says"),
    [
        (msgspec.structs.replace(KEY, blocked=True), TEAM, "blocked"),
        (msgspec.structs.replace(KEY, expires=100.0), TEAM, "expired"),
        (KEY, msgspec.structs.replace(TEAM, blocked=True), "team is blocked"),
        (KEY, None, "does not exist"),
    ],
)
def test_a_key_that_may_not_be_used_is_refused(key: Key, team: Team | None, says: str) -> None:
    with pytest.raises(RequestRefused, match=says) as refused:
        grant(key, team).check(100.0)
    assert refused.value.answer.status == 401


def test_a_key_that_may_be_used_passes() -> None:
    grant(msgspec.structs.replace(KEY, expires=100.0), TEAM).check(99.0)
    grant(msgspec.structs.replace(KEY, team_id=""), None).check(1e12)


def test_only_what_has_a_limit_is_counted() -> None:
    key = msgspec.structs.replace(KEY, quota=Quota(rpm=1))
    team = msgspec.structs.replace(TEAM, quota=Quota(budget=1.0))

    assert grant(KEY, TEAM).subjects == ()
    assert not grant(KEY, TEAM).charged
    assert grant(key, TEAM).subjects == (Subject(f"key:{KEY.hash}", key.quota),)
    assert not grant(key, TEAM).charged
    assert grant(key, team).subjects[1] == Subject("team:t", team.quota)
    assert grant(key, team).rated == (grant(key, team).subjects[0],)
    assert grant(key, team).charged


def test_a_keys_own_destinations_come_before_its_teams() -> None:
    team = msgspec.structs.replace(TEAM, logging=(Callback("otlp_http"),))
    key = msgspec.structs.replace(KEY, logging=(Callback("otlp_grpc"),))

    assert (grant(KEY, team).owner, grant(KEY, team).logging) == ("team:t", team.logging)
    assert (grant(key, team).owner, grant(key, team).logging) == (f"key:{KEY.hash}", key.logging)


def test_who_calls_is_known_by_everything_that_the_key_says() -> None:
    caller = grant(KEY, TEAM).caller

    assert caller.authenticated
    assert (caller.key_hash, caller.key_alias, caller.user_id) == (KEY.hash, "a", "u")
    assert (caller.user_email, caller.team_id, caller.team_alias) == ("u@example.com", "t", "Team")


def test_the_keys_limits_are_in_the_answers_headers() -> None:
    headers = dict(grant(msgspec.structs.replace(KEY, quota=Quota(rpm=7)), TEAM).headers)

    assert headers[b"x-litellm-key-rpm-limit"] == b"7"
    assert headers[b"x-otelgw-key-tpm-limit"] == b"None"
