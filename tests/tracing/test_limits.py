from __future__ import annotations

from typing import Any

from otelgw.tracing.limits import AttributeLimits
from otelgw_exporters.layers import Layers


def test_only_what_callers_bring_pays_the_limit() -> None:
    core = {f"core{i}": i for i in range(5)}
    kept = AttributeLimits(count=7).applied(Layers((), core), {f"extra{i}": i for i in range(5)})
    assert dict(kept) == core | {"extra0": 0, "extra1": 1}
    assert getattr(kept, "dropped", None) == 3


def test_a_limit_below_the_core_keeps_the_core() -> None:
    kept = AttributeLimits(count=1).applied(Layers(({"a": 1},), {"b": 2}), {"c": 3})
    assert dict(kept) == {"a": 1, "b": 2}


def test_a_caller_cannot_replace_a_core_attribute() -> None:
    assert dict(AttributeLimits().applied(Layers(({"a": 1},), {}), {"a": 2})) == {"a": 1}


def test_unset_limits_are_the_specifications_defaults() -> None:
    assert AttributeLimits.of(None, None) == AttributeLimits(128, None)


def test_a_length_limit_survives_any_nesting() -> None:
    value: Any = "long text"
    for _ in range(5000):
        value = [value]
    core = Layers(({"b": "long text"},), {"a": value, "c": {"d": ["long text", 1]}})
    kept: Any = AttributeLimits(length=4).applied(core, {})
    assert kept["b"] == "long"
    assert kept["c"] == {"d": ["long", 1]}
