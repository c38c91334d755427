"""``litellm.types.utils``: responses that answer both ``response["usage"]`` and ``response.usage``."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "Choices",
    "EmbeddingResponse",
    "Fields",
    "Message",
    "ModelResponse",
    "TextCompletionResponse",
    "Usage",
    "response",
]


_OLDER = {"dict": "model_dump", "to_dict": "model_dump", "json": "model_dump_json", "to_json": "model_dump_json"}


class Fields(dict[str, Any]):
    """An object of the API: a dictionary whose keys are attributes, too. Known fields that are absent are None."""

    absent: ClassVar[frozenset[str]] = frozenset()
    inner: ClassVar[Mapping[str, type[Fields]]] = {}
    _hidden_params: Mapping[str, Any]

    def __init__(self, fields: Mapping[str, Any] | None = None, **more: Any) -> None:
        super().__init__()
        for key, value in {**(fields or {}), **more}.items():
            self[key] = _wrapped(value, self.inner.get(key, Fields))

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in self.absent:
            return None
        if name in _OLDER:
            return getattr(self, _OLDER[name])
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __copy__(self) -> Fields:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Fields:
        made = type(self)(copy.deepcopy(dict(self), memo))
        made.__dict__.update(self.__dict__)
        return made

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        plain = _plain(self)
        return plain if isinstance(plain, dict) else {}

    def model_dump_json(self, **_: Any) -> str:
        return json.dumps(self.model_dump(), default=str)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.items())})"

    __str__ = __repr__


def _wrapped(value: Any, kind: type[Fields]) -> Any:
    if isinstance(value, Fields):
        return value
    if isinstance(value, Mapping):
        return kind(value)
    return [_wrapped(item, kind) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


class Usage(Fields):
    """Tokens."""

    absent = frozenset(
        {
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "completion_tokens",
            "completion_tokens_details",
            "prompt_tokens",
            "prompt_tokens_details",
            "total_tokens",
        }
    )


class Message(Fields):
    """What the model said."""

    absent = frozenset(
        {"annotations", "audio", "content", "function_call", "reasoning_content", "refusal", "role", "tool_calls"}
    )


class Choices(Fields):
    """One of the answers."""

    absent = frozenset({"finish_reason", "index", "logprobs", "message", "text"})
    inner: ClassVar[Mapping[str, type[Fields]]] = {"message": Message, "delta": Message}


class ModelResponse(Fields):
    """A chat completion."""

    absent = frozenset({"choices", "created", "id", "model", "object", "system_fingerprint", "usage"})
    inner: ClassVar[Mapping[str, type[Fields]]] = {"choices": Choices, "usage": Usage}


class TextCompletionResponse(ModelResponse):
    """A completion of the older kind."""


class EmbeddingResponse(Fields):
    """Vectors."""

    absent = frozenset({"data", "model", "object", "usage"})
    inner: ClassVar[Mapping[str, type[Fields]]] = {"usage": Usage}


_OF_CALL_TYPE: Mapping[str, type[Fields]] = {
    "aembedding": EmbeddingResponse,
    "atext_completion": TextCompletionResponse,
}


def response(call_type: str, fields: Mapping[str, Any], hidden: Mapping[str, Any]) -> Fields:
    """Return the response of a call of LiteLLM's ``call_type``; ``hidden`` becomes its ``_hidden_params``."""
    made = _OF_CALL_TYPE.get(call_type, ModelResponse)(fields)
    made._hidden_params = dict(hidden)
    return made
