"""Reads a caller's body under limits: size, decompressed size, and the pace at which it comes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any

from otelgw.config.settings import Limits
from otelgw.errors import RequestRefused

__all__ = ["CallerGone", "Receive", "decompress", "read", "receive_part"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class CallerGone(Exception):  # noqa: N818 - an event, not an error of ours
    """The caller closed the connection."""


async def receive_part(receive: Receive, limits: Limits, started: float, size: int) -> tuple[bytes, bool]:
    """Return the next part of the body and whether more follows.

    Raises:
        CallerGone: the caller closed the connection.
        RequestRefused: 408 where the body comes too slowly: nothing for ``request_body_idle`` seconds, or below
            ``request_body_rate`` on the whole.
    """
    allowed = limits.request_body_idle + size / limits.request_body_rate - (monotonic() - started)
    try:
        async with asyncio.timeout(min(limits.request_body_idle, max(allowed, 0.001))):
            message = await receive()
    except TimeoutError:
        raise RequestRefused(
            "request_timeout",
            f"The request body came too slowly (limit: {limits.request_body_idle:g} s without data, "
            f"{limits.request_body_rate} bytes a second). Send it again.",
            close=True,
        ) from None
    if message["type"] == "http.disconnect":
        raise CallerGone
    return message.get("body", b""), message.get("more_body", False)


async def read(receive: Receive, headers: Mapping[bytes, bytes], limit: int, limits: Limits) -> bytes:
    """Return the whole body, decompressed.

    Raises:
        CallerGone: the caller closed the connection.
        RequestRefused: 400, 408, 413 body_too_large or 415 for an encoding that is not understood.
    """
    check_declared(headers, limit)
    message = await _first(receive, limits)
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts = [body]
        size = len(body)
        more = True
        started = monotonic()
        while more:
            part, more = await receive_part(receive, limits, started, size)
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
        body = b"".join(parts)
    elif len(body) > limit:
        raise too_large(limit)
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else decompress(body, encoding.decode("latin-1"), limit)


async def _first(receive: Receive, limits: Limits) -> MutableMapping[str, Any]:
    part, more = await receive_part(receive, limits, monotonic(), 0)
    return {"body": part, "more_body": more}


def check_declared(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)


def too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        "body_too_large",
        f"The body is larger than {limit} bytes. Send less, or raise otelgw.limits.body in the config.",
        close=True,
    )


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return ``body`` without its Content-Encoding, never more than ``limit`` bytes.

    Raises:
        RequestRefused: 400 for bad data, 413 above the limit, 415 for an unknown or nested encoding.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    window = _ENCODINGS.get(name)
    if window is None:
        raise RequestRefused(
            "unsupported_media_type", "Content-Encoding must be gzip, deflate or identity. Send the body uncompressed."
        )
    reader = zlib.decompressobj(window)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error:
        raise RequestRefused("invalid_request", f"The body is not valid {name} data.") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not reader.eof:
        raise RequestRefused("invalid_request", f"The {name} body ends too early.")
    return plain
