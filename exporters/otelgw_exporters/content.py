"""What was asked and answered, in OpenAI's shapes: from the captured JSON where it is there, else from ``gen_ai.*``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otelgw_exporters import document, messages, semconv

__all__ = ["Asked", "answered", "read_bodies", "structured", "usage_details"]

_Attributes = Mapping[str, Any]

# What OpenInference records of a call: (attributes, fields of which one is there where it is the API's JSON).
_OPENINFERENCE = (
    ("input", semconv.OTELGW_REQUEST_BODY, frozenset({"messages", "input", "prompt"})),
    ("output", semconv.OTELGW_RESPONSE_BODY, frozenset({"choices", "data", "output"})),
)
_CHUNK = "chat.completion.chunk"
_SAID = ("messages", "prompt", "input", "query")  # fields that hold what was said, the first one counts
_NO_PARAMETERS = frozenset({*_SAID, "model", "metadata", "litellm_metadata", "tags"})
_USERS = ("user", "safety_identifier")

_PARAMETERS: tuple[tuple[str, str], ...] = (
    ("temperature", semconv.GEN_AI_REQUEST_TEMPERATURE),
    ("top_p", semconv.GEN_AI_REQUEST_TOP_P),
    ("top_k", semconv.GEN_AI_REQUEST_TOP_K),
    ("max_tokens", semconv.GEN_AI_REQUEST_MAX_TOKENS),
    ("frequency_penalty", semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY),
    ("presence_penalty", semconv.GEN_AI_REQUEST_PRESENCE_PENALTY),
    ("stop", semconv.GEN_AI_REQUEST_STOP_SEQUENCES),
    ("seed", semconv.GEN_AI_REQUEST_SEED),
    ("n", semconv.GEN_AI_REQUEST_CHOICE_COUNT),
    ("stream", semconv.GEN_AI_REQUEST_STREAM),
    ("reasoning_effort", semconv.GEN_AI_REQUEST_REASONING_LEVEL),
    ("service_tier", semconv.OPENAI_REQUEST_SERVICE_TIER),
    ("dimensions", semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT),
    ("previous_response_id", semconv.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID),
    ("user", semconv.USER_ID),
)


def structured(attributes: _Attributes, key: str) -> Any:
    """Return structured content, which may have come as JSON text."""
    value = attributes.get(key)
    return document.read(value) if isinstance(value, str) else value


def read_bodies(attributes: _Attributes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the captured request and answer, each empty where it is not there, not whole or no JSON object."""
    found: list[Mapping[str, Any]] = []
    for side, body, known in _OPENINFERENCE:
        text = attributes.get(body)
        if text is None and attributes.get(f"{side}.mime_type") == "application/json":
            held = document.read(attributes.get(f"{side}.value"))
            found.append(held if isinstance(held, dict) and not known.isdisjoint(held) else {})
            continue
        held = document.read(text)
        found.append(held if isinstance(held, dict) else {})
    return found[0], found[1]


