"""Why a call failed, in LiteLLM's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from otelgw_exporters import semconv

__all__ = ["NO_FAILURE", "Failure", "failure_of"]

_CLIENT_ERROR = 400
_STATUS_IN_TEXT = re.compile(r"\b[Ee]rror code: ([45]\d\d)\b")  # as OpenAI's client says it
_PYTHON_CLASS = re.compile(r"<class '([\w.]+)'>")

# error.type of the gateway's own -> LiteLLM's exception; where it does not stand here, the status decides.
_CLASSES = {
    "budget_exceeded": "BudgetExceededError",
    "client_disconnect": "APIConnectionError",
    "shutdown": "ServiceUnavailableError",
    "upstream_connect": "APIConnectionError",
    "upstream_dns": "APIConnectionError",
    "upstream_reset": "APIConnectionError",
    "upstream_tls": "APIConnectionError",
    "upstream_truncated": "APIConnectionError",
    "worker_killed": "InternalServerError",
}
_TIMEOUT = "upstream_timeout"
_STATUSES = {
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    408: "Timeout",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
    504: "Timeout",
}


class Failure(NamedTuple):
    """``code`` is the HTTP status, or the ``error.type`` where none says it. ``exception`` is LiteLLM's name for it."""

    type: str
    code: str
    exception: str
    message: str


NO_FAILURE = Failure("", "", "", "")


def failure_of(span: ReadableSpan, server: ReadableSpan | None, attempt: ReadableSpan | None) -> Failure:
    """Return the failure of a call: of its own span, of the gateway's SERVER span, or of the last ``attempt``."""
    own: Mapping[str, Any] = span.attributes or {}
    outer: Mapping[str, Any] = (server.attributes if server is not None else None) or {}
    last: Mapping[str, Any] = (attempt.attributes if attempt is not None else None) or {}
    kind = str(own.get(semconv.ERROR_TYPE) or outer.get(semconv.ERROR_TYPE) or "")
    named = _PYTHON_CLASS.fullmatch(kind)
    raised = _exception(span)
    kind = (named[1] if named else kind).rpartition(".")[2] or raised.get("exception.type", "").rpartition(".")[2]
    if not kind and span.status.status_code is not StatusCode.ERROR:
        return NO_FAILURE
    message = str(
        span.status.description
        or outer.get(semconv.OTELGW_ERROR_MESSAGE)
        or (server.status.description if server is not None else None)
        or raised.get("exception.message")
        or ""
    )
    status = _status(kind, message, own, outer, last)
    return Failure(kind or "_OTHER", str(status or kind), _class(kind, status), message)


def _exception(span: ReadableSpan) -> dict[str, str]:
    """Return the attributes of the last exception that an instrumentation recorded."""
    for event in reversed(span.events):
        if event.name == "exception":
            return {key: str(value) for key, value in (event.attributes or {}).items()}
    return {}


def _status(kind: str, message: str, *spans: Mapping[str, Any]) -> int:
    """Return the HTTP status of the failure; 0 where the answer had begun well, or there was none."""
    if kind.isdecimal() and len(kind) == len("429"):
        return int(kind)
    for attributes in spans:
        status = attributes.get(semconv.HTTP_RESPONSE_STATUS_CODE)
        if isinstance(status, int) and status >= _CLIENT_ERROR:
            return status
    said = _STATUS_IN_TEXT.search(message)
    return int(said[1]) if said else 0


def _class(kind: str, status: int) -> str:
    if kind in _CLASSES:
        return _CLASSES[kind]
    if kind.startswith(_TIMEOUT):
        return "Timeout"
    if kind[:1].isupper():  # an instrumentation names the exception itself
        return kind
    if status in _STATUSES:
        return _STATUSES[status]
    if status:
        return "BadRequestError" if status < 500 else "InternalServerError"
    return "APIError"
