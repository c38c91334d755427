"""Whose turn it is after a failed attempt, and how long to wait."""

from __future__ import annotations

import pytest

from otelgw.http.turns import LONGEST_WAIT, Turns, is_passing


def test_the_next_deployment_is_asked_at_once_and_a_second_round_waits() -> None:
    turns = Turns(2)

    assert (turns.position, turns.next(), turns.position) == (0, 0.0, 1)
    assert 0 <= turns.next() <= 0.5
    assert turns.position == 0


@pytest.mark.parametrize(("asked_for", "least", "most"), [("2", 1.9, 2), ("1.5", 1.4, 1.5), ("0", 0, 0)])
def test_a_wait_in_seconds_is_kept(asked_for: str, least: float, most: float) -> None:
    assert least <= Turns(1).next(asked_for) <= most


def test_a_wait_until_a_date_is_kept() -> None:
    assert Turns(1).next("Fri, 31 Dec 2999 23:59:59 GMT") > LONGEST_WAIT
    assert Turns(1).next("Fri, 31 Dec 1999 23:59:59 GMT") == 0


@pytest.mark.parametrize("text", ["", "soon", "-5", "nan", "1e999", "Fri, 99 Dec 2999 23:59:59 GMT", "\x00"])
def test_no_wait_that_an_upstream_names_breaks_the_gateway(text: str) -> None:
    assert Turns(1).next(text) >= 0


def test_a_wait_is_kept_for_the_upstream_that_named_it() -> None:
    turns = Turns(2)

    assert turns.next("30") == 0.0
    assert turns.next() > 29


def test_backing_off_has_a_bound() -> None:
    turns = Turns(1)

    assert all(turns.next() <= LONGEST_WAIT for _ in range(100))


def test_which_statuses_may_pass() -> None:
    passing = {408, 409, 429, *range(500, 600)}

    assert {status for status in range(200, 600) if is_passing(status)} == passing
