"""Fields of untrusted JSON as attribute values: a table says which field becomes which attribute, and as what type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from otelgw_exporters import semconv

__all__ = [
    "RESPONSE",
    "Table",
    "choice_count",
    "count",
    "cut",
    "flag",
    "integer",
    "mapping",
    "mappings",
    "number",
    "string",
    "strings",
    "taken",
]

Reader = Callable[[Any], Any]
Table = tuple[tuple[str, str, Reader], ...]
"""Rows of (field, attribute, reader); where two fields give one attribute, the later row wins."""

_INT64 = 1 << 63
_SENTENCE = 1024  # bytes of an error message


def string(value: Any) -> str | None:
    """Return a non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def integer(value: Any) -> int | None:
    """Return an integer of 64 bits, also one written as 12.0; else None."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -_INT64 <= value < _INT64 else None


def count(value: Any) -> int | None:
    """Return an integer that is not negative, else None."""
    if type(value) is not int:
        value = integer(value)
    return value if value is not None and 0 <= value < _INT64 else None


def number(value: Any) -> float | None:
    """Return a finite number as float, else None."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is not int:
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if math.isfinite(as_float) else None


def flag(value: Any) -> bool | None:
    """Return True for true; a false flag is the same as an absent one."""
    return True if value is True else None


def strings(value: Any) -> list[str] | None:
    """Return the strings of a list, or the one string as a list; None where there is none."""
    if isinstance(value, str):
        return [value] if value else None
    if not isinstance(value, list):
        return None
    return [item for item in value if isinstance(item, str)] or None


def choice_count(value: Any) -> int | None:
    """Return the number of choices asked for where it is not 1, which is how the conventions want it."""
    asked = count(value)
    return asked if asked != 1 else None


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> Iterable[dict[str, Any]]:
    """Return the objects of a list; nothing in place of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else ()


def taken(source: dict[str, Any], table: Table) -> dict[str, Any]:
    """Return the attributes that ``table`` finds in ``source``."""
    found: dict[str, Any] = {}
    for name, attribute, reader in table:
        if name in source:
            read = reader(source[name])
            if read is not None:
                found[attribute] = read
    return found


def cut(text: str, size: int = _SENTENCE) -> str:
    """Return ``text`` with at most ``size`` bytes of UTF-8."""
    if len(text) * 4 <= size:
        return text
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


RESPONSE: Table = (
    ("id", semconv.GEN_AI_RESPONSE_ID, string),
    ("model", semconv.GEN_AI_RESPONSE_MODEL, string),
    ("service_tier", semconv.OPENAI_RESPONSE_SERVICE_TIER, string),
    ("system_fingerprint", semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT, string),
)
