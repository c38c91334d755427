"""Token counts in the shapes of OpenAI and of those that imitate it.

Providers differ in what their totals include. ``Usage`` follows the conventions: input includes cached tokens, output
includes reasoning tokens. Where a provider's own numbers show that they do not add up that way (xAI counts reasoning
beside the completion, Gemini's endpoint counts thinking in the total only), its total decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otelgw.dialects.facts import Usage
from otelgw.dialects.fields import count, number

__all__ = ["read_usage"]

_GIVEN = ("prompt_tokens", "input_tokens")
_MADE = ("completion_tokens", "output_tokens")
_TOTALS = ("given", "made", "total")
# The parts of a total: chat calls them one way, responses and images another, transcriptions a third.
_GIVEN_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_MADE_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_NO_DETAILS: Mapping[str, Any] = {}
_READ, _READ_BESIDE = ("cached_tokens",), ("prompt_cache_hit_tokens", "cache_read_input_tokens")
_WRITTEN, _WRITTEN_BESIDE = ("cache_write_tokens", "cache_creation_tokens"), ("cache_creation_input_tokens",)


def read_usage(value: Any) -> Usage | None:
    """Return the token counts in a ``usage`` object; None where it reports none."""
    if not isinstance(value, dict):
        return None
    given = _first(value, _GIVEN)
    made = _first(value, _MADE)
    total = count(value.get("total_tokens"))
    if len(value) == len(_TOTALS) and given is not None and made is not None and total == given + made:
        return Usage(input=given, output=made)  # these three and nothing beside them
    put = _details(value, _GIVEN_DETAILS)
    got = _details(value, _MADE_DETAILS)
    read = _first(put, _READ) if put else None
    if read is None:
        read = _first(value, _READ_BESIDE)
    written = _first(put, _WRITTEN) if put else None
    if written is None:
        written = _first(value, _WRITTEN_BESIDE)
    given, made = _inclusive(given, made, total, (read or 0) + (written or 0))
    usage = Usage(
        input=given,
        output=made,
        cache_read=read,
        cache_write=written,
        reasoning=count(got.get("reasoning_tokens")),
        audio_input=count(put.get("audio_tokens")),
        audio_output=count(got.get("audio_tokens")),
        image_input=count(put.get("image_tokens")),
        image_output=count(got.get("image_tokens")),
        cost=_cost(value),
    )
    return usage if usage != _NONE else None


_NONE = Usage()


def _details(value: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    for name in names:
        found = value.get(name)
        if found and isinstance(found, dict):
            return found
    return _NO_DETAILS


def _first(source: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        if name in source:
            found = count(source[name])
            if found is not None:
                return found
    return None


def _inclusive(given: int | None, made: int | None, total: int | None, cached: int) -> tuple[int | None, int | None]:
    if given is None:
        return given, made
    beside = total - given - (made or 0) if total is not None else 0
    if cached and (cached > given or beside == cached):
        given += cached
        beside -= cached
    if made is not None and beside > 0:
        made += beside
    return given, made


def _cost(value: dict[str, Any]) -> float | None:
    """Return the price in USD that the provider itself reports.

    OpenRouter has it as ``cost``, Perplexity as ``cost.total_cost``, DeepInfra as ``estimated_cost``.
    """
    cost = value.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    amount = number(cost if cost is not None else value.get("estimated_cost"))
    return amount if amount is not None and amount >= 0 else None
