"""What the gateway adds to answers, and the answers it gives itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import otelgw
from otelgw.errors import GatewayError
from otelgw.http.exchange import Exchange, call_id_of
from otelgw.http.stream import pairs_of, rendered

__all__ = [
    "Send",
    "begin",
    "gateway_headers",
    "gateway_lines",
    "refusal_headers",
    "refuse",
    "send_whole",
    "untraced",
]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

_VERSION = otelgw.__version__.encode()
_VERSIONS = b"x-litellm-version: %b\r\nx-otelgw-version: %b\r\n" % (_VERSION, _VERSION)
# Limits of virtual keys; a request that was let in without one has none, which LiteLLM writes as "None".
_NO_LIMITS = b"".join(
    b"x-litellm-key-%b-limit: None\r\nx-otelgw-key-%b-limit: None\r\n" % (name, name) for name in (b"tpm", b"rpm")
)
_CALL = b"x-litellm-call-id: %b\r\nx-otelgw-call-id: %b\r\n"
_TRACE = b"x-otelgw-trace-id: %b\r\ntraceresponse: %b\r\nserver-timing: trace;desc=%b\r\n"
_TRIED = (
    b"x-litellm-attempted-retries: %d\r\nx-otelgw-attempted-retries: %d\r\n"
    b"x-litellm-attempted-fallbacks: 0\r\nx-otelgw-attempted-fallbacks: 0\r\n"
)
_COST = b"x-litellm-response-cost: %b\r\nx-otelgw-response-cost: %b\r\n"
_DURATION = b"x-litellm-response-duration-ms: %.3f\r\nx-otelgw-response-duration-ms: %.3f\r\n"
_OVERHEAD = b"x-litellm-overhead-duration-ms: %.3f\r\nx-otelgw-overhead-duration-ms: %.3f\r\n"


def gateway_lines(
    exchange: Exchange, *, cost: float | None = None, duration_ns: int | None = None, overhead_ns: int | None = None
) -> bytes:
    """Return the headers that every answer carries, as lines; cost (USD) and times only where they are known before
    the body."""
    call_id = exchange.call_id.encode()
    trace_id = exchange.trace_id.encode()
    parent = b"00-%b-%b-%02x" % (trace_id, exchange.span_id.encode(), exchange.flags)
    lines = [
        _CALL % (call_id, call_id),
        _VERSIONS,
        rendered(exchange.limit_headers) if exchange.limit_headers else _NO_LIMITS,
        _TRACE % (trace_id, parent, parent),
        exchange.answer_lines,
        exchange.extra_lines,
    ]
    if exchange.attempts:
        lines.append(_TRIED % (exchange.retries, exchange.retries))
    if cost is not None:
        text = repr(cost).encode()
        lines.append(_COST % (text, text))
    if duration_ns is not None:
        lines.append(_DURATION % (duration_ns / 1e6, duration_ns / 1e6))
    if overhead_ns is not None:
        lines.append(_OVERHEAD % (overhead_ns / 1e6, overhead_ns / 1e6))
    return b"".join(lines)


def gateway_headers(exchange: Exchange) -> RawHeaders:
    """Return the same as pairs, for an answer that the gateway gives itself."""
    return pairs_of(gateway_lines(exchange))


async def begin(
    exchange: Exchange, send: Send, status: int, headers: RawHeaders, lines: bytes, *, alone: bool = True
) -> None:
    """Send the head of an answer, by the shortest way that there is (``Stream.begin``)."""
    if exchange.outlet is not None:
        exchange.outlet.begin(status, headers, lines, alone=alone)
    else:
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *pairs_of(lines)]})


def refusal_headers(exchange: Exchange, error: GatewayError) -> RawHeaders:
    """Return the headers of an answer that the gateway gives itself because of ``error``."""
    headers = gateway_headers(exchange)
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.error_type == "unauthorized":
        headers.append((b"www-authenticate", b'Bearer realm="otelgw"'))
    if (error.close or not exchange.body_read) and exchange.scope.get("http_version", "").startswith("1"):
        headers.append((b"connection", b"close"))
    return headers


async def send_whole(
    send: Send, status: int, headers: RawHeaders, body: bytes, content_type: bytes = b"application/json"
) -> None:
    """Send a complete answer."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(
    send: Send,
    exchange: Exchange,
    error: GatewayError,
    body: bytes,
    rest: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Answer with the error's status and ``body``, its OpenAI error JSON.

    ``rest`` reads what the caller is still sending; it runs when all bytes of the answer are out and before its end,
    because a connection that is closed with unread bytes takes the answer with it.
    """
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *refusal_headers(exchange, error),
    ]
    await send({"type": "http.response.start", "status": error.answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": rest is not None})
    if rest is not None:
        await rest()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def untraced(scope: MutableMapping[str, Any], send: Send) -> Send:
    """Return a ``send`` that adds the gateway's headers to an answer that belongs to no trace."""
    call_id = call_id_of(dict(scope["headers"])).encode()
    extra = pairs_of(_CALL % (call_id, call_id) + _VERSIONS + _NO_LIMITS)

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return send_with_headers
