"""What stands in for ``litellm`` in the process of a callback: the names that callback files import from it.

No part of LiteLLM is in here; the names and what they take and return are. What is absent says so by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otelgw_exporters.callbacks.litellm_stub.custom_logger import CustomLogger
from otelgw_exporters.callbacks.litellm_stub.exceptions import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ContentPolicyViolationError,
    ContextWindowExceededError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    Timeout,
    UnprocessableEntityError,
)
from otelgw_exporters.callbacks.litellm_stub.responses import (
    Choices,
    EmbeddingResponse,
    Message,
    ModelResponse,
    TextCompletionResponse,
    Usage,
)

__all__ = [
    "APIConnectionError",
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "Choices",
    "ContentPolicyViolationError",
    "ContextWindowExceededError",
    "CustomLogger",
    "EmbeddingResponse",
    "InternalServerError",
    "Message",
    "ModelResponse",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServiceUnavailableError",
    "TextCompletionResponse",
    "Timeout",
    "UnprocessableEntityError",
    "Usage",
    "callbacks",
    "completion_cost",
    "failure_callback",
    "input_callback",
    "set_verbose",
    "success_callback",
]

# A callback file may set these, as it does with LiteLLM; the config says which callbacks run.
callbacks: list[Any] = []
success_callback: list[Any] = []
failure_callback: list[Any] = []
input_callback: list[Any] = []
set_verbose = False
turn_off_message_logging = False
suppress_debug_info = False


def completion_cost(completion_response: Any = None, model: str | None = None, **_: Any) -> float:
    """Return what a response cost in USD: as the gateway knows it, else by the list price of its model and usage.

    0.0 where there is no response, no usage or no price.
    """
    known = getattr(completion_response, "_hidden_params", None)
    if isinstance(known, Mapping) and isinstance(known.get("response_cost"), int | float):
        return float(known["response_cost"])
    if not isinstance(completion_response, Mapping):
        return 0.0
    named = model or completion_response.get("model")
    provider = known.get("custom_llm_provider") if isinstance(known, Mapping) else None
    return _listed(str(named or ""), str(provider or ""), completion_response.get("usage"))


def _listed(model: str, provider: str, usage: Any) -> float:
    if not model or not isinstance(usage, Mapping):
        return 0.0
    import time

    from otelgw_exporters import prices, semconv

    prefix, _, rest = model.partition("/")
    tokens = {
        semconv.GEN_AI_USAGE_INPUT_TOKENS: usage.get("prompt_tokens"),
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: usage.get("completion_tokens"),
    }
    for seller, name in ((provider, model), (prefix, rest), ("openai", model), ("anthropic", model), ("google", model)):
        found = prices.cost(seller, (name,), tokens, time_ns=time.time_ns()) if seller and name else None
        if found is not None:
            return found.total
    return 0.0


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"litellm.{name} is not there: otelgw runs callbacks with a stand-in for litellm, which has CustomLogger, "
        "completion_cost, the response types and the exceptions; call models through the gateway instead"
    )
