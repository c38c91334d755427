"""What a dialect reads out of a request or an answer: the shared vocabulary of ``otelgw.dialects``.

Every dialect module exposes two pure functions::

    def read_request(body: bytes, content_type: str) -> Facts
    def read_response(body: bytes, content_type: str, *, stream: bool) -> Facts

``body`` may be cut (a capture keeps head and tail), malformed or hostile: a dialect never raises on it, it returns
what it could read. ``stream`` answers are server-sent events. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["NOTHING", "Facts", "Usage"]


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the provider billed them.

    ``input`` includes cached tokens, ``output`` includes reasoning tokens; the others are parts of these two. None
    means not reported, which is not 0.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    cost: float | None = None  # USD, where the provider reports its own price


class Facts(msgspec.Struct, frozen=True):
    """Attributes of the generation span, apart from content.

    ``attributes`` are safe to record when content capture is off; ``content`` holds the structured values of
    ``gen_ai.input.messages``, ``gen_ai.output.messages``, ``gen_ai.system_instructions`` and
    ``gen_ai.tool.definitions`` in the shapes of the GenAI semantic conventions' JSON schemas. ``error_type`` is set
    when the answer itself reports an error (an SSE error event); ``complete`` is False for a stream without its end.
    ``answer`` is what a streamed answer would have been without streaming, None for any other.
    """

    attributes: Mapping[str, Any] = {}
    content: Mapping[str, Any] = {}
    usage: Usage | None = None
    error_type: str = ""
    error_message: str = ""
    complete: bool = True
    answer: Mapping[str, Any] | None = None


NOTHING = Facts()
