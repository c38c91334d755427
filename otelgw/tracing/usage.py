"""The token counts of an answer as attributes."""

from __future__ import annotations

from otelgw_exporters import semconv

__all__ = ["USAGE"]

USAGE = (
    ("input", semconv.GEN_AI_USAGE_INPUT_TOKENS),
    ("output", semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
    ("cache_read", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    ("cache_write", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS),
    ("reasoning", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
    ("audio_input", semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS),
    ("audio_output", semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS),
    ("image_input", semconv.GEN_AI_USAGE_IMAGE_INPUT_TOKENS),
    ("image_output", semconv.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS),
)
"""Fields of ``Usage`` and the attribute of each, in the order in which a span has them."""
