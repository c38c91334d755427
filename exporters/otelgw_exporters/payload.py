"""LiteLLM's StandardLoggingPayload from spans: the one translation for every destination that takes payloads.

All 37 keys of LiteLLM 1.80 with their types, and one more, ``otelgw``, for what LiteLLM has no word for. Where LiteLLM
is wrong this is right; docs/reference/standard-payload.md says where. ``schema()`` is the JSON Schema.

A payload is a function of its spans and of the bundled price list alone, so that a repeated delivery is the same byte
for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from math import isclose
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, ref

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from otelgw_exporters import content, document, foreign, prices, semconv
from otelgw_exporters.calls import Call, calls, identity, verdicts_of
from otelgw_exporters.failure import Failure, failure_of
from otelgw_exporters.turn import offer_turn

__all__ = ["VERSION", "Call", "calls", "encoded", "identity", "schema", "standard_payload", "verdicts_of"]

VERSION = "1.0.0"
"""Of the schema: a new key raises the second number, a changed or removed one the first."""

_SECOND = 1_000_000_000
_REDACTED = "REDACTED"
_SPEND = "spend_logs_metadata"
_LARGEST = 1 << 63
_SOURCES = ("provider", "estimated", "none")  # otelgw.usage.source
_LIST = "genai-prices"  # otelgw.cost.source

_CALL_TYPES = {
    "/v1/chat/completions": "acompletion",
    "/v1/completions": "atext_completion",
    "/v1/embeddings": "aembedding",
    "/v1/responses": "aresponses",
    "/v1/images/generations": "aimage_generation",
    "/v1/images/edits": "aimage_edit",
    "/v1/images/variations": "aimage_variation",
    "/v1/audio/speech": "aspeech",
    "/v1/audio/transcriptions": "atranscription",
    "/v1/moderations": "amoderation",
    "/v1/rerank": "arerank",
}
_OPERATIONS = {
    "chat": "acompletion",
    "text_completion": "atext_completion",
    "embeddings": "aembedding",
    "generate_content": "agenerate_content",
}
# gen_ai.provider.name -> LiteLLM's name of the provider, where they differ.
_PROVIDERS = {
    "aws.bedrock": "bedrock",
    "azure.ai.inference": "azure_ai",
    "azure.ai.openai": "azure",
    "gcp.gemini": "gemini",
    "gcp.gen_ai": "gemini",
    "gcp.vertex_ai": "vertex_ai",
    "ibm.watsonx.ai": "watsonx",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshot",
    "vllm": "hosted_vllm",
    "x_ai": "xai",
}
_RATE_LIMIT = f"{semconv.HTTP_RESPONSE_HEADER}x-ratelimit-"
_CUSTOM_HEADER = f"{semconv.HTTP_REQUEST_HEADER}x-"


# By the span that a call is about; with the others, held weakly, since the span itself may be among them.
_known: WeakKeyDictionary[ReadableSpan, tuple[tuple[ref[ReadableSpan], ...], bytes]] = WeakKeyDictionary()


def encoded(call: Call) -> bytes:
    """Return the payload of a call as JSON in UTF-8, on one line.

    It is made once for all destinations that are given the same spans, and kept for as long as one of them keeps these.
    """
    offer_turn()
    others = call.attempts if call.server is None else (call.server, *call.attempts)
    known = _known.get(call.span)
    if known is not None and tuple(each() for each in known[0]) == others:
        return known[1]
    made = document.write(_Payload(call.span, call.server, call.attempts).whole())  # `calls` has translated the span
    _known[call.span] = (tuple(map(ref, others)), made)
    return made


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``VERSION``; its ``$id`` names the version."""
    text = files("otelgw_exporters").joinpath("schema/standard-payload.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def standard_payload(
    span: ReadableSpan, server: ReadableSpan | None = None, attempts: Sequence[ReadableSpan] = ()
) -> dict[str, Any]:
    """Return the StandardLoggingPayload of the call that ``span`` is about.

    ``span`` is a generation's span, of the gateway or of an instrumentation, or the gateway's SERVER span where there
    is no generation; ``server`` and ``attempts`` are the gateway's spans around and below it, as ``calls`` finds them.
    The spans are not changed, nor may the payload's parts be taken to be copies.
    """
    return _Payload(foreign.translated(span), server, tuple(attempts)).whole()


