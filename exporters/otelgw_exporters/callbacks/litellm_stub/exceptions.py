"""``litellm.exceptions``: what ``kwargs["exception"]`` is an instance of."""

from __future__ import annotations

from typing import Any

__all__ = [
    "APIConnectionError",
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "ContentPolicyViolationError",
    "ContextWindowExceededError",
    "InternalServerError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServiceUnavailableError",
    "Timeout",
    "UnprocessableEntityError",
]


class APIError(Exception):
    """A call that failed. ``status_code`` is HTTP's, 500 where there was none; ``code`` is the gateway's word."""

    def __init__(
        self, message: str = "", model: str = "", llm_provider: str = "", status_code: int = 500, code: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.llm_provider = llm_provider
        self.status_code = status_code
        self.code = code
        self.type: Any = None
        self.param: Any = None


class APIConnectionError(APIError):
    """There was no answer."""


class AuthenticationError(APIError):
    """401."""


class BadRequestError(APIError):
    """400, and other statuses of the caller's side."""


class BudgetExceededError(APIError):
    """The key's budget is spent."""


class ContentPolicyViolationError(BadRequestError):
    """The provider refuses the content."""


class ContextWindowExceededError(BadRequestError):
    """The prompt is longer than the model takes."""


class InternalServerError(APIError):
    """500."""


class NotFoundError(APIError):
    """404."""


class PermissionDeniedError(APIError):
    """403."""


class RateLimitError(APIError):
    """429."""


class ServiceUnavailableError(APIError):
    """503."""


class Timeout(APIError):
    """408 or 504, or no answer in time."""


class UnprocessableEntityError(APIError):
    """422."""


def made(name: str, message: str, model: str, provider: str, code: str) -> APIError:
    """Return the exception that LiteLLM would have raised; one of an unknown name is made up."""
    known = globals().get(name) if name in __all__ else None
    kind = known if isinstance(known, type) else type(name if name.isidentifier() else "APIError", (APIError,), {})
    status = int(code) if code.isdecimal() and len(code) == len("429") else 500
    found: APIError = kind(message, model, provider, status, code)
    return found
