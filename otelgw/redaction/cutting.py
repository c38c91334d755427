"""Content that is too long for a destination, cut: what was JSON is JSON afterwards, and every cut is marked.

Strings are cut first, the longest ones most; then lists lose their middle. What is still too long after that is
replaced by its size.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

__all__ = ["cut", "size"]

_KEPT = 16  # characters of a string, items at either end of a list: less says nothing
_DEPTH = 64
_decode = msgspec.json.Decoder().decode


def size(value: Any) -> int:
    """Return the bytes of a text in UTF-8, or of anything else as JSON."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    return len(_encoded(value))


def cut(value: Any, limit: int) -> Any:
    """Return ``value`` with at most ``limit`` bytes (at least 256); the same object where it has no more."""
    if size(value) <= limit:
        return value
    if not isinstance(value, str):
        return _shortened(value, limit)
    if value[:64].lstrip()[:1] in ("{", "["):
        try:
            return _encoded(_shortened(_decode(value), limit)).decode()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    return _text(value, limit)


def _shortened(value: Any, limit: int) -> Any:
    """Return a structured value with shorter strings and lists."""
    length = limit
    while length >= _KEPT:
        shorter = _strings(value, length, _DEPTH)
        if size(shorter) <= limit:
            return shorter
        length //= 2
    items = 64
    while items:
        shorter = _lists(_strings(value, _KEPT, _DEPTH), items, _DEPTH)
        if size(shorter) <= limit:
            return shorter
        items //= 2
    mark = _mark(size(value), "bytes")
    return [mark] if isinstance(value, list | tuple) else {"cut": mark}


def _strings(value: Any, length: int, depth: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length else value[:length] + _mark(len(value) - length, "characters")
    if isinstance(value, dict):
        return {key: _strings(item, length, depth - 1) for key, item in value.items()} if depth else {}
    if isinstance(value, list | tuple):
        return [_strings(item, length, depth - 1) for item in value] if depth else []
    return value


def _lists(value: Any, items: int, depth: int) -> Any:
    """Keep ``items`` of each list and mapping: the first ones and the last ones."""
    if isinstance(value, dict):
        kept = list(value.items())[:items] if depth else []
        found = {key: _lists(item, items, depth - 1) for key, item in kept}
        return found if len(kept) == len(value) else {**found, "cut": _mark(len(value) - len(kept), "members")}
    if not isinstance(value, list | tuple):
        return value
    if len(value) <= items:
        return [_lists(item, items, depth - 1) for item in value]
    first = [_lists(item, items, depth - 1) for item in value[: items - items // 2]]
    last = [_lists(item, items, depth - 1) for item in value[len(value) - items // 2 :]]
    return [*first, _mark(len(value) - items, "items"), *last]


def _text(text: str, limit: int) -> str:
    encoded = text.encode("utf-8", "surrogatepass")
    mark = _mark(len(encoded) - limit, "bytes")
    kept = encoded[: max(0, limit - len(mark.encode()) - 4)].decode("utf-8", "ignore")
    return kept + _mark(len(encoded) - len(kept.encode()), "bytes")


def _mark(count: int, what: str) -> str:
    return f"…[{count} {what} cut]"


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):  # a lone surrogate, an unusual key
        return json.dumps(value, default=str).encode()
