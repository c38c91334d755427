"""The streamed events of OpenAI's Responses API, put together to the response they describe.

The last event holds the whole response and is what counts; the deltas are needed only for a stream that was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otelgw.dialects.fields import mapping, string

__all__ = ["StreamedResponse"]

_LAST = frozenset({"response.completed", "response.failed", "response.incomplete", "response.cancelled"})

# Event type -> (list of the item that the delta goes into, type of the list's member, field that grows).
_TEXTS = {
    "response.output_text.delta": ("content", "output_text", "text"),
    "response.refusal.delta": ("content", "refusal", "refusal"),
    "response.reasoning_text.delta": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_text", "text"),
}
# Event type -> (item type, field that grows).
_FIELDS = {
    "response.function_call_arguments.delta": ("function_call", "arguments"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "input"),
    "response.mcp_call_arguments.delta": ("mcp_call", "arguments"),
    "response.code_interpreter_call_code.delta": ("code_interpreter_call", "code"),
}
_PLACES = 1000  # items and content parts of one response that are kept


class StreamedResponse:
    """``ended`` is True once the event that ends a response has been seen."""

    __slots__ = ("_grown", "_items", "_last", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._last: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        # The pieces of what grows, by (item, list, place in the list, member's type, field).
        self._grown: dict[tuple[int, str, int, str, str], list[str]] = {}

    def add(self, event: dict[str, Any]) -> None:
        kind = string(event.get("type")) or ""
        if isinstance(event.get("response"), dict):
            self._last = event["response"]
            self.ended = self.ended or kind in _LAST
        elif kind in _TEXTS:
            field, member, grows = _TEXTS[kind]
            index = "summary_index" if field == "summary" else "content_index"
            self._grow(event, field, _place(event, index), member, grows)
        elif kind in _FIELDS:
            item, grows = _FIELDS[kind]
            self._grow(event, "", 0, item, grows)
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._set_item(_place(event, "output_index"), mapping(event.get("item")), whole=kind.endswith("done"))

    def _grow(self, event: dict[str, Any], field: str, place: int, member: str, grows: str) -> None:
        delta = event.get("delta")
        key = (_place(event, "output_index"), field, place, member, grows)
        if isinstance(delta, str) and (key in self._grown or len(self._grown) < _PLACES):
            self._grown.setdefault(key, []).append(delta)

    def _set_item(self, index: int, item: dict[str, Any], *, whole: bool) -> None:
        if len(self._items) < _PLACES or index in self._items:
            self._items[index] = item
        if whole:
            self._grown = {key: pieces for key, pieces in self._grown.items() if key[0] != index}

    def response(self) -> dict[str, Any]:
        """Return the response: as its last event told it, or as far as the stream came."""
        if self.ended or not (self._items or self._grown):
            return self._last
        items = {index: dict(item) for index, item in self._items.items()}
        for (index, field, place, member, grows), pieces in sorted(self._grown.items()):
            item = items.setdefault(index, {})
            grow = _in_list if field else _in_item
            grow(item, field, place, member, grows, "".join(pieces))
        return self._last | {"output": [items[index] for index in sorted(items)]}


_Grow = Callable[[dict[str, Any], str, int, str, str, str], None]


def _in_item(item: dict[str, Any], _field: str, _place: int, kind: str, grows: str, text: str) -> None:
    item.setdefault("type", kind)
    item[grows] = text


def _in_list(item: dict[str, Any], field: str, place: int, member: str, grows: str, text: str) -> None:
    item.setdefault("type", "message" if member in ("output_text", "refusal") else "reasoning")
    members = [dict(held) for held in item.get(field) or () if isinstance(held, dict)]
    if place < len(members):
        members[place][grows] = text
    else:
        members.append({"type": member, grows: text})
    item[field] = members


def _place(event: dict[str, Any], name: str) -> int:
    place = event.get(name)
    return place if type(place) is int and 0 <= place < _PLACES else 0
