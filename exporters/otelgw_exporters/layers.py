"""Attributes of which most are the same on many spans: what is shared is written once, and encoded once."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

__all__ = ["NOTHING_COMMON", "Layers"]

NOTHING_COMMON: Mapping[str, Any] = {}


class Layers(Mapping[str, Any]):
    """A span's attributes: ``shared`` are mappings that spans of other requests have too, ``own`` is what is this
    span's alone, ``common`` what all spans of its request have.

    To a reader it is all of them as one mapping, which is put together for the first reader. No layer is changed any
    more, and no name stands in two; where the caller cannot promise that, ``of`` sees to it.
    """

    __slots__ = ("_whole", "common", "own", "shared")

    def __init__(
        self, shared: tuple[Mapping[str, Any], ...], own: dict[str, Any], common: Mapping[str, Any] = NOTHING_COMMON
    ) -> None:
        self.shared = shared
        self.own = own
        self.common = common
        self._whole: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, shared: tuple[Mapping[str, Any], ...], own: dict[str, Any], common: Mapping[str, Any] = NOTHING_COMMON
    ) -> Layers:
        """Return the layers with every name in one of them: what is shared prevails, and ``common`` over ``own``.

        ``own`` is the caller's no more.
        """
        for layer in (*shared, common):
            if not layer.keys().isdisjoint(own.keys()):
                for key in own.keys() & layer.keys():
                    del own[key]
        for layer in shared:
            if not layer.keys().isdisjoint(common.keys()):
                common = {key: value for key, value in common.items() if key not in layer}
        return cls(shared, own, common)

    def whole(self) -> dict[str, Any]:
        """Return all layers in one, not to be changed."""
        whole = self._whole
        if whole is None:
            whole = {}
            for layer in self.shared:
                whole |= layer
            whole |= self.own
            whole |= self.common
            self._whole = whole
        return whole

    def __getitem__(self, key: str) -> Any:
        return self.whole()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole())

    def __len__(self) -> int:
        return len(self.own) + len(self.common) + sum(map(len, self.shared))

    def __contains__(self, key: object) -> bool:
        return key in self.own or key in self.common or any(key in layer for layer in self.shared)

    def get(self, key: str, default: Any = None) -> Any:
        for layer in (self.own, self.common, *self.shared):  # one name does not make it worth to put them together
            if key in layer:
                return layer[key]
        return default

    def keys(self) -> KeysView[str]:
        return self.whole().keys()

    def values(self) -> ValuesView[Any]:
        return self.whole().values()

    def items(self) -> ItemsView[str, Any]:
        return self.whole().items()

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.whole(), **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self.whole()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.whole()!r})"
