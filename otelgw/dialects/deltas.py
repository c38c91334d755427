"""Streamed chat deltas, merged into the messages that the same answer would have had without streaming."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from otelgw.dialects.fields import mapping, mappings, string
from otelgw.dialects.parts import joined_base64

__all__ = ["StreamedChoice", "StreamedChoices"]

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


class _Call:
    """One tool call under construction."""

    __slots__ = ("arguments", "id", "kind", "name")

    def __init__(self) -> None:
        self.id = ""
        self.kind = ""
        self.name: list[str] = []
        self.arguments: list[str] = []

    def add(self, delta: dict[str, Any]) -> None:
        self.id = self.id or string(delta.get("id")) or ""
        self.kind = self.kind or string(delta.get("type")) or ""
        held = mapping(delta.get("custom")) if self.kind == "custom" else mapping(delta.get("function"))
        given = held.get("arguments", held.get("input"))
        for pieces, value in ((self.name, held.get("name")), (self.arguments, given)):
            if isinstance(value, str):
                pieces.append(value)

    def whole(self) -> dict[str, Any]:
        name, given = "".join(self.name), "".join(self.arguments)
        if self.kind == "custom":
            return {"id": self.id, "type": "custom", "custom": {"name": name, "input": given}}
        return {"id": self.id, "type": "function", "function": {"name": name, "arguments": given}}


class StreamedChoice:
    """One choice under construction; ``finish_reason`` is None until it arrives."""

    __slots__ = ("_audio", "_calls", "_function", "_items", "_last", "_texts", "finish_reason", "role")

    def __init__(self) -> None:
        self.role = ""
        self.finish_reason: Any = None
        self._texts: dict[str, list[str]] = {}
        self._items: list[Any] = []
        self._calls: dict[Any, _Call] = {}
        self._last: _Call | None = None
        self._function: _Call | None = None
        self._audio: dict[str, list[str]] = {}

    def add(self, delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if value is None:
                continue
            if key in _TEXTS:
                self._add_text(key, value)
            elif key == "tool_calls":
                for call in mappings(value):
                    self._call(call).add(call)
            elif key == "role":
                self.role = self.role or string(value) or ""
            elif key == "audio":
                self._add_audio(mapping(value))
            elif key == "function_call":
                self._function = self._function or _Call()
                self._function.add({"function": value})

    def _add_text(self, key: str, value: Any) -> None:
        if isinstance(value, str):
            if self._items and key == "content":
                self._items.append({"type": "text", "text": value})
            else:
                self._texts.setdefault(key, []).append(value)
        elif isinstance(value, list):  # Mistral streams content as a list of parts
            if not self._items:
                said = "".join(self._texts.pop("content", ()))
                self._items += [{"type": "text", "text": said}] if said else []
            self._items += value

    def _add_audio(self, audio: dict[str, Any]) -> None:
        for key in ("id", "data", "transcript"):
            piece = audio.get(key)
            if isinstance(piece, str):
                self._audio.setdefault(key, []).append(piece)

    def _call(self, delta: dict[str, Any]) -> _Call:
        """Return the call that ``delta`` goes on with.

        ``index`` decides. Some servers leave it out or give every parallel call index 0; a new id together with a
        name then begins a new call (a new id alone does not: older vLLM invents one for every delta).
        """
        identifier = string(delta.get("id"))
        index = delta.get("index")
        known = self._calls.get(index) if type(index) is int else self._last
        named = string(mapping(delta.get("function")).get("name")) or string(mapping(delta.get("custom")).get("name"))
        if known is None or (identifier and named and known.id and known.id != identifier):
            known = _Call()
            place = index if type(index) is int and index not in self._calls else ("unplaced", len(self._calls))
            self._calls[place] = known
        self._last = known
        return known

    def message(self) -> dict[str, Any]:
        """Return the message as ``choices[].message`` of an answer that is not streamed."""
        whole: dict[str, Any] = {"role": self.role or "assistant"}
        whole |= {key: "".join(pieces) for key, pieces in self._texts.items()}
        if self._items:
            whole["content"] = _merged(self._items)
        if self._calls:
            whole["tool_calls"] = [call.whole() for call in self._calls.values()]
        if self._function is not None:
            whole["function_call"] = self._function.whole()["function"]
        if self._audio:
            whole["audio"] = {
                "id": "".join(self._audio.get("id", ())[:1]),
                "data": joined_base64(self._audio.get("data", [])),
                "transcript": "".join(self._audio.get("transcript", ())),
            }
        return whole


class StreamedChoices:
    """The choices of a streamed answer, by index."""

    __slots__ = ("_choices",)

    def __init__(self) -> None:
        self._choices: dict[int, StreamedChoice] = {}

    def at(self, choice: dict[str, Any], position: int) -> StreamedChoice:
        index = choice.get("index")
        place = index if type(index) is int else position
        found = self._choices.get(place)
        if found is None:
            found = self._choices[place] = StreamedChoice()
        return found

    def in_order(self) -> list[StreamedChoice]:
        return [self._choices[index] for index in sorted(self._choices)]


def _merged(items: list[Any]) -> list[Any]:
    """Return content parts with neighbours of one textual type joined."""
    merged: list[Any] = []
    for kind, run in groupby(items, _textual):
        parts = list(run)
        if not kind or len(parts) == 1:
            merged += parts
        elif kind == "text":
            merged.append({"type": kind, kind: "".join(part[kind] for part in parts)})
        else:
            merged.append({"type": kind, kind: [piece for part in parts for piece in part[kind]]})
    return merged


def _textual(item: Any) -> str:
    """Return the type of a part that its successor of the same type continues; empty for any other."""
    if isinstance(item, dict):
        if item.get("type") == "text" and isinstance(item.get("text"), str):
            return "text"
        if item.get("type") == "thinking" and isinstance(item.get("thinking"), list):
            return "thinking"
    return ""
