"""What the console destination prints, read back."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["printed_spans"]


def printed_spans(text: str) -> list[dict[str, Any]]:
    """Return the spans in the JSON shape; one that is not printed to its end yet is left out."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        try:
            span, position = decoder.raw_decode(text, start)
        except ValueError:
            break
        found.append(span)
    return found
