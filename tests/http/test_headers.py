"""Which headers cross the gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.http.headers import allow_listed, from_upstream, to_upstream, without_secrets

STOPPED_UPWARD = [
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization",
    b"proxy-connection", b"host", b"content-length", b"accept-encoding", b"content-encoding", b"expect",
    b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"x-litellm-api-key", b"cookie", b"origin",
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip",
    b"traceparent", b"tracestate", b"baggage", b"b3", b"x-b3-traceid", b"x-b3-sampled", b"x-datadog-trace-id",
    b"uber-trace-id", b"x-litellm-tags", b"x-litellm-call-id", b"litellm-disable-message-redaction",
    b"x-otelgw-provider", b"langfuse_trace_id", b"sec-fetch-mode",
]  # fmt: skip
PASSED_UPWARD = [
    b"accept", b"content-type", b"user-agent", b"openai-organization", b"openai-project", b"openai-beta",
    b"anthropic-version", b"x-stainless-lang", b"idempotency-key", b"x-request-id", b"x-custom",
]  # fmt: skip


@pytest.mark.parametrize("name", STOPPED_UPWARD)
def test_what_belongs_to_the_callers_connection_does_not_go_upstream(name: bytes) -> None:
    sent = to_upstream([(name, b"canary")], [])

    assert b"canary" not in dict(sent).values()


@pytest.mark.parametrize("name", PASSED_UPWARD)
def test_what_describes_the_request_goes_upstream(name: bytes) -> None:
    assert (name, b"value") in to_upstream([(name, b"value")], [])


def test_headers_that_connection_names_stop_here() -> None:
    sent = to_upstream([(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"x-stay", b"2")], [])

    assert b"x-hop" not in dict(sent)
    assert dict(sent)[b"x-stay"] == b"2"


def test_several_connection_headers_are_one() -> None:
    headers = [(b"connection", b"x-a"), (b"connection", b"x-b"), (b"x-a", b"1"), (b"x-b", b"2")]

    assert to_upstream(headers, []) == [(b"accept-encoding", b"identity")]
    assert from_upstream(headers).kept == []


def test_the_gateways_own_headers_replace_the_callers() -> None:
    sent = to_upstream([(b"openai-organization", b"theirs")], [(b"openai-organization", b"ours")])

    assert [value for name, value in sent if name == b"openai-organization"] == [b"ours"]


def test_no_compressed_answer_is_asked_for() -> None:
    assert dict(to_upstream([(b"accept-encoding", b"gzip, br")], []))[b"accept-encoding"] == b"identity"


def test_credentials_go_upstream_only_where_that_is_configured() -> None:
    headers = [(b"authorization", b"Bearer mine"), (b"cookie", b"a=b"), (b"x-litellm-api-key", b"gw")]

    assert not {b"authorization", b"cookie"} & dict(to_upstream(headers, [])).keys()
    forwarded = dict(to_upstream(headers, [], forward_credentials=True))
    assert forwarded[b"authorization"] == b"Bearer mine"
    assert b"x-litellm-api-key" not in forwarded


STOPPED_DOWNWARD = [
    b"Connection", b"Keep-Alive", b"Transfer-Encoding", b"Upgrade", b"Trailer", b"Set-Cookie", b"Alt-Svc",
    b"Strict-Transport-Security", b"Server-Timing", b"traceresponse", b"x-litellm-response-cost",
    b"X-Otelgw-Trace-Id", b"Access-Control-Allow-Origin",
]  # fmt: skip
PASSED_DOWNWARD = [
    b"content-type", b"Content-Length", b"retry-after", b"x-ratelimit-remaining-requests", b"x-request-id",
    b"openai-processing-ms", b"cf-ray", b"content-encoding", b"etag", b"Server",
]  # fmt: skip


@pytest.mark.parametrize("name", STOPPED_DOWNWARD)
def test_what_belongs_to_the_upstreams_connection_does_not_reach_the_caller(name: bytes) -> None:
    assert from_upstream([(name, b"1")]).kept == []


@pytest.mark.parametrize("name", PASSED_DOWNWARD)
def test_what_describes_the_answer_reaches_the_caller(name: bytes) -> None:
    assert from_upstream([(name, b"1")]).kept == [(name.lower(), b"1")]


def test_a_header_that_the_upstreams_connection_names_stops_here() -> None:
    assert from_upstream([(b"Connection", b"x-hop"), (b"X-Hop", b"1"), (b"x-stay", b"2")]).kept == [(b"x-stay", b"2")]


def test_the_head_of_an_answer_is_read_once() -> None:
    head = from_upstream(
        [
            (b"Content-Type", b"text/event-stream; charset=utf-8"),
            (b"Content-Length", b"12"),
            (b"Content-Encoding", b"gzip"),
            (b"Retry-After", b"3"),
            (b"X-Request-Id", b"req_1"),
        ]
    )

    assert (head.content_type, head.length, head.encoding) == ("text/event-stream; charset=utf-8", 12, "gzip")
    assert (head.retry_after, head.request_id) == ("3", "req_1")


def test_credentials_are_not_recorded_even_when_listed() -> None:
    headers = [(b"authorization", b"Bearer x"), (b"cookie", b"a"), (b"X-Tenant", b"acme")]

    assert allow_listed(headers, ["authorization", "Cookie", "x-tenant"]) == [("x-tenant", "acme")]


@pytest.mark.parametrize(
    ("query", "recorded", "sent"),
    [
        (b"", b"", b""),
        (b"limit=2&after=x", b"limit=2&after=x", b"limit=2&after=x"),
        (b"key=AIzaCanary", b"key=REDACTED", b""),
        (b"a=1&API-Key=canary&b=2", b"a=1&API-Key=REDACTED&b=2", b"a=1&b=2"),
        (b"%6Bey=canary", b"key=REDACTED", b""),
        (b"api%5Fkey=canary", b"api_key=REDACTED", b""),
        (b"access_token=canary&x", b"access_token=REDACTED&x", b"x"),
    ],
)
def test_secret_query_parameters_are_neither_recorded_nor_sent(query: bytes, recorded: bytes, sent: bytes) -> None:
    assert without_secrets(query) == recorded
    assert without_secrets(query, drop=True) == sent


@given(st.binary(max_size=100))
def test_no_query_breaks_redaction(query: bytes) -> None:
    assert b"key=canary" not in without_secrets(query.replace(b"&", b"") + b"&key=canary")


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=8))
def test_no_header_breaks_the_filters(headers: list[tuple[bytes, bytes]]) -> None:
    lowered = [(name.lower(), value) for name, value in headers]

    assert {name for name, _ in from_upstream(headers).kept} <= {name for name, _ in lowered}
    assert (b"accept-encoding", b"identity") in to_upstream(lowered, [])
