"""Choices of an answer as output messages, one per choice, with the reason each ended for."""

from __future__ import annotations

import re
from typing import Any

from otelgw.dialects import parts
from otelgw.dialects.fields import mapping, mappings, string
from otelgw.dialects.parts import Part

__all__ = [
    "ERROR",
    "UNREAD",
    "assistant_parts",
    "finish_reason",
    "in_order",
    "output_message",
    "reasons_of",
    "reported",
]

ERROR = "error"
UNREAD = "unknown"  # the reason stands in the part of a body that was not recorded

# Left: what providers say; right: FinishReason of gen-ai-output-messages.json.
_REASONS = {
    "function_call": "tool_call",
    "tool_calls": "tool_call",
    "tool_use": "tool_call",
    "end_turn": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
}

# What a message may hold beside its content.
_BESIDE = frozenset({"audio", "function_call", "reasoning", "reasoning_content", "refusal", "tool_calls"})
# Inside a JSON string every quote is escaped, so this matches keys only.
_REASON = re.compile(rb'"finish_reason"\s*:\s*"([a-z_]{1,32})"')


def finish_reason(given: Any) -> str:
    """Return the word of the message schemas for a finish reason; ``error`` for one that never arrived."""
    reason = string(given)
    return _REASONS.get(reason, reason) if reason else ERROR


def reported(given: Any) -> str:
    """Return a finish reason in the provider's own word; ``error`` for one that never arrived."""
    return string(given) or ERROR


def reasons_of(choices: list[dict[str, Any]], tail: bytes) -> list[str]:
    """Return the finish reason of each choice; where the middle of a body is missing, ``tail`` may still tell it."""
    reasons = [reported(choice.get("finish_reason")) for choice in choices]
    if not tail or ERROR not in reasons:
        return reasons
    beyond = _REASON.findall(tail)
    if len(reasons) == len(beyond) == 1:
        return [beyond[0].decode()]
    return [reported(choice.get("finish_reason") or UNREAD) for choice in choices]


def in_order(choices: Any) -> list[dict[str, Any]]:
    """Return the choices of an answer by their index; one without an index keeps its place."""
    found = list(mappings(choices))
    if len(found) < 2:
        return found
    indexed = [(choice.get("index"), place, choice) for place, choice in enumerate(found)]
    return [c for _, _, c in sorted(indexed, key=lambda row: (row[0] if type(row[0]) is int else row[1], row[1]))]


def output_message(message: Any, reason: Any) -> dict[str, Any]:
    """Return the output message for ``choices[].message``."""
    message = mapping(message)
    return {
        "role": string(message.get("role")) or "assistant",
        "parts": assistant_parts(message),
        "finish_reason": finish_reason(reason),
    }


def assistant_parts(message: dict[str, Any]) -> list[Part]:
    """Return what an assistant's message holds: its thoughts, its words, its refusal, its voice, its tool calls."""
    if not [key for key, value in message.items() if value and key in _BESIDE]:
        return parts.from_content(message.get("content"))
    found: list[Part] = []
    thought = string(message.get("reasoning_content")) or string(message.get("reasoning"))
    if thought:
        found.append(parts.reasoning(thought))
    found += parts.from_content(message.get("content"))
    if string(message.get("refusal")):
        found.append(parts.generic("refusal", message["refusal"]))
    audio = mapping(message.get("audio"))
    if audio:
        found.append(_voice(audio))
    found += [_call(call) for call in mappings(message.get("tool_calls"))]
    called = mapping(message.get("function_call"))
    if called:
        found.append(parts.tool_call(None, called.get("name"), called.get("arguments")))
    return found


def _call(call: dict[str, Any]) -> Part:
    custom = mapping(call.get("custom"))
    if custom:
        return parts.tool_call(call.get("id"), custom.get("name"), custom.get("input"))
    function = mapping(call.get("function"))
    return parts.tool_call(call.get("id"), function.get("name"), function.get("arguments"))


def _voice(audio: dict[str, Any]) -> Part:
    data = string(audio.get("data"))
    if data:
        part = parts.blob("audio", data)
    else:  # an earlier answer, referred to by its id
        part = {"type": "file", "modality": "audio", "file_id": string(audio.get("id")) or ""}
    if string(audio.get("transcript")):
        part["transcript"] = audio["transcript"]
    return part
