"""What one span says, in the values that vendors ask for: messages, usage, cost, times, labels.

Nothing here is in a vendor's words; the tables in ``dialects`` put these values under a vendor's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from math import isclose
from typing import Any, Literal

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from otelgw_exporters import content, foreign, messages, prices, semconv
from otelgw_exporters.document import read, write

__all__ = ["Reading", "Role", "as_text", "iso_time"]

Role = Literal["server", "generation", "attempt", "other"]

_SECOND = 1_000_000_000
_NO_PARAMETERS = frozenset({"tools", "user", "stream"})


def as_text(value: Any) -> str | None:
    """Return a value as JSON text; None for nothing, a text as it is."""
    if value is None or isinstance(value, str):
        return value
    return write(value).decode()


def iso_time(time_ns: int) -> str:
    """Return nanoseconds since the epoch as ISO 8601 in UTC, with microseconds."""
    return datetime.fromtimestamp(time_ns // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S") + (
        f".{time_ns % _SECOND // 1000:06d}Z"
    )


class Reading:
    """The values of one span. ``held`` are its attributes, in the newest vocabulary too where they were in another.

    A value is None (a list or mapping empty) where the span does not say it.
    """

    def __init__(self, span: ReadableSpan) -> None:
        translated = foreign.translated(span)
        self.span = span
        self.held: Mapping[str, Any] = translated.attributes or {}
        self.ours = semconv.OTELGW_CALL_ID in self.held
        self.start, self.end = span.start_time or 0, span.end_time or span.start_time or 0
        self.role: Role = self._role(translated)

    def _role(self, translated: ReadableSpan) -> Role:
        if semconv.OTELGW_ATTEMPT_NUMBER in self.held:
            return "attempt"
        if foreign.is_generation(translated):
            return "generation"
        return "server" if self.ours else "other"

    def get(self, name: str) -> Any:
        return self.held.get(name)

    # What was said, in OpenAI's shapes

    @cached_property
    def _bodies(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return content.read_bodies(self.held)

    @cached_property
    def messages(self) -> list[Any]:
        """What the model was told, the system message first."""
        given = content.structured(self.held, semconv.GEN_AI_INPUT_MESSAGES)
        instructions = content.structured(self.held, semconv.GEN_AI_SYSTEM_INSTRUCTIONS)
        if given or instructions:
            return list(messages.chat_messages(given, instructions))
        by_items = "input" in self._bodies[0] and self.get(semconv.GEN_AI_OPERATION_NAME) in (None, "chat")
        return content.Asked(self.held, self._bodies[0], by_items=by_items).messages()

    @cached_property
    def choices(self) -> list[dict[str, Any]]:
        said = content.structured(self.held, semconv.GEN_AI_OUTPUT_MESSAGES)
        return messages.choices(said, ()) if said else []

    @cached_property
    def answer(self) -> Any:
        """The assistant's message; a list of them where several were asked for; else the captured answer."""
        said = [choice["message"] for choice in self.choices]
        if said:
            return said[0] if len(said) == 1 else said
        return dict(self._bodies[1]) or None

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        return messages.tools(content.structured(self.held, semconv.GEN_AI_TOOL_DEFINITIONS))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The model's parameters, by OpenAI's names."""
        found = content.Asked(self.held, {}, by_items=False).parameters()
        return {key: value for key, value in found.items() if key not in _NO_PARAMETERS}

    @cached_property
    def input_text(self) -> str | None:
        """What was asked as JSON text: the messages, with the tools where there are any."""
        if not self.messages:
            return None
        return as_text({"messages": self.messages, "tools": self.tools} if self.tools else self.messages)

    @cached_property
    def output_text(self) -> str | None:
        """What was answered as JSON text."""
        return as_text(self.answer)

    # Usage and cost

    def count(self, name: str) -> int | None:
        value = self.held.get(name)
        return int(value) if isinstance(value, int | float) and 0 <= value < 1 << 62 else None

    @property
    def input_tokens(self) -> int | None:
        """All of them, those read from and written to a cache too."""
        return self.count(semconv.GEN_AI_USAGE_INPUT_TOKENS)

    @property
    def output_tokens(self) -> int | None:
        """All of them, those of the reasoning too."""
        return self.count(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)

    @property
    def total_tokens(self) -> int | None:
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)

    @property
    def cache_read_tokens(self) -> int | None:
        return self.count(semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)

    @property
    def cache_write_tokens(self) -> int | None:
        return self.count(semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS)

    @property
    def reasoning_tokens(self) -> int | None:
        return self.count(semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS)

    @cached_property
    def cost(self) -> float | None:
        """USD."""
        for name in (semconv.OTELGW_COST_AMOUNT, semconv.GEN_AI_USAGE_COST):
            value = self.held.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                return float(value)
        return None

    @cached_property
    def cost_parts(self) -> tuple[float, float] | None:
        """USD of input and output; None where they are not known, or do not add up to the cost."""
        if self.cost is None:
            return None
        models = (str(self.get(semconv.GEN_AI_REQUEST_MODEL) or ""), str(self.get(semconv.GEN_AI_RESPONSE_MODEL) or ""))
        provider = str(self.get(semconv.GEN_AI_PROVIDER_NAME) or "")
        listed = prices.cost(provider, models, self.held, time_ns=self.start)
        if listed is None or not isclose(listed.total, self.cost):
            return (self.cost, 0.0) if not self.output_tokens and self.input_tokens else None
        return listed.input, listed.output

    # Times

    @property
    def first_token_seconds(self) -> float | None:
        value = self.held.get(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        return float(value) if isinstance(value, int | float) and value >= 0 else None

    @property
    def first_token_ns(self) -> int | None:
        """When the first piece of a streamed answer came, in nanoseconds since the epoch."""
        waited = self.first_token_seconds
        return None if waited is None else min(self.end, self.start + round(waited * _SECOND))

    # Labels

    def text(self, name: str) -> str | None:
        value = self.held.get(name)
        return str(value) if isinstance(value, str | int | float) and value != "" else None

    @property
    def model(self) -> str | None:
        return self.text(semconv.GEN_AI_RESPONSE_MODEL) or self.text(semconv.GEN_AI_REQUEST_MODEL)

    @property
    def user(self) -> str | None:
        return self.text(semconv.USER_ID)

    @property
    def session(self) -> str | None:
        return self.text(semconv.SESSION_ID) or self.text(semconv.GEN_AI_CONVERSATION_ID)

    @cached_property
    def tags(self) -> list[str]:
        value = self.held.get(semconv.OTELGW_TAGS)
        if isinstance(value, str):
            return [value]
        return [str(each) for each in value] if isinstance(value, Sequence) else []

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the caller attached, by the caller's keys."""
        size = len(semconv.OTELGW_METADATA)
        return {key[size:]: value for key, value in self.held.items() if key.startswith(semconv.OTELGW_METADATA)}

    def metadata_object(self, key: str) -> Any:
        """Return nested metadata, which is JSON text on a span."""
        value = self.metadata.get(key)
        return read(value) if isinstance(value, str) and value[:1] in ("{", "[") else value

    @property
    def error(self) -> str | None:
        """Why it failed; empty where it failed and nothing more may be told."""
        kind = self.text(semconv.ERROR_TYPE)
        if self.span.status.status_code is not StatusCode.ERROR and kind is None:
            return None
        return self.span.status.description or self.text(semconv.OTELGW_ERROR_MESSAGE) or kind or ""
