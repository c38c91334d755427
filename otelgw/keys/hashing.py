"""From a key to what is kept of it.

A key is looked up by its SHA-256, without salt and without a slow hash. Those protect secrets that people choose, which
can be guessed; a key made here has 256 random bits, and one that somebody brings must be long. A slow hash would cost
every request tens of milliseconds and protect nothing. It is also what LiteLLM stores, so hashes can be compared.
"""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["SHORTEST", "digest", "display_name", "is_digest", "new_key"]

SHORTEST = 20
"""Characters of a key that is not made here. Shorter ones could be found by trying."""

_PREFIX = "sk-"
_RANDOM_BYTES = 32


def new_key() -> str:
    """Return a new key with 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(key: str) -> str:
    """Return the SHA-256 of ``key`` in hex: its name in the store, in records and in ``/key/info``."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_digest(text: str) -> bool:
    """Say whether ``text`` is a digest and no key."""
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def display_name(key: str) -> str:
    """Return what may be shown of a key, as LiteLLM's ``key_name``: its last four characters."""
    return f"{_PREFIX}...{key[-4:]}"
