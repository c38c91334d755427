"""The one thing that the request path reads of an answer: its ``usage``, for the cost header."""

from __future__ import annotations

from typing import Any

import msgspec

from otelgw.dialects.usage import read_usage
from otelgw.tracing.cost import cost
from otelgw.tracing.record import Price

__all__ = ["cost_of_answer"]


class _Answer(msgspec.Struct):
    usage: Any = None
    model: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def cost_of_answer(price: Price | None, body: bytes) -> float | None:
    """Return the cost of an answer in USD: the provider's own figure, else by ``price``; None where it is unknown."""
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    usage = read_usage(answer.usage)
    if usage is None:
        return None
    if usage.cost is not None:
        return usage.cost
    return None if price is None else cost(price, usage, answer.model if isinstance(answer.model, str) else "")
