"""Finding one field in a multipart body."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from otelgw.http.multipart import Search, boundary_of, find_field, replace_field

BODY = (
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b'RIFF name="model"\r\n\r\nnot this\r\n'
    b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--XX--\r\n'
)


def test_the_field_is_found_behind_a_file() -> None:
    field = find_field(BODY, b"XX", "model")

    assert field is not None
    assert field.value == "whisper-1"
    assert replace_field(BODY, field, "large") == BODY.replace(b"whisper-1", b"large")


def test_a_file_named_model_is_not_the_field() -> None:
    body = b'--XX\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\nx\r\n--XX--\r\n'

    assert find_field(body, b"XX", "model") is None


def test_a_field_that_is_not_complete_yet_is_not_found() -> None:
    assert find_field(BODY[: BODY.index(b"whisper-1") + 4], b"XX", "model") is None


def test_a_boundary_is_read_quoted_and_bare() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    assert boundary_of("multipart/form-data; charset=x; boundary=abc; x=y") == b"abc"
    assert boundary_of("multipart/form-data") == b""


@given(st.binary(max_size=300))
def test_no_body_breaks_the_search(body: bytes) -> None:
    field = find_field(b"--XX" + body, b"XX", "model")

    assert field is None or len(field.value) <= 512


@given(st.lists(st.integers(1, len(BODY)), max_size=12))
def test_where_the_network_splits_a_body_changes_nothing(cuts: list[int]) -> None:
    search = Search(b"XX", "model")
    edges = sorted({0, len(BODY), *cuts})
    for start, end in pairwise(edges):
        search.feed(BODY[start:end])

    assert search.field == find_field(BODY, b"XX", "model")
    assert search.body == BODY


def test_a_file_in_front_of_the_field_is_searched_once() -> None:
    """Searched from the start with every piece, 50 MiB would take minutes."""
    piece = b"\r\n-" * 16 * 1024
    search = Search(b"XX", "model")
    search.feed(BODY[: BODY.index(b"RIFF")])
    for _ in range(800):
        search.feed(piece)
    assert search.field is None
    search.feed(BODY[BODY.index(b"not this") :])

    assert search.field is not None
    assert search.field.value == "whisper-1"


def test_dashes_without_end_take_linear_time() -> None:
    assert find_field(b"--XX" * 250_000, b"XX", "model") is None
    assert find_field(b"\r\n--XX\r\n\r\n" * 100_000, b"XX", "model") is None
