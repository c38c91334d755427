from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.tracing.bodies import DECODED_LIMIT, Body, readable
from otelgw.tracing.record import Capture

TEXT = b'{"model":"gpt","messages":[]}' * 50


def raw_deflate(body: bytes) -> bytes:
    squeezer = zlib.compressobj(wbits=-15)
    return squeezer.compress(body) + squeezer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", gzip.compress(TEXT[:700], mtime=0) + gzip.compress(TEXT[700:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
def test_content_codings_are_taken_off(coding: str, body: bytes) -> None:
    assert readable(Capture(encoding=coding, size=len(body), head=body)) == Body(TEXT)


def test_a_bomb_stops_at_the_limit_and_says_that_it_is_cut() -> None:
    bomb = gzip.compress(b"a" * (DECODED_LIMIT * 4))
    body = readable(Capture(encoding="gzip", size=len(bomb), head=bomb))
    assert len(body.head) == DECODED_LIMIT
    assert body.tail


def test_a_cut_compressed_body_gives_its_beginning() -> None:
    squeezed = gzip.compress(bytes(range(256)) * 40)
    body = readable(Capture(encoding="gzip", size=9999, head=squeezed[:200], tail=squeezed[-20:], sha256="x"))
    assert bytes(range(256)).startswith(body.head[:256])
    assert body.head
    assert body.tail


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
def test_other_codings_are_left_alone(coding: str) -> None:
    assert readable(Capture(encoding=coding, size=3, head=b"abc")) == Body()


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_no_bytes_raise(body: bytes, coding: str) -> None:
    readable(Capture(encoding=coding, size=len(body), head=body))
