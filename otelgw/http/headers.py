"""Which headers cross the gateway, in each direction, and what is never recorded of them.

The rules are INTERFACE's: hop-by-hop headers (also those that ``Connection`` names), credentials, cookies, forwarding
and trace headers stop here. ASGI header names are lower-case bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from otelgw.tracing.propagation import TRACE_HEADERS

__all__ = [
    "CREDENTIALS",
    "LABEL_PREFIXES",
    "SECRET_PARAMETERS",
    "AnswerHead",
    "allow_listed",
    "credentials_in",
    "from_upstream",
    "to_upstream",
    "without_secrets",
]

RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"trailers", b"transfer-encoding", b"upgrade", b"http2-settings"}
)  # fmt: skip
CREDENTIALS = frozenset(
    {b"authorization", b"proxy-authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"x-litellm-api-key",
     b"cookie", b"cookie2", b"set-cookie", b"set-cookie2", b"x-amz-security-token", b"x-csrf-token", b"x-auth-token",
     b"openai-api-key", b"anthropic-api-key"}
)  # fmt: skip
_STOPPED_UPWARD = (
    HOP_BY_HOP
    | CREDENTIALS
    | TRACE_HEADERS
    | {b"host", b"content-length", b"accept-encoding", b"content-encoding", b"forwarded", b"x-real-ip", b"expect",
       b"origin", b"referer"}
)  # fmt: skip
_STOPPED_PREFIXES = (
    b"x-forwarded-", b"x-litellm-", b"litellm-", b"x-otelgw-", b"langfuse_", b"langfuse-", b"sec-", b"x-b3-",
    b"x-datadog-", b"access-control-",
)  # fmt: skip
LABEL_PREFIXES = (b"langfuse_", b"langfuse-")
"""Beginnings of headers that carry what `metadata` in the body does."""
_READ = frozenset(
    {b"connection", b"content-type", b"content-encoding", b"content-length", b"retry-after", b"x-request-id",
     b"request-id", b"apim-request-id"}
)  # fmt: skip
# What a caller may have forwarded where `forward_client_headers_to_llm_api` is on.
_CLIENT_CREDENTIALS = CREDENTIALS - {b"x-litellm-api-key", b"proxy-authorization"}
_STOPPED_DOWNWARD = HOP_BY_HOP | {
    b"set-cookie", b"set-cookie2", b"alt-svc", b"strict-transport-security", b"server-timing", b"traceresponse",
    b"date",  # the gateway's server writes its own
}  # fmt: skip
_STOPPED_DOWN_PREFIXES = (b"x-litellm-", b"x-otelgw-", b"access-control-")

# Query parameters and body fields that carry credentials, in lower case with "-" as "_".
SECRET_PARAMETERS = frozenset(
    {"key", "api_key", "apikey", "x_api_key", "token", "access_token", "refresh_token", "id_token", "auth",
     "authorization", "password", "passwd", "secret", "client_secret", "sig", "signature", "x_goog_api_key",
     "x_goog_signature", "x_amz_signature", "x_amz_security_token", "x_amz_credential", "awsaccesskeyid",
     "subscription_key", "ocp_apim_subscription_key", "code"}
)  # fmt: skip
REDACTED = b"REDACTED"


def _named_in_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    found: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            found |= {token.strip().lower() for token in value.split(b",")}
    return found


# The verdicts on names that have been seen: the same few come with every request. Bounded, for callers choose names.
_KNOWN_NAMES = 4096
_goes_up: dict[bytes, bool] = {}
_goes_down: dict[bytes, tuple[bytes, bool, bool]] = {}


def _judge_upward(name: bytes) -> bool:
    passes = name not in _STOPPED_UPWARD and not name.startswith(_STOPPED_PREFIXES)
    if len(_goes_up) < _KNOWN_NAMES:
        _goes_up[name] = passes
    return passes


def _judge_downward(raw_name: bytes) -> tuple[bytes, bool, bool]:
    """Return a name in lower case, whether it reaches the caller, and whether the gateway reads it."""
    name = raw_name.lower()
    passes = name not in _STOPPED_DOWNWARD and not name.startswith(_STOPPED_DOWN_PREFIXES)
    verdict = (name, passes, name in _READ)
    if len(_goes_down) < _KNOWN_NAMES:
        _goes_down[raw_name] = verdict
    return verdict


def to_upstream(
    headers: Sequence[tuple[bytes, bytes]],
    own: Sequence[tuple[bytes, bytes]],
    *,
    forward_credentials: bool = False,
    drop: frozenset[bytes] = frozenset(),
) -> RawHeaders:
    """Return the caller's ``headers`` that go upstream, with ``own`` (auth, configured, trace) replacing same names."""
    stopped = {name for name, _ in own} | _named_in_connection(headers) | drop
    result: RawHeaders = []
    for header in headers:
        name = header[0]
        passes = _goes_up.get(name)
        if passes is None:
            passes = _judge_upward(name)
        if name not in stopped and (passes or (forward_credentials and name in _CLIENT_CREDENTIALS)):
            result.append(header)
    result.append((b"accept-encoding", b"identity"))
    result.extend(own)
    return result


