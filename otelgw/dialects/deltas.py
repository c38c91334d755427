"""Streamed chat deltas, merged into the messages that the same answer would have had without streaming."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from otelgw.dialects.fields import mapping, mappings, string
from otelgw.dialects.parts import joined_base64

__all__ = ["StreamedAnswer", "grow"]

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_PLACED = frozenset({"index", "delta", "finish_reason"})  # fields of a choice that are kept by themselves
_NAMES = ("id", "created", "model", "system_fingerprint")


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


class _Choice:
    """One choice under construction; ``finish_reason`` is None until it arrives."""

    __slots__ = (
        "_audio",
        "_beside",
        "_calls",
        "_function",
        "_items",
        "_last",
        "_others",
        "_texts",
        "finish_reason",
        "role",
    )

    def __init__(self) -> None:
        self.role = ""
        self.finish_reason: Any = None
        self._texts: dict[str, list[str]] = {}
        self._items: list[Any] = []
        self._calls: dict[Any, _Call] = {}
        self._last: _Call | None = None
        self._function: _Call | None = None
        self._audio: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}  # what else the message holds
        self._beside: dict[str, Any] = {}  # what else the choice holds

    def add(self, piece: dict[str, Any]) -> None:
        """Take one of a chunk's ``choices``."""
        for key, value in piece.items():
            if key not in _PLACED:
                grow(self._beside, key, value)
        self.finish_reason = piece.get("finish_reason") or self.finish_reason
        self._add_delta(mapping(piece.get("delta")))

    def _add_delta(self, delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if value is None:
                continue
            if key in _TEXTS:
                self.say(key, value)
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
            else:
                grow(self._others, key, value)

    def say(self, key: str, value: Any) -> None:
        """Go on with one of the texts of the message."""
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
        whole: dict[str, Any] = {"role": self.role or "assistant", **self._others}
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

    def whole(self, index: int, message: dict[str, Any]) -> dict[str, Any]:
        """Return the choice around its ``message``, as one of ``choices`` of an answer that is not streamed."""
        said = {"role": message["role"], "content": message.get("content")} | message
        return {"index": index, "message": said, "finish_reason": self.finish_reason} | self._beside


class StreamedAnswer:
    """The chunks of a streamed answer, put together."""

    __slots__ = ("_choices", "_head", "_named", "_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._head: dict[str, Any] = {}
        self._named: dict[str, Any] = {}
        self._usage: Any = None

    def add(self, chunk: dict[str, Any]) -> None:
        self._head |= chunk
        if not self._named.get("id") and chunk.get("id"):  # Azure's first and last chunks have no names
            self._named = chunk
        self._usage = chunk.get("usage") or self._usage
        for position, piece in enumerate(mappings(chunk.get("choices"))):
            index = piece.get("index")
            place = index if type(index) is int else position
            choice = self._choices.get(place)
            if choice is None:
                choice = self._choices[place] = _Choice()
            choice.add(piece)

    def say(self, choice: int, field: str, text: str) -> None:
        """Go on with a text of a choice that has begun."""
        self._choices[choice].say(field, text)

    def messages(self) -> list[dict[str, Any]]:
        """Return the message of each choice, in the order of their indexes."""
        return [self._choices[index].message() for index in sorted(self._choices)]

    def reasons(self) -> list[Any]:
        """Return the finish reason of each choice, None where it never arrived."""
        return [self._choices[index].finish_reason for index in sorted(self._choices)]

    def answer(self, messages: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the answer around its ``messages`` as it would have been without streaming; None without a choice."""
        if not messages:
            return None
        whole = self._head | {key: self._named[key] for key in _NAMES if self._named.get(key)}
        whole.pop("error", None)
        places = zip(sorted(self._choices), messages, strict=True)
        whole |= {
            "object": "chat.completion",
            "choices": [self._choices[index].whole(index, message) for index, message in places],
        }
        if self._usage is not None:
            whole["usage"] = self._usage
        return whole


def grow(held: dict[str, Any], key: str, value: Any) -> None:
    """Add a piece of a field that is not known here: lists and mappings grow, of anything else the last one counts."""
    known = held.get(key)
    if isinstance(known, list) and isinstance(value, list):
        known += value
    elif isinstance(known, dict) and isinstance(value, dict):
        for name, piece in value.items():
            grow(known, name, piece)
    elif value is not None or key not in held:
        held[key] = value


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
