"""Server-sent events: bytes in, events out. No I/O.

The format is the WHATWG HTML standard's, section "Server-sent events": lines end with CR, LF or CRLF, a leading byte
order mark is dropped, lines that begin with a colon are comments, several ``data`` lines are joined by a line feed.
One difference: an event that the end of the stream leaves without its blank line is delivered, because some upstreams
forget it after their last event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["DONE", "Event", "Reader", "block", "event", "events", "is_stream", "whole"]

DONE = b"[DONE]"
_BOM = b"\xef\xbb\xbf"
_DATA = b"data: "
_MEDIA = ("audio/", "image/", "video/")


class Event(NamedTuple):
    """``type`` is empty where the stream names none (the standard's ``message``)."""

    data: bytes
    type: bytes = b""


def is_stream(content_type: str, asked: bool) -> bool:
    """Say whether an answer is server-sent events: by its media type, else by what was ``asked`` for."""
    if "event-stream" in content_type:
        return True
    return asked and "json" not in content_type and not content_type.startswith(_MEDIA)


def events(body: bytes, tail: bytes = b"") -> Iterator[Event]:
    """Yield the events of a stream captured whole, or of its first bytes ``body`` and its last bytes ``tail``.

    The event that a cut goes through may come out damaged; what stands before and behind it does not.
    """
    for each in whole(body, tail).split(b"\n\n"):
        found = event(each)
        if found is not None:
            yield found


def whole(body: bytes, tail: bytes = b"") -> bytes:
    """Return a stream in one piece, every line of it ended by LF."""
    body = body.removeprefix(_BOM)
    if tail:
        body = body + b"\n\n" + tail
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return body


def block(stream: bytes, at: int) -> bytes:
    """Return the lines of a ``whole`` stream from ``at`` up to the next blank one: an ``event``, mostly."""
    end = stream.find(b"\n\n", at)
    return stream[at:end] if end >= 0 else stream[at:]


def event(lines: bytes) -> Event | None:
    """Return the event in the lines between two blank ones, if there is one."""
    # Nearly all events are one line of data; the general way costs five times as much.
    if lines.startswith(_DATA) and b"\n" not in lines:
        return Event(lines[6:])
    return _event(lines.split(b"\n")) if lines else None


def _event(lines: list[bytes]) -> Event | None:
    data: list[bytes] = []
    kind = b""
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
    return Event(b"\n".join(data), kind) if data else None


class Reader:
    """Reads a stream as it arrives, in pieces of any size::

        reader = Reader()
        for piece in pieces:
            for event in reader.feed(piece): ...
        for event in reader.close(): ...

    Memory is bounded by the longest event.
    """

    __slots__ = ("_begun", "_lines", "_pending")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._lines: list[bytes] = []
        self._begun = False

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that ``piece`` completes."""
        self._pending += piece
        if not self._begun:
            if len(self._pending) < len(_BOM) and _BOM.startswith(self._pending):
                return []
            if self._pending.startswith(_BOM):
                del self._pending[: len(_BOM)]
            self._begun = True
        elif b"\n" not in piece and b"\r" not in piece and self._pending[: -len(piece)][-1:] != b"\r":
            return []  # nothing ends here; looking again at what is pending would cost the square of its size
        return self._take(at_end=False)

    def close(self) -> list[Event]:
        """Return what the end of the stream completes."""
        found = self._take(at_end=True)
        if self._pending:
            self._lines.append(bytes(self._pending))
            self._pending.clear()
        if self._lines:
            ended = _event(self._lines)
            self._lines = []
            if ended is not None:
                found.append(ended)
        return found

    def _take(self, *, at_end: bool) -> list[Event]:
        pending = bytes(self._pending)
        # A CR at the end may be the first half of CRLF: which one it is shows with the next byte.
        held = b"\r" if not at_end and pending.endswith(b"\r") else b""
        if held:
            pending = pending[:-1]
        *lines, rest = pending.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._pending = bytearray(rest + held)
        found: list[Event] = []
        for line in lines:
            if line:
                self._lines.append(line)
            elif self._lines:
                ended = _event(self._lines)
                self._lines = []
                if ended is not None:
                    found.append(ended)
        return found
