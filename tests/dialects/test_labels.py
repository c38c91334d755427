from __future__ import annotations

from typing import Any

import pytest

from otelgw.dialects.labels import from_metadata, from_request


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


def test_session_and_tags_have_their_own_names() -> None:
    assert from_metadata({"session_id": "s", "tags": ["a", 1]}) == {"session.id": "s", "otelgw.tags": ["a"]}


def test_the_users_id_is_bounded_and_comes_from_either_field() -> None:
    assert from_request({"user": "u" * 5000}) == {"user.id": "u" * 1024}
    assert from_request({"safety_identifier": "r"}) == {"user.id": "r"}


@pytest.mark.parametrize("body", [{"metadata": "x"}, {"metadata": [1]}, {"user": 7}, {"tags": {"a": 1}}, {}])
def test_labels_of_the_wrong_type_are_left_out(body: dict[str, Any]) -> None:
    assert from_request(body) == {}
