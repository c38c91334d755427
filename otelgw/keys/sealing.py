"""Encryption of what tenants give us to keep: the settings of their own destinations, credentials among them.

AES-256-GCM under a key that is derived from OTELGW_SALT_KEY (or LITELLM_SALT_KEY). The ciphertext is bound to whom it
belongs to, so that a row copied to another key or team cannot be opened there. Whoever loses the salt key loses the
settings; whoever steals the database has nothing without it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from otelgw.errors import OtelgwError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SealError", "Sealer"]

_PREFIX = "v1."
_NONCE = 12
_LABEL = b"otelgw callback variables v1"
_WITHOUT_KEY = (
    "settings of a destination that come over HTTP are kept encrypted, and there is no key to do that with: set "
    "OTELGW_SALT_KEY (or LITELLM_SALT_KEY) to a long random text and restart, or put them into the config file"
)


class SealError(OtelgwError):
    """Something cannot be sealed or opened; never shows what."""


class Sealer:
    """Seals and opens with one salt key; an empty one refuses both."""

    def __init__(self, salt_key: str) -> None:
        self._salt_key = salt_key

    def seal(self, variables: dict[str, Any], owner: str) -> str:
        """Return ``variables`` encrypted for ``owner`` (``store.key_subject`` or ``team_subject``).

        Raises:
            SealError: there is no salt key, or no cryptography.
        """
        nonce = os.urandom(_NONCE)
        sealed = self._cipher().encrypt(nonce, msgspec.json.encode(variables), owner.encode())
        return _PREFIX + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, owner: str) -> dict[str, Any]:
        """Return what ``seal`` was given.

        Raises:
            SealError: it was sealed with another salt key or for another owner, or it is damaged.
        """
        from cryptography.exceptions import InvalidTag

        try:
            if not sealed.startswith(_PREFIX):
                raise ValueError("another version's")
            raw = base64.urlsafe_b64decode(sealed.removeprefix(_PREFIX))
            opened = self._cipher().decrypt(raw[:_NONCE], raw[_NONCE:], owner.encode())
            variables = msgspec.json.decode(opened, type=dict[str, Any])
        except (InvalidTag, ValueError, binascii.Error, msgspec.DecodeError):
            raise SealError(
                f"the destination's settings of {owner.partition(':')[0]} cannot be decrypted: was OTELGW_SALT_KEY "
                "changed? Set it to what it was, or give the settings again"
            ) from None
        return variables

    def _cipher(self) -> AESGCM:
        if not self._salt_key:
            raise SealError(_WITHOUT_KEY)
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise SealError("encryption needs cryptography: pip install 'otelgw[keys]'") from None
        return AESGCM(_derived(self._salt_key))


@lru_cache(maxsize=2)
def _derived(salt_key: str) -> bytes:
    """Return the encryption key; slow on purpose (about 50 ms, once), as people choose short salt keys."""
    return hashlib.scrypt(salt_key.encode(), salt=_LABEL, n=2**14, r=8, p=1, dklen=32)
