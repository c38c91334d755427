"""Cross-origin answers for the web pages that the config names; every other page gets no CORS header."""

from __future__ import annotations

from collections.abc import Callable

from otelgw.http.answer import Send, gateway_headers
from otelgw.http.auth import Authenticator
from otelgw.http.exchange import Exchange
from otelgw.http.stream import rendered

__all__ = ["Cors"]

# Without credentials the Fetch standard reads it as every header; keys travel in headers of their own here.
_EXPOSED = b"*"


class Cors:
    """Adds ``Access-Control-*`` headers where the Origin is allowed (Fetch standard)."""

    def __init__(self, auth: Authenticator) -> None:
        self._auth = auth

    def is_preflight(self, exchange: Exchange) -> bool:
        headers = exchange.headers
        return exchange.method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        origin = exchange.headers.get(b"origin", b"")
        if not origin or b"\r" in origin or b"\n" in origin or not self._auth.allows_origin(origin):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]

    def apply(self, exchange: Exchange) -> None:
        """Have the headers added to the answer, whatever it will be."""
        exchange.extra_lines = rendered(self._headers(exchange))

    async def answer_preflight(self, exchange: Exchange, send: Send, commit: Callable[[Exchange], None]) -> None:
        """Answer an OPTIONS preflight: 204, with permission only for an allowed Origin."""
        headers = gateway_headers(exchange)
        if self._headers(exchange):
            wanted = exchange.headers.get(b"access-control-request-headers", b"")
            headers += [
                (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
                (b"access-control-max-age", b"600"),
            ]
            if wanted:
                headers.append((b"access-control-allow-headers", wanted))
        exchange.status = 204
        exchange.answered = True
        commit(exchange)
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
