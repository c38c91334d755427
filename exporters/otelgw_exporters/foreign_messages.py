"""Messages of other vocabularies -> the shapes of the GenAI conventions (``gen-ai-input-messages.json`` and others).

Flattened messages (``llm.input_messages.0.message.role``, ``gen_ai.prompt.0.content``) are put together again; JSON
text is read; messages in span events are collected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event

from otelgw_exporters import semconv

__all__ = ["content", "unflattened"]

Message = dict[str, Any]
Part = dict[str, Any]

_UNKNOWN = "unknown"  # the finish reason of an answer that does not say
_STRUCTURED = (
    semconv.GEN_AI_INPUT_MESSAGES,
    semconv.GEN_AI_OUTPUT_MESSAGES,
    semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
    semconv.GEN_AI_TOOL_DEFINITIONS,
)
_ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_MEDIA = {"image": "image", "image_url": "image", "input_image": "image", "audio": "audio", "input_audio": "audio"}


def content(attributes: Mapping[str, Any], events: Sequence[Event], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return messages, instructions and tools by the conventions' attribute names; empty where there are none.

    ``known`` is what is understood of the span already: its finish reasons are those of messages without their own.
    """
    reasons = known.get(semconv.GEN_AI_RESPONSE_FINISH_REASONS) or attributes.get(
        semconv.GEN_AI_RESPONSE_FINISH_REASONS
    )
    finished = list(reasons) if isinstance(reasons, list | tuple) else []
    found = {name: _read(attributes.get(name)) for name in _STRUCTURED}
    given, answered = _of_events(events)
    for name, made in (
        (semconv.GEN_AI_INPUT_MESSAGES, _inputs(attributes) or given),
        (semconv.GEN_AI_OUTPUT_MESSAGES, _outputs(attributes, finished) or answered),
        (semconv.GEN_AI_TOOL_DEFINITIONS, _tools(attributes)),
    ):
        found[name] = found[name] or made
    return found


