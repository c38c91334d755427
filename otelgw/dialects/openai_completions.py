"""OpenAI's older Completions: text in, text out."""

from __future__ import annotations

from typing import Any

import msgspec

from otelgw.dialects import document, labels, parts, sse
from otelgw.dialects.choices import UNREAD, finish_reason, in_order, reasons_of, reported
from otelgw.dialects.deltas import grow
from otelgw.dialects.facts import NOTHING, Facts, Usage
from otelgw.dialects.failure import NO_FAILURE, read_failure
from otelgw.dialects.fields import RESPONSE, mappings, string, taken
from otelgw.dialects.openai_chat import SAMPLING
from otelgw.dialects.usage import read_usage
from otelgw_exporters import semconv

__all__ = ["read_request", "read_response"]

_PLACED = frozenset({"index", "text", "finish_reason"})  # fields of a choice that are kept by themselves


def read_request(body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts:  # noqa: ARG001
    """Return the parameters and prompts of a request; prompts given as token ids are no text and are left out."""
    request, whole = document.load(body, tail)
    if not isinstance(request, dict):
        return NOTHING
    attributes = taken(request, SAMPLING) | labels.from_request(request)
    given = request.get("prompt")
    prompts = [prompt for prompt in given if isinstance(prompt, str)] if isinstance(given, list) else string(given)
    content: dict[str, Any] = {}
    if prompts:
        texts = prompts if isinstance(prompts, list) else [prompts]
        content[semconv.GEN_AI_INPUT_MESSAGES] = [{"role": "user", "parts": [parts.text(prompt)]} for prompt in texts]
    return Facts(attributes, content, complete=whole)


def read_response(body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts:
    """Return what an answer says of itself, and its texts, one message per choice."""
    if sse.is_stream(content_type, stream):
        return _read_stream(body, tail)
    answer, whole = document.load(body, tail)
    failure = read_failure(answer)
    if not isinstance(answer, dict):
        return Facts(error_type=failure.type, error_message=failure.message, complete=whole)
    choices = in_order(answer.get("choices"))
    texts = [string(choice.get("text")) or "" for choice in choices]
    attributes = taken(answer, RESPONSE)
    return _facts(attributes, texts, reasons_of(choices, tail), read_usage(answer.get("usage")), failure, whole)


def _read_stream(body: bytes, tail: bytes) -> Facts:
    attributes: dict[str, Any] = {}
    texts: dict[int, list[str]] = {}
    reasons: dict[int, Any] = {}
    usage: Usage | None = None
    failure = NO_FAILURE
    done = False
    head: dict[str, Any] = {}
    beside: dict[int, dict[str, Any]] = {}
    for event in sse.events(body, tail):
        done = done or event.data == sse.DONE
        chunk = document.value_of(event.data)
        if not isinstance(chunk, dict):
            continue
        failure = failure if failure.type else read_failure(chunk)
        attributes = taken(chunk, RESPONSE) | attributes
        head |= {key: value for key, value in chunk.items() if value is not None and key not in ("choices", "error")}
        usage = read_usage(chunk.get("usage")) or usage
        for position, choice in enumerate(mappings(chunk.get("choices"))):
            index = choice.get("index")
            place = index if type(index) is int else position
            texts.setdefault(place, []).append(string(choice.get("text")) or "")
            reasons[place] = choice.get("finish_reason") or reasons.get(place)
            for key, value in choice.items():
                if key not in _PLACED:
                    grow(beside.setdefault(place, {}), key, value)
    places = sorted(texts)
    ended = done or (bool(places) and all(reasons[place] for place in places))
    found = ["".join(texts[place]) for place in places]
    facts = _facts(attributes, found, [reported(reasons[place]) for place in places], usage, failure, ended)
    if not places:
        return facts
    said = [
        {"index": place, "text": text, "finish_reason": reasons[place]} | beside.get(place, {})
        for place, text in zip(places, found, strict=True)
    ]
    return msgspec.structs.replace(facts, answer=head | {"object": "text_completion", "choices": said})


def _facts(
    attributes: dict[str, Any], texts: list[str], reasons: list[str], usage: Usage | None, failure: Any, whole: bool
) -> Facts:
    if texts and (whole or UNREAD not in reasons):
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = reasons
    messages = [
        {"role": "assistant", "parts": parts.from_content(said), "finish_reason": finish_reason(reason)}
        for said, reason in zip(texts, reasons, strict=True)
    ]
    content = {semconv.GEN_AI_OUTPUT_MESSAGES: messages} if messages else {}
    return Facts(attributes, content, usage, failure.type, failure.message, complete=whole)
