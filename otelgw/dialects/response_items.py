"""Items of OpenAI's Responses API as messages and message parts.

In a request every item is a message of its own; in an answer all items are parts of the one message, because an answer
is one generation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otelgw.dialects import parts
from otelgw.dialects.fields import mapping, mappings, string
from otelgw.dialects.parts import Part

__all__ = ["calls_a_tool", "input_message", "item_parts"]

# Tools that the provider runs: which fields say what was asked, and which what came out.
_SERVER_TOOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "web_search_call": (("action",), ()),
    "file_search_call": (("queries",), ("results",)),
    "code_interpreter_call": (("code", "container_id"), ("outputs",)),
    "image_generation_call": ((), ()),
    "mcp_call": (("server_label", "arguments"), ("output", "error")),
}
_CLIENT_CALLS: dict[str, tuple[str, ...]] = {  # tools that the caller runs: where their arguments stand
    "function_call": ("arguments",),
    "custom_tool_call": ("input",),
    "computer_call": ("action", "actions"),
    "local_shell_call": ("action",),
    "shell_call": ("action",),
    "apply_patch_call": ("operation",),
}


def calls_a_tool(item: dict[str, Any]) -> bool:
    """Say whether the model waits for the caller to run a tool."""
    return item.get("type") in _CLIENT_CALLS


def input_message(item: Any) -> dict[str, Any]:
    """Return the message for one item of a request's ``input``."""
    item = mapping(item)
    kind = string(item.get("type")) or "message"
    if kind == "message":
        return {"role": string(item.get("role")) or "user", "parts": parts.from_content(item.get("content"))}
    role = "tool" if kind.endswith("_output") else "assistant"
    return {"role": role, "parts": item_parts(item)}


def item_parts(item: dict[str, Any]) -> list[Part]:
    """Return the parts that an item of any type holds; an encrypted one holds none that could be read."""
    kind = string(item.get("type")) or "message"
    if kind in _CLIENT_CALLS:
        given = next((item[name] for name in _CLIENT_CALLS[kind] if item.get(name) is not None), None)
        name = item.get("name") or kind.removesuffix("_call")
        return [parts.tool_call(item.get("call_id") or item.get("id"), name, given)]
    if kind in _SERVER_TOOLS:
        return _server_tool(kind, item)
    if kind.endswith("_call_output"):
        return [parts.tool_response(item.get("call_id"), _result(item.get("output")))]
    translate = _ITEMS.get(kind)
    return translate(item) if translate else [parts.generic(kind, {k: v for k, v in item.items() if k != "type"})]


def _message(item: dict[str, Any]) -> list[Part]:
    return parts.from_content(item.get("content"))


def _reasoning(item: dict[str, Any]) -> list[Part]:
    pieces = [*mappings(item.get("summary")), *mappings(item.get("content"))]
    return [parts.reasoning(piece["text"]) for piece in pieces if string(piece.get("text"))]


def _compaction(item: dict[str, Any]) -> list[Part]:
    identifier = string(item.get("id"))
    return [{"type": "compaction", "id": identifier} if identifier else {"type": "compaction"}]


_ITEMS: dict[str, Callable[[dict[str, Any]], list[Part]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "compaction": _compaction,
}


def _result(output: Any) -> Any:
    return parts.from_content(output) if isinstance(output, list) else output


def _server_tool(kind: str, item: dict[str, Any]) -> list[Part]:
    asked, answered = _SERVER_TOOLS[kind]
    tool = kind.removesuffix("_call")
    identifier = item.get("id")
    details = {"type": tool} | {name: item[name] for name in asked if item.get(name) is not None}
    if isinstance(details.get("arguments"), str):
        details["arguments"] = parts.arguments(details["arguments"])
    found = [parts.server_tool_call(identifier, string(item.get("name")) or tool, details)]
    outcome = {name: item[name] for name in answered if item.get(name) is not None}
    if outcome:
        found.append(parts.server_tool_response(identifier, {"type": tool} | outcome))
    image = string(item.get("result"))
    if kind == "image_generation_call" and image:
        found.append(parts.blob("image", image, f"image/{string(item.get('output_format')) or 'png'}"))
    return found
