"""Cost from an answer's usage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otelgw.dialects.usage import read_usage
from otelgw.http.usage import cost_of_answer
from otelgw.tracing.cost import cost
from otelgw.tracing.record import Price

PRICE = Price("config", input_per_token=0.001, output_per_token=0.01)
USAGES: list[Any] = [
    {"prompt_tokens": 11, "completion_tokens": 13, "total_tokens": 24},
    {
        "prompt_tokens": 11,
        "completion_tokens": 13,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 3},
    },
    {"prompt_tokens": 9, "total_tokens": 9},
    {"prompt_tokens": 11, "completion_tokens": 13, "total_tokens": 44},
    {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
    {"prompt_tokens": 11, "completion_tokens": 13, "total_tokens": 24, "prompt_cache_hit_tokens": 3},
    {"prompt_tokens": 1.0, "completion_tokens": 2, "total_tokens": 3},
    {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "input_token_details": {"audio_tokens": 9}},
]


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("price", [PRICE, Price("genai-prices", "openai", "gpt-4o-mini")])
def test_the_header_says_what_the_span_will_say(usage: Any, price: Price) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "usage": usage}).encode()
    read = read_usage(usage)

    assert read is not None
    assert cost_of_answer(price, body) == cost(price, read, "gpt-4o-mini")


def test_the_providers_own_figure_wins() -> None:
    body = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0.25}}).encode()

    assert cost_of_answer(PRICE, body) == 0.25
    assert cost_of_answer(None, body) == 0.25


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"usage": null}', b'{"usage": "x"}', b'{"x": 1}', b"\xff"])
def test_an_answer_without_usage_has_no_cost(body: bytes) -> None:
    assert cost_of_answer(PRICE, body) is None


def test_an_unknown_price_is_no_price() -> None:
    assert cost_of_answer(None, b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}') is None
