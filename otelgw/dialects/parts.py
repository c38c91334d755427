"""Message parts of the GenAI conventions, and OpenAI's content in them.

Shapes: ``gen-ai-input-messages.json`` and ``gen-ai-output-messages.json`` of the conventions. A part that the
conventions have no word for keeps its provider's type (the schemas' GenericPart), with what it held under ``content``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from otelgw.dialects.credentials import redacted, redacted_url
from otelgw.dialects.document import value_of
from otelgw.dialects.fields import mapping, string

__all__ = [
    "Part",
    "arguments",
    "blob",
    "from_content",
    "generic",
    "joined_base64",
    "locator",
    "reasoning",
    "server_tool_call",
    "server_tool_response",
    "text",
    "tool_call",
    "tool_response",
]

Part = dict[str, Any]

_CONVENTION_TYPES = frozenset(
    {
        "blob",
        "compaction",
        "file",
        "reasoning",
        "server_tool_call",
        "server_tool_call_response",
        "text",
        "tool_call",
        "tool_call_response",
        "uri",
    }
)
_AUDIO_TYPES = {"mp3": "audio/mpeg", "pcm16": "audio/pcm"}


def text(content: str) -> Part:
    return {"type": "text", "content": content}


def reasoning(content: str) -> Part:
    return {"type": "reasoning", "content": content}


def generic(kind: str, content: Any = None) -> Part:
    """Return a part of a type that the conventions do not know; a type they do know is marked as the provider's."""
    part: Part = {"type": f"openai.{kind}" if kind in _CONVENTION_TYPES else kind or "unknown"}
    if content is not None:
        part["content"] = redacted(content)
    return part


def tool_call(identifier: Any, name: Any, given: Any) -> Part:
    return _identified("tool_call", identifier) | {"name": string(name) or "", "arguments": arguments(given)}


def tool_response(identifier: Any, response: Any) -> Part:
    return _identified("tool_call_response", identifier) | {"response": response}


def server_tool_call(identifier: Any, name: str, details: dict[str, Any]) -> Part:
    """Return a call of a tool that the provider runs itself; ``details`` has its ``type``."""
    return _identified("server_tool_call", identifier) | {"name": name, "server_tool_call": redacted(details)}


def server_tool_response(identifier: Any, details: dict[str, Any]) -> Part:
    return _identified("server_tool_call_response", identifier) | {"server_tool_call_response": redacted(details)}


def _identified(kind: str, identifier: Any) -> Part:
    return {"type": kind, "id": identifier} if isinstance(identifier, str) and identifier else {"type": kind}


def arguments(given: Any) -> Any:
    """Return the arguments of a tool call as an object, or as they came where they are no JSON object or list."""
    if not isinstance(given, str):
        return given
    value = value_of(given)
    return value if isinstance(value, dict | list) else given


def blob(modality: str, content: str, mime_type: str | None = None) -> Part:
    """Return inline data; ``content`` is base64."""
    if mime_type:
        return {"type": "blob", "modality": modality, "mime_type": mime_type, "content": content}
    return {"type": "blob", "modality": modality, "content": content}


def locator(modality: str, url: str) -> Part:
    """Return the part for what stands behind ``url``: inline data for a ``data:`` URL, else a reference."""
    if url[:5].lower() != "data:":
        return {"type": "uri", "modality": modality, "uri": redacted_url(url)}
    head, _, data = url[5:].partition(",")
    mime_type, *parameters = head.split(";")
    if "base64" not in (parameter.strip().lower() for parameter in parameters):
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return blob(modality, data, mime_type or "text/plain")


def _file(modality: str, file_id: str) -> Part:
    return {"type": "file", "modality": modality, "file_id": file_id}


def from_content(content: Any) -> list[Part]:
    """Return the parts of a message's ``content``: a string, a list of strings and parts, or nothing."""
    if isinstance(content, str):
        return [text(content)] if content else []
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return []
    found: list[Part] = []
    for item in content:
        if isinstance(item, str):
            found.append(text(item))
        elif isinstance(item, dict):
            kind = item.get("type")
            translate = _TRANSLATIONS.get(kind, _unknown) if isinstance(kind, str) else _unknown
            found.append(translate(item) or _unknown(item))
    return found


def _unknown(item: dict[str, Any]) -> Part:
    kind = item.get("type")
    rest = {key: value for key, value in item.items() if key != "type"}
    return generic(kind if isinstance(kind, str) else "", rest or None)


def _text(item: dict[str, Any]) -> Part | None:
    return text(item["text"]) if isinstance(item.get("text"), str) else None


def _refusal(item: dict[str, Any]) -> Part | None:
    return generic("refusal", item["refusal"]) if isinstance(item.get("refusal"), str) else None


def _reasoning(item: dict[str, Any]) -> Part | None:
    """Mistral's ``thinking`` holds a list of text parts; others hold the text itself."""
    thought = item.get("thinking", item.get("text"))
    if isinstance(thought, list):
        thought = "".join(str(mapping(piece).get("text") or "") for piece in thought)
    return reasoning(thought) if isinstance(thought, str) else None


def _media(modality: str, field: str) -> Callable[[dict[str, Any]], Part | None]:
    def translate(item: dict[str, Any]) -> Part | None:
        held = item.get(field)
        url = string(held) or string(mapping(held).get("url"))
        if url:
            return locator(modality, url)
        file_id = string(item.get("file_id"))
        return _file(modality, file_id) if file_id else None

    return translate


def _audio(item: dict[str, Any]) -> Part | None:
    audio = mapping(item.get("input_audio"))
    data, form = audio.get("data"), string(audio.get("format"))
    if not isinstance(data, str):
        return None
    return blob("audio", data, _AUDIO_TYPES.get(form, f"audio/{form}") if form else None)


def _document(item: dict[str, Any]) -> Part | None:
    """Chat puts the file's fields under ``file``, Responses beside ``type``."""
    file = mapping(item.get("file")) or item
    file_id, url, data = (string(file.get(name)) for name in ("file_id", "file_url", "file_data"))
    part = _file("document", file_id) if file_id else locator("document", url) if url else None
    if part is None and data:
        part = locator("document", data) if data[:5].lower() == "data:" else blob("document", data)
    name = string(file.get("filename"))
    if part is not None and name:
        part["filename"] = name
    return part


_TRANSLATIONS: dict[str, Callable[[dict[str, Any]], Part | None]] = {
    "text": _text,
    "input_text": _text,
    "output_text": _text,
    "summary_text": _reasoning,
    "reasoning_text": _reasoning,
    "thinking": _reasoning,
    "refusal": _refusal,
    "image_url": _media("image", "image_url"),
    "input_image": _media("image", "image_url"),
    "video_url": _media("video", "video_url"),
    "audio_url": _media("audio", "audio_url"),
    "input_audio": _audio,
    "file": _document,
    "input_file": _document,
}


def joined_base64(pieces: list[str]) -> str:
    """Return pieces of base64 as one: streamed pieces are padded each for itself."""
    if not any(piece.endswith("=") for piece in pieces[:-1]):
        return "".join(pieces)
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece) for piece in pieces)).decode()
    except (binascii.Error, ValueError):
        return "".join(pieces)
