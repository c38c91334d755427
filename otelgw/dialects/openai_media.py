"""The other OpenAI routes that are passed through: images, audio, moderations, rerank.

Read are the model, the parameters the conventions have names for, the usage where it is reported, and text. Uploaded
and returned media are not content here: they are recorded, if at all, as type, size and hash.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from otelgw.dialects import document, labels, parts, sse
from otelgw.dialects.facts import NOTHING, Facts, Usage
from otelgw.dialects.failure import NO_FAILURE, read_failure
from otelgw.dialects.fields import (
    RESPONSE,
    Table,
    choice_count,
    flag,
    mapping,
    mappings,
    number,
    string,
    taken,
)
from otelgw.dialects.usage import read_usage
from otelgw_exporters import semconv

__all__ = ["read_request", "read_response"]

_REQUEST: Table = (
    ("model", semconv.GEN_AI_REQUEST_MODEL, string),
    ("n", semconv.GEN_AI_REQUEST_CHOICE_COUNT, choice_count),
    ("temperature", semconv.GEN_AI_REQUEST_TEMPERATURE, number),
    ("stream", semconv.GEN_AI_REQUEST_STREAM, flag),
)
# Where the words stand: images and transcriptions, speech and moderations, rerank.
_WORDS = ("prompt", "input", "query")
_FIELD_SIZE = 64 * 1024  # bytes of a form field; a longer part is taken for a file
_FIELDS = 64
_BOUNDARY = re.compile(r'boundary="?([^";]{1,200})', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*[;\s]name="?([^";\r\n]{1,128})', re.IGNORECASE)
_FORM_TYPES: dict[str, Callable[[str], Any]] = {
    "n": document.value_of,
    "temperature": document.value_of,
    "stream": lambda given: given == "true",
}


def read_request(body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts:
    """Return the parameters and the text of a JSON or multipart request."""
    if "multipart/" in content_type:
        request: Any = _form(body, content_type)
        whole = not tail
    else:
        request, whole = document.load(body, tail)
    if not isinstance(request, dict):
        return NOTHING
    attributes = taken(request, _REQUEST) | labels.from_request(request)
    words = [part for name in _WORDS for part in parts.from_content(request.get(name))]
    content = {semconv.GEN_AI_INPUT_MESSAGES: [{"role": "user", "parts": words}]} if words else {}
    return Facts(attributes, content, complete=whole)


def _form(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the text fields of a multipart form; files are passed over."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return {}
    found: dict[str, Any] = {}
    delimiter = b"--" + boundary[1].strip().encode("utf-8", "replace")
    start = body.find(delimiter)
    while start >= 0 and len(found) < _FIELDS:
        end = body.find(delimiter, start + len(delimiter))
        head, separator, value = body[start + len(delimiter) : max(end, 0)].partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if separator and name and b"filename" not in head and len(value) <= _FIELD_SIZE:
            field = name[1].decode("utf-8", "replace")
            given = value.removesuffix(b"\r\n").decode("utf-8", "replace")
            found[field] = _FORM_TYPES.get(field, str)(given)
        start = end
    return found


def read_response(body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts:
    """Return usage, model and text of an answer; a media answer has none of them."""
    if sse.is_stream(content_type, stream):
        return _read_stream(body, tail)
    if content_type.startswith("text/"):
        return Facts(content=_said(body.decode("utf-8", "replace")))
    if "json" not in content_type and body[:1] not in (b"{", b"["):
        return NOTHING
    answer, whole = document.load(body, tail)
    failure = read_failure(answer)
    if not isinstance(answer, dict):
        return Facts(error_type=failure.type, error_message=failure.message, complete=whole)
    return Facts(
        taken(answer, RESPONSE),
        _said(string(answer.get("text")) or "") or _images(answer),
        _usage(answer),
        failure.type,
        failure.message,
        complete=whole,
    )


def _read_stream(body: bytes, tail: bytes) -> Facts:
    """Transcriptions stream ``transcript.text.delta`` and end with ``transcript.text.done``."""
    said: list[str] = []
    whole: str | None = None
    usage: Usage | None = None
    failure = NO_FAILURE
    for event in sse.events(body, tail):
        data = document.value_of(event.data)
        if not isinstance(data, dict):
            continue
        failure = failure if failure.type else read_failure(data)
        usage = _usage(data) or usage
        if data.get("type") == "transcript.text.done":
            whole = string(data.get("text"))
        elif data.get("type") == "transcript.text.delta":
            said.append(string(data.get("delta")) or "")
    text = whole if whole is not None else "".join(said)
    return Facts({}, _said(text), usage, failure.type, failure.message)


def _said(text: str) -> dict[str, Any]:
    return _message([parts.text(text)]) if text else {}


def _images(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the images that an answer refers to by URL; those inside it are media."""
    urls = [string(image.get("url")) for image in mappings(answer.get("data"))]
    return _message([parts.locator("image", url) for url in urls if url and not url.startswith("data:")])


def _message(said: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"role": "assistant", "parts": said, "finish_reason": "stop"}
    return {semconv.GEN_AI_OUTPUT_MESSAGES: [message]} if said else {}


def _usage(answer: dict[str, Any]) -> Usage | None:
    """Rerank reports its tokens under ``meta`` (Cohere: billed before consumed) or as ``usage.total_tokens`` alone."""
    meta = mapping(answer.get("meta"))
    usage = mapping(answer.get("usage")) or mapping(meta.get("billed_units")) or mapping(meta.get("tokens"))
    if usage.keys() == {"total_tokens"}:
        usage = {"input_tokens": usage["total_tokens"]}
    return read_usage(usage)
