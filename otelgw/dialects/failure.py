"""Errors as providers write them into a body or into a stream."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from otelgw.dialects.fields import cut, string

__all__ = ["NO_FAILURE", "Failure", "read_failure"]

OTHER = "_OTHER"  # the conventions' value for an error that has no name
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Failure(NamedTuple):
    """``type`` is a low-cardinality name, ``message`` at most 1 KiB; both empty where there is no error."""

    type: str = ""
    message: str = ""


NO_FAILURE = Failure()


def read_failure(document: Any) -> Failure:
    """Return the error in an answer or in a stream's event.

    Known shapes: OpenAI's ``{"error": {"message", "type", "code"}}``, the same in a list (Gemini),
    ``{"error": "text"}`` (Ollama, TGI), ``{"object": "error", "message"}`` (vLLM, Mistral), ``{"detail"}`` (FastAPI),
    ``{"message"}`` (Azure).
    """
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        return NO_FAILURE
    error = document.get("error")
    if isinstance(error, dict) and error:
        return Failure(_name(error), _message(error))
    if isinstance(error, str) and error:
        return Failure(_name({"code": document.get("error_type")}), cut(error))
    if document.get("object") == "error" or document.get("type") == "error":
        return Failure(_name(document), _message(document))
    if "choices" not in document and "output" not in document and not string(document.get("id")):
        for field in ("message", "detail", "error_message"):
            if document.get(field) and "data" not in document:
                return Failure(_name(document), _text(document[field]))
    return NO_FAILURE


def _name(error: dict[str, Any]) -> str:
    for field in ("code", "type", "status"):
        value = error.get(field)
        if type(value) is int:
            value = str(value)
        if isinstance(value, str) and value != "error" and _NAME.fullmatch(value):
            return value
    return OTHER


def _message(error: dict[str, Any]) -> str:
    return _text(error.get("message") or error.get("detail") or "")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return cut(value)
    try:
        return cut(msgspec.json.encode(value).decode())
    except (TypeError, ValueError, RecursionError):
        return ""
