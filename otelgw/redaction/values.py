"""Values of attributes without patterns and media: text, JSON in text to any depth, lists and mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from otelgw.redaction import media
from otelgw.redaction.text import Named, redacted

__all__ = ["Rules"]

_DEPTH = 100
_SHORTEST_NUMBER = 7  # digits; a shorter one is no phone number and no card
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Rules:
    """What is taken out. Nothing is changed in place; what has nothing to take out is returned as it is."""

    finders: tuple[Named, ...] = ()
    media: bool = False

    def text(self, text: str, *, url: bool = False, depth: int = _DEPTH) -> str:
        """Return ``text`` redacted; JSON stays JSON.

        Raises:
            RecursionError: it is nested too deeply to be looked through.
        """
        if text[:64].lstrip()[:1] in ("{", "[", '"') and len(text) > 1:
            try:
                held = _decode(text)
            except _UNREADABLE:
                pass
            else:
                return self._json(text, held, depth)
        if self.media:
            text = media.without_data_urls(text)
        return redacted(text, self.finders, url=url)

    def _json(self, text: str, held: Any, depth: int) -> str:
        changed = self.value(held, depth=depth - 1)
        # Of two members of one name only the last is in ``held``: what the text itself betrays must go, too.
        if changed is held and redacted(text, self.finders) is text:
            return text
        return _encode(changed).decode()

    def value(self, value: Any, *, key: str = "", depth: int = _DEPTH) -> Any:
        """Return a value of an attribute, or of a part of one that is called ``key``, redacted.

        Raises:
            RecursionError: it is nested too deeply to be looked through.
        """
        if not depth:
            raise RecursionError("nested too deeply to be redacted")
        if isinstance(value, str):
            return self.text(value, depth=depth)
        if type(value) is int and abs(value) >= 10**_SHORTEST_NUMBER:
            digits = str(value)
            found = redacted(digits, self.finders)
            return value if found is digits else found
        if isinstance(value, Mapping):
            return self._mapping(value, key, depth)
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            items = [self.value(item, key=key, depth=depth - 1) for item in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else items
        return value

    def _mapping(self, value: Mapping[Any, Any], parent: str, depth: int) -> Mapping[Any, Any]:
        changed: dict[Any, Any] = {}
        same = True
        for key, item in value.items():
            name = redacted(key, self.finders) if isinstance(key, str) else key
            while name in changed:
                name = f"{name}_"
            kept = item
            if self.media and isinstance(item, str):
                kept = media.without_member(str(key), item, value, parent)
            changed[name] = self.value(kept, key=str(key), depth=depth - 1) if kept is item else kept
            same = same and name is key and changed[name] is item
        return value if same else changed
