"""Which price applies to a deployment: resolved once, when the config is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otelgw.providers.catalog import Provider, find, infer
from otelgw.tracing.cost import CONFIG, GENAI_PRICES, find_model
from otelgw.tracing.record import Price

__all__ = ["resolve_price"]


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
