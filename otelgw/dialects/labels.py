"""What callers attach to a request beside what the model is to do: metadata, tags, user and session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from otelgw.dialects.credentials import is_secret, redacted
from otelgw.dialects.fields import mapping, string, strings
from otelgw_exporters import semconv

__all__ = ["from_metadata", "from_request", "is_label"]

_IDENTIFIER = 1024  # characters of an id chosen by the caller
_FIRST_CLASS = frozenset({"session_id", "tags"})


def from_request(body: dict[str, Any]) -> dict[str, Any]:
    """Return the labels in a request body: ``metadata``, ``tags`` and ``user`` as OpenAI and LiteLLM name them."""
    found: dict[str, Any] = {}
    for name in ("litellm_metadata", "metadata"):
        value = body.get(name)
        if value:
            found |= from_metadata(mapping(value))
    tags = strings(body.get("tags"))
    if tags:
        found[semconv.OTELGW_TAGS] = tags
    user = string(body.get("user")) or string(body.get("safety_identifier"))
    if user:
        found[semconv.USER_ID] = user[:_IDENTIFIER]
    return found


def from_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata`` as attributes: its tags and session id by their own names, the values of secrets left out."""
    found: dict[str, Any] = {}
    tags = strings(metadata.get("tags"))
    if tags:
        found[semconv.OTELGW_TAGS] = tags
    session = string(metadata.get("session_id"))
    if session:
        found[semconv.SESSION_ID] = session[:_IDENTIFIER]
    for key, value in metadata.items():
        if key and key not in _FIRST_CLASS and value is not None and not is_secret(key):
            found[semconv.OTELGW_METADATA + key] = _plain(value)
    return found


def is_label(attribute: str) -> bool:
    """Say whether ``attribute`` belongs on every span of a request."""
    return attribute.startswith("otelgw.") or attribute in (semconv.USER_ID, semconv.SESSION_ID)


def _plain(value: Any) -> Any:
    """Return an attribute value of a simple type: anything nested becomes JSON text."""
    if isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return msgspec.json.encode(redacted(value)).decode()
