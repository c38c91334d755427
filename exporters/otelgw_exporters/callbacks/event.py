"""What the hooks of a callback are given for a call: LiteLLM's ``kwargs``, response and times, from its payload."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from otelgw_exporters.callbacks.litellm_stub import exceptions
from otelgw_exporters.callbacks.litellm_stub.responses import Fields, response

__all__ = ["REDACTED", "Event", "event_of"]

REDACTED = "REDACTED"
_CREDENTIALS = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-api-key",
        "x-goog-api-key",
        "x-litellm-api-key",
    }
)
_ENDPOINTS = frozenset({"aembedding", "amoderation"})  # whose `input` is text, not messages


class Event(NamedTuple):
    """One call. ``response`` is None for a failure; times are naive and local, as LiteLLM's are."""

    model: str
    messages: Any
    kwargs: dict[str, Any]
    response: Fields | None
    start: datetime
    end: datetime
    failed: bool
    stream: bool


def event_of(payload: dict[str, Any], request: Mapping[str, Any], model_info: Mapping[str, Any]) -> Event:
    """Return the event of a standard payload.

    ``request`` has ``method``, ``url``, ``headers`` and ``body`` of what the gateway was asked, as far as that is
    known; ``model_info`` is the config's of the deployment.
    """
    failed, stream = payload["status"] == "failure", payload["stream"] is True
    start, end = (datetime.fromtimestamp(payload[key]) for key in ("startTime", "endTime"))  # noqa: DTZ006 - as LiteLLM
    parameters: dict[str, Any] = payload["model_parameters"]
    answer = None if failed else _response(payload)
    asked = _proxy_server_request(payload, request)
    info = {"id": payload["model_id"], **model_info} if payload["model_id"] else dict(model_info)
    messages = payload["messages"]
    kwargs: dict[str, Any] = {
        **parameters,
        "model": payload["model"],
        "messages": messages,
        "input": _input(payload),
        "user": payload["end_user"] or parameters.get("user"),
        "optional_params": parameters,
        "stream": stream,
        "call_type": payload["call_type"],
        "litellm_call_id": payload["otelgw"]["call_id"] or payload["id"],
        "litellm_trace_id": payload["trace_id"],
        "custom_llm_provider": payload["custom_llm_provider"],
        "api_base": payload["api_base"],
        "start_time": start,
        "end_time": end,
        "completion_start_time": datetime.fromtimestamp(payload["completionStartTime"]),  # noqa: DTZ006
        "response_cost": payload["response_cost"],
        "cache_hit": payload["cache_hit"],
        "log_event_type": "failed_api_call" if failed else "successful_api_call",
        "original_response": None if answer is None else answer.model_dump_json(),
        "litellm_params": {
            "metadata": _metadata(payload, asked, info),
            "proxy_server_request": asked,
            "model_info": info,
            "api_base": payload["api_base"],
            "litellm_call_id": payload["otelgw"]["call_id"] or payload["id"],
            "custom_llm_provider": payload["custom_llm_provider"],
            payload["call_type"]: True,
        },
        "standard_logging_object": payload,
        "standard_callback_dynamic_params": {},
        "exception": None,
        "traceback_exception": None,
    }
    if stream and answer is not None:
        kwargs["complete_streaming_response"] = kwargs["async_complete_streaming_response"] = answer
    if failed:
        kwargs |= _failure(payload)
    return Event(payload["model"], messages, kwargs, answer, start, end, failed, stream)


def _response(payload: Mapping[str, Any]) -> Fields:
    hidden = {
        **payload["hidden_params"],
        "response_cost": payload["response_cost"],
        "custom_llm_provider": payload["custom_llm_provider"],
    }
    given = payload["response"]
    return response(payload["call_type"], given if isinstance(given, dict) else {}, hidden)


def _input(payload: Mapping[str, Any]) -> Any:
    """Return LiteLLM's ``input``: the texts of an embedding, the messages of a chat."""
    messages = payload["messages"]
    if payload["call_type"] not in _ENDPOINTS:
        return messages
    return [message.get("content") if isinstance(message, dict) else message for message in messages]


def _failure(payload: Mapping[str, Any]) -> dict[str, Any]:
    told = payload["error_information"]
    error = exceptions.made(
        told["error_class"],
        told["error_message"] or told["error_code"],
        payload["model"],
        told["llm_provider"],
        told["error_code"],
    )
    name = type(error).__name__
    return {"exception": error, "traceback_exception": f"litellm.exceptions.{name}: {error.message}\n"}


def _proxy_server_request(payload: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    headers = {name: REDACTED if name.lower() in _CREDENTIALS else value for name, value in request["headers"].items()}
    body = request["body"]
    if body is None:
        body = {"model": payload["model_group"], "messages": payload["messages"], **payload["model_parameters"]}
    return {"url": request["url"], "method": request["method"], "headers": headers, "body": body}


def _metadata(payload: Mapping[str, Any], asked: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Return LiteLLM's ``litellm_params.metadata``: the caller's own, and what the proxy adds to it."""
    held = payload["metadata"]
    return {
        **held["requester_metadata"],
        **{key: value for key, value in held.items() if key.startswith("user_api_key_")},
        "user_api_key": held["user_api_key_hash"],
        "requester_metadata": held["requester_metadata"],
        "requester_ip_address": held["requester_ip_address"],
        "headers": asked["headers"],
        "endpoint": asked["url"],
        "model_group": payload["model_group"],
        "deployment": payload["hidden_params"]["litellm_model_name"],
        "model_info": info,
        "api_base": payload["api_base"],
        "tags": payload["request_tags"],
    }
