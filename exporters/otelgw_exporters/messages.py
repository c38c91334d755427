"""The conventions' messages as OpenAI's Chat Completions has them, and answers around them.

The inverse of what the gateway's dialects make of a request: whatever the conventions' JSON schemas hold comes back.
They do not hold whether a text stood alone or as the only part of a list; it comes back alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otelgw_exporters.document import write

__all__ = ["chat_messages", "choices", "tools"]

_Part = Mapping[str, Any]

_REASONS = {"tool_call": "tool_calls", "error": None, "unknown": None}
_PROVIDERS_OWN = "openai."  # before the type of a part that the conventions use for something else
_MEDIA = {"image": "image_url", "audio": "audio_url", "video": "video_url"}


def chat_messages(messages: Any, instructions: Any = None) -> list[dict[str, Any]]:
    """Return ``gen_ai.input.messages`` as OpenAI's messages, after the system message of ``instructions``."""
    found: list[dict[str, Any]] = []
    system = _mappings(instructions)
    if system:
        found.append({"role": "system", "content": _content(system)})
    for message in _mappings(messages):
        found += _input(message)
    return found


def choices(messages: Any, reasons: Any) -> list[dict[str, Any]]:
    """Return ``gen_ai.output.messages`` as OpenAI's choices; where only the finish ``reasons`` are known, these."""
    said = _mappings(messages)
    ended = list(reasons) if isinstance(reasons, Sequence) and not isinstance(reasons, str) else []
    found: list[dict[str, Any]] = []
    for index in range(max(len(said), len(ended))):
        message = said[index] if index < len(said) else {}
        reason = ended[index] if index < len(ended) else message.get("finish_reason")
        role = str(message.get("role") or "assistant")
        found.append(
            {
                "index": index,
                "message": _spoken(role, _mappings(message.get("parts"))),
                "finish_reason": _REASONS.get(reason, reason) if isinstance(reason, str) else None,
            }
        )
    return found


def tools(definitions: Any) -> list[dict[str, Any]]:
    """Return ``gen_ai.tool.definitions`` as OpenAI's tools."""
    found: list[dict[str, Any]] = []
    for definition in _mappings(definitions):
        kind = definition.get("type")
        rest = {key: value for key, value in definition.items() if key != "type"}
        found.append({"type": kind, "function": rest} if kind == "function" else dict(definition))
    return found


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [item for item in value if isinstance(item, Mapping)]


def _input(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the message; results of tools become messages of their own, before what else it holds."""
    role = str(message.get("role") or "user")
    parts = _mappings(message.get("parts"))
    results = [part for part in parts if part.get("type") == "tool_call_response"]
    rest = [part for part in parts if part.get("type") != "tool_call_response"]
    found = [_result(part) for part in results]
    if rest or not results:
        found.append(_spoken(role, rest) if role == "assistant" else {"role": role, "content": _content(rest)})
    if message.get("name"):
        for each in found:
            each["name"] = message["name"]
    return found


def _result(part: _Part) -> dict[str, Any]:
    response = part.get("response", part.get("result"))
    parts = _mappings(response)
    if parts and all("type" in each for each in parts):
        response = [_item(each) for each in parts]
    elif response is not None and not isinstance(response, str):
        response = write(response).decode()
    found: dict[str, Any] = {"role": "tool", "content": response}
    if part.get("id"):
        found["tool_call_id"] = part["id"]
    return found


def _spoken(role: str, parts: Sequence[_Part]) -> dict[str, Any]:
    """Return a message of the assistant's: what has a field of its own there is not content."""
    beside: dict[str, Any] = {}
    content = [part for part in parts if not _set_aside(beside, part)]
    return {"role": role, "content": _content(content) if content else None, **beside}


def _set_aside(message: dict[str, Any], part: _Part) -> bool:
    kind = part.get("type")
    if kind == "tool_call":
        message.setdefault("tool_calls", []).append(_call(part))
    elif kind == "reasoning" and "reasoning_content" not in message:
        message["reasoning_content"] = part.get("content")
    elif kind == "refusal" and isinstance(part.get("content"), str):
        message["refusal"] = part["content"]
    elif part.get("modality") == "audio" and kind in ("blob", "file") and "mime_type" not in part:
        voice = {"data": part.get("content"), "id": part.get("file_id"), "transcript": part.get("transcript")}
        message["audio"] = {key: value for key, value in voice.items() if value is not None}
    else:
        return False
    return True


def _call(part: _Part) -> dict[str, Any]:
    given = part.get("arguments")
    text = given if isinstance(given, str) else "" if given is None else write(given).decode()
    function = {"name": part.get("name") or "", "arguments": text}
    return {"id": part.get("id") or "", "type": "function", "function": function}


def _content(parts: Sequence[_Part]) -> Any:
    """Return a message's content: a text where it is nothing but one, else OpenAI's parts."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].get("type") == "text" and isinstance(parts[0].get("content"), str):
        return parts[0]["content"]
    return [_item(part) for part in parts]


def _item(part: _Part) -> dict[str, Any]:
    shape = _ITEMS.get(str(part.get("type")))
    return (shape(part) if shape else None) or _other(part)


def _text(part: _Part) -> dict[str, Any] | None:
    return {"type": "text", "text": part["content"]} if isinstance(part.get("content"), str) else None


def _thought(part: _Part) -> dict[str, Any]:
    return {"type": "thinking", "thinking": part.get("content")}


def _blob(part: _Part) -> dict[str, Any] | None:
    modality, data = part.get("modality"), part.get("content")
    mime_type = part.get("mime_type")
    if modality == "audio":
        form = _FORMATS.get(str(mime_type), str(mime_type or "").removeprefix("audio/"))
        return {"type": "input_audio", "input_audio": {"data": data} | ({"format": form} if form else {})}
    url = f"data:{mime_type};base64,{data}" if mime_type else data
    if modality in _MEDIA:
        return {"type": _MEDIA[modality], _MEDIA[modality]: {"url": url}}
    return {"type": "file", "file": _named(part, {"file_data": url})} if modality == "document" else None


_FORMATS = {"audio/mpeg": "mp3", "audio/pcm": "pcm16"}


def _uri(part: _Part) -> dict[str, Any] | None:
    kind = _MEDIA.get(str(part.get("modality")))
    if kind:
        return {"type": kind, kind: {"url": part.get("uri")}}
    if part.get("modality") == "document":
        return {"type": "file", "file": _named(part, {"file_url": part.get("uri")})}
    return None


def _file(part: _Part) -> dict[str, Any] | None:
    kind = _MEDIA.get(str(part.get("modality")))
    if kind:
        return {"type": kind, "file_id": part.get("file_id")}
    return {"type": "file", "file": _named(part, {"file_id": part.get("file_id")})}


def _named(part: _Part, file: dict[str, Any]) -> dict[str, Any]:
    return file | {"filename": part["filename"]} if part.get("filename") else file


_ITEMS: Mapping[str, Callable[[_Part], dict[str, Any] | None]] = {
    "blob": _blob,
    "file": _file,
    "reasoning": _thought,
    "text": _text,
    "uri": _uri,
}


def _other(part: _Part) -> dict[str, Any]:
    """Return a part that Chat Completions has no word for: a provider's own as it was, the conventions' as it is."""
    kind = str(part.get("type") or "unknown")
    held = part.get("content")
    if set(part) <= {"type", "content"}:
        kind = kind.removeprefix(_PROVIDERS_OWN)
        if isinstance(held, Mapping):
            return {"type": kind, **held}
        if kind == "refusal" and isinstance(held, str):
            return {"type": kind, "refusal": held}
    return {**part, "type": kind}