class Asked:
    """What was asked. ``body`` is the captured request, empty where there is none."""

    def __init__(self, attributes: _Attributes, body: Mapping[str, Any], *, by_items: bool) -> None:
        self._attributes = attributes
        self._by_items = by_items  # the Responses API: the input is a list of items
        self.body = body

    def messages(self) -> list[Any]:
        """Return what was said to the model as a list of messages; empty where it is not recorded."""
        name = next((name for name in _SAID if name in self.body), "")
        if not name:
            given = structured(self._attributes, semconv.GEN_AI_INPUT_MESSAGES)
            instructions = structured(self._attributes, semconv.GEN_AI_SYSTEM_INSTRUCTIONS)
            return messages.chat_messages(given, instructions)
        said = self.body[name]
        if name == "messages":
            return said if isinstance(said, list) else [said]
        if not self._by_items:
            return _texts(said)
        system = [{"role": "system", "content": self.body["instructions"]}] if self.body.get("instructions") else []
        return [*system, *(said if isinstance(said, list) else _texts(said))]

    def parameters(self) -> dict[str, Any]:
        """Return the model's parameters: every field of the request but what was said, to which model, and metadata."""
        if not self.body:
            return self._from_attributes()
        left_out = _NO_PARAMETERS | {"instructions"} if self._by_items else _NO_PARAMETERS
        if semconv.USER_ID not in self._attributes:  # who called is not for this destination
            left_out |= frozenset(_USERS)
        return {key: value for key, value in self.body.items() if key not in left_out}

    def _from_attributes(self) -> dict[str, Any]:
        held = self._attributes
        found = {name: held[attribute] for name, attribute in _PARAMETERS if held.get(attribute) is not None}
        formats = held.get(semconv.GEN_AI_REQUEST_ENCODING_FORMATS)
        if isinstance(formats, Sequence) and formats:
            found["encoding_format"] = formats[0]
        tools = messages.tools(structured(held, semconv.GEN_AI_TOOL_DEFINITIONS))
        return found | {"tools": tools} if tools else found

    def end_user(self) -> str | None:
        """Return the user whom the caller named; None where it named none, or who called is not to be known."""
        given = self._attributes.get(semconv.USER_ID)
        if not isinstance(given, str):
            return None
        if given != self._attributes.get(semconv.OTELGW_KEY_USER_ID):
            return given
        return given if any(self.body.get(name) == given for name in _USERS) else None  # it may name its key's owner

    def tool(self, kind: str) -> Any:
        """Return the definition of a provider's own tool whose type begins with ``kind``; None where it is not asked
        for.
        """
        tools = self.body.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and str(tool.get("type")).startswith(kind):
                return tool
        return None


def _texts(said: Any) -> list[Any]:
    """Return each text as a message; token ids are one text."""
    several = isinstance(said, list) and not all(isinstance(item, int) for item in said)
    return [{"role": "user", "content": text} for text in (said if several else [said])]


def answered(
    attributes: _Attributes, body: Mapping[str, Any], *, failed: bool, created: int, usage: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the answer: as it was captured, else put together from what is known; of a failure without one, nothing.

    ``created`` is in seconds since the epoch.
    """
    if body:  # an instrumentation that puts a stream together may leave it the chunks' name
        return {**body, "object": "chat.completion"} if body.get("object") == _CHUNK else dict(body)
    said = structured(attributes, semconv.GEN_AI_OUTPUT_MESSAGES)
    identifier = attributes.get(semconv.GEN_AI_RESPONSE_ID)
    if failed and not said and identifier is None:
        return {}
    found: dict[str, Any] = {} if identifier is None else {"id": identifier}
    found["model"] = attributes.get(semconv.GEN_AI_RESPONSE_MODEL) or attributes.get(semconv.GEN_AI_REQUEST_MODEL)
    operation = attributes.get(semconv.GEN_AI_OPERATION_NAME)
    if operation == "embeddings":
        found |= {"object": "list", "data": []}
    else:
        made = messages.choices(said, attributes.get(semconv.GEN_AI_RESPONSE_FINISH_REASONS))
        texts = operation == "text_completion"
        found |= {
            "created": created,
            "object": "text_completion" if texts else "chat.completion",
            "choices": [_text_choice(choice) for choice in made] if texts else made,
        }
    for name, attribute in _RESPONSE:
        if attributes.get(attribute) is not None:
            found[name] = attributes[attribute]
    return found if usage is None else found | {"usage": dict(usage)}


_RESPONSE = (
    ("system_fingerprint", semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT),
    ("service_tier", semconv.OPENAI_RESPONSE_SERVICE_TIER),
)


def _text_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": choice["index"],
        "text": choice["message"]["content"] or "",
        "finish_reason": choice["finish_reason"],
    }


def usage_details(body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the details of token counts that the answer itself has, under the first of ``names``."""
    usage = body.get("usage")
    for name in names:
        held = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(held, dict):
            return held
    return {}
