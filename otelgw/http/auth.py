"""Who calls: keys in, ``Caller`` out. Also the guard of a gateway that runs without a key, on loopback only.

A browser page can reach loopback too, by its own address or by a DNS name that is rebound to 127.0.0.1; so without a
master key the Host must be one that only a local program would use, and a foreign Origin is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping

from otelgw.config.settings import Auth
from otelgw.errors import RequestRefused
from otelgw.tracing.record import Caller

__all__ = ["ANYBODY", "Authenticator", "given_key", "is_loopback"]

ANYBODY = Caller(authenticated=True)  # no master key is set: everybody on loopback is trusted
_NOBODY = Caller()
_KEY_HEADERS = (b"x-litellm-api-key", b"api-key", b"x-api-key", b"x-goog-api-key")
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def is_loopback(host: str) -> bool:
    """Return whether ``host`` (a name or address, no port) means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback


def given_key(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key that a request carries, empty where it carries none."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, credential = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            return credential.strip()
    for name in _KEY_HEADERS:
        key = headers.get(name)
        if key:
            return key.removeprefix(b"Bearer ").strip()
    return b""


class Authenticator:
    """Decides about one request's credentials."""

    def __init__(self, auth: Auth, bound_host: str) -> None:
        self._auth = auth
        self._master = bytes.fromhex(auth.master_key_sha256)
        self._holder = Caller(
            authenticated=True, key_hash=auth.master_key_sha256, key_alias="master", user_id="default_user_id"
        )
        self._hosts = {bound_host.strip("[]").lower(), *(host.lower() for host in auth.allowed_hosts)}
        self._any_host = any(host in {"0.0.0.0", "::", "*"} for host in self._hosts)  # noqa: S104 - compared, not bound
        self._origins = {origin.rstrip("/").lower() for origin in auth.cors_allow_origins}

    @property
    def open(self) -> bool:
        """No master key is set."""
        return not self._master

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return the caller.

        Raises:
            RequestRefused: 401 for a missing or wrong key; 403 for a foreign Host or Origin without a master key.
        """
        if not self._master:
            self.guard(headers)
            return ANYBODY
        key = given_key(headers)
        digest = hashlib.sha256(key).digest()
        if key and hmac.compare_digest(digest, self._master):
            return self._holder
        reason = "The key is not known." if key else "A key is needed."
        raise RequestRefused("unauthorized", f"{reason} Send it as Authorization: Bearer <key>.")

    def recognise(self, headers: Mapping[bytes, bytes]) -> tuple[str, Caller | None]:
        """Return the SHA-256 of the key that a request carries, in hex, and the caller if it is the master key.

        Both are empty for a request without a key. To be asked only where a master key is set.
        """
        key = given_key(headers)
        if not key:
            return "", None
        digest = hashlib.sha256(key).digest()
        return digest.hex(), self._holder if hmac.compare_digest(digest, self._master) else None

    def is_master(self, caller: Caller) -> bool:
        """Say whether ``caller`` gave the master key; where none is set nobody did."""
        return bool(self._master) and caller.key_hash == self._auth.master_key_sha256

    def guard(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what only a web page would send, under a name that is not this machine's or from a foreign Origin.

        Raises:
            RequestRefused: 403 forbidden.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if host and not self._any_host and name.strip("[]") not in self._hosts and not is_loopback(name):
            raise RequestRefused(
                "forbidden",
                f"Host {name[:100]!r} is neither a loopback name nor the bound address. Without a master_key only "
                "local callers are served; set general_settings.master_key or otelgw.allowed_hosts.",
            )
        origin = headers.get(b"origin")
        if origin is not None and not self.allows_origin(origin):
            raise RequestRefused(
                "forbidden", "Requests from web pages need their Origin in general_settings.cors_allow_origins."
            )

    def allows_origin(self, origin: bytes) -> bool:
        return "*" in self._origins or origin.decode("latin-1").rstrip("/").lower() in self._origins
