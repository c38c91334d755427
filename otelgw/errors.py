"""The gateway's error tree, and the one table from an error to its HTTP answer.

::

    OtelgwError                       otelgw_exporters.errors
    ├── ConfigError                   the config cannot be used; carries every problem found
    ├── StartError                    the gateway cannot start (busy port, locked state directory)
    └── GatewayError                  a request that the gateway itself answers
        ├── RequestRefused            the caller's side: 400 401 403 404 405 408 413 415 429, 503 while draining
        └── UpstreamError             no usable answer from upstream: 502, 504
            └── StaleConnection       a reused connection was already closed; safe to try once more

``GatewayError.error_type`` is the span's ``error.type``; ``ANSWERS`` gives status and OpenAI ``type``/``code`` for it.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from otelgw_exporters.errors import OtelgwError

__all__ = [
    "ANSWERS",
    "Answer",
    "ConfigError",
    "GatewayError",
    "OtelgwError",
    "RequestRefused",
    "StaleConnection",
    "StartError",
    "UpstreamError",
    "error_body",
]


class ConfigError(OtelgwError):
    """The configuration cannot be used. ``problems`` holds one line per problem, all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartError(OtelgwError):
    """The gateway cannot start; exit status 1."""


class Answer(NamedTuple):
    """The HTTP status and the ``type`` and ``code`` of OpenAI's error object."""

    status: int
    type: str
    code: str


_REQUEST = "invalid_request_error"
_UPSTREAM = "upstream_error"

ANSWERS: dict[str, Answer] = {
    "invalid_json": Answer(400, _REQUEST, "invalid_json"),
    "invalid_request": Answer(400, _REQUEST, "invalid_request"),
    "unauthorized": Answer(401, "authentication_error", "unauthorized"),
    "forbidden": Answer(403, "permission_error", "forbidden"),
    "model_not_found": Answer(404, _REQUEST, "model_not_found"),
    "not_found": Answer(404, _REQUEST, "not_found"),
    "method_not_allowed": Answer(405, _REQUEST, "method_not_allowed"),
    "request_timeout": Answer(408, _REQUEST, "request_timeout"),
    "body_too_large": Answer(413, _REQUEST, "body_too_large"),
    "unsupported_media_type": Answer(415, _REQUEST, "unsupported_media_type"),
    "rate_limited": Answer(429, "rate_limit_error", "rate_limited"),
    "budget_exceeded": Answer(429, "insufficient_quota", "insufficient_quota"),
    "internal": Answer(500, "server_error", "internal"),
    "upstream_dns": Answer(502, _UPSTREAM, "upstream_dns"),
    "upstream_connect": Answer(502, _UPSTREAM, "upstream_connect"),
    "upstream_tls": Answer(502, _UPSTREAM, "upstream_tls"),
    "upstream_reset": Answer(502, _UPSTREAM, "upstream_reset"),
    "upstream_truncated": Answer(502, _UPSTREAM, "upstream_truncated"),
    "upstream_bad_response": Answer(502, _UPSTREAM, "upstream_bad_response"),
    "upstream_timeout_connect": Answer(504, _UPSTREAM, "upstream_timeout_connect"),
    "upstream_timeout_first_byte": Answer(504, _UPSTREAM, "upstream_timeout_first_byte"),
    "upstream_timeout_idle": Answer(504, _UPSTREAM, "upstream_timeout_idle"),
    "upstream_timeout_total": Answer(504, _UPSTREAM, "upstream_timeout_total"),
    "keys_unavailable": Answer(503, "server_error", "keys_unavailable"),
    "shutdown": Answer(503, "server_error", "draining"),
}


class GatewayError(OtelgwError):
    """A request that the gateway answers itself.

    ``error_type`` is a key of ``ANSWERS``; ``param`` names the request field at fault; ``retry_after`` is in seconds;
    ``close`` says that the connection cannot be used for another request.
    """

    def __init__(
        self,
        error_type: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.close = close

    @property
    def answer(self) -> Answer:
        return ANSWERS.get(self.error_type, ANSWERS["internal"])


class RequestRefused(GatewayError):
    """The request is refused before any upstream is asked."""


class UpstreamError(GatewayError):
    """The upstream gave no usable answer."""


class StaleConnection(UpstreamError):
    """A reused connection turned out to be closed before any byte of the answer; another connection may be tried."""


def error_body(error: GatewayError) -> bytes:
    """Return OpenAI's error JSON for ``error``."""
    answer = error.answer
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": answer.type, "param": error.param, "code": answer.code}}
    )
