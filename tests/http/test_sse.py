"""The usage chunk that the gateway asked for goes out of the stream again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.http.sse import UsageFilter

CONTENT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi \\"usage\\":null"}}]}\n\n'
WITH_NULL = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi \\"usage\\":null"}}],"usage":null}\n\n'
USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


def run(chunks: list[bytes]) -> bytes:
    taken_out = UsageFilter()
    return b"".join([*map(taken_out.feed, chunks), taken_out.flush()])


def test_the_usage_chunk_and_the_null_usages_disappear() -> None:
    assert run([WITH_NULL, WITH_NULL, USAGE, DONE]) == CONTENT + CONTENT + DONE


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
def test_every_line_ending_is_understood(ending: bytes) -> None:
    stream = (COMMENT + WITH_NULL + USAGE + DONE).replace(b"\n", ending)

    assert run([stream]) == (COMMENT + CONTENT + DONE).replace(b"\n", ending)


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_where_the_network_splits_the_stream_changes_nothing(cuts: list[int]) -> None:
    stream = COMMENT + WITH_NULL + CONTENT + USAGE + DONE
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    chunks = [stream[a:b] for a, b in pairwise(edges)]

    assert run(chunks) == COMMENT + CONTENT + CONTENT + DONE


def test_split_at_every_byte() -> None:
    stream = WITH_NULL + USAGE + DONE

    assert run([bytes([byte]) for byte in stream]) == CONTENT + DONE


def test_usage_that_came_with_content_stays() -> None:
    event = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}\n\n'

    assert run([event]) == event


def test_an_event_that_is_no_json_stays() -> None:
    event = b'data: {"usage" oops\n\n'

    assert run([event]) == event


def test_a_cut_stream_keeps_what_came_before_the_cut() -> None:
    assert run([CONTENT, CONTENT[:20]]) == CONTENT + CONTENT[:20]


def test_a_complete_event_without_usage_is_not_even_copied() -> None:
    assert UsageFilter().feed(CONTENT.replace(b"usage", b"other")) == CONTENT.replace(b"usage", b"other")


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_streams_without_usage_pass_unchanged(chunks: list[bytes]) -> None:
    chunks = [chunk.replace(b"usage", b"") for chunk in chunks]

    assert run(chunks) == b"".join(chunks)


NESTED = b'"x_groq":{"id":"1","usage":null}'


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (b'data: {"choices":[{}],%b,"usage":null}\n\n' % NESTED, b'data: {"choices":[{}],%b}\n\n' % NESTED),
        (b'data: {"usage":null,"choices":[{}],%b}\r\n\r\n' % NESTED, b'data: {"choices":[{}],%b}\r\n\r\n' % NESTED),
        (b'data: {"choices":[{}],"usage": null, %b}\n\n' % NESTED, b'data: {"choices":[{}], %b}\n\n' % NESTED),
        (b'data: {"choices":[{}],%b}\n\n' % NESTED, b'data: {"choices":[{}],%b}\n\n' % NESTED),
        (b'data: {"choices":[],"x":{"usage":{"a":1}}}\n\n', b'data: {"choices":[],"x":{"usage":{"a":1}}}\n\n'),
    ],
)
def test_only_the_chunks_own_usage_goes(event: bytes, left: bytes) -> None:
    assert run([event]) == left