class AnswerHead(NamedTuple):
    """An upstream's headers, read in one pass. ``kept`` are those that the caller gets, names in lower case; ``length``
    is the Content-Length in bytes, -1 without one."""

    kept: RawHeaders
    content_type: str
    encoding: str
    length: int
    retry_after: str
    request_id: str


def from_upstream(headers: Sequence[tuple[bytes, bytes]]) -> AnswerHead:
    """Return what the gateway needs of an upstream's ``headers``, and what the caller gets of them."""
    kept: RawHeaders = []
    facts: dict[bytes, bytes] = {}
    for raw_name, value in headers:
        known = _goes_down.get(raw_name)
        name, passes, read = _judge_downward(raw_name) if known is None else known
        if read:
            if name == b"connection" and name in facts:
                facts[name] += b"," + value
            else:
                facts.setdefault(name, value)
        if passes:
            kept.append((name, value))
    if b"connection" in facts:
        named = _named_in_connection(facts.items())
        kept = [header for header in kept if header[0] not in named]
    fact = facts.get
    length = fact(b"content-length", b"")
    request_id = fact(b"x-request-id") or fact(b"request-id") or fact(b"apim-request-id") or b""
    return AnswerHead(
        kept,
        fact(b"content-type", b"").decode("latin-1"),
        fact(b"content-encoding", b"").decode("latin-1"),
        int(length) if length.isdigit() else -1,
        fact(b"retry-after", b"").decode("latin-1"),
        request_id.decode("latin-1")[:256],
    )


def allow_listed(headers: Iterable[tuple[bytes, bytes]], allowed: Sequence[str]) -> list[tuple[str, str]]:
    """Return the headers that config lets onto a span; credentials stay out even when they are listed."""
    if not allowed:
        return []
    wanted = {name.encode("latin-1").lower() for name in allowed} - CREDENTIALS
    return [
        (name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in headers if name.lower() in wanted
    ]


def credentials_in(headers: Iterable[bytes]) -> tuple[str, ...]:
    """Return which of the names in ``headers`` are those of credentials."""
    return tuple(sorted(map(bytes.decode, CREDENTIALS.intersection(headers))))


def without_secrets(query: bytes, *, drop: bool = False) -> bytes:
    """Return ``query`` with the values of secret parameters replaced, or with those parameters left out."""
    if not query:
        return query
    parts = []
    for part in query.split(b"&"):
        name, separator, _ = part.partition(b"=")
        decoded = unquote_to_bytes(name.replace(b"+", b" ")).decode("latin-1").strip().lower().replace("-", "_")
        if decoded not in SECRET_PARAMETERS:
            parts.append(part)
        elif not drop:
            parts.append(quote_from_bytes(unquote_to_bytes(name)).encode() + separator + REDACTED)
    return b"&".join(parts)
