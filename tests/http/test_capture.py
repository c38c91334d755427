"""What is kept of a body while it passes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.http.capture import BodyCapture, Budget, is_text

PLENTY = 10**9


def captured(chunks: list[bytes], limit: int, budget: Budget | None = None, *, keep: bool = True):
    capture = BodyCapture(limit, budget or Budget(PLENTY), keep=keep)
    for chunk in chunks:
        capture.add(chunk)
    return capture.finish("text/plain")


def test_a_body_within_the_limit_is_kept_whole() -> None:
    kept = captured([b"ab", b"cd"], 4)

    assert (kept.size, kept.head, kept.tail, kept.sha256) == (4, b"abcd", b"", "")


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(2, 60))
def test_a_longer_body_keeps_head_tail_size_and_hash(chunks: list[bytes], limit: int) -> None:
    body = b"".join(chunks)
    kept = captured(chunks, limit)

    assert kept.size == len(body)
    if len(body) <= limit:
        assert kept.head == body
    else:
        assert len(kept.head) + len(kept.tail) <= limit
        assert body.startswith(kept.head)
        assert body.endswith(kept.tail)
        assert kept.sha256 == hashlib.sha256(body).hexdigest()
        assert len(kept.head) == len(kept.tail) == limit // 2


def test_media_keeps_size_and_hash_only() -> None:
    kept = captured([b"\x89PNG", b"data"], 100, keep=False)

    assert (kept.head, kept.tail, kept.size) == (b"", b"", 8)
    assert kept.sha256 == hashlib.sha256(b"\x89PNGdata").hexdigest()


def test_all_captures_together_stay_within_the_workers_budget() -> None:
    budget = Budget(100_000)
    captures = [BodyCapture(50_000, budget) for _ in range(20)]
    for _ in range(50):
        for capture in captures:
            capture.add(b"x" * 1000)

    # Beyond the budget a capture keeps a short tail, trimmed at twice its room.
    assert budget.used <= 100_000 + 20 * 2 * 16 * 1024
    assert all(capture.finish().size == 50_000 for capture in captures)
    assert budget.used == 0


@given(st.lists(st.integers(1, 3000), max_size=200))
def test_a_capture_takes_little_more_of_the_budget_than_it_holds(sizes: list[int]) -> None:
    budget = Budget(PLENTY)
    capture = BodyCapture(PLENTY, budget)
    for size in sizes:
        capture.add(b"x" * size)
        held = sum(map(len, capture.chunks))
        assert held == capture.size
        assert held <= budget.used <= held + 16 * 1024


def test_finishing_gives_the_budget_back() -> None:
    budget = Budget(PLENTY)
    captured([b"a" * 10, b"b" * 10], 12, budget)
    captured([b"a"], 12, budget)

    assert budget.used == 0


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/event-stream", True),
        ("text/plain", True),
        ("application/vnd.api+json", True),
        ("application/x-ndjson", True),
        ("multipart/form-data; boundary=x", False),
        ("audio/mpeg", False),
        ("image/png", False),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_only_json_events_and_text_are_recorded(content_type: str, text: bool) -> None:
    assert is_text(content_type) is text
