from __future__ import annotations

import pytest

from otelgw_collector.retry import RetryPolicy

POLICY = RetryPolicy(first=1.0, most=8.0, most_asked=100.0)


@pytest.mark.parametrize(
    ("tries", "after", "delay"),
    [(1, None, 1.0), (2, None, 2.0), (9, None, 8.0), (1, 5.0, 5.0), (9, 5.0, 8.0), (1, 1e9, 100.0), (1, 0.0, 1.0)],
)
def test_the_longer_of_back_off_and_what_was_asked_for_counts(tries: int, after: float | None, delay: float) -> None:
    assert POLICY.delay(tries, after, lambda: 1.0) == delay
