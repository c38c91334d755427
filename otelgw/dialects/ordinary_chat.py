"""Ordinary chats: text in, one answer of text out, nothing beside the parameters. That is most of the traffic.

They are decoded into structs and not into dictionaries, but for streams, and what many of them have in common can be
told from a tuple. Whatever is the least bit out of the ordinary is left to ``openai_chat``, which reads everything;
what is read here comes out as it would there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from otelgw.dialects.choices import finish_reason
from otelgw.dialects.facts import Usage
from otelgw.dialects.fields import RESPONSE, taken
from otelgw.dialects.openai_chat import API_TYPE, REQUEST, read_response
from otelgw.dialects.usage import read_usage
from otelgw_exporters import semconv

__all__ = ["Answer", "Request", "Streamed", "read_answer", "read_request", "read_stream"]

_Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None
_Integer = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None
_Words = Annotated[str, Meta(min_length=1)]
_Nothing = Annotated[list[Any], Meta(max_length=0)] | None
_Speaker = Literal["assistant", "developer", "system", "user"]


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: _Speaker
    content: _Words


class Request(Struct, forbid_unknown_fields=True, gc=False):
    """A request that holds nothing else. Fields of type Any say nothing that a span tells."""

    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str | None = None
    max_tokens: _Count = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: _Integer = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: str | tuple[str, ...] | None = None
    seed: _Integer = None
    n: _Count = None
    stream: bool | None = None
    service_tier: str | None = None
    max_completion_tokens: _Count = None
    reasoning_effort: str | None = None
    logit_bias: Any = None
    logprobs: Any = None
    parallel_tool_calls: Any = None
    prompt_cache_key: Any = None
    store: Any = None
    stream_options: Any = None
    top_logprobs: Any = None
    verbosity: Any = None

    @property
    def parameters(self) -> tuple[Any, ...]:
        """What ``attributes`` are made of: the same for the same ones."""
        return (
            self.max_tokens,
            self.temperature,
            self.top_p,
            self.top_k,
            self.frequency_penalty,
            self.presence_penalty,
            self.stop,
            self.seed,
            self.n,
            self.service_tier,
            self.max_completion_tokens,
            self.reasoning_effort,
        )

    def attributes(self) -> dict[str, Any]:
        """Return the parameters, apart from the model's name and the flag of a stream."""
        given = {name: getattr(self, name) for name, _, _ in REQUEST if name not in _TOLD}
        if isinstance(self.stop, tuple):
            given["stop"] = list(self.stop)
        return taken(given, REQUEST) | API_TYPE

    def messages_read(self) -> list[dict[str, Any]]:
        """Return the value of ``gen_ai.input.messages``."""
        return [{"role": each.role, "parts": [{"type": "text", "content": each.content}]} for each in self.messages]


_TOTALS = 3
_TOLD = frozenset({"model", "stream"})


class _Said(Struct, forbid_unknown_fields=True, gc=False):
    role: _Words
    content: _Words
    refusal: None = None
    annotations: Any = None
    audio: None = None
    function_call: None = None
    reasoning: None = None
    reasoning_content: None = None
    tool_calls: _Nothing = None


class _Choice(Struct, forbid_unknown_fields=True, gc=False):
    message: _Said
    finish_reason: _Words
    index: Any = None
    logprobs: Any = None
    content_filter_results: Any = None  # Azure
    stop_reason: Any = None  # vLLM


class Answer(Struct, forbid_unknown_fields=True, gc=False):
    """An answer that holds nothing else. Fields of type Any say nothing that a span tells."""

    id: _Words
    object: Literal["chat.completion"]
    choices: Annotated[list[_Choice], Meta(min_length=1, max_length=1)]
    usage: dict[str, Any]
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    created: Any = None
    prompt_filter_results: Any = None  # Azure
    prompt_logprobs: Any = None  # vLLM
    kv_transfer_params: Any = None  # vLLM
    x_groq: Any = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What ``attributes`` are made of: the same for the same ones."""
        return self.model, self.service_tier, self.system_fingerprint, self.choices[0].finish_reason

    def attributes(self) -> dict[str, Any]:
        """Return what the answer says of itself, apart from its id."""
        given = {name: getattr(self, name) for name, _, _ in RESPONSE if name != "id"}
        return taken(given, RESPONSE) | {semconv.GEN_AI_RESPONSE_FINISH_REASONS: [self.choices[0].finish_reason]}

    @property
    def has_totals_only(self) -> bool:
        """True where its usage is no more than the tokens given, the tokens made and their sum."""
        return len(self.usage) <= _TOTALS

    def read_usage(self) -> Usage | None:
        """Return the token counts; None where none is reported."""
        return read_usage(self.usage)

    def messages_read(self) -> list[dict[str, Any]]:
        """Return the value of ``gen_ai.output.messages``."""
        choice = self.choices[0]
        said = choice.message
        parts = [{"type": "text", "content": said.content}]
        return [{"role": said.role, "parts": parts, "finish_reason": finish_reason(choice.finish_reason)}]


class Streamed(Struct, gc=False):
    """A streamed answer, as ``openai_chat`` reads it: ``told`` is what it says of itself apart from its ``id``."""

    id: str
    told: dict[str, Any]
    messages: list[dict[str, Any]]
    usage: Usage

    @property
    def kind(self) -> tuple[Any, ...]:
        """What ``attributes`` are made of: the same for the same ones."""
        *others, (_, reasons) = self.told.items()
        return tuple(others), tuple(reasons)

    @property
    def model(self) -> str | None:
        """The model that it names."""
        return self.told.get(semconv.GEN_AI_RESPONSE_MODEL)

    def attributes(self) -> dict[str, Any]:
        """Return what the answer says of itself, apart from its id."""
        return dict(self.told)

    @property
    def has_totals_only(self) -> bool:
        """Not known of a stream."""
        return False

    def read_usage(self) -> Usage:
        """Return the token counts."""
        return self.usage

    def messages_read(self) -> list[dict[str, Any]]:
        """Return the value of ``gen_ai.output.messages``."""
        return self.messages


_request = msgspec.json.Decoder(Request).decode
_answer = msgspec.json.Decoder(Answer).decode
_NOT_ONE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_request(body: bytes, *, stream: bool = False) -> Request | None:
    """Return the request in ``body``; None where it is no ordinary one, or asks for a ``stream`` where none came."""
    try:
        read = _request(body)
    except _NOT_ONE:
        return None
    return read if bool(read.stream) is stream else None


def read_answer(body: bytes) -> Answer | None:
    """Return the answer in ``body``; None where it is no ordinary one."""
    try:
        return _answer(body)
    except _NOT_ONE:
        return None


def read_stream(body: bytes, content_type: str) -> Streamed | None:
    """Return the answer that the stream ``body`` adds up to; None where it is no ordinary one."""
    facts = read_response(body, content_type, stream=True)
    told = dict(facts.attributes)
    identity = told.pop(semconv.GEN_AI_RESPONSE_ID, None)
    reasons = told.get(semconv.GEN_AI_RESPONSE_FINISH_REASONS)
    messages = facts.content.get(semconv.GEN_AI_OUTPUT_MESSAGES)
    if identity is None or reasons is None or messages is None or facts.usage is None or facts.error_type:
        return None
    if next(iter(facts.attributes)) != semconv.GEN_AI_RESPONSE_ID or not facts.complete:
        return None
    return Streamed(identity, told, messages, facts.usage)
