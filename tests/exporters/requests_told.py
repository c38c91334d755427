"""Two whole requests as the gateway's spans: one with everything that can be said of a call, and one that failed."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tests.exporters.samples import SCOPE, START

__all__ = ["CALLER", "FAILED", "TOLD", "TRACE", "request"]

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
CALLER = 0xB7AD6B7169203331
RESOURCE = Resource({"service.name": "gateway", "deployment.environment.name": "testing"})
_MS = 1_000_000

LABELS: dict[str, Any] = {
    "otelgw.call_id": "call-1",
    "otelgw.key.alias": "key-one",
    "otelgw.team.id": "team-1",
    "otelgw.tags": ["a", "b"],
    "session.id": "s-1",
    "user.id": "u-1",
    "otelgw.metadata.feature": "search",
    "otelgw.metadata.nested": '{"depth":2}',
}
SAID: dict[str, Any] = {
    "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
    "gen_ai.input.messages": [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "What is this?"},
                {"type": "uri", "modality": "image", "uri": "https://images.example/1.png"},
            ],
        },
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Oslo"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "rain"}]},
    ],
    "gen_ai.output.messages": [
        {"role": "assistant", "parts": [{"type": "text", "content": "Rain it is."}], "finish_reason": "stop"}
    ],
    "gen_ai.tool.definitions": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
}
CALL: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.request.temperature": 0.2,
    "gen_ai.request.seed": 7,
    "gen_ai.request.stream": True,
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.response.time_to_first_chunk": 0.25,
    "gen_ai.usage.input_tokens": 21,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.usage.cache_read.input_tokens": 5,
    "gen_ai.usage.cache_write.input_tokens": 2,
    "gen_ai.usage.reasoning.output_tokens": 3,
    "gen_ai.usage.cost": 0.00012,
    "otelgw.cost.amount": 0.00012,
    "otelgw.cost.currency": "USD",
    "otelgw.attempts": 2,
}


def _context(span: int, trace: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace, span, remote, TraceFlags(1))


def _span(
    name: str, number: int, parent: SpanContext | None, attributes: dict[str, Any], times: tuple[int, int], **more: Any
) -> ReadableSpan:
    return ReadableSpan(
        name,
        context=_context(number, more.pop("trace")),
        parent=parent,
        resource=RESOURCE,
        attributes=attributes,
        kind=more.pop("kind", SpanKind.CLIENT),
        status=more.pop("status", Status(StatusCode.UNSET)),
        start_time=START + times[0] * _MS,
        end_time=START + times[1] * _MS,
        instrumentation_scope=SCOPE,
    )


def request(
    number: int = 1,
    *,
    trace: int = TRACE,
    metadata: dict[str, Any] | None = None,
    error: str = "",
    caller: int | None = CALLER,
) -> list[ReadableSpan]:
    """Return the four spans of a request: SERVER, generation and two attempts, the first of which got a 429."""
    first = 0x1000 * number
    labels = LABELS | {f"otelgw.metadata.{key}": value for key, value in (metadata or {}).items()}
    labels |= {"otelgw.call_id": f"call-{number}"}
    failed = Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET)
    status = 400 if error else 200
    kind = {"error.type": "400"} if error else {}
    server, generation = _context(first + 1, trace), _context(first + 2, trace)
    remote = None if caller is None else _context(caller, trace, remote=True)
    http = {"http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": status}
    call = {key: value for key, value in CALL.items() if not error or ("usage" not in key and "cost" not in key)}
    said = {key: value for key, value in SAID.items() if not error or key != "gen_ai.output.messages"}
    attempts = [
        {"http.request.method": "POST", "otelgw.attempt.number": at, "http.response.status_code": code}
        | ({"error.type": str(code)} if code != 200 else {})
        for at, code in ((1, 429), (2, status))
    ]
    named = "POST /v1/chat/completions"
    return [
        _span(named, first + 1, remote, labels | http, (0, 1000), trace=trace, kind=SpanKind.SERVER),
        _span(
            "chat gpt-4o-mini", first + 2, server, labels | call | said | kind, (10, 990), trace=trace, status=failed
        ),
        _span("POST", first + 3, generation, labels | attempts[0], (10, 100), trace=trace),
        _span("POST", first + 4, generation, labels | attempts[1], (150, 990), trace=trace),
    ]


TOLD = request()
FAILED = request(2, trace=TRACE + 1, error="the model is not amused")
