from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.dialects.labels import from_metadata, from_request, is_label, joined


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"feature": "x", "n": 1, "f": 0.5, "b": True}, {"feature": "x", "n": 1, "f": 0.5, "b": True}),
        ({"list": ["a", "b"], "mixed": ["a", 1], "none": None}, {"list": ["a", "b"], "mixed": '["a",1]'}),
        ({"nested": {"a": {"password": "p"}}}, {"nested": '{"a":{"password":"REDACTED"}}'}),
        ({"huge": 2**70}, {"huge": str(2**70)}),
        ({"api_key": "sk-1", "Authorization": "Bearer x", "": 1}, {}),
    ],
)
def test_metadata_becomes_attributes_without_credentials(metadata: dict[str, Any], expected: dict[str, Any]) -> None:
    assert from_metadata(metadata) == {f"otelgw.metadata.{key}": value for key, value in expected.items()}


def test_session_user_and_tags_have_their_own_names() -> None:
    given = {"session_id": "s", "tags": ["a", "b", "a"], "trace_user_id": "u"}
    assert from_metadata(given) == {
        "session.id": "s",
        "otelgw.tags": ["a", "b"],
        "user.id": "u",
        "otelgw.metadata.trace_user_id": "u",
    }
    assert from_request({"user": "body", "metadata": given})["user.id"] == "body"


def test_the_users_id_is_bounded_and_comes_from_either_field() -> None:
    assert from_request({"user": "u" * 5000}) == {"user.id": "u" * 1024}
    assert from_request({"safety_identifier": "r"}) == {"user.id": "r"}


@pytest.mark.parametrize(
    ("body", "dropped"),
    [
        ({"metadata": "x"}, 1),
        ({"metadata": [1], "litellm_metadata": 5}, 2),
        ({"metadata": {"tags": [1, None], "session_id": 7}}, 3),
        ({"user": 7}, 1),
        ({"tags": {"a": 1}}, 1),
        ({"metadata": {"k" * 1000: 1}}, 1),
        ({"metadata": None, "tags": None, "user": None}, 0),
        ({"metadata": {}, "tags": [], "user": ""}, 0),
        ({}, 0),
    ],
)
def test_labels_of_the_wrong_type_are_left_out_and_counted(body: dict[str, Any], dropped: int) -> None:
    assert from_request(body) == ({"otelgw.labels.dropped": dropped} if dropped else {})


def test_a_megabyte_of_tags_and_metadata_becomes_little_and_says_so() -> None:
    tags = [f"{number:08}" + "t" * 1000 for number in range(1000)]
    found = from_request({"metadata": {"tags": tags, **{f"k{i}": "v" * 100_000 for i in range(10)}}, "tags": tags})
    assert len(found["otelgw.tags"]) == 64
    assert max(map(len, found["otelgw.tags"])) == 256
    assert found["otelgw.labels.dropped"] >= 936
    assert len(str(found)) < 150_000


def test_labels_of_two_places_are_joined_and_the_second_wins() -> None:
    below = {"otelgw.tags": ["a", "b"], "session.id": "body", "otelgw.labels.dropped": 1, "otelgw.metadata.x": 1}
    above = {"otelgw.tags": ["b", "c"], "session.id": "header", "otelgw.labels.dropped": 2}
    assert joined(below, above) == {
        "otelgw.tags": ["a", "b", "c"],
        "session.id": "header",
        "otelgw.labels.dropped": 3,
        "otelgw.metadata.x": 1,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(["metadata", "litellm_metadata", "tags", "user", "session_id", "trace_user_id", "x"])


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)))
def test_whatever_a_caller_attaches_becomes_attributes_of_simple_types(body: dict[str, Any]) -> None:
    for name, value in from_request(body).items():
        assert is_label(name)
        assert isinstance(value, str | bool | int | float) or all(isinstance(item, str) for item in value)
