"""Span attribute limits of the OpenTelemetry specification, with the attributes that matter held back from them.

The SDK evicts the oldest attribute when a span has too many: in a long chat that is the model's name. Here the limit is
paid by what callers bring along (metadata, headers, baggage); the attributes of the conventions always stay. A length
limit cuts the strings inside structured values, so that they stay structured values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.attributes import BoundedAttributes

from otelgw_exporters.layers import Layers

__all__ = ["AttributeLimits"]

_SDK_COUNT = 128
_DEPTH = 100


@dataclass(frozen=True, slots=True)
class AttributeLimits:
    """``count`` is in attributes per span, ``length`` in characters per string; None for ``length`` is no limit."""

    count: int = _SDK_COUNT
    length: int | None = None

    @classmethod
    def of(cls, count: int | None, length: int | None) -> AttributeLimits:
        """Return the limits for ``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`` and ``…_VALUE_LENGTH_LIMIT``, None where unset."""
        return cls(_SDK_COUNT if count is None else count, length)

    def applied(self, core: Layers, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``core`` and as much of ``extra`` as there is room for; what is dropped is counted on the result."""
        if not extra and self.length is None:
            return core
        own = dict(core.own)
        room = max(0, self.count - len(core))
        dropped = 0
        for key, value in extra.items():
            if key in core:
                continue
            if room:
                own[key] = value
                room -= 1
            else:
                dropped += 1
        kept: Mapping[str, Any] = Layers(core.shared, own, core.common)
        if self.length is not None:
            kept = {key: _cut(value, self.length, _DEPTH) for key, value in kept.items()}
        if not dropped:
            return kept
        counted = BoundedAttributes(attributes=kept)
        counted.dropped = dropped
        return counted


def _cut(value: Any, length: int, depth: int) -> Any:
    """Return ``value`` with its strings cut; below ``depth`` nothing is kept, so that no nesting exhausts the stack."""
    if isinstance(value, str):
        return value if len(value) <= length else value[:length]
    if isinstance(value, list):
        return [_cut(item, length, depth - 1) for item in value] if depth else []
    if isinstance(value, dict):
        return {key: _cut(item, length, depth - 1) for key, item in value.items()} if depth else {}
    return value
