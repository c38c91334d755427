"""Marked secrets and the search for any piece of one, also where it was encoded on the way."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from urllib.parse import quote

__all__ = ["Canaries"]

_PIECE = 8  # characters of a secret that must not be found anywhere
# No hexadecimal digits but 2 to 9: ids and hashes cannot look like a piece.
_ALPHABET = "GHJKLMNPQRSTUVWXYZghjkmnpqrstuvwxyz23456789/+="
_LENGTH = 40


class Canaries:
    """Secrets by name, made when they are first asked for: ``canaries["caller"]`` is the same text every time."""

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._made:
            digest = hashlib.sha512(f"canary {name}".encode()).digest()
            self._made[name] = "sk-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:_LENGTH])
        return self._made[name]

    def found(self, data: bytes) -> list[str]:
        """Return the names of the secrets of which a piece is in ``data``, each with what stands around it."""
        pieces = {piece: name for name, secret in self._made.items() for piece in _pieces(secret)}
        hits: dict[str, str] = {}
        for at in range(len(data) - _PIECE + 1):
            name = pieces.get(data[at : at + _PIECE])
            if name is not None and name not in hits:
                hits[name] = data[max(0, at - 60) : at + 60].decode("utf-8", "replace")
        return [f"{name}: {around!r}" for name, around in hits.items()]


def _pieces(secret: str) -> set[bytes]:
    """Return every run of characters that tells a part of ``secret``, plain, URL-encoded or in base64."""
    raw = secret.removeprefix("sk-").encode()
    forms = [raw, quote(raw, safe="").encode(), *_in_base64(raw)]
    return {form[at : at + _PIECE] for form in forms for at in range(len(form) - _PIECE + 1)}


def _in_base64(raw: bytes) -> Iterable[bytes]:
    """Yield what base64 makes of ``raw`` at each of the three places where it can begin, without the uncertain ends."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        inner = encoded[4 : len(encoded) - len(encoded) % 4 - 4]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")
