from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw_exporters.delivery import (
    DONE,
    Outcome,
    Reply,
    Verdict,
    all_done,
    all_retry,
    backoff,
    deliver_in_parts,
    to_outcome,
)

ACCEPTED = Reply("accepted")


def delivered(parts: Sequence[Sequence[int]], send: object, clock: object = lambda: 0.0) -> Outcome:
    return to_outcome(deliver_in_parts(parts, send, 1.0, clock))  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=5), st.integers(1, 60))
def test_every_item_gets_one_verdict_in_order_and_only_the_items_at_fault_are_dead(
    parts: list[list[int]], limit: int
) -> None:
    """A receiver takes requests whose items add up to the limit at most."""
    taken: list[int] = []

    def send(part: Sequence[int]) -> Reply:
        if sum(part) > limit:
            return Reply("too_large", "too large")
        taken.extend(part)
        return ACCEPTED

    outcome = delivered(parts, send)

    items = [item for part in parts for item in part]
    assert [verdict.state for verdict in outcome.verdicts] == ["dead" if item > limit else "done" for item in items]
    assert taken == [item for item in items if item <= limit]


@given(st.sets(st.integers(0, 199), max_size=20))
def test_refused_items_are_found_among_the_others(poison: set[int]) -> None:
    outcome = delivered([range(200)], lambda part: Reply("refused", "bad") if poison & set(part) else ACCEPTED)

    assert {index for index, verdict in enumerate(outcome.verdicts) if verdict.state == "dead"} == poison


def test_what_comes_after_a_request_for_patience_is_to_be_retried_unseen() -> None:
    asked: list[Sequence[int]] = []

    def send(part: Sequence[int]) -> Reply:
        asked.append(part)
        return ACCEPTED if len(asked) == 1 else Reply("again", "busy", 4.0)

    outcome = delivered([[1], [2, 3], [4], [5]], send)

    assert asked == [[1], [2, 3]]
    assert outcome.verdicts == (DONE, *[Verdict("retry", "busy", 4.0)] * 4)
    assert (outcome.after, outcome.reason) == (4.0, "busy")


def test_no_request_starts_after_the_deadline() -> None:
    times = iter([0.0, 2.0])

    outcome = delivered([[1], [2]], lambda _: ACCEPTED, lambda: next(times))

    assert [verdict.state for verdict in outcome.verdicts] == ["done", "retry"]


def test_rejected_counts_add_up_and_a_wholly_rejected_request_is_dead() -> None:
    replies = iter([Reply("accepted", "too old", rejected=1), ACCEPTED, Reply("accepted", "bad", rejected=2)])

    outcome = delivered([[1, 2], [3], [4, 5]], lambda _: next(replies))

    assert (outcome.rejected, outcome.message) == (1, "too old")
    assert [verdict.state for verdict in outcome.verdicts] == ["done"] * 3 + ["dead"] * 2


def test_an_outcome_for_nothing_has_no_reason_and_asks_for_no_delay() -> None:
    assert (all_done(0).reason, all_done(2).after) == ("", None)
    assert all_retry(2, "down", 3.0).after == 3.0


@pytest.mark.parametrize("tries", [1, 2, 3, 4, 50, 5000])
def test_back_off_doubles_to_its_limit_and_at_most_half_of_it_is_random(tries: int) -> None:
    whole = min(30.0, 0.5 * 2.0 ** (min(tries, 40) - 1))

    assert backoff(tries, first=0.5, most=30.0, jitter=lambda: 1.0) == whole
    assert backoff(tries, first=0.5, most=30.0, jitter=lambda: 0.0) == whole / 2
