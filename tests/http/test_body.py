"""Reading a caller's body under limits."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from otelgw.config.settings import Limits
from otelgw.errors import RequestRefused
from otelgw.http.body import CallerGone, decompress, read

LIMITS = Limits(request_body_idle=0.05, request_body_rate=1000)


def reading(parts: Sequence[bytes], headers: dict[bytes, bytes] | None = None, limit: int = 100, end: bool = True):
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if end:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    return asyncio.run(read(receive, headers or {}, limit, LIMITS))


def test_parts_are_joined() -> None:
    assert reading([b"a", b"", b"bc"]) == b"abc"


def test_no_body_is_an_empty_one() -> None:
    assert reading([]) == b""


def test_a_body_above_the_limit_is_refused_as_soon_as_it_is() -> None:
    with pytest.raises(RequestRefused, match="larger than 4 bytes") as refused:
        reading([b"abc", b"de", b"never read"], limit=4)

    assert refused.value.answer.status == 413
    assert refused.value.close


def test_a_declared_length_above_the_limit_is_refused_before_reading() -> None:
    with pytest.raises(RequestRefused) as refused:
        reading([], {b"content-length": b"5"}, limit=4)

    assert refused.value.error_type == "body_too_large"


def test_a_body_that_stops_coming_is_cut() -> None:
    with pytest.raises(RequestRefused, match="too slowly") as refused:
        reading([b"a"], end=False)

    assert refused.value.answer.status == 408


def test_a_caller_that_leaves_while_sending_is_noticed() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(CallerGone):
        asyncio.run(read(receive, {}, 10, LIMITS))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
        ("identity", b"hello"),
        ("", b"hello"),
    ],
)
def test_compressed_bodies_are_read(encoding: str, body: bytes) -> None:
    assert decompress(body, encoding, 10) == b"hello"


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b"x" * 1000, mtime=0), 413),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b"hello", mtime=0)[:-9], 400),
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
    ],
)
def test_bad_compression_is_refused(encoding: str, body: bytes, status: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        decompress(body, encoding, 100)

    assert refused.value.answer.status == status


def test_a_bomb_is_never_unpacked() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), 9)

    with pytest.raises(RequestRefused, match="larger than"):
        decompress(bomb, "gzip", 1024)
