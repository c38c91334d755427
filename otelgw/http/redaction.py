"""Takes the gateway's own credentials out of what an upstream says back.

Some upstreams repeat the key that they were sent in the text of an error. The deployment knows its secrets, so their
bytes are looked for as they are; each is replaced by as many asterisks, which leaves every length and all JSON intact.
"""

from __future__ import annotations

from collections.abc import Iterable

from otelgw.config.settings import Deployment
from otelgw.http.headers import CREDENTIALS
from otelgw.tracing.record import Capture

__all__ = ["is_secret_header", "mask", "mask_capture", "secrets_of", "values_of"]

# Parts of the names of headers that carry secrets; a configured header may be called anything.
_SECRET_WORDS = (b"auth", b"key", b"token", b"secret", b"cookie", b"credential", b"passw", b"signature")
_SHORTEST = 8  # bytes; anything shorter would be found in ordinary text


def is_secret_header(name: bytes) -> bool:
    """Say whether a header called ``name`` carries a credential."""
    lowered = name.lower()
    return lowered in CREDENTIALS or any(word in lowered for word in _SECRET_WORDS)


def values_of(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """Return the secrets in ``headers``: of ``Bearer <key>`` the key, and its JSON spelling where that differs."""
    found: dict[bytes, None] = {}
    for name, value in headers:
        if is_secret_header(name):
            secret = value.rpartition(b" ")[2]
            if len(secret) >= _SHORTEST:
                found[secret] = None
                found[secret.replace(b"/", b"\\/")] = None
    return tuple(found)


def secrets_of(deployment: Deployment) -> tuple[bytes, ...]:
    """Return the secrets that are sent to a deployment's upstream."""
    return values_of((*deployment.auth, *deployment.headers))


def mask(data: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Return ``data`` with each secret replaced by asterisks; the same object where there is none."""
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, b"*" * len(secret))
    return data


def mask_capture(capture: Capture, secrets: tuple[bytes, ...]) -> Capture:
    """Return a capture without the secrets; the same object where there is none."""
    head, tail = mask(capture.head, secrets), mask(capture.tail, secrets)
    if head is capture.head and tail is capture.tail:
        return capture
    return Capture(
        content_type=capture.content_type,
        encoding=capture.encoding,
        size=capture.size,
        head=head,
        tail=tail,
        sha256=capture.sha256,
        withheld=capture.withheld,
    )
