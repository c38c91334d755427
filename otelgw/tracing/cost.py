"""What an answer cost, in USD: token counts times the price that the deployment was given when the config was loaded.

Prices are genai-prices' bundled snapshot; nothing is fetched. A price that is not known gives None, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from otelgw.dialects.facts import Usage
from otelgw.tracing.record import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ["CONFIG", "GENAI_PRICES", "cost", "cost_source", "find_model"]

GENAI_PRICES = "genai-prices"
CONFIG = "config"

_MAX_NAME = 200
_DECIMALS = 15  # finer than any price of a token; hides the noise of binary fractions


def cost(price: Price, usage: Usage, response_model: str = "", *, time_ns: int | None = None) -> float | None:
    """Return the cost of an answer in USD, None where it is not known.

    ``response_model`` is the model that the answer names; it decides where the price has no model of its own, because
    the configured name is the customer's. ``time_ns`` is the time of the request in nanoseconds since the epoch, for
    prices that change with time; now by default. ``usage.cost`` is not looked at: it is the provider's own figure.
    """
    if usage.input is None and usage.output is None:
        return None
    if price.source == CONFIG:
        amount = (usage.input or 0) * price.input_per_token + (usage.output or 0) * price.output_per_token
        return round(amount, _DECIMALS)
    row = _row(price.provider, price.model or response_model)
    return None if row is None else row.cost(usage, time_ns)


def cost_source(price: Price | None, usage: Usage) -> str:
    """Return ``otelgw.cost.source`` of a known cost: ``provider``, ``genai-prices``, ``config``; empty without one."""
    return "provider" if usage.cost is not None else price.source if price is not None else ""


def find_model(provider: str, model: str) -> str | None:
    """Return a name by which ``cost`` finds the price of ``model`` at genai-prices' ``provider``; None if unknown."""
    row = _row(provider, model)
    if row is None:
        return None
    other = _row(provider, row.info.id)
    return row.info.id if other is not None and other.info is row.info else model


class _Linear(NamedTuple):
    """A price without tiers: USD per million tokens of each kind, and USD per request."""

    input: float
    cache_read: float
    cache_write: float
    output: float
    request: float
    reasoning: bool  # reasoning tokens have a price of their own

    def cost(self, usage: Usage) -> float | None:
        """Return the cost of a usage without audio and images, None when its parts exceed their whole."""
        read, write = usage.cache_read or 0, usage.cache_write or 0
        plain = (usage.input or 0) - read - write
        if plain < 0 or read < 0 or write < 0 or (usage.output or 0) < 0:
            return None
        tokens = plain * self.input + read * self.cache_read + write * self.cache_write
        return round((tokens + (usage.output or 0) * self.output) / 1_000_000 + self.request, _DECIMALS)


@dataclass(frozen=True, slots=True)
class _Row:
    """The price of one model at one provider, with the arithmetic of its prices prepared."""

    info: ModelInfo
    provider: Provider
    prices: Sequence[tuple[ModelPrice, _Linear | None]]

    def cost(self, usage: Usage, time_ns: int | None) -> float | None:
        price, linear = self.prices[0]
        if len(self.prices) > 1:
            now = datetime.now(UTC) if time_ns is None else datetime.fromtimestamp(time_ns / 1e9, UTC)
            active = self.info.get_prices(now)
            price, linear = next((pair for pair in self.prices if pair[0] is active), (active, None))
        if not _prices_tokens(price):
            return None
        plain = not (usage.audio_input or usage.audio_output or usage.image_input or usage.image_output)
        if linear is not None and plain and not linear.reasoning:
            return linear.cost(usage)
        return _exact(price, usage)


def _prices_tokens(price: ModelPrice) -> bool:
    """Say whether tokens have a price at all: a model that is priced by the second only would come out as free."""
    return price.input_mtok is not None or price.output_mtok is not None


@lru_cache(maxsize=4096)
def _row(provider: str, model: str) -> _Row | None:
    if not provider or not model or len(model) > _MAX_NAME:
        return None
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import ModelPrice

    try:
        found, info = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = [info.prices] if isinstance(info.prices, ModelPrice) else [each.prices for each in info.prices]
    return _Row(info, found, tuple((price, _linear(price)) for price in prices)) if prices else None


def _linear(price: ModelPrice) -> _Linear | None:
    """Return ``price`` as plain rates; None where one of them depends on the number of tokens.

    Without a rate of its own a kind of token is billed as the kind that it is a part of.
    """
    from genai_prices.types import TieredPrices

    read, write = price.cache_read_mtok, price.cache_write_mtok
    rates = (price.input_mtok, read, write, price.output_mtok, price.requests_kcount)
    if any(isinstance(rate, TieredPrices) for rate in rates):
        return None
    plain = float(price.input_mtok or 0)  # type: ignore[arg-type]
    return _Linear(
        input=plain,
        cache_read=plain if read is None else float(read),  # type: ignore[arg-type]
        cache_write=plain if write is None else float(write),  # type: ignore[arg-type]
        output=float(price.output_mtok or 0),  # type: ignore[arg-type]
        request=float(price.requests_kcount or 0) / 1000,  # type: ignore[arg-type]
        reasoning=price.output_reasoning_mtok is not None or price.output_text_mtok is not None,
    )


_NO_IMAGES = dict.fromkeys(("cache_image_read_tokens", "cache_image_write_tokens", "output_image_reasoning_tokens"), 0)


def _exact(price: ModelPrice, usage: Usage) -> float | None:
    """Return what genai-prices itself makes of ``usage``, None for a usage that contradicts itself."""
    from genai_prices.types import Usage as PricedUsage

    counts = {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "input_audio_tokens": usage.audio_input,
        "output_audio_tokens": usage.audio_output,
        "output_reasoning_tokens": usage.reasoning,
        # Nobody reports these; without a word genai-prices refuses audio together with cached or reasoning tokens.
        "cache_audio_read_tokens": 0,
        "cache_audio_write_tokens": 0,
        "output_audio_reasoning_tokens": 0,
    }
    if usage.image_input or usage.image_output:
        counts |= {"input_image_tokens": usage.image_input, "output_image_tokens": usage.image_output, **_NO_IMAGES}
    try:
        total = price.calc_price(PricedUsage(**counts))["total_price"]
    except ValueError:
        return None
    return round(float(total), _DECIMALS)
