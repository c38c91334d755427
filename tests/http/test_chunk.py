"""The sizes that stand before a chunk's data."""

from __future__ import annotations

from otelgw.http.chunk import HEADS, HEADS_OF_WHOLE, LONGEST


def test_a_whole_chunk_tells_its_size_by_its_length() -> None:
    wholes = [b"%x\r\n%b\r\n" % (size, b"x" * size) for size in range(1, LONGEST)]

    for size, whole in enumerate(wholes, 1):
        assert whole.startswith(HEADS[size])
        assert len(whole) > LONGEST or HEADS_OF_WHOLE[len(whole)] == HEADS[size]


def test_where_no_chunk_is_that_long_nothing_matches() -> None:
    lengths = {len(b"%x\r\n" % size) + size + 2 for size in range(1, LONGEST)}
    impossible = [length for length in range(LONGEST + 1) if length not in lengths]

    assert {0, 5, 21, 262} <= set(impossible)
    assert all(len(HEADS_OF_WHOLE[length]) > length for length in impossible)
