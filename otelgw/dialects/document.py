"""JSON documents as they were captured: whole, cut short, with their middle missing, or no JSON at all.

Of a cut document the readable part is kept: the head is closed where it stops, so that it is valid JSON again (an
unfinished string keeps its beginning), and of the tail those members of the outermost object are added that stand in it
whole. Nothing is guessed: what cannot be read is left out.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

import msgspec

__all__ = ["Document", "load", "value_of"]

_BOM = b"\xef\xbb\xbf"
_TOKENS = 200_000  # of a damaged document; beyond it is read no further
_DEPTH = 200  # of a damaged document

_TOKEN = re.compile(
    rb'[ \t\r\n]*+(?:("[^"\\]*+(?:\\.[^"\\]*+)*+")|([{}\[\]:,])|(-?[0-9][0-9.eE+-]*+|true|false|null))', re.DOTALL
)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_UP_TO_STRUCTURE = re.compile(rb'[^",:\[\]{}]*+')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Half an escape, or the first half of a surrogate pair.
_DANGLING_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*((?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?)\Z")
_BEFORE_KEY = (b",", b"{")  # a string without one of them before it may be the end of a longer one
_CLOSER = {b"{": b"}", b"[": b"]"}

# What may come next, while a damaged document is walked through.
_VALUE, _FIRST_VALUE, _KEY, _FIRST_KEY, _COLON, _COMMA = range(6)
_VALUES = (_VALUE, _FIRST_VALUE)
_KEYS = (_KEY, _FIRST_KEY)

_decode = msgspec.json.Decoder().decode


class Document(NamedTuple):
    """``value`` is what could be read, None where nothing could; ``whole`` says whether that is all of it."""

    value: Any
    whole: bool


def load(body: bytes, tail: bytes = b"") -> Document:
    """Return the JSON in ``body``, or in a body that begins with ``body`` and ends with ``tail``. Never raises."""
    if not tail:
        try:
            return Document(_decode(body), True)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        if not body:
            return Document(None, False)
        body = body.removeprefix(_BOM)
        value = _tolerant(body)
        if value is not None:
            return Document(value, True)
    value = _tolerant(_closed(body.removeprefix(_BOM)))
    if tail and (value is None or isinstance(value, dict)):
        value = ((value or {}) | _members(tail)) or None
    return Document(value, False)


def value_of(text: str | bytes) -> Any:
    """Return the JSON value in ``text``; None where it is none."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return None


def _tolerant(body: bytes) -> Any:
    """Return the JSON in ``body`` although it breaks the standard: NaN, lone surrogates, bytes that are not UTF-8."""
    value = value_of(body)
    if value is not None:
        return value
    try:
        return _tidy(json.loads(body.decode("utf-8", "replace"), strict=False))
    except (ValueError, RecursionError):
        return None


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {_tidy(key): _tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _closed(head: bytes) -> bytes:
    """Return the beginning of a JSON document, closed so that it is one; empty if nothing of it can be kept."""
    closers: list[bytes] = []
    state, at, safe = _VALUE, 0, 0
    for _ in range(_TOKENS):
        match = _TOKEN.match(head, at)
        if match is None:
            break
        string, mark, literal = match.groups()
        if literal and match.end() == len(head):
            break  # the number may go on
        following = _next_state(state, string, mark, closers)
        if following is None or len(closers) > _DEPTH:
            break
        state, at = following, match.end()
        if state in (_FIRST_KEY, _FIRST_VALUE, _COMMA):
            safe = at
        if not closers:
            break
    kept = head[:safe]
    if state in _VALUES:
        start = _SPACE.match(head, at).end()  # type: ignore[union-attr]  # the pattern matches anywhere
        if head[start : start + 1] == b'"' and _REST_OF_STRING.match(head, start + 1) is None:
            kept = head[:start] + _shortened(head[start:]) + b'"'
    return kept + b"".join(reversed(closers)) if kept else b""


def _next_state(state: int, string: bytes | None, mark: bytes | None, closers: list[bytes]) -> int | None:
    """Return what may come after a token, or None where the token may not stand here; opens and closes ``closers``."""
    if string and state in _KEYS:
        return _COLON
    if mark is None:
        return _COMMA if state in _VALUES else None
    if mark in _CLOSER:
        if state not in _VALUES:
            return None
        closers.append(_CLOSER[mark])
        return _FIRST_KEY if mark == b"{" else _FIRST_VALUE
    if mark == b":":
        return _VALUE if state == _COLON else None
    if mark == b",":
        return (_KEY if closers[-1:] == [b"}"] else _VALUE) if state == _COMMA else None
    if closers[-1:] != [mark] or state not in (_COMMA, _FIRST_KEY if mark == b"}" else _FIRST_VALUE):
        return None
    closers.pop()
    return _COMMA


def _shortened(string: bytes) -> bytes:
    """Return the beginning of a string without the half of an escape or of a character at its end."""
    dangling = _DANGLING_ESCAPE.search(string)
    if dangling:
        string = string[: dangling.start(1)]
    for size in range(min(3, len(string))):
        lead = string[len(string) - 1 - size]
        if lead & 0xC0 == 0x80:
            continue
        needed = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
        return string[: len(string) - 1 - size] if needed > size + 1 else string
    return string


def _members(tail: bytes) -> dict[str, Any]:
    """Return the members of the outermost object that stand whole in ``tail``, the end of a document."""
    outside = _UP_TO_STRUCTURE.match(tail)
    inside = _REST_OF_STRING.match(tail)
    # The cut may have fallen inside a string; read with the wrong assumption, the tail is no sequence of tokens.
    for start in (outside, inside):
        tokens = _tokens(tail, start.end()) if start else None
        if tokens:
            return _outermost(tail, tokens)
    return {}


def _tokens(tail: bytes, at: int) -> list[tuple[int, bytes, int, int]]:
    """Return (depth relative to the start, mark or empty, start, end) of each token; nothing where there is more."""
    found: list[tuple[int, bytes, int, int]] = []
    depth = 0
    end = len(tail.rstrip())
    while at < end:
        match = _TOKEN.match(tail, at)
        if match is None or len(found) > _TOKENS:
            return []
        mark = match.group(2) or b""
        if mark in _CLOSER:
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
        found.append((depth, mark, match.start(match.lastindex or 0), match.end()))
        at = match.end()
    return found if found and found[-1][1] == b"}" else []


def _outermost(tail: bytes, tokens: list[tuple[int, bytes, int, int]]) -> dict[str, Any]:
    inner = tokens[-1][0] + 1
    members: dict[str, Any] = {}
    key = ""
    start = -1
    for at, (depth, mark, begin, end) in enumerate(tokens):
        if start >= 0 and ((depth == inner and mark == b",") or at == len(tokens) - 1):
            value = _tolerant(tail[start:begin])
            if value is not None and key:
                members[key] = value
            start = -1
        elif depth == inner and mark == b":" and at > 1 and not tokens[at - 1][1] and tokens[at - 2][1] in _BEFORE_KEY:
            name = _tolerant(tail[tokens[at - 1][2] : tokens[at - 1][3]])
            key, start = (name, end) if isinstance(name, str) else ("", -1)
    return members
