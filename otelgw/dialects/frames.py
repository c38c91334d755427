"""Streamed chat chunks that differ in a piece of text only: a run of them is read without decoding each.

Of a long answer nearly all chunks are the same bytes around a few characters. What stands around them, the frame, is
learned from one chunk that was decoded, and proved on it: with another text put in, it has to decode to that chunk with
that text. Whatever does not fit the frame is left to be decoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from otelgw.dialects.document import value_of

__all__ = ["Frames", "Run"]

_DATA, _BLANK = b"data: ", b"\n\n"
_FIELDS = frozenset({"content", "reasoning", "reasoning_content", "refusal"})
_PLACED = frozenset({"delta", "finish_reason", "index"})
_PADDING = "obfuscation"  # a text of random length that OpenAI puts beside the choices
_TRIED, _PADDED = "a text", "0aZ"
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_LEAST, _MOST = 16_384, 131_072  # bytes that are looked at for a run: more while all of them are one
_WORTH = 4  # events of a run that is worth looking for
_MISSES = 4  # times on end that there was no such run, after which a stream is taken to have none


class _Frame(NamedTuple):
    """What stands in an event ``before`` and ``after`` its text; where there is padding, that comes next, then ``end``.

    ``choice`` and ``field`` say what the text belongs to.
    """

    choice: int
    field: str
    before: bytes
    after: bytes
    end: bytes

    @property
    def ending(self) -> bytes:
        return self.end or self.after

    def texts(self, events: Sequence[bytes]) -> list[bytes]:
        """Return the texts of the first of ``events``, less their ending, up to one that is of another shape.

        They are as they may be written inside a JSON string; whether they are is for the caller to see.
        """
        before, after = self.before, self.after
        if not self.end:
            texts = [event.removeprefix(before) for event in events]
            if sum(map(len, texts)) + len(events) * len(before) == sum(map(len, events)):
                return texts
        texts = []
        for event in events:
            text, _, padding = event[len(before) :].partition(after) if self.end else (event[len(before) :], b"", b"0")
            if not event.startswith(before) or not padding.isalnum():
                break
            texts.append(text)
        return texts

    def holds(self, event: bytes) -> bool:
        return event.endswith(self.ending) and _joined(self.texts([event.removesuffix(self.ending)]))[1] == 1


class Run(NamedTuple):
    """Events, one after the other, that add ``text`` to a ``field`` of a ``choice`` and nothing else.

    ``length`` is theirs in bytes.
    """

    length: int
    choice: int
    field: str
    text: str


class Frames:
    """The frames of one stream."""

    __slots__ = ("_frame", "_misses", "_reach")

    def __init__(self) -> None:
        self._frame: _Frame | None = None
        self._reach = _LEAST
        self._misses = 0

    def run(self, stream: bytes, at: int, model: bytes, chunk: dict[str, Any]) -> Run | None:
        """Return the run of events at ``at`` that are like the one before them, ``model``, which holds ``chunk``."""
        frame = self._frame
        if self._misses > _MISSES:
            return None
        if frame is None or not frame.holds(model):
            frame = self._frame = _learned(model, chunk)
        if frame is None:
            return None
        if not stream.startswith(frame.before, at):
            self._misses += 1
            return None
        between = frame.ending + _BLANK
        events = stream[at : at + self._reach].split(between)
        events.pop()  # it has another ending, or none
        said, count = _joined(frame.texts(events))
        if frame.end and count:  # of the padding the last one counts, so that one is left to be read whole
            said, count = _joined(frame.texts(events[: count - 1]))
        self._misses = 0 if count >= _WORTH else self._misses + 1
        if not count:
            return None
        self._reach = min(4 * self._reach, _MOST) if count >= len(events) - 1 else _LEAST
        return Run(sum(map(len, events[:count])) + count * len(between), frame.choice, frame.field, said)


def _joined(texts: Sequence[bytes]) -> tuple[str, int]:
    """Return what the first of ``texts`` add up to, and how many they are: up to one that is no text of JSON's."""
    whole = b"".join(texts)
    said = value_of(b'"%b"' % whole) if whole.isascii() and b'"' not in whole and b"\\" not in whole else None
    if said is not None:
        return said, len(texts)
    # Each by itself: two halves of a character or of an escape would make a whole one together.
    values = list(takewhile(_is_text, (value_of(b'"%b"' % text) for text in texts)))
    return "".join(values), len(values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _learned(event: bytes, chunk: dict[str, Any]) -> _Frame | None:
    """Return the frame of ``event``, which holds ``chunk``; None where it is not known to have one.

    A frame is such that a second chunk of it changes nothing but the text: all else is the same or nothing.
    """
    choices = chunk.get("choices")
    if chunk.get("error") or not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    delta, index = choice.get("delta"), choice.get("index")
    if not isinstance(delta, dict) or any(choice[key] is not None for key in choice.keys() - _PLACED):
        return None
    told = [key for key, value in delta.items() if value is not None and key != "role"]
    if len(told) != 1 or told[0] not in _FIELDS or type(delta[told[0]]) is not str:
        return None
    (field,) = told
    found = _around(event, field)
    if found is None:
        return None
    before, after, end = *found, b""
    proof: dict[str, Any] = chunk | {"choices": [choice | {"delta": delta | {field: _TRIED}}]}
    sample = b"%b%b%b" % (before[len(_DATA) :], _TRIED.encode(), after)
    if isinstance(chunk.get(_PADDING), str) and (padded := _around(after, _PADDING)) is not None:
        after, end = padded
        proof[_PADDING] = _PADDED
        sample = b"%b%b%b%b%b" % (before[len(_DATA) :], _TRIED.encode(), after, _PADDED.encode(), end)
    if value_of(sample) != proof:
        return None
    return _Frame(index if type(index) is int else 0, field, before, after, end)


def _around(text: bytes, field: str) -> tuple[bytes, bytes] | None:
    """Return what stands around the text of the first ``field`` that has one, its quotes included."""
    for opening in (b'"%b":"' % field.encode(), b'"%b": "' % field.encode()):
        at = text.find(opening)
        if at >= 0:
            start = at + len(opening)
            rest = _REST_OF_STRING.match(text, start)
            return (text[:start], text[rest.end() - 1 :]) if rest is not None else None
    return None
