"""Tokens times price."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice
from hypothesis import given, settings
from hypothesis import strategies as st

from otelgw.dialects.facts import Usage
from otelgw.tracing.cost import cost, cost_source, find_model
from otelgw.tracing.record import Price

GPT = Price("genai-prices", "openai", "gpt-4o-mini")
OWN = Price("config", input_per_token=1e-6, output_per_token=2e-6)
MODELS = [(provider, model) for provider in get_snapshot().providers for model in provider.models]


@pytest.mark.parametrize(
    ("price", "usage", "amount"),
    [
        (GPT, Usage(input=1000, output=100), 0.00021),
        (GPT, Usage(input=1000, output=100, cache_read=1000), 0.000135),
        (GPT, Usage(input=11), 1.65e-06),
        (GPT, Usage(), None),
        (GPT, Usage(input=10, output=1, cache_read=11), None),
        (GPT, Usage(input=-1, output=1), None),
        (Price("genai-prices", "openai", "gpt-4o-transcribe"), Usage(input=14, output=45, audio_input=14), 0.000534),
        (Price("genai-prices", "openai", "gpt-image-1"), Usage(input=50, output=100, image_input=40), 0.00445),
        (
            Price("genai-prices", "openai", "gpt-image-1"),
            Usage(input=50, output=100, image_input=40, image_output=100, cache_read=5),
            0.00443125,
        ),
        (OWN, Usage(input=1000, output=10), 0.00102),
        (OWN, Usage(output=10), 2e-05),
        (OWN, Usage(), None),
        (Price("config"), Usage(input=1), 0.0),
        (Price("genai-prices", "openai", "no-such-model"), Usage(input=1), None),
        (Price("genai-prices", "nobody", "gpt-4o"), Usage(input=1), None),
        (Price("genai-prices", "openai", "whisper-1"), Usage(input=1000, output=1), None),
        (Price("genai-prices", "perplexity", "sonar"), Usage(input=1_000_000, output=0), 1.012),
    ],
)
def test_a_cost_is_exact_or_unknown(price: Price, usage: Usage, amount: float | None) -> None:
    assert cost(price, usage) == amount


def test_the_answers_model_is_priced_where_the_configured_name_is_the_customers() -> None:
    azure = Price("genai-prices", "azure")
    assert cost(azure, Usage(input=1_000_000, output=0), "gpt-4o-mini-2024-07-18") == 0.15
    assert cost(azure, Usage(input=1), "my-deployment") is None
    assert cost(azure, Usage(input=1)) is None
    assert cost(GPT, Usage(input=1_000_000, output=0), "gpt-4o") == 0.15


@settings(max_examples=300, deadline=None)
@given(
    row=st.sampled_from([(provider.id, model.id) for provider, model in MODELS]),
    counts=st.tuples(*[st.integers(0, 300_000)] * 7),
    seconds=st.integers(1_704_067_200, 1_830_297_600),  # 2024 to 2028
)
def test_every_cost_is_what_genai_prices_makes_of_it(
    row: tuple[str, str], counts: tuple[int, ...], seconds: int
) -> None:
    provider, model = row
    name = find_model(provider, model)
    if name is None:
        return
    found, info = get_snapshot().find_provider_model(name, None, provider, None)
    fresh, read, write, audio_in, text_out, reasoning, audio_out = counts
    usage = Usage(
        input=fresh + read + write + audio_in,
        output=text_out + reasoning + audio_out,
        cache_read=read,
        cache_write=write,
        audio_input=audio_in if counts[0] % 3 == 0 else None,
        audio_output=audio_out if counts[0] % 3 == 0 else None,
        reasoning=reasoning,
    )
    at = datetime.fromtimestamp(seconds, UTC)
    priced = PricedUsage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        input_audio_tokens=usage.audio_input,
        output_audio_tokens=usage.audio_output,
        output_reasoning_tokens=usage.reasoning,
        cache_audio_read_tokens=0,
        cache_audio_write_tokens=0,
        output_audio_reasoning_tokens=0,
    )
    actual = cost(Price("genai-prices", provider, name), usage, time_ns=seconds * 10**9)
    price = info.get_prices(at)
    if price.input_mtok is None and price.output_mtok is None:
        assert actual is None
        return
    expected = float(info.calc_price(priced, found, genai_request_timestamp=at).total_price)
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_a_price_that_changed_is_the_one_of_the_requests_time() -> None:
    changing = [
        (provider, model)
        for provider, model in MODELS
        if not isinstance(model.prices, ModelPrice) and len(model.prices) > 1
    ]
    differing = 0
    for provider, model in changing:
        name = find_model(provider.id, model.id)
        price = Price("genai-prices", provider.id, name or "")
        usage = Usage(input=1000, output=1000)
        years = {
            cost(price, usage, time_ns=int(datetime(year, 6, 1, 12, tzinfo=UTC).timestamp()) * 10**9)
            for year in range(2023, 2028)
        }
        differing += len(years) > 1
    assert differing > 10


@given(st.text(max_size=300), st.text(max_size=300))
def test_hostile_names_have_no_price(provider: str, model: str) -> None:
    assert cost(Price("genai-prices", f"~{provider}"), Usage(input=1), model) is None


def test_the_source_of_a_cost_is_said() -> None:
    assert cost_source(GPT, Usage(input=1)) == "genai-prices"
    assert cost_source(OWN, Usage(input=1)) == "config"
    assert cost_source(OWN, Usage(input=1, cost=0.1)) == "provider"
    assert cost_source(None, Usage(input=1)) == ""
