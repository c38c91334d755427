"""Which price applies to a deployment: resolved once, when the config is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from otelgw.config.settings import Deployment
from otelgw.dialects.facts import Usage
from otelgw.providers.catalog import Provider, find, infer
from otelgw.tracing.cost import CONFIG, GENAI_PRICES, cost, find_model
from otelgw.tracing.record import Price

__all__ = ["price_text", "read_prices", "resolve_price"]


def resolve_price(row: Provider, model: str, model_info: Mapping[str, Any]) -> Price | None:
    """Return the price of ``model`` at the provider, None when none is known.

    ``model_info`` wins: ``input_cost_per_token`` and ``output_cost_per_token`` in USD, then ``base_model``, the name of
    the model whose price applies. Where model names are the customer's own (Azure's deployments), the price is left to
    the model that the answer names.
    """
    rates = (_rate(model_info, "input_cost_per_token"), _rate(model_info, "output_cost_per_token"))
    if rates != (None, None):
        return Price(source=CONFIG, input_per_token=rates[0] or 0.0, output_per_token=rates[1] or 0.0)
    base = model_info.get("base_model")
    if isinstance(base, str) and base:
        return _base_price(row, base)
    if not row.prices or "*" in model:
        return None
    return _listed(row, model) or (Price(source=GENAI_PRICES, provider=row.prices) if row.own_names else None)


def read_prices(deployments: Iterable[Deployment]) -> None:
    """Read what pricing these deployments needs, so that no request waits for the price list (0.1 s, once)."""
    for deployment in deployments:
        row = find(deployment.provider)
        if deployment.price is not None:
            cost(deployment.price, Usage(input=0), deployment.model)
        elif "*" in deployment.model and row is not None and row.prices:
            find_model(row.prices, deployment.model)


def _base_price(row: Provider, base: str) -> Price | None:
    prefix, slash, rest = base.partition("/")
    named = find(prefix) if slash else None
    if named is not None:
        return _listed(named, rest)
    return _listed(row, base) or _listed(infer(base), base)


def _listed(row: Provider | None, model: str) -> Price | None:
    name = find_model(row.prices, model) if row is not None and row.prices else None
    return Price(source=GENAI_PRICES, provider=row.prices, model=name) if row is not None and name else None


def _rate(model_info: Mapping[str, Any], key: str) -> float | None:
    value = model_info.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value >= 0 else None


def price_text(price: Price | None) -> str:
    """Return a price for a table: ``0.15 in, 0.6 out``, where it comes from if that is no number, or ``unknown``."""
    if price is None:
        return "unknown"
    if price.source == CONFIG:
        return f"{price.input_per_token * 1e6:g} in, {price.output_per_token * 1e6:g} out (config)"
    if not price.model:
        return "by the answer's model"
    return ", ".join(f"{rate:g} {name}" for name in ("in", "out") if (rate := _per_million(price, name)) is not None)


def _per_million(price: Price, side: str) -> float | None:
    """Return what a million tokens more cost on a short request, so without a fee per request or a higher tier."""
    field = {"in": "input", "out": "output"}[side]
    some, more = (cost(price, Usage(**{field: count})) for count in (1000, 2000))
    return None if some is None or more is None else round((more - some) * 1000, 6)
