"""What genai-prices knows of a model: its price and its context window. The bundled snapshot; nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from otelgw_exporters import semconv

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

__all__ = ["Cost", "cost", "model_map"]

_LONGEST = 200  # characters of a model's name that is looked for
_DECIMALS = 15  # hides the noise of binary fractions
_MTOK = Decimal(1_000_000)
_HOUR = 3_600_000_000_000  # nanoseconds

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
    ("input_image_tokens", semconv.GEN_AI_USAGE_IMAGE_INPUT_TOKENS),
    ("output_image_tokens", semconv.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS),
    ("output_reasoning_tokens", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
)
# Parts of a total that have rates of their own.
_APART = ("input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens")
# Nobody reports these; without a word genai-prices refuses audio together with cached or reasoning tokens.
_NONE_OF_BOTH = dict.fromkeys(
    (
        "cache_audio_read_tokens",
        "cache_audio_write_tokens",
        "output_audio_reasoning_tokens",
        "cache_image_read_tokens",
        "cache_image_write_tokens",
        "output_image_reasoning_tokens",
    ),
    0,
)


class Cost(NamedTuple):
    """USD."""

    input: float
    output: float
    total: float


class _Listed(NamedTuple):
    """One model's row of the price list at some time, as LiteLLM has it. ``linear``: tokens times rates is its cost."""

    value: Mapping[str, Any]
    price: ModelPrice
    linear: bool


def model_map(provider: str, models: tuple[str, ...], *, time_ns: int) -> dict[str, Any] | None:
    """Return LiteLLM's ``model_map_value`` of the first of ``models`` that is known at a provider; None if none is.

    ``provider`` is a ``gen_ai.provider.name``; prices are those of that hour. What genai-prices does not know of a
    known model is None.
    """
    listed = _first(provider, models, time_ns)
    return None if listed is None else dict(listed.value)


def cost(provider: str, models: tuple[str, ...], usage: Mapping[str, Any], *, time_ns: int) -> Cost | None:
    """Return what ``usage`` (attributes) costs at the list price of the time; None where no price is known."""
    listed = _first(provider, models, time_ns)
    counts = {name: _tokens(usage.get(attribute)) for name, attribute in _COUNTS}
    if listed is None or (counts["input_tokens"] is None and counts["output_tokens"] is None):
        return None
    if listed.price.input_mtok is None and listed.price.output_mtok is None:
        return None
    plain = listed.linear and not any(counts[name] for name in _APART)
    return (_linear if plain else _exact)(listed, counts)


def _tokens(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _linear(listed: _Listed, counts: Mapping[str, int | None]) -> Cost | None:
    """Return tokens times rates: exact, and a fiftieth of the work."""
    read, write = counts["cache_read_tokens"] or 0, counts["cache_write_tokens"] or 0
    plain = (counts["input_tokens"] or 0) - read - write
    if plain < 0:
        return None
    rates = listed.value
    rate = rates["input_cost_per_token"] or 0.0
    given = plain * rate
    for tokens, name in ((read, "cache_read_input_token_cost"), (write, "cache_creation_input_token_cost")):
        given += tokens * (rate if rates[name] is None else rates[name])
    made = (counts["output_tokens"] or 0) * (rates["output_cost_per_token"] or 0.0)
    return Cost(round(given, _DECIMALS), round(made, _DECIMALS), round(given + made, _DECIMALS))


def _exact(listed: _Listed, counts: Mapping[str, int | None]) -> Cost | None:
    from genai_prices.types import Usage

    try:
        made = listed.price.calc_price(Usage(**counts, **_NONE_OF_BOTH))
    except (ValueError, TypeError):  # the counts contradict each other
        return None
    return Cost(*(round(float(made[key]), _DECIMALS) for key in ("input_price", "output_price", "total_price")))


def _first(provider: str, models: tuple[str, ...], time_ns: int) -> _Listed | None:
    # Some prices change within a day, none within an hour.
    hour = time_ns // _HOUR
    return next((found for model in models if model and (found := _listed(provider, model, hour))), None)


@lru_cache(maxsize=4096)
def _listed(provider: str, model: str, hour: int) -> _Listed | None:
    if not provider or len(model) > _LONGEST:
        return None
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import TieredPrices

    try:
        _, info = get_snapshot().find_provider_model(model, None, _PROVIDERS.get(provider, provider), None)
    except LookupError:
        return None
    price = info.get_prices(datetime.fromtimestamp(hour * _HOUR / 1e9, UTC))
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
            tiers += [{"range": [tier.start, None], name: float(tier.price / _MTOK)} for tier in rate.tiers]
            rate = rate.base
        found[name] = None if rate is None else float(rate / _MTOK)
    special = (price.requests_kcount, price.output_reasoning_mtok, price.output_text_mtok)
    linear = not tiers and all(rate is None for rate in special)
    return _Listed(found | {"tiered_pricing": tiers or None}, price, linear)