def _read(value: Any) -> Any:
    """Return structured content that came as JSON text; nothing for what is structured already."""
    read = _json(value) if isinstance(value, str) else None
    return read if isinstance(read, list) else None


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def unflattened(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Return the items below ``prefix``, in order: ``p.0.a.b`` and ``p.1.c`` are ``[{"a.b": …}, {"c": …}]``."""
    items: dict[int, dict[str, Any]] = {}
    start = f"{prefix}."
    for key, value in attributes.items():
        if key.startswith(start):
            index, _, rest = key[len(start) :].partition(".")
            if index.isdecimal() and len(index) < 7 and rest:
                items.setdefault(int(index), {})[rest] = value
    return [items[index] for index in sorted(items)]


def _inputs(attributes: Mapping[str, Any]) -> list[Message]:
    messages = [_inference_message(item, "user") for item in unflattened(attributes, "llm.input_messages")]
    messages += [_loop_message(item, "user") for item in unflattened(attributes, "gen_ai.prompt")]
    prompts = unflattened(attributes, "llm.prompts")
    messages += [_said("user", item["prompt.text"]) for item in prompts if "prompt.text" in item]
    messages += [_loop_message(item, "user") for item in prompts if "content" in item]
    texts = unflattened(attributes, "embedding.embeddings")
    messages += [_said("user", item["embedding.text"]) for item in texts if "embedding.text" in item]
    if (
        not messages
        and attributes.get("openinference.span.kind") in ("LLM", "EMBEDDING")
        and "input.value" in attributes
    ):
        messages.append(_said("user", attributes["input.value"]))
    return messages


def _outputs(attributes: Mapping[str, Any], finished: list[Any]) -> list[Message]:
    messages = [_inference_message(item, "assistant") for item in unflattened(attributes, "llm.output_messages")]
    for prefix in ("gen_ai.completion", "llm.completions"):
        for item in unflattened(attributes, prefix):
            message = _loop_message(item, "assistant")
            if isinstance(item.get("finish_reason"), str):
                message["finish_reason"] = item["finish_reason"]
            messages.append(message)
    choices = unflattened(attributes, "llm.choices")
    messages += [_said("assistant", item["completion.text"]) for item in choices if "completion.text" in item]
    if not messages and attributes.get("openinference.span.kind") == "LLM" and "output.value" in attributes:
        messages.append(_said("assistant", attributes["output.value"]))
    for index, message in enumerate(messages):
        reason = finished[index] if index < len(finished) else _UNKNOWN
        message.setdefault("finish_reason", str(reason))
    return messages


def _tools(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    tools = [_json(item.get("tool.json_schema")) for item in unflattened(attributes, "llm.tools")]
    found = [_tool(tool) for tool in tools if isinstance(tool, dict)]
    functions = unflattened(attributes, "llm.request.functions")
    return found + [_tool({**item, "parameters": _json(item.get("parameters"))}) for item in functions]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    nested = tool.get("function")
    held: Mapping[str, Any] = nested if isinstance(nested, dict) else tool
    made: dict[str, Any] = {"type": "function", "name": str(held.get("name") or "")}
    if isinstance(held.get("description"), str):
        made["description"] = held["description"]
    parameters = held.get("parameters") or held.get("input_schema")
    if isinstance(parameters, dict):
        made["parameters"] = parameters
    return made


def _said(role: str, text: Any) -> Message:
    return {"role": role, "parts": _parts(text)}


def _inference_message(item: Mapping[str, Any], role: str) -> Message:
    """Return a message of OpenInference's."""
    parts: list[Part] = []
    for piece in unflattened(item, "message.contents"):
        kind = str(piece.get("message_content.type") or "text")
        url = piece.get("message_content.image.image.url") or piece.get("message_content.audio.audio.url")
        if isinstance(url, str):
            parts.append(_locator(_MEDIA.get(kind, "image"), url))
        elif kind in {"text", "reasoning"}:
            parts.append({"type": kind, "content": str(piece.get("message_content.text") or "")})
        else:
            parts.append({"type": kind, "content": piece.get("message_content.text")})
    answered = item.get("message.tool_call_id")
    if item.get("message.content") not in (None, ""):
        parts = [_tool_response(answered, item["message.content"])] if answered else _parts(item["message.content"])
    for call in unflattened(item, "message.tool_calls"):
        given = call.get("tool_call.function.arguments")
        parts.append(_tool_call(call.get("tool_call.id"), call.get("tool_call.function.name"), given))
    if item.get("message.function_call_name"):
        given = item.get("message.function_call_arguments_json")
        parts.append(_tool_call(None, item["message.function_call_name"], given))
    message: Message = {"role": str(item.get("message.role") or role), "parts": parts}
    if isinstance(item.get("message.name"), str):
        message["name"] = item["message.name"]
    return message


def _loop_message(item: Mapping[str, Any], role: str) -> Message:
    """Return a message of OpenLLMetry's, whose prompts of completions stand under ``user``."""
    said = item.get("content", item.get("user"))
    answered = item.get("tool_call_id")
    parts: list[Part] = []
    if said not in (None, ""):
        parts = [_tool_response(answered, said)] if answered else _parts(said)
    for call in unflattened(item, "tool_calls"):
        parts.append(_tool_call(call.get("id"), call.get("name"), call.get("arguments")))
    if item.get("function_call.name"):
        parts.append(_tool_call(None, item["function_call.name"], item.get("function_call.arguments")))
    return {"role": str(item.get("role") or role), "parts": parts}


def _of_events(events: Iterable[Event]) -> tuple[list[Message], list[Message]]:
    """Return the messages that stand in span events: what was asked, what was answered."""
    asked: list[Message] = []
    answered: list[Message] = []
    for event in events:
        held: dict[str, Any] = dict(event.attributes or {})
        body = _json(held.get("gen_ai.event.content"))
        held |= body if isinstance(body, dict) else {}
        if event.name in _ROLES:
            asked.append(_event_message(held, _ROLES[event.name]))
        elif event.name == "gen_ai.choice":
            inner = held.get("message")
            read = inner if isinstance(inner, dict) else _json(inner)
            message = _event_message(read if isinstance(read, dict) else held, "assistant")
            answered.append({**message, "finish_reason": str(held.get("finish_reason") or _UNKNOWN)})
        elif event.name == "gen_ai.content.prompt":
            asked += _listed(held.get("gen_ai.prompt"), "user")
        elif event.name == "gen_ai.content.completion":
            made = _listed(held.get("gen_ai.completion"), "assistant")
            answered += [{"finish_reason": _UNKNOWN, **message} for message in made]
        else:
            asked += _read(held.get(semconv.GEN_AI_INPUT_MESSAGES)) or ()
            answered += _read(held.get(semconv.GEN_AI_OUTPUT_MESSAGES)) or ()
    return asked, answered


def _listed(value: Any, role: str) -> list[Message]:
    read = _json(value)
    if not isinstance(read, list):
        return [_said(role, value)] if value else []
    return [_event_message(item, role) for item in read if isinstance(item, dict)]


def _event_message(held: Mapping[str, Any], role: str) -> Message:
    """Return a message in the shape of OpenAI's API."""
    said, answered = held.get("content"), held.get("tool_call_id") or (held.get("id") if role == "tool" else None)
    parts: list[Part] = []
    if said not in (None, ""):
        parts = [_tool_response(answered, said)] if answered else _parts(said)
    calls = held.get("tool_calls")
    read = _json(calls) if isinstance(calls, str) else calls
    for call in read if isinstance(read, list | tuple) else ():
        if isinstance(call, dict):
            nested = call.get("function")
            function: dict[str, Any] = nested if isinstance(nested, dict) else call
            parts.append(_tool_call(call.get("id"), function.get("name"), function.get("arguments")))
    return {"role": str(held.get("role") or role), "parts": parts}


def _parts(said: Any) -> list[Part]:
    """Return the parts of a message's content: a text, or OpenAI's list of parts, perhaps as JSON text."""
    if isinstance(said, str):
        read = _json(said) if said.startswith("[{") else None
        if not isinstance(read, list) or not all(isinstance(item, dict) and "type" in item for item in read):
            return [{"type": "text", "content": said}]
        said = read
    if not isinstance(said, list | tuple):
        return [{"type": "text", "content": said if isinstance(said, str) else json.dumps(said, default=str)}]
    return [_part(item) for item in said]


def _part(item: Any) -> Part:
    if not isinstance(item, dict):
        return {"type": "text", "content": str(item)}
    kind = str(item.get("type") or "text")
    if isinstance(item.get("text"), str):
        return {"type": "text", "content": item["text"]}
    if kind in {"image_url", "input_image"}:
        held = item.get("image_url")
        url = held.get("url") if isinstance(held, dict) else held
        if isinstance(url, str):
            return _locator("image", url)
    rest = {key: value for key, value in item.items() if key != "type"}
    return {"type": kind, **rest}


def _locator(modality: str, url: str) -> Part:
    """Return the part for what stands behind ``url``: inline data for a ``data:`` URL, else a reference."""
    head, comma, data = url.partition(",")
    if url[:5].lower() == "data:" and comma and head.lower().endswith(";base64"):
        return {"type": "blob", "modality": modality, "mime_type": head[5:-7] or "text/plain", "content": data}
    return {"type": "uri", "modality": modality, "uri": url}


def _tool_call(identifier: Any, name: Any, given: Any) -> Part:
    part: Part = {"type": "tool_call"}
    if isinstance(identifier, str) and identifier:
        part["id"] = identifier
    read = _json(given) if isinstance(given, str) else given
    return {**part, "name": str(name or ""), "arguments": read if isinstance(read, dict | list) else given}


def _tool_response(identifier: Any, response: Any) -> Part:
    return {"type": "tool_call_response", "id": str(identifier), "response": response}
