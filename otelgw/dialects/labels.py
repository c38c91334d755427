"""What callers attach to a request beside what the model is to do: metadata, tags, user and session.

Callers choose them, so they are bounded. What is too much, or of a type that says nothing, is left out and counted in
``otelgw.labels.dropped``; texts that are too long are cut. None of it ever costs the trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from otelgw.dialects.credentials import is_secret, redacted
from otelgw.dialects.fields import string
from otelgw_exporters import semconv

__all__ = ["FIELDS", "from_metadata", "from_request", "is_label", "joined"]

FIELDS = frozenset({"litellm_metadata", "metadata", "safety_identifier", "tags", "user"})
"""The fields of a request that ``from_request`` reads."""

_IDENTIFIER = 1024  # characters of an id chosen by the caller
_TAGS = 64
_TAG = 256  # characters
_KEYS = 1024  # of metadata; a span's own limit is lower
_KEY = 128  # characters
_VALUE = 8192  # characters of a text
_FIRST_CLASS = frozenset({"session_id", "tags"})
_USER = "trace_user_id"  # the user of metadata, where the body names none


def from_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the labels in a request body: ``metadata``, ``tags`` and ``user`` as OpenAI and LiteLLM name them."""
    found: dict[str, Any] = {}
    dropped = 0
    for name in ("litellm_metadata", "metadata"):
        value = body.get(name)
        if isinstance(value, dict):
            found = joined(found, from_metadata(value)) if value else found
        elif value is not None:
            dropped += 1
    if "tags" in body:
        dropped += _put_tags(found, body["tags"])
    user = string(body.get("user")) or string(body.get("safety_identifier"))
    if user:
        found[semconv.USER_ID] = user[:_IDENTIFIER]
    elif body.get("user") is not None and body["user"] != "":
        dropped += 1
    return _counted(found, dropped)


def from_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata`` as attributes: its tags, session and user by their own names, the values of secrets left
    out."""
    found: dict[str, Any] = {}
    dropped = _put_tags(found, metadata["tags"]) if "tags" in metadata else 0
    for key, attribute in (("session_id", semconv.SESSION_ID), (_USER, semconv.USER_ID)):
        value = string(metadata.get(key))
        if value:
            found[attribute] = value[:_IDENTIFIER]
        elif metadata.get(key) not in (None, "") and key in _FIRST_CLASS:
            dropped += 1
    kept = 0
    for key, value in metadata.items():
        if key in _FIRST_CLASS or not key or value is None or is_secret(key):
            continue
        if kept >= _KEYS or len(key) > _KEY:
            dropped += 1
            continue
        kept += 1
        found[semconv.OTELGW_METADATA + key] = _plain(value)
    return _counted(found, dropped)


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; ``above`` wins, the tags of both are joined, and what either left out is counted."""
    found = {**below, **above}
    if semconv.OTELGW_TAGS in below and semconv.OTELGW_TAGS in above:
        tags = dict.fromkeys((*below[semconv.OTELGW_TAGS], *above[semconv.OTELGW_TAGS]))
        found[semconv.OTELGW_TAGS] = list(tags)[:_TAGS]
    if semconv.OTELGW_LABELS_DROPPED in below and semconv.OTELGW_LABELS_DROPPED in above:
        found[semconv.OTELGW_LABELS_DROPPED] += below[semconv.OTELGW_LABELS_DROPPED]
    return found


@lru_cache(maxsize=4096)
def is_label(attribute: str) -> bool:
    """Say whether ``attribute`` belongs on every span of a request."""
    return attribute.startswith("otelgw.") or attribute in (semconv.USER_ID, semconv.SESSION_ID)


def _counted(found: dict[str, Any], dropped: int) -> dict[str, Any]:
    if dropped:
        found[semconv.OTELGW_LABELS_DROPPED] = found.get(semconv.OTELGW_LABELS_DROPPED, 0) + dropped
    return found


def _put_tags(found: dict[str, Any], value: Any) -> int:
    """Add tags, each once; return how many were of no use or too many."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list):
        return int(value is not None)
    usable = dict.fromkeys(tag[:_TAG] for tag in given if isinstance(tag, str) and tag)
    tags = list(dict.fromkeys((*found.get(semconv.OTELGW_TAGS, ()), *usable)))
    if tags:
        found[semconv.OTELGW_TAGS] = tags[:_TAGS]
    wrong = sum(not isinstance(tag, str) for tag in given)
    return wrong + max(0, len(tags) - _TAGS)


def _plain(value: Any) -> Any:
    """Return an attribute value of a simple type: anything nested becomes JSON text."""
    if isinstance(value, str):
        return value[:_VALUE]
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item[:_TAG] for item in value[:_TAGS]]
    return msgspec.json.encode(redacted(value)).decode()[:_VALUE]
