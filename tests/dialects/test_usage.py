from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.dialects.facts import Usage
from otelgw.dialects.usage import read_usage


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": 0, "total_tokens": 0}, Usage(input=0)),
        ({"prompt_tokens": -1, "completion_tokens": "3"}, None),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8)),
        ({"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, Usage(input=5, output=6)),
        # xAI counts reasoning beside the completion.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(input=10, output=105, reasoning=100),
        ),
        # Gemini's endpoint counts thinking in the total only.
        ({"prompt_tokens": 8, "completion_tokens": 10, "total_tokens": 541}, Usage(input=8, output=533)),
        # Anthropic's way: input without what came from the cache or went into it.
        (
            {
                "input_tokens": 10,
                "output_tokens": 20,
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 5,
            },
            Usage(input=1015, output=20, cache_read=1000, cache_write=5),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 34,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
            Usage(input=14, output=20, cache_read=4),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "prompt_cache_hit_tokens": 4},
            Usage(input=10, output=2, cache_read=4),
        ),
        # Transcriptions have details of one token.
        (
            {
                "type": "tokens",
                "input_tokens": 14,
                "output_tokens": 45,
                "total_tokens": 59,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            },
            Usage(input=14, output=45, audio_input=14),
        ),
        # Images.
        (
            {
                "input_tokens": 50,
                "output_tokens": 100,
                "total_tokens": 150,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                "output_tokens_details": {"text_tokens": 0, "image_tokens": 100},
            },
            Usage(input=50, output=100, image_input=40, image_output=100),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": {"total_cost": 0.006}},
            Usage(input=1, output=2, cost=0.006),
        ),
        ({"prompt_tokens": 1, "estimated_cost": 0.5, "cost": -1}, Usage(input=1)),
        ({"prompt_tokens": 1, "estimated_cost": 0.5}, Usage(input=1, cost=0.5)),
        ({"prompt_tokens": 1, "cost": True}, Usage(input=1)),
    ],
)
def test_usage_is_what_the_provider_billed(reported: Any, expected: Usage | None) -> None:
    assert read_usage(reported) == expected


@given(*(st.integers(0, 10_000) for _ in range(4)))
def test_parts_never_exceed_their_total(given_tokens: int, made: int, cached: int, reasoning: int) -> None:
    usage = read_usage(
        {
            "prompt_tokens": given_tokens,
            "completion_tokens": made + reasoning,
            "total_tokens": given_tokens + made + reasoning,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    assert usage is not None
    assert usage.input is not None
    assert usage.output is not None
    assert cached <= usage.input
    assert reasoning <= usage.output
