"""Records as the gateway writes them, one per way that a request can go."""

from __future__ import annotations

from typing import Any

from otelgw.tracing.generation import facts_without_content
from otelgw.tracing.record import Attempt, Caller, Capture, Price, Record, Target, capture_whole
from tests.dialects import wire

MS = 1_000_000
START = 1_800_000_000_000_000_000
CHAT = Target(
    alias="gpt",
    model="gpt-4o",
    provider="openai",
    operation="chat",
    dialect="openai_chat",
    server_address="api.openai.com",
    server_port=443,
    price=Price("config", input_per_token=0.000001, output_per_token=0.000002),
)
CALLER = Caller(authenticated=True, key_hash="ab" * 32, key_alias="search", team_id="t-1", team_alias="blue")
ASKED = (
    b'{"model":"gpt","messages":[{"role":"user","content":"CANARY say hello"}],"user":"u-1","metadata":{"feature":"x"}}'
)
PLAIN = (
    b'{"model":"gpt","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"CANARY say hello"}],'
    b'"temperature":0.2,"max_tokens":64}'
)
REFUSED = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'


def attempt(number: int = 1, start: int = 2, end: int = 90, status: int = 200, **fields: Any) -> Attempt:
    """Return an attempt; times in milliseconds after the request's start."""
    return Attempt(
        span_id=f"{0x11 * number:016x}",
        number=number,
        start=start * MS,
        end=end * MS,
        first_byte=(start + 20) * MS if status else 0,
        url="https://api.openai.com/v1/chat/completions",
        server_address="api.openai.com",
        server_port=443,
        status=status,
        provider="openai",
        model="gpt-4o",
        **{"request_id": f"req_{number}" if status else "", **fields},
    )


def record(**changes: Any) -> Record:
    """Return the record of a chat that went well, with ``changes``."""
    fields: dict[str, Any] = {
        "call_id": "call-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "generation_span_id": "00f067aa0ba902b7",
        "parent_span_id": "53995c3f42cd8ad8",
        "trace_state": "congo=t61rcWkgMzE,a@b=1",
        "trace_flags": 3,
        "start": START,
        "upstream_start": 1 * MS,
        "first_byte": 22 * MS,
        "first_chunk": 91 * MS,
        "generation_end": 90 * MS,
        "end": 92 * MS,
        "route": "/v1/chat/completions",
        "path": "/v1/chat/completions",
        "server_address": "gateway.example",
        "server_port": 4000,
        "client_address": "203.0.113.7",
        "user_agent": "OpenAI/Python 2.0",
        "status": 200,
        "sent_bytes": 768,
        "target": CHAT,
        "caller": CALLER,
        "attempts": [attempt()],
        "request": capture_whole(ASKED, "application/json"),
        "response": capture_whole(wire.answer("chat_openai.json"), "application/json"),
        "cost": None,
    }
    return Record(**fields | changes)


def plain(**changes: Any) -> Record:
    """Return the record of an ordinary chat, with ``changes``."""
    return record(**{"trace_state": "", "request": capture_whole(PLAIN, "application/json")} | changes)


def withheld(whole: Record) -> Record:
    """Return ``whole`` as the gateway writes it where content may not be recorded."""
    whole.facts = facts_without_content(whole.target, whole.request, whole.response, whole.status, whole.stream)
    whole.request, whole.response = (
        Capture(content_type=body.content_type, size=body.size, withheld=True)
        for body in (whole.request, whole.response)
    )
    whole.content = False
    return whole


def refused(status: int, error: str, message: str, **changes: Any) -> Record:
    """Return a request that the gateway answered itself, before any upstream."""
    fields: dict[str, Any] = {
        "generation_span_id": "",
        "upstream_start": 0,
        "first_byte": 0,
        "first_chunk": 0,
        "generation_end": 0,
        "end": 3 * MS,
        "status": status,
        "error_type": error,
        "error_message": message,
        "target": Target(),
        "attempts": [],
        "request": Capture(),
        "response": Capture(),
    }
    return record(**fields | changes)


def streamed(name: str, cut: int | None = None, **changes: Any) -> Record:
    body = wire.answer(name)[:cut]
    return record(
        **{"stream": True, "first_chunk": 23 * MS, "response": capture_whole(body, wire.SSE), "sent_bytes": len(body)}
        | changes
    )


def scenarios() -> dict[str, Record]:
    azure = wire.answer("chat_azure.sse")
    half = azure.index(b'"lo"') + 2
    return {
        "success": record(
            metadata={"session_id": "s-1", "tags": ["blue"]},
            request_headers=[("x-feature", "a"), ("x-feature", "b")],
        ),
        "stream_with_tool_calls": streamed(
            "chat_tools.sse", request=capture_whole(wire.request("chat_tools.json"), "application/json")
        ),
        "embeddings": record(
            route="/v1/embeddings",
            path="/embeddings",
            target=Target(
                alias="embed",
                model="text-embedding-3-small",
                provider="azure.ai.openai",
                operation="embeddings",
                dialect="openai_embeddings",
                server_address="x.openai.azure.com",
                server_port=443,
            ),
            request=capture_whole(b'{"model":"embed","input":"some words","dimensions":256}', "application/json"),
            response=capture_whole(wire.answer("embeddings.json"), "application/json"),
        ),
        "retried_after_429": record(
            attempts=[
                attempt(1, 2, 30, 429, error_type="429"),
                attempt(2, 50, 90, retry_reason="429", response_headers=[("x-ratelimit-remaining", "7")]),
            ],
            retry_count=1,
        ),
        "refused_by_upstream": record(
            status=429,
            error_type="429",
            attempts=[attempt(1, 2, 30, 429, error_type="429")],
            response=capture_whole(REFUSED, "application/json"),
        ),
        "cut_by_upstream": streamed(
            "chat_azure.sse",
            half,
            error_type="upstream_reset",
            error_message="api.openai.com:443 gave no usable answer (ReadError).",
            attempts=[attempt(error_type="upstream_reset")],
        ),
        "caller_hung_up": streamed(
            "chat_azure.sse",
            half,
            error_type="client_disconnect",
            error_message="The caller closed the connection.",
            attempts=[attempt(error_type="client_disconnect")],
        ),
        "unreachable_upstream": record(
            status=502,
            error_type="upstream_connect",
            error_message="api.openai.com:443 refused the connection.",
            attempts=[attempt(status=0, error_type="upstream_connect")],
            response=Capture(),
            first_byte=0,
        ),
        "unauthorized": refused(
            401, "unauthorized", "No such key.", caller=Caller(), parent_span_id="", trace_state=""
        ),
        "model_not_found": refused(
            404, "model_not_found", "No model 'gpt-x'; nearest: gpt.", target=Target(alias="gpt-x")
        ),
        "draining": refused(503, "shutdown", "The gateway is shutting down; try again."),
        "content_off": withheld(streamed("chat_tools.sse")),
        "linked_caller": record(
            parent_span_id="", trace_state="", link_trace_id="ab" * 16, link_span_id="cd" * 8, trace_flags=1
        ),
        "route_without_operation": record(
            method="GET",
            route="/v1/files/{path}",
            path="/v1/files/f-1",
            generation_span_id="",
            target=Target(alias="openai", provider="openai", server_address="api.openai.com", server_port=443),
            request=Capture(),
            response=Capture(),
            attempts=[attempt(method="GET")],
        ),
    }
