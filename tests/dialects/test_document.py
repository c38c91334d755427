from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelgw.dialects.document import load

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, min_size=1, max_size=6)


def is_part_of(part: Any, whole: Any) -> bool:
    """Say whether ``part`` is the beginning of ``whole``: nothing in it that is not there."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part_of(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(is_part_of(a, b) for a, b in zip(part, whole, strict=False))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return bool(part == whole)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"model":"m","messages":[{"role":"user","content":"hel',
            {"model": "m", "messages": [{"role": "user", "content": "hel"}]},
        ),
        (b'{"a":"x\\', {"a": "x"}),
        (b'{"a":"x\\u00', {"a": "x"}),
        (b'{"a":"x\\ud83d', {"a": "x"}),
        (b'{"a":"x\\ud83d\\u', {"a": "x"}),
        (b'{"a":"x\\\\', {"a": "x\\"}),
        ('{"a":"é'.encode()[:-1], {"a": ""}),
        (b'{"a":12', {}),
        (b'{"a":12,', {"a": 12}),
        (b'{"a":1,"b', {"a": 1}),
        (b'{"a":1,"b":', {"a": 1}),
        (b'{"a":[1,{"c":true},', {"a": [1, {"c": True}]}),
        (b'{"a":1,}', {"a": 1}),
        (b"nonsense", None),
        (b"", None),
    ],
)
def test_a_cut_document_is_closed_where_it_stops(body: bytes, expected: Any) -> None:
    assert load(body) == (expected, False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":NaN,"b":1}', {"a": None, "b": 1}),
        (b'{"a":"\\ud83d","b":1}', {"a": "?", "b": 1}),
        (b'{"a":"\xff","b":1}', {"a": "�", "b": 1}),
        (b'{"a":"line\nbreak"}', {"a": "line\nbreak"}),
    ],
)
def test_json_outside_the_standard_is_read_all_the_same(body: bytes, expected: Any) -> None:
    assert load(body) == (expected, True)


def test_members_that_stand_whole_in_the_tail_are_read() -> None:
    body = json.dumps(
        {
            "id": "x",
            "choices": [{"text": 'say "usage": {} ' * 40, "n": [1, 2]}],
            "model": "m",
            "usage": {"total_tokens": 3},
        }
    ).encode()
    for cut in range(60, len(body) - 60):
        value, whole = load(body[:40], body[cut:])
        assert not whole
        assert value["id"] == "x"
        assert value["usage"] == {"total_tokens": 3}


def test_a_tail_alone_is_enough_to_find_the_usage() -> None:
    assert load(b"", b'd of it"}],"usage":{"total_tokens":3}}').value == {"usage": {"total_tokens": 3}}


@settings(max_examples=200)
@given(OBJECTS, st.data())
def test_what_is_read_of_a_cut_document_is_in_the_whole_one(value: dict[str, Any], data: st.DataObject) -> None:
    body = json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode()
    head = data.draw(st.integers(0, len(body) - 1))
    read = load(body[:head]).value
    assert read is None or is_part_of(read, value)
    tail = data.draw(st.integers(head + 1, len(body)))
    joined = load(body[:head], body[tail:] or b"\n").value
    assert joined is None or is_part_of(joined, value)


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_no_bytes_raise(body: bytes, tail: bytes) -> None:
    load(body, tail)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 50_000 + b"]" * 50_000, b'{"a":' + b"9" * 9000 + b"}"]
)
def test_nesting_and_numbers_without_end_are_survived(body: bytes) -> None:
    load(body)
    load(body, body)
