"""Lengths of time, budgets' periods, and policies of keys and teams taken together."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.config.settings import LoggingPolicy
from otelgw.keys import hashing
from otelgw.keys.schema import merged_policy, period_end, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("1mo", 2_592_000)],
)
def test_a_length_of_time_is_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5h", "1y", "30 d", "9999999d", "\uff11d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="length of time"):
        seconds(text)


@pytest.mark.parametrize(
    ("start", "period", "end"),
    [
        ("2026-01-31", "1mo", "2026-02-28"),
        ("2026-11-15", "2mo", "2027-01-15"),
        ("2026-01-01", "30d", "2026-01-31"),
        ("2028-02-29", "12mo", "2029-02-28"),
    ],
)
def test_a_month_ends_on_the_same_day_or_the_months_last(start: str, period: str, end: str) -> None:
    begun, ended = (datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() for day in (start, end))

    assert period_end(period, begun) == ended


@given(st.floats(min_value=0, max_value=4e9), st.sampled_from(["1s", "59m", "999999mo", "7d", "1mo"]))
def test_a_period_never_ends_before_it_begins(start: float, period: str) -> None:
    assert period_end(period, start) == 0.0 or period_end(period, start) > start


def test_without_a_period_a_budget_never_ends() -> None:
    assert period_end("", 1e9) == 0.0


@pytest.mark.parametrize(
    ("team", "key", "merged"),
    [
        (None, LoggingPolicy(content=True), LoggingPolicy(content=True)),
        (LoggingPolicy(), LoggingPolicy(may_relax=True), LoggingPolicy(may_relax=True)),
        (LoggingPolicy(content=False), LoggingPolicy(content=True), LoggingPolicy(content=False)),
        (LoggingPolicy(content=True), LoggingPolicy(), LoggingPolicy(content=True)),
        (LoggingPolicy(enabled=False), LoggingPolicy(), LoggingPolicy(enabled=False)),
        (LoggingPolicy(content=True), LoggingPolicy(enabled=False), LoggingPolicy(content=True, enabled=False)),
        (
            LoggingPolicy(destinations=("a", "b")),
            LoggingPolicy(destinations=("b", "c")),
            LoggingPolicy(destinations=("b",)),
        ),
        (LoggingPolicy(destinations=("a",)), LoggingPolicy(), LoggingPolicy(destinations=("a",))),
        (LoggingPolicy(content=False), LoggingPolicy(destinations=()), LoggingPolicy(content=False, destinations=())),
        (LoggingPolicy(may_relax=True), LoggingPolicy(), LoggingPolicy(may_relax=True)),
    ],
)
def test_of_a_keys_and_its_teams_policy_the_stricter_counts(
    team: LoggingPolicy | None, key: LoggingPolicy, merged: LoggingPolicy
) -> None:
    assert merged_policy(team, key) == merged


def test_a_new_key_has_256_random_bits_and_shows_four_characters() -> None:
    made = {hashing.new_key() for _ in range(100)}

    assert len(made) == 100
    assert {len(key) for key in made} == {46}
    assert hashing.display_name("sk-abcdefgh") == "sk-...efgh"


def test_a_digest_is_told_from_a_key() -> None:
    key = hashing.new_key()

    assert hashing.is_digest(hashing.digest(key))
    assert not hashing.is_digest(key)
    assert not hashing.is_digest("g" * 64)
