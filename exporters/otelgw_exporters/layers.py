"""Attributes of which most are the same on many spans: what is shared is written once, and encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Layers"]


class Layers(dict[str, Any]):
    """A span's attributes. ``shared`` are mappings that other spans have too, ``own`` is what is this span's alone.

    To a reader it is all of them as one mapping, and it is not to be changed. No name stands in two layers; where the
    caller cannot promise that, ``of`` sees to it: what is shared prevails.
    """

    __slots__ = ("own", "shared")

    def __init__(self, shared: tuple[Mapping[str, Any], ...], own: dict[str, Any]) -> None:
        super().__init__(shared[0] if shared else {})
        for layer in shared[1:]:
            self.update(layer)
        self.update(own)
        self.shared = shared
        self.own = own

    @classmethod
    def of(cls, shared: tuple[Mapping[str, Any], ...], own: dict[str, Any]) -> Layers:
        """Return the layers after taking out of ``own``, which is the caller's no more, what is shared."""
        for layer in shared:
            for key in own.keys() & layer:
                del own[key]
        return cls(shared, own)
