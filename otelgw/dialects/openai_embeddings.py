"""OpenAI's Embeddings. The texts are content; the vectors are never recorded."""

from __future__ import annotations

from typing import Any

import msgspec

from otelgw.dialects import document, labels, parts
from otelgw.dialects.facts import NOTHING, Facts
from otelgw.dialects.failure import read_failure
from otelgw.dialects.fields import RESPONSE, Table, count, string, strings, taken
from otelgw.dialects.usage import read_usage
from otelgw_exporters import semconv

__all__ = ["read_request", "read_response"]

_REQUEST: Table = (
    ("model", semconv.GEN_AI_REQUEST_MODEL, string),
    ("encoding_format", semconv.GEN_AI_REQUEST_ENCODING_FORMATS, strings),
    ("dimensions", semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, count),
)


class _Answer(msgspec.Struct):
    """An answer without its vectors: a field that is not named here is skipped, which is ten times as fast."""

    model: Any = None
    usage: Any = None
    error: Any = None
    id: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def read_request(body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts:  # noqa: ARG001
    """Return the parameters of a request and its texts, each as a message; token ids are no text and are left out."""
    request, whole = document.load(body, tail)
    if not isinstance(request, dict):
        return NOTHING
    attributes = taken(request, _REQUEST) | labels.from_request(request)
    texts = strings(request.get("input")) or []
    content = {semconv.GEN_AI_INPUT_MESSAGES: [{"role": "user", "parts": [parts.text(text)]} for text in texts]}
    return Facts(attributes, content if texts else {}, complete=whole)


def read_response(body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts:  # noqa: ARG001
    """Return model and usage of an answer."""
    try:
        known = _decode(body)
        if known.error is None and (known.usage is not None or known.model is not None):
            attributes = taken({"model": known.model, "id": known.id}, RESPONSE)
            return Facts(attributes, usage=read_usage(known.usage))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    answer, whole = document.load(body, tail)
    failure = read_failure(answer)
    if not isinstance(answer, dict):
        return Facts(error_type=failure.type, error_message=failure.message, complete=whole)
    attributes = taken(answer, RESPONSE)
    usage = read_usage(answer.get("usage"))
    return Facts(attributes, {}, usage, failure.type, failure.message, complete=whole)