class _Payload:
    def __init__(self, span: ReadableSpan, server: ReadableSpan | None, attempts: tuple[ReadableSpan, ...]) -> None:
        self.span = span
        self.own: Mapping[str, Any] = span.attributes or {}
        self.server: Mapping[str, Any] = (server.attributes if server is not None else None) or {}
        self.attempts = attempts
        self.last: Mapping[str, Any] = (attempts[-1].attributes if attempts else None) or {}
        whole = server if server is not None else span  # the SERVER span begins and ends with the request
        self.start, self.end = whole.start_time or 0, whole.end_time or whole.start_time or 0
        asked, self.answer = content.read_bodies(self.own)
        self.route = str(self.server.get(semconv.HTTP_ROUTE) or self.server.get(semconv.URL_PATH) or "")
        self.call_type = self._call_type(asked)
        self.asked = content.Asked(self.own, asked, by_items=self.call_type == "aresponses")
        self.failure: Failure = failure_of(span, server, attempts[-1] if attempts else None)
        self.failed = bool(self.failure.type)
        self.stream = self.own.get(semconv.GEN_AI_REQUEST_STREAM) is True or asked.get("stream") is True
        self.provider = str(self.own.get(semconv.GEN_AI_PROVIDER_NAME) or self.last.get(_ATTEMPT_PROVIDER) or "")

    def _call_type(self, asked: Mapping[str, Any]) -> str:
        operation = str(self.own.get(semconv.GEN_AI_OPERATION_NAME) or "")
        by_items = operation == "chat" and "input" in asked and "messages" not in asked
        if by_items or self.own.get(semconv.OPENAI_API_TYPE) == "responses":
            return "aresponses"
        return _CALL_TYPES.get(self.route) or _OPERATIONS.get(operation) or self.route or operation

    # What several keys share

    @cached_property
    def model(self) -> str:
        """The model as the upstream was asked for it; as the caller did, where no upstream was."""
        asked = self.asked.body.get("model")
        named = self.own.get(semconv.GEN_AI_REQUEST_MODEL) or self.last.get(semconv.OTELGW_ATTEMPT_MODEL)
        return str(named or self.own.get(semconv.OTELGW_MODEL_ALIAS) or asked or "")

    @cached_property
    def litellm_provider(self) -> str:
        return _PROVIDERS.get(self.provider, self.provider)

    @cached_property
    def usage(self) -> dict[str, Any]:
        own = self.own
        given = _count(own.get(semconv.GEN_AI_USAGE_INPUT_TOKENS)) or 0
        made = _count(own.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)) or 0
        return {
            "completion_tokens": made,
            "prompt_tokens": given,
            "total_tokens": given + made,
            "completion_tokens_details": self._details(_COMPLETION_DETAILS, "completion", "output"),
            "prompt_tokens_details": self._details(_PROMPT_DETAILS, "prompt", "input"),
        }

    def _details(self, known: Mapping[str, str], *names: str) -> dict[str, Any] | None:
        """Return the parts of a token count; None where not one is known."""
        told = content.usage_details(self.answer, *(f"{name}_tokens_details" for name in names))
        found = {name: _count(self.own.get(attribute)) for name, attribute in known.items()}
        found |= {name: value for name, value in told.items() if value is not None}
        return found if any(value is not None for value in found.values()) else None

    @property
    def usage_source(self) -> str:
        said = self.own.get(semconv.OTELGW_USAGE_SOURCE)
        if said in _SOURCES:
            return str(said)
        counts = (semconv.GEN_AI_USAGE_INPUT_TOKENS, semconv.GEN_AI_USAGE_OUTPUT_TOKENS)
        return "provider" if any(_count(self.own.get(count)) is not None for count in counts) else "none"

    @property
    def priced_models(self) -> tuple[str, ...]:
        return (self.model, str(self.own.get(semconv.GEN_AI_RESPONSE_MODEL) or ""))

    @cached_property
    def listed(self) -> prices.Cost | None:
        """What the price list says that the usage costs."""
        return prices.cost(self.provider, self.priced_models, self.own, time_ns=self.start)

    @cached_property
    def cost(self) -> tuple[float | None, str]:
        """USD, and who says so; None where it is not known."""
        for name in (semconv.OTELGW_COST_AMOUNT, semconv.GEN_AI_USAGE_COST):
            amount = _number(self.own, name)
            if amount is not None:
                return amount, _text(self.own, semconv.OTELGW_COST_SOURCE) or "provider"
        if self.listed is None or semconv.OTELGW_CALL_ID in self.own:  # the gateway has looked for a price itself
            return None, ""
        return self.listed.total, _LIST

    @cached_property
    def api_base(self) -> str:
        url = self.last.get(semconv.URL_FULL) or self.own.get("gen_ai.openai.api_base")
        if isinstance(url, str):
            return _base(url, self.route)
        address, port = self.own.get(semconv.SERVER_ADDRESS), self.own.get(semconv.SERVER_PORT)
        if not isinstance(address, str) or semconv.HTTP_ROUTE in self.own:  # of a SERVER span it is the gateway's own
            return ""
        scheme = {80: "http://", 443: "https://", None: "https://"}.get(port, "")
        return f"{scheme}{address}" if scheme else f"{address}:{port}"

    # The payload

    def whole(self) -> dict[str, Any]:
        own, usage, amount = self.own, self.usage, self.cost[0]
        context = self.span.context
        trace_id = format_trace_id(context.trace_id) if context else ""
        end_user = self.asked.end_user()
        address = str(self.server.get(semconv.CLIENT_ADDRESS) or "")
        waited = _number(own, semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
        begun = self.end
        if waited is not None:
            begun = min(self.end, (self.span.start_time or self.start) + round(waited * _SECOND))
        status = "failure" if self.failed else "success"
        return {
            "id": str(own.get(semconv.OTELGW_CALL_ID) or identity(self.span)),
            "trace_id": trace_id,
            "call_type": self.call_type,
            "cache_hit": False if self.failed or self.stream else None,
            "stream": True if self.stream else None,
            "status": status,
            "status_fields": {"llm_api_status": status, "guardrail_status": "not_run"},
            "custom_llm_provider": self.litellm_provider,
            "saved_cache_cost": 0.0,
            "startTime": self.start / _SECOND,
            "endTime": self.end / _SECOND,
            "completionStartTime": begun / _SECOND,
            "response_time": (self.end - self.start) / _SECOND,
            "model": self.model,
            "metadata": self.metadata(end_user, address),
            "cache_key": None,
            "response_cost": amount or 0.0,
            "cost_breakdown": self.cost_breakdown(),
            "total_tokens": usage["total_tokens"],
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "request_tags": _strings(own.get(semconv.OTELGW_TAGS)),
            "end_user": end_user or "",
            "api_base": self.api_base,
            "model_group": str(own.get(semconv.OTELGW_MODEL_ALIAS) or self.model),
            "model_id": str(own.get(semconv.OTELGW_MODEL_ID) or ""),
            "requester_ip_address": address,
            "messages": self.asked.messages(),
            "response": self.response(),
            "model_parameters": self.asked.parameters(),
            "hidden_params": self.hidden_params(),
            "model_map_information": self.model_map_information(),
            "error_str": self.failure.message or self.failure.type or None,
            "error_information": self.error_information(),
            "response_cost_failure_debug_info": self.missing_price(),
            "guardrail_information": None,
            "standard_built_in_tools_params": {
                "web_search_options": self.asked.body.get("web_search_options") or self.asked.tool("web_search"),
                "file_search": self.asked.tool("file_search"),
            },
            "otelgw": self.beyond(trace_id),
        }

    def metadata(self, end_user: str | None, address: str) -> dict[str, Any]:
        own = self.own
        return {
            "user_api_key_hash": _text(own, semconv.OTELGW_KEY_HASH),
            "user_api_key_alias": _text(own, semconv.OTELGW_KEY_ALIAS),
            "user_api_key_spend": 0.0,
            "user_api_key_max_budget": None,
            "user_api_key_budget_reset_at": None,
            "user_api_key_team_id": _text(own, semconv.OTELGW_TEAM_ID),
            "user_api_key_org_id": None,
            "user_api_key_user_id": _text(own, semconv.OTELGW_KEY_USER_ID),
            "user_api_key_team_alias": _text(own, semconv.OTELGW_TEAM_ALIAS),
            "user_api_key_user_email": _text(own, semconv.OTELGW_KEY_USER_EMAIL),
            "user_api_key_end_user_id": end_user,
            "user_api_key_request_route": self.route or None,
            "spend_logs_metadata": self.spend_logs_metadata(),
            "requester_ip_address": address,
            "requester_metadata": self.requester_metadata(),
            "prompt_management_metadata": None,
            "applied_guardrails": [],
            "mcp_tool_call_metadata": None,
            "vector_store_request_metadata": None,
            "usage_object": self.usage,
            "requester_custom_headers": {
                key.removeprefix(semconv.HTTP_REQUEST_HEADER): _joined(value)
                for key, value in self.server.items()
                if key.startswith(_CUSTOM_HEADER)
            },
            "cold_storage_object_key": None,
            "user_api_key_auth_metadata": {},
        }

    def requester_metadata(self) -> dict[str, Any]:
        """Return the caller's metadata; nested values as they came, where the request was captured."""
        prefix = semconv.OTELGW_METADATA
        found = {key.removeprefix(prefix): value for key, value in self.own.items() if key.startswith(prefix)}
        found.pop(_SPEND, None)
        for name in ("litellm_metadata", "metadata"):
            held = self.asked.body.get(name)
            if isinstance(held, dict):
                found |= {key: value for key, value in held.items() if value != _REDACTED}
        return found

    def spend_logs_metadata(self) -> dict[str, Any] | None:
        """Return what the caller attached for the books, by its header or in the body's metadata; the header wins."""
        told = self.own.get(f"{semconv.OTELGW_METADATA}{_SPEND}")
        held = document.read(told) if isinstance(told, str) else None
        for name in ("metadata", "litellm_metadata"):
            if not isinstance(held, dict):
                asked = self.asked.body.get(name)
                held = asked.get(_SPEND) if isinstance(asked, dict) else None
        return held if isinstance(held, dict) else None

    def cost_breakdown(self) -> dict[str, Any] | None:
        """Return the parts of the cost; None where they do not add up to what the call cost, or nothing is known."""
        total = self.cost[0]
        if total is None or (self.failed and not total):
            return None
        parts: tuple[float | None, float | None] = (None, None)
        if not self.usage["completion_tokens"]:
            parts = (total, 0.0)
        elif self.cost[1] == _LIST and self.listed is not None and isclose(self.listed.total, total):
            parts = (self.listed.input, self.listed.output)
        return {
            "input_cost": parts[0],
            "output_cost": parts[1],
            "total_cost": total,
            "tool_usage_cost": 0.0,
            "original_cost": total,
            "discount_percent": 0.0,
            "discount_amount": 0.0,
        }

    def missing_price(self) -> dict[str, Any] | None:
        """Say of a success whose cost is not known that it is not, since ``response_cost`` must be a number."""
        if self.failed or self.cost[0] is not None or semconv.GEN_AI_OPERATION_NAME not in self.own:
            return None
        why = "no usage was reported" if self.usage_source == "none" else "no price is known"
        return {"error_str": f"{why} for {self.model} of {self.provider}", "model": self.model}

    def response(self) -> dict[str, Any]:
        usage = None if self.usage_source == "none" else self.usage
        return content.answered(self.own, self.answer, failed=self.failed, created=self.end // _SECOND, usage=usage)

    def hidden_params(self) -> dict[str, Any]:
        overhead = _number(self.own, semconv.OTELGW_OVERHEAD_DURATION)
        name = f"{self.litellm_provider}/{self.model}" if self.litellm_provider and self.model else self.model
        return {
            "model_id": _text(self.own, semconv.OTELGW_MODEL_ID),
            "cache_key": None,
            "api_base": self.api_base or None,
            "response_cost": self.cost[0],
            "additional_headers": {
                key.removeprefix(semconv.HTTP_RESPONSE_HEADER).replace("-", "_"): _whole(_joined(value))
                for key, value in self.last.items()
                if key.startswith(_RATE_LIMIT)
            },
            "litellm_overhead_time_ms": None if overhead is None else overhead * 1000,
            "batch_models": None,
            "litellm_model_name": name or None,
            "usage_object": None,
        }

    def model_map_information(self) -> dict[str, Any]:
        value = prices.model_map(self.provider, self.priced_models, time_ns=self.start)
        if value is None:
            return {"model_map_key": "", "model_map_value": None}
        return {"model_map_key": value["key"], "model_map_value": value | {"litellm_provider": self.litellm_provider}}

    def error_information(self) -> dict[str, Any]:
        return {
            "error_code": self.failure.code,
            "error_class": self.failure.exception,
            "llm_provider": self.litellm_provider if self.failed else "",
            "traceback": "",
            "error_message": self.failure.message,
        }

    def beyond(self, trace_id: str) -> dict[str, Any]:
        """Return what LiteLLM has no word for, the identity of the delivery first."""
        own, span = self.own, self.span
        return {
            "schema_version": VERSION,
            "trace_id": trace_id,
            "span_id": format_span_id(span.context.span_id) if span.context else "",
            "parent_span_id": format_span_id(span.parent.span_id) if span.parent else None,
            "call_id": _text(own, semconv.OTELGW_CALL_ID),
            "session_id": _text(own, semconv.SESSION_ID),
            "error_type": self.failure.type or None,
            "status_code": _count(self.server.get(semconv.HTTP_RESPONSE_STATUS_CODE)),
            "usage_source": self.usage_source,
            "cost_source": self.cost[1] or None,
            "time_to_first_chunk": _number(own, semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
            "request_truncated": own.get(semconv.OTELGW_REQUEST_TRUNCATED) is True,
            "response_truncated": own.get(semconv.OTELGW_RESPONSE_TRUNCATED) is True,
            "service_name": _text(span.resource.attributes, "service.name") if span.resource else None,
            "attempts": [_attempt(attempt) for attempt in self.attempts],
        } | self.content_refs()

    def content_refs(self) -> dict[str, Any]:
        """Return where content is that is too long to be here, by the attributes that it would be in; mostly none."""
        found = {key.removesuffix(semconv.REF): value for key, value in self.own.items() if key.endswith(semconv.REF)}
        found = {key: value for key, value in found.items() if key in semconv.CONTENT}
        return {"content_refs": found} if found else {}


_ATTEMPT_PROVIDER = semconv.OTELGW_ATTEMPT_PROVIDER
_COMPLETION_DETAILS = {
    "accepted_prediction_tokens": "",
    "audio_tokens": semconv.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS,
    "reasoning_tokens": semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
    "rejected_prediction_tokens": "",
    "text_tokens": "",
}
_PROMPT_DETAILS = {
    "audio_tokens": semconv.GEN_AI_USAGE_AUDIO_INPUT_TOKENS,
    "cached_tokens": semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
    "text_tokens": "",
    "image_tokens": semconv.GEN_AI_USAGE_IMAGE_INPUT_TOKENS,
}


def _attempt(span: ReadableSpan) -> dict[str, Any]:
    held: Mapping[str, Any] = span.attributes or {}
    return {
        "number": _count(held.get(semconv.OTELGW_ATTEMPT_NUMBER)),
        "span_id": format_span_id(span.context.span_id) if span.context else "",
        "start": (span.start_time or 0) / _SECOND,
        "duration": ((span.end_time or 0) - (span.start_time or 0)) / _SECOND,
        "url": _text(held, semconv.URL_FULL),
        "status": _count(held.get(semconv.HTTP_RESPONSE_STATUS_CODE)),
        "error_type": _text(held, semconv.ERROR_TYPE),
        "request_id": _text(held, semconv.OTELGW_ATTEMPT_REQUEST_ID),
    }


def _base(url: str, route: str) -> str:
    """Return the base URL of a call: without query, and without the path of the route (``/v1/`` as in OpenAI's)."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix(route.removeprefix("/v1") or "/").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _joined(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _count(value: Any) -> int | None:
    """Return a number of tokens; None for what is none, whatever a foreign span holds."""
    return int(value) if isinstance(value, int | float) and 0 <= value < _LARGEST else None


def _text(held: Mapping[str, Any], name: str) -> str | None:
    value = held.get(name)
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _number(held: Mapping[str, Any], name: str) -> float | None:
    value = held.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < _LARGEST else None


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else value
