"""What genai-prices knows of a model: its price and its context window. The bundled snapshot; nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from otelgw_exporters import semconv

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

__all__ = ["Cost", "cost", "model_map"]

_LONGEST = 200  # characters of a model's name that is looked for
_DECIMALS = 15  # hides the noise of binary fractions
_MTOK = Decimal(1_000_000)

# gen_ai.provider.name -> the id of a provider in genai-prices, where they differ.
_PROVIDERS = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
}
# LiteLLM's names of rates, in USD per token, and genai-prices', in USD per million.
_RATES = (
    ("input_cost_per_token", "input_mtok"),
    ("output_cost_per_token", "output_mtok"),
    ("cache_read_input_token_cost", "cache_read_mtok"),
    ("cache_creation_input_token_cost", "cache_write_mtok"),
    ("input_cost_per_audio_token", "input_audio_mtok"),
    ("output_cost_per_audio_token", "output_audio_mtok"),
    ("output_cost_per_reasoning_token", "output_reasoning_mtok"),
)
_COUNTS = (
    ("input_tokens", semconv.GEN_AI_USAGE_INPUT_TOKENS),
    ("output_tokens", semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
    ("cache_read_tokens", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    ("cache_write_tokens", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS),
    ("input_audio_tokens", semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS),
    ("output_audio_tokens", semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS),
    ("output_reasoning_tokens", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
)
# Nobody reports these; without a word genai-prices refuses audio together with cached or reasoning tokens.
_NONE_OF_BOTH = dict.fromkeys(
    ("cache_audio_read_tokens", "cache_audio_write_tokens", "output_audio_reasoning_tokens"), 0
)


class Cost(NamedTuple):
    """USD."""

    input: float
    output: float
    total: float


def model_map(provider: str, models: tuple[str, ...], *, time_ns: int) -> dict[str, Any] | None:
    """Return LiteLLM's ``model_map_value`` of the first of ``models`` that is known at a provider; None if none is.

    ``provider`` is a ``gen_ai.provider.name``; prices are those of that hour. What genai-prices does not know of a
    known model is None.
    """
    found = _first(provider, models)
    return None if found is None else dict(_described(provider, found[0], _hour(time_ns)))


def cost(provider: str, models: tuple[str, ...], usage: Mapping[str, Any], *, time_ns: int) -> Cost | None:
    """Return what ``usage`` (attributes) costs at the list price of the time; None where no price is known."""
    found = _first(provider, models)
    counts = {name: usage.get(attribute) for name, attribute in _COUNTS}
    if found is None or (counts["input_tokens"] is None and counts["output_tokens"] is None):
        return None
    from genai_prices.types import Usage

    price = found[1].get_prices(_hour(time_ns))
    if price.input_mtok is None and price.output_mtok is None:
        return None
    try:
        made = price.calc_price(Usage(**counts, **_NONE_OF_BOTH))
    except (ValueError, TypeError):  # the counts contradict each other
        return None
    return Cost(*(round(float(made[key]), _DECIMALS) for key in ("input_price", "output_price", "total_price")))


def _hour(time_ns: int) -> datetime:
    """Return the hour of a time: some prices change within a day, none within an hour."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).replace(minute=0, second=0, microsecond=0)


def _first(provider: str, models: tuple[str, ...]) -> tuple[str, ModelInfo] | None:
    return next(((model, info) for model in models if model and (info := _find(provider, model))), None)


@lru_cache(maxsize=4096)
def _find(provider: str, model: str) -> ModelInfo | None:
    if not provider or len(model) > _LONGEST:
        return None
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider_model(model, None, _PROVIDERS.get(provider, provider), None)[1]
    except LookupError:
        return None


@lru_cache(maxsize=1024)
def _described(provider: str, model: str, at: datetime) -> Mapping[str, Any]:
    from genai_prices.types import TieredPrices

    info = _find(provider, model)
    if info is None:
        return {}
    price = info.get_prices(at)
    found: dict[str, Any] = {
        "key": info.id,
        "max_tokens": None,
        "max_input_tokens": info.context_window,
        "max_output_tokens": None,
    }
    tiers: list[dict[str, Any]] = []
    for name, field in _RATES:
        rate = getattr(price, field)
        if isinstance(rate, TieredPrices):
            tiers += [{"range": [tier.start, None], name: _per_token(tier.price)} for tier in rate.tiers]
            rate = rate.base
        found[name] = None if rate is None else _per_token(rate)
    return found | {"tiered_pricing": tiers or None}


def _per_token(rate: Decimal) -> float:
    return float(rate / _MTOK)
