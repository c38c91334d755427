"""What is too long is shorter afterwards, still JSON where it was, and marked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.redaction.cutting import cut, size

MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": f"{n} " + "long " * 400}]} for n in range(200)]


def test_what_fits_is_the_same_object() -> None:
    for value in ("text", MESSAGES[:1], {"a": 1}):
        assert cut(value, 10_000) is value


@pytest.mark.parametrize("limit", [256, 1000, 5000, 100_000])
def test_messages_stay_a_list_that_fits_and_says_what_is_missing(limit: int) -> None:
    found = cut(MESSAGES, limit)
    assert isinstance(found, list)
    assert size(found) <= limit
    assert "cut]" in json.dumps(found, ensure_ascii=False)


def test_the_longest_texts_are_cut_and_the_short_ones_stay() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 10_000}], "user": "u-1"})
    found = json.loads(cut(body, 1000))
    assert (found["model"], found["user"], found["messages"][0]["role"]) == ("m", "u-1", "user")
    assert found["messages"][0]["content"].startswith("xxxx")
    assert found["messages"][0]["content"].endswith("characters cut]")


def test_a_plain_text_is_cut_between_characters() -> None:
    found = cut("é" * 1000, 301)
    assert size(found) <= 301
    assert found.startswith("éé")
    assert found.endswith("bytes cut]")


LONG = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=10), st.integers(1, 100))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LONG,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5) | LONG, inner, max_size=5),
    max_leaves=10,
)


@given(st.lists(JSON, min_size=1, max_size=5), st.integers(256, 2000))
def test_whatever_it_is_it_fits_and_is_json(value: list[Any], limit: int) -> None:
    found = cut(value, limit)
    assert isinstance(found, list)
    assert size(found) <= limit
    text = cut(json.dumps(value), limit)
    assert size(text) <= limit
    assert isinstance(json.loads(text), list)


@given(st.text(), st.integers(256, 500))
def test_no_text_is_too_long_afterwards(text: str, limit: int) -> None:
    assert size(cut(text * 50, limit)) <= limit
