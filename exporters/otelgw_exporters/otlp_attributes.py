"""The attributes of spans in OTLP's wire format, as a destination reads them.

Most attributes of a request are those of the one before it: what is shared is encoded once a set (``Layers``), short
values once each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from otelgw_exporters import semconv
from otelgw_exporters.layers import Layers
from otelgw_exporters.otlp_values import attributes, double_head, pair, text_head, utf8

__all__ = ["Attributes", "Singly"]

_pack = struct.Struct("<d").pack
_AS_JSON = semconv.FORMS["json_string"]
# Their values are new with every request: to remember them is to forget what comes again.
_UNIQUE = frozenset(
    {
        semconv.CLIENT_ADDRESS,
        semconv.GEN_AI_RESPONSE_ID,
        semconv.OTELGW_ATTEMPT_REQUEST_ID,
        semconv.OTELGW_CALL_ID,
        semconv.OTELGW_REQUEST_SHA256,
        semconv.OTELGW_RESPONSE_SHA256,
    }
)
_SHORT = 80  # characters: a hash in hex; longer values are mostly unique
_KNOWN = 20_000  # layers
_VALUES = 8192  # short values

Shape = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Singly(NamedTuple):
    """What is known of a shape, so that attributes can be taken one by one.

    Those in ``dropped`` are left out, one in ``special`` has to go through the shape by itself, of any other only the
    value is changed, by ``form``. Where one of ``merged`` is there, two may become one: the shape has to see all.
    """

    form: Callable[[Any], Any]
    dropped: frozenset[str]
    special: frozenset[str]
    merged: frozenset[str]


class _Name:
    """What is known of an attribute: the short ``values`` it had, encoded, None where none is to be remembered; what
    stands before a number, empty where numbers are no plain matter."""

    __slots__ = ("before_number", "values")

    def __init__(self, before_number: bytes, values: dict[Any, bytes] | None) -> None:
        self.before_number = before_number
        self.values = values


class Attributes:
    """Encodes attributes; ``shape`` gives them as the destination reads them, ``singly`` says what it does to each."""

    def __init__(self, shape: Shape, singly: Singly | None = None) -> None:
        self._shape = shape
        self._singly = singly
        self._names: dict[str, _Name] = {}
        self._remembered = 0
        # By identity, the object kept alive: layers have no hash.
        self._layers: dict[int, tuple[object, bytes]] = {}
        self._common: tuple[object, bytes] = (None, b"")

    def __call__(self, given: Mapping[str, Any]) -> list[bytes]:
        """Return the pieces of a Span's attributes.

        Raises:
            ValueError, TypeError: one of them cannot be expressed in OTLP.
        """
        singly = self._singly
        if singly is None or (singly.merged and any(name in given for name in singly.merged)):
            return [attributes(9, self._shape(given))]
        found: list[bytes] = []
        if type(given) is not Layers:
            self._add(found, given)
            return found
        for layer in given.shared:
            known = self._layers.get(id(layer))
            found.append(known[1] if known is not None else self._layer(layer))
        self._add(found, given.own)
        common, encoded = self._common  # of the span before this one, which mostly is of the same request
        if common is not given.common:
            pieces: list[bytes] = []
            self._add(pieces, given.common)
            encoded = b"".join(pieces)
            self._common = (given.common, encoded)
        found.append(encoded)
        return found

    def is_plain(self, names: frozenset[str], dropped: frozenset[str]) -> bool:
        """Say whether ``names`` stay, structured values become JSON, and ``dropped`` are left out."""
        singly = self._singly
        return (
            singly is not None
            and singly.form is _AS_JSON
            and dropped <= singly.dropped
            and names.isdisjoint(singly.dropped | singly.special | singly.merged)
        )

    def _layer(self, layer: Mapping[str, Any]) -> bytes:
        pieces: list[bytes] = []
        self._add(pieces, layer)
        encoded = b"".join(pieces)
        if len(self._layers) > _KNOWN:
            self._layers.clear()
        self._layers[id(layer)] = (layer, encoded)
        return encoded

    def _add(self, pieces: list[bytes], given: Mapping[str, Any]) -> None:
        names, add = self._names, pieces.append
        for key, value in given.items():
            name = names.get(key)
            if name is None:
                name = self._name(key)
            kind = type(value)
            # A boolean is equal to a number, so it is not among the values.
            if (kind is str and len(value) <= _SHORT) or kind is int:
                values = name.values
                if values is not None:
                    add(values.get(value) or self._remember(values, key, value, value))
                    continue
            elif kind is float:
                if name.before_number:
                    add(name.before_number + _pack(value))
                    continue
            elif kind is list and len(value) == 1 and type(value[0]) is str:
                values, only = name.values, (value[0],)
                if values is not None:
                    add(values.get(only) or self._remember(values, key, value, only))
                    continue
            pieces += self._one(key, value)

    def _name(self, key: str) -> _Name:
        singly = self._singly
        if singly is None or key in singly.dropped:
            name = _Name(b"", None)
        else:
            plain = key not in singly.special
            name = _Name(double_head(key) if plain else b"", None if key in _UNIQUE else {})
        if len(self._names) > _VALUES:
            self._names = {}
        self._names[key] = name
        return name

    def _remember(self, values: dict[Any, bytes], key: str, value: Any, as_key: Any) -> bytes:
        encoded = b"".join(self._one(key, value))
        self._remembered += 1
        if self._remembered > _VALUES:
            self._names, self._remembered = {}, 0
        elif encoded and len(encoded) < 4 * _SHORT:
            values[as_key] = encoded
        return encoded

    def _one(self, key: str, value: Any) -> tuple[bytes, ...]:
        """Return the pieces of one attribute."""
        singly = self._singly
        if singly is None or key in singly.special:
            return (attributes(9, self._shape({key: value})),)
        if key in singly.dropped:
            return ()
        kind = type(value)
        if kind is str:
            text = utf8(value)
        elif kind is list and value and type(value[0]) is dict and singly.form is _AS_JSON:
            text = semconv.json_text(value)
        else:
            formed = singly.form(value)
            if type(formed) is not str:
                return (pair(9, key, formed),)
            text = utf8(formed)
        return text_head(key, len(text)), text
