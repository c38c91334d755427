"""Takes the usage chunk that the gateway asked for out of a stream again, so that the caller sees none of it.

Sans-IO: bytes in, bytes out. Only streams into which ``stream_options.include_usage`` was injected pass through here;
every other stream is relayed untouched.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["EVENT_ENDING", "NULL_USAGE", "UsageFilter"]

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_ENDINGS = (b"\n\n", b"\r\n\r\n")
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,\s*')
NULL_USAGE = b',"usage":null'
EVENT_ENDING = b"\n\n"
# A quote inside a JSON string is escaped, so this is the end of the event's own object.
_NULL_ENDING = NULL_USAGE + b"}" + EVENT_ENDING
_DATA = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_MAX_HELD = 1024 * 1024


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Any = msgspec.UNSET


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class UsageFilter:
    """Feeds on chunks as they arrive and holds back at most the event that is not complete yet, ``held``."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what the caller gets of ``data`` and what was held; may be empty."""
        if not self.held:
            # What nearly every chunk is: one event, ending with the null that is not the caller's, or without usage.
            if data.endswith(_NULL_ENDING) and (data.find(b"\n") == len(data) - 2 or data.count(b"\n\n") == 1):
                return data[: -len(_NULL_ENDING)] + b"}\n\n"
            if b'"usage"' not in data and data.endswith(_ENDINGS):
                return data
        buffer = self.held + data
        passed: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(buffer):
            passed.append(_without_usage(buffer[start : end.end()]))
            start = end.end()
        rest = buffer[start:]
        if len(rest) > _MAX_HELD:
            passed.append(rest)
            rest = b""
        self.held = rest
        return b"".join(passed)

    def flush(self) -> bytes:
        """Return what is still held when the stream ends without the end of an event."""
        held, self.held = self.held, b""
        return _without_usage(held)


def _without_usage(event: bytes) -> bytes:
    """Return ``event`` without ``usage``: nothing where it was only that, unchanged where usage came with content."""
    if b'"usage"' not in event:
        return event
    data = b"\n".join(_DATA.findall(event))
    try:
        chunk = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event
    if chunk.usage is None:
        return _without_null(event, data)
    return b"" if chunk.choices == [] and chunk.usage is not msgspec.UNSET else event


def _without_null(event: bytes, data: bytes) -> bytes:
    """Return ``event`` without its object's own ``"usage":null``; one that stands deeper stays."""
    nulls = list(_NULL_USAGE.finditer(event))
    if len(nulls) > 1:
        wanted = {name: bytes(value) for name, value in _decode_fields(data).items() if name != "usage"}
        nulls = [null for null in nulls if _fields(event[: null.start()] + event[null.end() :]) == wanted]
    return event[: nulls[0].start()] + event[nulls[0].end() :] if nulls else event


def _fields(event: bytes) -> dict[str, bytes] | None:
    try:
        return {name: bytes(value) for name, value in _decode_fields(b"\n".join(_DATA.findall(event))).items()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
