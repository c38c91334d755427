from __future__ import annotations

import re

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from otelgw_exporters import blob_keys
from otelgw_exporters.errors import DestinationConfigError

HOSTILE = st.one_of(
    st.text(),
    st.text(alphabet="./\\ ..%=?#\x00\n~"),
    st.sampled_from(["..", ".", "a/b", "/", "é", "e\u0301", "🦀" * 400, "\ud800", "CON", "a b", "a+b", "", " "]),
)


@settings(max_examples=300)
@given(HOSTILE)
def test_a_name_is_one_safe_segment_whatever_it_holds(name: str) -> None:
    made = blob_keys.segment(name)
    assert re.fullmatch(r"[\w.-]+", made) or not name
    assert made not in {".", ".."}
    assert not made.startswith(".")
    assert len(made.encode()) <= 300


@given(HOSTILE, HOSTILE)
def test_two_names_never_share_a_segment(one: str, other: str) -> None:
    assert (blob_keys.segment(one) == blob_keys.segment(other)) == (one == other)


@settings(max_examples=200)
@given(HOSTILE, HOSTILE, HOSTILE, st.integers(0, 2**63))
def test_a_store_keeps_a_key_as_it_is(team: str, key: str, call_id: str, at: int) -> None:
    store = MemoryStore()
    whole = f"{blob_keys.segment(team)}/{blob_keys.segment(key)}/{blob_keys.per_request(at, call_id, '0' * 16)}"
    whole = whole.lstrip("/").replace("//", "/")
    obstore.put(store, whole, b"x")
    assert [each["path"] for listed in obstore.list(store) for each in listed] == [whole]
    assert len(whole.encode()) < 1024


def test_a_plain_name_is_kept() -> None:
    for name in ("my-team-alias", "blue", "team_7", "v1.2", "équipe"):
        assert blob_keys.segment(name) == name


def test_a_call_is_named_as_litellm_names_it() -> None:
    named = blob_keys.per_request(1_800_000_000_123_456_789, "chatcmpl-1", "00f067aa0ba902b7")
    assert named == "2027-01-15/time-08-00-00-123456_chatcmpl-1_00f067aa0ba902b7.json"


def test_two_calls_with_one_id_at_one_time_have_two_names() -> None:
    assert blob_keys.per_request(5, "same", "a" * 16) != blob_keys.per_request(5, "same", "b" * 16)


def test_partitions_are_of_utc() -> None:
    assert blob_keys.hour(1_767_225_599_999_999_999) == "date=2025-12-31/hour=23/"
    assert blob_keys.hour(1_767_225_600_000_000_000) == "date=2026-01-01/hour=00/"


@pytest.mark.parametrize(("path", "prefix"), [("", ""), ("a", "a/"), ("/a//b/", "a/b/"), ("with space", "with space/")])
def test_a_prefix_is_whole_segments(path: str, prefix: str) -> None:
    assert blob_keys.prefix_of(path) == prefix


@pytest.mark.parametrize("path", ["a/../b", ".", "a\nb", "x" * 301])
def test_a_prefix_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(DestinationConfigError, match="path: "):
        blob_keys.prefix_of(path)
