"""The one thing that the request path reads of an answer: its ``usage``, for the cost header."""

from __future__ import annotations

from typing import Any

import msgspec

from otelgw.dialects.facts import Usage
from otelgw.dialects.usage import read_usage
from otelgw.tracing.cost import cost
from otelgw.tracing.record import Price

__all__ = ["cost_of_answer"]


class _PromptDetails(msgspec.Struct, forbid_unknown_fields=True):
    cached_tokens: int = 0
    audio_tokens: int = 0


class _CompletionDetails(msgspec.Struct, forbid_unknown_fields=True):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class _PlainUsage(msgspec.Struct, forbid_unknown_fields=True):
    """OpenAI's own shape and nothing else; every other one is read by the dialect."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _PlainAnswer(msgspec.Struct):
    usage: _PlainUsage | None = None
    model: Any = None


class _Answer(msgspec.Struct):
    usage: Any = None
    model: Any = None


_decode_plain = msgspec.json.Decoder(_PlainAnswer).decode
_decode = msgspec.json.Decoder(_Answer).decode


def cost_of_answer(price: Price | None, body: bytes) -> float | None:
    """Return the cost of an answer in USD: the provider's own figure, else by ``price``; None where it is unknown."""
    if price is None and b"cost" not in body:
        return None
    try:
        usage, model = _read(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if usage is None:
        return None
    if usage.cost is not None:
        return usage.cost
    return None if price is None else cost(price, usage, model if isinstance(model, str) else "")


def _read(body: bytes) -> tuple[Usage | None, Any]:
    try:
        answer = _decode_plain(body)
    except msgspec.ValidationError:
        return _read_any(body)
    plain = answer.usage
    if plain is None:
        return None, answer.model
    if plain.prompt_tokens + plain.completion_tokens != plain.total_tokens:
        return _read_any(body)
    put, got = plain.prompt_tokens_details, plain.completion_tokens_details
    usage = Usage(
        input=plain.prompt_tokens,
        output=plain.completion_tokens,
        cache_read=put.cached_tokens if put is not None else None,
        reasoning=got.reasoning_tokens if got is not None else None,
        audio_input=put.audio_tokens if put is not None else None,
        audio_output=got.audio_tokens if got is not None else None,
    )
    return usage, answer.model


def _read_any(body: bytes) -> tuple[Usage | None, Any]:
    answer = _decode(body)
    return read_usage(answer.usage), answer.model
