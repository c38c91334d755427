"""What the gateway adds to answers, and the answers it gives itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import otelgw
from otelgw.errors import GatewayError
from otelgw.http.exchange import Exchange, call_id_of

__all__ = ["Send", "gateway_headers", "refusal_headers", "refuse", "send_whole", "untraced"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

_VERSION = otelgw.__version__.encode()
# Limits of virtual keys; a request that was let in without one has none, which LiteLLM writes as "None".
_CONSTANT: RawHeaders = [(b"x-litellm-version", _VERSION), (b"x-otelgw-version", _VERSION)]
_NO_LIMITS: RawHeaders = [
    (b"x-litellm-key-tpm-limit", b"None"),
    (b"x-otelgw-key-tpm-limit", b"None"),
    (b"x-litellm-key-rpm-limit", b"None"),
    (b"x-otelgw-key-rpm-limit", b"None"),
]


def gateway_headers(
    exchange: Exchange,
    upstream: RawHeaders,
    *,
    cost: float | None = None,
    duration_ns: int | None = None,
    overhead_ns: int | None = None,
) -> RawHeaders:
    """Return the headers that every answer carries; cost (USD) and times only where they are known before the body."""
    call_id = exchange.call_id.encode()
    trace_id = exchange.trace_id.encode()
    parent = b"00-%b-%b-%02x" % (trace_id, exchange.span_id.encode(), exchange.flags)
    headers = [
        (b"x-litellm-call-id", call_id),
        (b"x-otelgw-call-id", call_id),
        *_CONSTANT,
        *(exchange.limit_headers or _NO_LIMITS),
        (b"x-otelgw-trace-id", trace_id),
        (b"traceresponse", parent),
        (b"server-timing", b"trace;desc=" + parent),
        *upstream,
    ]
    if exchange.attempts:
        retries = b"%d" % exchange.retries
        headers += [
            (b"x-litellm-attempted-retries", retries),
            (b"x-otelgw-attempted-retries", retries),
            (b"x-litellm-attempted-fallbacks", b"0"),
            (b"x-otelgw-attempted-fallbacks", b"0"),
        ]
    if cost is not None:
        _both(headers, b"response-cost", repr(cost).encode())
    if duration_ns is not None:
        _both(headers, b"response-duration-ms", b"%.3f" % (duration_ns / 1e6))
    if overhead_ns is not None:
        _both(headers, b"overhead-duration-ms", b"%.3f" % (overhead_ns / 1e6))
    return headers


def _both(headers: RawHeaders, name: bytes, value: bytes) -> None:
    headers.append((b"x-litellm-" + name, value))
    headers.append((b"x-otelgw-" + name, value))


def refusal_headers(exchange: Exchange, error: GatewayError) -> RawHeaders:
    """Return the headers of an answer that the gateway gives itself because of ``error``."""
    headers = gateway_headers(exchange, exchange.answer_headers)
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
    extra = [(b"x-litellm-call-id", call_id), (b"x-otelgw-call-id", call_id), *_CONSTANT, *_NO_LIMITS]

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return send_with_headers
