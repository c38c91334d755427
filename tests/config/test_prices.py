"""Which price applies to a deployment."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otelgw.config.load import load
from otelgw.config.prices import price_text, resolve_price
from otelgw.dialects.facts import Usage
from otelgw.providers.catalog import PROVIDERS, find
from otelgw.tracing.cost import cost
from otelgw.tracing.record import Price


@pytest.mark.parametrize(
    ("provider", "model", "info", "expected"),
    [
        ("openai", "gpt-4o-mini", {}, Price("genai-prices", "openai", "gpt-4o-mini")),
        ("openai", "fake", {}, None),
        ("openai", "*", {}, None),
        ("echo", "echo", {}, None),
        ("hosted_vllm", "gpt-4o", {}, None),
        ("azure", "my-deployment", {}, Price("genai-prices", "azure", "")),
        ("azure", "my-deployment", {"base_model": "azure/gpt-4o"}, Price("genai-prices", "azure", "gpt-4o")),
        ("hosted_vllm", "x", {"base_model": "gpt-4o"}, Price("genai-prices", "openai", "gpt-4o")),
        ("azure", "my-deployment", {"base_model": "no-such-model"}, None),
        ("openai", "gpt-4o", {"input_cost_per_token": 1e-6}, Price("config", "", "", 1e-6, 0.0)),
        ("openai", "gpt-4o", {"input_cost_per_token": 0, "output_cost_per_token": 0}, Price("config")),
        ("openai", "fake", {"output_cost_per_token": 2e-6}, Price("config", "", "", 0.0, 2e-6)),
        ("openai", "fake", {"input_cost_per_token": True}, None),
    ],
)
def test_a_price_is_known_or_none(provider: str, model: str, info: dict[str, Any], expected: Price | None) -> None:
    row = find(provider)
    assert row is not None
    assert resolve_price(row, model, info) == expected


def test_every_providers_price_list_exists() -> None:
    from genai_prices.data_snapshot import get_snapshot

    known = {provider.id for provider in get_snapshot().providers}
    assert {row.prices for row in PROVIDERS if row.prices} <= known


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-4-20250514"),
        ("gemini", "gemini-2.5-flash"),
        ("groq", "llama-3.3-70b-versatile"),
        ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("openrouter", "openai/gpt-4o"),
        ("xai", "grok-3"),
        ("deepseek", "deepseek-chat"),
        ("mistral", "mistral-large-latest"),
        ("cohere", "command-r-plus"),
        ("openai", "text-embedding-3-small"),
    ],
)
def test_a_resolved_price_gives_a_cost(provider: str, model: str) -> None:
    row = find(provider)
    assert row is not None
    price = resolve_price(row, model, {})
    assert price is not None
    amount = cost(price, Usage(input=1000, output=0))
    assert amount is not None
    assert amount > 0


def test_prices_are_shown_per_million_tokens() -> None:
    assert price_text(None) == "unknown"
    assert price_text(Price("config", input_per_token=1e-6, output_per_token=2.5e-6)) == "1 in, 2.5 out (config)"
    assert price_text(Price("genai-prices", "azure")) == "by the answer's model"
    assert price_text(Price("genai-prices", "openai", "gpt-4o-mini")) == "0.15 in, 0.6 out"


@pytest.mark.parametrize(
    ("model", "read"),
    [("echo/echo", False), ("hosted_vllm/x", False), ("openai/gpt-4o", True), ("openai/*", True), ("azure/mine", True)],
)
def test_a_worker_has_read_the_price_list_before_its_first_request_if_it_needs_it(
    tmp_path: Path, model: str, read: bool
) -> None:
    config = tmp_path / "c.yaml"
    alias = "*" if "*" in model else "a"
    config.write_text(
        f"model_list:\n  - model_name: '{alias}'\n"
        f"    litellm_params: {{model: {model}, api_key: k, api_base: 'http://127.0.0.1:1', api_version: v}}\n"
    )
    script = (
        "import pickle, sys; from otelgw.app import build; build(pickle.load(sys.stdin.buffer));"
        "print('genai_prices.data' in sys.modules)"
    )
    settings = pickle.dumps(load(str(config), {"OTELGW_STATE_DIR": str(tmp_path)}))
    ran = subprocess.run([sys.executable, "-c", script], input=settings, capture_output=True, check=True, timeout=60)
    assert ran.stdout.split() == [str(read).encode()]
