"""Tool definitions, as the conventions' ``gen-ai-tool-definitions.json`` wants them."""

from __future__ import annotations

from typing import Any

from otelgw.dialects.fields import mapping, mappings, string

__all__ = ["definitions"]

# Of a provider's own tool only these are recorded: an MCP tool's definition holds headers and tokens too.
_SAFE = ("description", "parameters", "format", "server_label", "allowed_tools", "vector_store_ids")


def definitions(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tools a request offers: ``tools`` of Chat Completions and Responses, and the older ``functions``."""
    found = [_definition(tool) for tool in mappings(body.get("tools"))]
    found += [_function(function) for function in mappings(body.get("functions"))]
    return found


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    kind = string(tool.get("type")) or "function"
    if kind == "function":
        return _function(mapping(tool.get("function")) or tool)
    held = mapping(tool.get(kind)) or tool
    name = string(held.get("name")) or string(held.get("server_label")) or kind
    return {"type": kind, "name": name} | {key: held[key] for key in _SAFE if held.get(key) is not None}


def _function(function: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "function", "name": string(function.get("name")) or ""}
    if isinstance(function.get("description"), str):
        found["description"] = function["description"]
    if isinstance(function.get("parameters"), dict):
        found["parameters"] = function["parameters"]
    return found
