"""One string without what the finders find in it, also where it is quoted JSON: ``a\\u0040b.de``, to any depth.

The finders look at the text as a reader of the JSON would see it; what they find is replaced in the text as it stands.
The replacement has no character that JSON would quote, so a text that is a piece of JSON stays one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from otelgw.redaction.presets import Finder

__all__ = ["Named", "redacted", "replacement"]

# A run of backslashes is one however often it was quoted. What follows it is what the reader sees.
_ESCAPE = re.compile(r"\\+(?:u([0-9A-Fa-f]{4})|([\"/bfnrt])|)")
_PERCENT = re.compile(r"(%[0-7][0-9A-Fa-f]|(?:%[89A-Fa-f][0-9A-Fa-f])+)")
_LEVELS = 4  # of escapes that are themselves escaped
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Named(NamedTuple):
    """A finder and the name that stands in place of what it finds."""

    name: str
    find: Finder


def replacement(name: str) -> str:
    """Return what stands in place of a match."""
    return f"[REDACTED:{name}]"


def redacted(text: str, finders: Sequence[Named], *, url: bool = False) -> str:
    """Return ``text`` with everything replaced that one of ``finders`` finds; the same object where that is nothing.

    ``url``: percent-encoding is read, too.
    """
    for name, find in finders:
        text = _without(text, name, find, url=url)
    return text


def _without(text: str, name: str, find: Finder, *, url: bool) -> str:
    if "\\" not in text and not (url and "%" in text):
        places = list(find(text))
    else:
        # Only as it is read: of ``\\nann@b.de`` in JSON the n is none of the address, and half an escape would be left.
        seen, origin = _seen(text, url=url)
        places = [(origin[start], origin[end]) for start, end in find(seen)]
    return _replaced(text, places, name) if places else text


def _replaced(text: str, places: Sequence[tuple[int, int]], name: str) -> str:
    parts = []
    at = 0
    for start, end in places:
        if start < at:  # two that overlap become one
            at = max(at, end)
            continue
        parts += [text[at:start], replacement(name)]
        at = end
    return "".join([*parts, text[at:]])


def _seen(text: str, *, url: bool) -> tuple[str, list[int]]:
    """Return ``text`` without its quoting, and for each character of it, and its end, where in ``text`` it stands."""
    seen, origin = text, list(range(len(text) + 1))
    for _ in range(_LEVELS):
        read, places = _read(seen, url=url)
        if read == seen:
            break
        seen, origin = read, [origin[place] for place in places]
    return seen, origin


def _read(text: str, *, url: bool) -> tuple[str, list[int]]:
    """Take one level of quoting off; returns what ``_seen`` does."""
    seen: list[str] = []
    origin: list[int] = []
    at = 0
    for match in (_PERCENT if url else _ESCAPE).finditer(text):
        seen.append(text[at : match.start()])
        origin.extend(range(at, match.start()))
        meant = _percent_decoded(match[1]) if url else _meant(match)
        seen.append(meant)
        origin.extend([match.start()] * len(meant))
        at = match.end()
    seen.append(text[at:])
    origin.extend(range(at, len(text) + 1))
    return "".join(seen), origin


def _meant(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return _CONTROLS.get(match[2], match[2]) if match[2] else "\\"


def _percent_decoded(run: str) -> str:
    return bytes.fromhex(run.replace("%", "")).decode("utf-8", "replace")
