"""``litellm.integrations.custom_logger``."""

from __future__ import annotations

from typing import Any

__all__ = ["CustomLogger"]


class CustomLogger:
    """The base of callbacks; every hook does nothing until it is overridden.

    Where a class has both forms of a hook the asynchronous one is called, as LiteLLM's proxy does.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        self.message_logging = True

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Before the call: what was asked of which model."""

    def log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """After the call, however it ended."""

    def log_stream_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Of a streamed answer: once, with the whole of it."""

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """The call went well."""

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """The call failed."""

    async def async_log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """As ``log_pre_api_call``."""

    async def async_log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As ``log_post_api_call``."""

    async def async_log_stream_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As ``log_stream_event``."""

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As ``log_success_event``."""

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """As ``log_failure_event``."""
