"""Reads a caller's body under limits: size, decompressed size, and the pace at which it comes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any

from otelgw.config.settings import Limits
from otelgw.errors import RequestRefused

__all__ = ["CallerGone", "Pace", "Receive", "checked", "decompress", "read", "receive_part"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class CallerGone(Exception):
    """The caller closed the connection."""


class Pace:
    """How long the next part of a body may take: never more than ``request_body_idle``, and less the more the whole
    lags behind ``request_body_rate``."""

    __slots__ = ("_idle", "_rate", "_started")

    def __init__(self, limits: Limits) -> None:
        self._idle = limits.request_body_idle
        self._rate = limits.request_body_rate
        self._started = monotonic()

    def patience(self, size: int) -> float:
        """Return seconds for the next part, after ``size`` bytes. A rate of 0 is no bound."""
        if not self._rate:
            return self._idle
        allowed = self._idle + size / self._rate - (monotonic() - self._started)
        return min(self._idle, max(allowed, 0.001))

    def too_slow(self) -> RequestRefused:
        return RequestRefused(
            "request_timeout",
            f"The request body came too slowly (limit: {self._idle:g} s without data, "
            f"{self._rate} bytes a second). Send it again.",
            close=True,
        )


def _part(message: MutableMapping[str, Any]) -> tuple[bytes, bool]:
    if message["type"] == "http.disconnect":
        raise CallerGone
    return message.get("body", b""), message.get("more_body", False)


async def receive_part(receive: Receive, pace: Pace, size: int) -> tuple[bytes, bool]:
    """Return the next part of a body of which ``size`` bytes are here, and whether more follows.

    Raises:
        CallerGone: the caller closed the connection.
        RequestRefused: 408 where the body comes too slowly.
    """
    try:
        async with asyncio.timeout(pace.patience(size)):
            return _part(await receive())
    except TimeoutError:
        raise pace.too_slow() from None


class _Deadline:
    """Cancels the current task when a part does not come in time; ``asyncio.timeout`` costs several times as much."""

    __slots__ = ("_handle", "_loop", "_task", "expired")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.expired = False
        self._handle = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    def move(self, seconds: float) -> None:
        self._handle.cancel()
        self._handle = self._loop.call_later(seconds, self._expire)

    def close(self) -> None:
        """Stop; where the time is up but the cancellation is not delivered yet, take it back."""
        self._handle.cancel()
        if self.expired and self._task is not None:
            self._task.uncancel()


async def read(receive: Receive, headers: Mapping[bytes, bytes], limit: int, limits: Limits) -> bytes:
    """Return the whole body, decompressed.

    Raises:
        CallerGone: the caller closed the connection.
        RequestRefused: 400, 408, 413 body_too_large or 415 for an encoding that is not understood.
    """
    check_declared(headers, limit)
    pace = Pace(limits)
    parts: list[bytes] = []
    size = 0
    deadline = _Deadline(pace.patience(0))
    try:
        while True:
            part, more = _part(await receive())
            if part:
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise too_large(limit)
            if not more:
                break
            if len(parts) > 1:
                deadline.move(pace.patience(size))
    except asyncio.CancelledError:
        if deadline.expired:
            raise pace.too_slow() from None
        raise
    finally:
        deadline.close()
    return checked(parts[0] if len(parts) == 1 else b"".join(parts), headers, limit)


def checked(body: bytes, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """Return a body that is here to its last byte, decompressed.

    Raises:
        RequestRefused: 400, 413 body_too_large or 415, as ``read``.
    """
    if len(body) > limit:
        raise too_large(limit)
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else decompress(body, encoding.decode("latin-1"), limit)


def check_declared(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)


def too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        "body_too_large",
        f"The body is larger than {limit} bytes. Send less, or raise otelgw.limits.body (of uploads: file_body) in the "
        "config.",
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
    if reader.unused_data:
        raise RequestRefused(
            "invalid_request", f"Bytes follow the end of the {name} data; compress the body in one go."
        )
    return plain
