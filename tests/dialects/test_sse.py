from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.dialects.sse import Event, Reader, events, is_stream

LINES = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data:b",
            b"data: c: d",
            b"data",
            b"data:  two",
            b": note",
            b"event: error",
            b"id: 7",
            b"",
            b"",
            b"x",
        ]
    ),
    max_size=12,
)
ENDINGS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def in_pieces(body: bytes, cuts: list[int]) -> list[Event]:
    reader = Reader()
    found: list[Event] = []
    for start, end in pairwise([0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]):
        found += reader.feed(body[start:end])
    return found + reader.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: one\n\ndata: two\n\n", [Event(b"one"), Event(b"two")]),
        (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"event: error\ndata: {}\n\n", [Event(b"{}", b"error")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
        (b": keep-alive\n\ndata: a\n\n", [Event(b"a")]),
        (b"data:a\r\rdata:  b\r\n\r\n", [Event(b"a"), Event(b" b")]),
        (b"data\n\n", [Event(b"")]),
        (b"event: ping\n\n", []),
        (b"data: [DONE]", [Event(b"[DONE]")]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [Event(b"a"), Event(b"b")]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(body: bytes, expected: list[Event]) -> None:
    assert list(events(body)) == expected
    assert in_pieces(body, list(range(len(body)))) == expected


@given(LINES, ENDINGS, st.booleans(), st.lists(st.integers(0, 1000), max_size=8))
def test_line_endings_and_cuts_do_not_change_what_is_read(
    lines: list[bytes], ending: bytes, bom: bool, cuts: list[int]
) -> None:
    plain = b"".join(line + b"\n" for line in lines)
    body = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + ending for line in lines)
    expected = list(events(plain))
    assert list(events(body)) == expected
    assert in_pieces(body, cuts) == expected


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=8))
def test_whole_and_piecewise_reading_agree_on_any_bytes(body: bytes, cuts: list[int]) -> None:
    assert in_pieces(body, cuts) == list(events(body))


def test_a_cut_stream_gives_the_events_on_both_sides_of_the_gap() -> None:
    found = list(events(b'data: {"a":1}\n\ndata: {"b', b'c":2}\n\ndata: {"d":3}\n\ndata: [DONE]\n\n'))
    assert found[0] == Event(b'{"a":1}')
    assert found[-2:] == [Event(b'{"d":3}'), Event(b"[DONE]")]


@pytest.mark.parametrize(
    ("content_type", "asked", "expected"),
    [
        ("text/event-stream; charset=utf-8", False, True),
        ("application/json", True, False),
        ("", True, True),
        ("", False, False),
        ("audio/mpeg", True, False),
    ],
)
def test_the_media_type_decides_what_a_stream_is(content_type: str, asked: bool, expected: bool) -> None:
    assert is_stream(content_type, asked) is expected
