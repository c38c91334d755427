"""What the caller gets: the upstream's bytes as they come, its headers by the rules, and the gateway's own."""

from __future__ import annotations

import gzip
import hashlib
import json
import queue
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

import otelgw
from otelgw.config.settings import Auth
from tests.http.caller import CHAT, HELLO, STREAM, Caller, ask, asked, parts_of, tree_of
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway, deployment
from tests.servers.upstream import (
    USAGE,
    Received,
    Script,
    ScriptedUpstream,
    answer,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    error,
    head_size,
    payload,
    refused_port,
    split_every,
    sse,
    stall_after,
)

BIG = json.dumps({"choices": [], "padding": "ü" * 1_200_000}, ensure_ascii=False).encode()
BINARY = bytes(range(256)) * 1000
EVENTS = [b": hi\r\n\r\n", b'event: a\ndata: {"x":"\xc3\xbc"}\n\n', b"data: 1\ndata: 2\n\n", b"retry: 3\n\n"]

UNCHANGED: dict[str, Script] = {
    "json": chat("hello"),
    "json in chunks": answer(body=chat_body("hello"), framing="chunked", chunk=7),
    "json until close": answer(body=chat_body("hello"), framing="close"),
    "json that is none": answer(body=b'{"choices": [oops'),
    "empty json": answer(body=b""),
    "big json": answer(body=BIG),
    "big json in chunks": answer(body=BIG, framing="chunked", chunk=100_000),
    "binary": answer(body=BINARY, content_type=b"audio/mpeg"),
    "binary in chunks": answer(body=BINARY, content_type=b"audio/mpeg", framing="chunked"),
    "text": answer(body=b"plain\r\n\r\ntext\n", content_type=b"text/plain"),
    "gzip though identity was asked for": answer(body=chat_body("hello"), encoding="gzip"),
    "events": sse(EVENTS),
    "events byte by byte": split_every(sse(EVENTS), 1),
    "events of known length": answer(body=b"".join(EVENTS), content_type=b"text/event-stream"),
    "an error": error(400, "bad request"),
    "an odd status": answer(529, b'{"error":{"message":"overloaded"}}', reason=b"Overloaded"),
    "a redirect": answer(
        307, b"elsewhere", headers=[(b"Location", b"https://other.example/x")], content_type=b"text/plain"
    ),
    "no content": answer(204, b"", framing="none"),
}


def body_of(script: Script) -> bytes:
    """Return the body of a script's answer without its chunked framing."""
    if b"chunked" not in payload(script)[: head_size(script)]:
        return payload(script)[head_size(script) :]
    body, rest = b"", payload(script)[head_size(script) :]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("name", UNCHANGED)
def test_the_caller_gets_the_upstreams_status_and_bytes(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    script = UNCHANGED[name]
    upstream.answer_with(script)

    got, tree = asked(gateway, HELLO)

    head = payload(script)[: head_size(script)].decode()
    assert got.complete
    assert got.body == body_of(script)
    assert got.status == int(head[9:12])
    assert got.header("content-type") == next(
        line[14:] for line in head.split("\r\n") if line.startswith("Content-Type")
    )
    assert tree.server.attributes["http.response.status_code"] == got.status


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_answer_of_known_length_keeps_it(gateway: RunningGateway, upstream: ScriptedUpstream, framing: str) -> None:
    upstream.answer_with(answer(body=chat_body(), framing=framing))

    got, _ = asked(gateway, HELLO)

    assert got.header("content-length") == (str(len(chat_body())) if framing == "length" else None)


def test_chunks_go_on_as_they_arrive(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """The upstream says no more until the caller has what it said so far."""
    stream = sse(chat_events("first second"))
    said = payload(stream).index(b"first") + 200
    upstream.answer_with(stall_after(stream, said))

    with Caller(gateway.port) as caller:
        caller.send(CHAT, STREAM)
        assert b"first" in caller.read_until(b"first")
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)
    tree_of(gateway)


@pytest.mark.parametrize("kind", [b"application/json", b"application/x-ndjson", b"application/json-seq"])
def test_a_stream_that_is_json_goes_on_as_it_arrives(
    gateway: RunningGateway, upstream: ScriptedUpstream, kind: bytes
) -> None:
    script = answer(body=b'{"piece":1}\n{"piece":2}\n', content_type=kind, framing="chunked", chunk=12)
    upstream.answer_with(stall_after(script, payload(script).index(b"1}") + 5))

    with Caller(gateway.port) as caller:
        caller.send(CHAT, STREAM)
        assert b'"piece":1' in caller.read_until(b'"piece":1')
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)
    tree_of(gateway)


def test_an_answer_to_a_caller_of_http_1_0_ends_with_the_connection(gateway: RunningGateway) -> None:
    with Caller(gateway.port) as caller:
        body = json.dumps(STREAM).encode()
        caller.socket.sendall(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
        got = caller.read_until(b"data: [DONE]\n\n")
        assert caller.socket.recv(100) == b""
    assert b"transfer-encoding" not in got
    tree_of(gateway)


# Headers


def test_limits_and_waits_that_the_upstream_names_come_through(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    named = {
        "retry-after": "17",
        "retry-after-ms": "17000",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "openai-processing-ms": "3",
        "x-request-id": "req_1",
        "x-should-retry": "false",
    }
    upstream.answer_with(error(429, headers=[(name.encode(), value.encode()) for name, value in named.items()]))

    got, _ = asked(gateway, HELLO)

    assert (got.status, {name: got.header(name) for name in named}) == (429, named)


def test_what_is_between_gateway_and_upstream_stays_there(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    private = {
        "Set-Cookie": "session=canary",
        "Alt-Svc": 'h3=":443"',
        "Strict-Transport-Security": "max-age=1",
        "Server-Timing": "upstream;dur=1",
        "Traceresponse": "00-canary",
        "X-Litellm-Response-Cost": "canary",
        "x-otelgw-trace-id": "canary",
        "Keep-Alive": "timeout=5",
        "Connection": "keep-alive, x-hop",
        "X-Hop": "canary",
        "Trailer": "x-late",
    }
    upstream.answer_with(chat(headers=[(name.encode(), value.encode()) for name, value in private.items()]))

    got, _ = asked(gateway, HELLO)

    assert not {value for _, value in got.headers} & set(private.values())
    assert {name for name, _ in got.headers}.isdisjoint({"set-cookie", "alt-svc", "x-hop", "trailer", "keep-alive"})


def test_what_is_between_caller_and_gateway_stays_there(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    private = [
        ("Authorization", "Bearer pigeon"),
        ("api-key", "pigeon"),
        ("x-api-key", "pigeon"),
        ("Cookie", "a=pigeon"),
        ("Accept-Encoding", "gzip, pigeon"),
        ("Connection", "keep-alive, x-hop"),
        ("x-hop", "pigeon"),
        ("Forwarded", "for=pigeon"),
        ("X-Forwarded-For", "pigeon"),
        ("X-Real-IP", "pigeon"),
        ("x-litellm-tags", "pigeon"),
        ("litellm-x", "pigeon"),
        ("x-otelgw-x", "pigeon"),
        ("langfuse_trace_id", "pigeon"),
        ("traceparent", "00-80e1afed08e019fc1110464cfa66635c-7a085853722dc6d2-01"),
        ("b3", "80e1afed08e019fc1110464cfa66635c-7a085853722dc6d2-1"),
        ("baggage", "k=pigeon"),
    ]
    asked(gateway, HELLO, headers=[*private, ("X-Mine", "kept"), ("OpenAI-Beta", "kept")])

    (received,) = upstream.requests
    sent = received.raw_head.decode()
    assert "pigeon" not in sent
    assert "7a085853722dc6d2" not in sent
    assert received.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert received.header("accept-encoding") == "identity"
    assert (received.header("x-mine"), received.header("openai-beta")) == ("kept", "kept")
    assert received.header("host") == f"127.0.0.1:{upstream.port}"


def test_a_callers_credentials_go_on_only_where_the_config_says_so(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, forward_client_headers=True, auth=())]) as gateway:
        ask(gateway, HELLO, headers=[("Authorization", "Bearer mine"), ("Cookie", "a=b")])

    assert upstream.requests[0].header("authorization") == "Bearer mine"
    assert upstream.requests[0].header("cookie") == "a=b"


def test_json_under_another_content_type_goes_on_as_json(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """curl without a header calls it a form."""
    asked(gateway, HELLO, headers=[("Content-Type", "application/x-www-form-urlencoded")])

    assert upstream.requests[0].header("content-type") == "application/json"
    assert upstream.requests[0].json() == HELLO


ON_EVERY_ANSWER = (
    "x-litellm-call-id", "x-otelgw-call-id", "x-litellm-version", "x-otelgw-version", "x-litellm-key-tpm-limit",
    "x-otelgw-key-tpm-limit", "x-litellm-key-rpm-limit", "x-otelgw-key-rpm-limit", "x-otelgw-trace-id",
    "traceresponse", "server-timing",
)  # fmt: skip
WHERE_A_MODEL_IS_KNOWN = ("model-id", "model-group", "model-api-base", "attempted-retries", "attempted-fallbacks")
ONLY_WHERE_HELD = ("response-duration-ms", "overhead-duration-ms")

Call = tuple[Any, str, str, Script | None]
CALLS: dict[str, Call] = {
    "success": (HELLO, CHAT, "POST", None),
    "stream": (STREAM, CHAT, "POST", None),
    "error": (HELLO, CHAT, "POST", error(500)),
    "big": (HELLO, CHAT, "POST", answer(body=BIG)),
    "400": (b"{", CHAT, "POST", None),
    "404 model": ({"model": "other"}, CHAT, "POST", None),
    "404 path": (HELLO, "/v1/nothing", "POST", None),
    "405": (None, CHAT, "GET", None),
    "415": (b"--x--", CHAT, "POST", None),
    "models": (None, "/v1/models", "GET", None),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_answer_says_what_call_and_trace_it_belongs_to(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    body, path, method, script = CALLS[name]
    if script is not None:
        upstream.answer_with(script)
    kind = "multipart/form-data; boundary=x" if name == "415" else "application/json"

    got, tree = asked(gateway, body, path, method=method, headers=[("Content-Type", kind)])

    assert [header for header in ON_EVERY_ANSWER if got.header(header) is None] == []
    parent = f"00-{tree.server.trace_id}-{tree.server.span_id}-03"
    assert got.header("x-otelgw-trace-id") == tree.server.trace_id
    assert got.header("traceresponse") == parent
    assert got.header("server-timing") == f"trace;desc={parent}"
    assert got.header("x-litellm-version") == otelgw.__version__
    assert got.header("x-litellm-key-rpm-limit") == "None"
    assert got.header("x-litellm-call-id") == tree.server.attributes["otelgw.call_id"]
    assert got.header("content-type")


@pytest.mark.parametrize("name", ["success", "stream", "error", "big"])
def test_an_answer_says_which_deployment_gave_it(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str
) -> None:
    body, path, _, script = CALLS[name]
    if script is not None:
        upstream.answer_with(script)

    got, _ = asked(gateway, body, path)

    expected = ("id-gpt-4o-mini", "gpt-4o-mini", upstream.url, "0", "0")
    for prefix in ("x-litellm-", "x-otelgw-"):
        assert tuple(got.header(prefix + fact) for fact in WHERE_A_MODEL_IS_KNOWN) == expected
        held = name in {"success", "error"}
        assert all((got.header(prefix + fact) is not None) is held for fact in ONLY_WHERE_HELD)


def test_the_upstream_that_could_not_be_reached_is_named_too() -> None:
    with RunningGateway([deployment(f"http://user:canary@127.0.0.1:{refused_port()}")]) as gateway:
        got = ask(gateway, HELLO)

    assert got.status == 502
    assert got.header("x-otelgw-model-id") == "id-gpt-4o-mini"
    assert "canary" not in str(got)


def test_an_unauthorized_answer_has_the_headers_and_names_no_deployment(upstream: ScriptedUpstream) -> None:
    auth = Auth(master_key_sha256=hashlib.sha256(b"sk-master").hexdigest())
    with RunningGateway([deployment(upstream.url)], auth=auth) as gateway:
        got = ask(gateway, HELLO, headers=[("Authorization", "Bearer sk-wrong")])

    assert got.status == 401
    assert [header for header in ON_EVERY_ANSWER if got.header(header) is None] == []
    assert got.header("www-authenticate") is not None
    assert got.header("x-otelgw-model-id") is None
    assert upstream.requests == []


def test_the_callers_call_id_is_kept_where_it_is_plain(gateway: RunningGateway) -> None:
    kept, _ = asked(gateway, HELLO, headers=[("x-litellm-call-id", "my-id 7")])
    made, _ = asked(gateway, HELLO, headers=[("x-litellm-call-id", "x" * 129)])

    assert kept.header("x-otelgw-call-id") == "my-id 7"
    assert made.header("x-otelgw-call-id") not in {None, "x" * 129}


# Cost


def test_the_cost_header_agrees_with_the_span(gateway: RunningGateway) -> None:
    got, tree = asked(gateway, HELLO)

    cost = USAGE["prompt_tokens"] * 1e-6 + USAGE["completion_tokens"] * 2e-6
    assert float(got.header("x-litellm-response-cost") or "nan") == pytest.approx(cost)
    assert got.header("x-otelgw-response-cost") == got.header("x-litellm-response-cost")
    assert tree.model.attributes["otelgw.cost.amount"] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("body", "script"),
    [
        (STREAM, None),
        (HELLO, answer(body=chat_body()[:-1] + b',"padding":"' + b"x" * 1_100_000 + b'"}')),
        (HELLO, error(500)),
        (HELLO, answer(body=b'{"choices":[]}')),
        (HELLO, answer(body=b"no json")),
    ],
    ids=["a stream", "a big answer", "an error", "no usage", "no json"],
)
def test_there_is_no_cost_header_where_no_cost_is_known_before_the_body(
    gateway: RunningGateway, upstream: ScriptedUpstream, body: Any, script: Script | None
) -> None:
    if script is not None:
        upstream.answer_with(script)

    got, _ = asked(gateway, body)

    assert got.header("x-litellm-response-cost") is None
    assert got.header("x-otelgw-response-cost") is None


def test_a_model_without_a_price_has_no_cost(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        got, tree = asked(gateway, HELLO)

    assert got.header("x-otelgw-response-cost") is None
    assert "otelgw.cost.amount" not in tree.model.attributes


def test_the_providers_own_figure_is_the_cost(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(chat(usage={**USAGE, "cost": 0.25}))

    got, tree = asked(gateway, HELLO)

    assert got.header("x-otelgw-response-cost") == "0.25"
    assert tree.model.attributes["otelgw.cost.amount"] == 0.25
    assert tree.model.attributes["otelgw.cost.source"] == "provider"


# The record before the last byte


@pytest.mark.parametrize(
    ("body", "script"),
    [
        (HELLO, chat()),
        (HELLO, error(503)),
        (STREAM, chat_stream(include_usage=True)),
        (HELLO, answer(body=BIG)),
        (HELLO, answer(body=BINARY, content_type=b"audio/mpeg")),
        ({"model": "unknown"}, chat()),
        (b"{", chat()),
    ],
    ids=["json", "error", "stream", "big", "media", "unknown model", "no json"],
)
def test_the_record_is_written_when_the_last_byte_goes_out(
    gateway: RunningGateway, upstream: ScriptedUpstream, body: Any, script: Script
) -> None:
    upstream.answer_with(script)
    with Caller(gateway.port) as caller:
        caller.send(CHAT, body)
        assert caller.answer().complete
        try:
            gateway.spool.records.get_nowait()
        except queue.Empty:
            pytest.fail("the caller has the whole answer, and its record is not written")


# Usage in streams


def direct_and_through(
    upstream: ScriptedUpstream, gateway: RunningGateway, body: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    direct = b"".join(parts_of(f"{upstream.url}{CHAT}", body))
    return direct, b"".join(parts_of(f"{gateway.url}{CHAT}", body))


def honouring(change: Callable[[Script], Script], **fields: Any) -> Callable[[Received], Script]:
    """Answer with a stream that has usage exactly where it was asked for, as OpenAI does."""

    def answered(request: Received) -> Script:
        wanted = bool((request.json().get("stream_options") or {}).get("include_usage"))
        return change(chat_stream("hello there, you", include_usage=wanted, **fields))

    return answered


CHANGES: dict[str, Callable[[Script], Script]] = {
    "event by event": lambda script: script,
    "byte by byte": lambda script: split_every(script, 1),
    "13 bytes at a time": lambda script: split_every(script, 13),
    "in one piece": lambda script: split_every(script, 1 << 20),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("tools", [(), (("weather", '{"city":"Paris"}'),)], ids=["text", "tools"])
def test_the_callers_stream_is_the_same_with_and_without_the_gateway(
    gateway: RunningGateway, upstream: ScriptedUpstream, change: str, tools: Any
) -> None:
    upstream.answer_with(honouring(CHANGES[change], tool_calls=tools))

    direct, through = direct_and_through(upstream, gateway, STREAM)
    tree = tree_of(gateway)

    assert hashlib.sha256(through).hexdigest() == hashlib.sha256(direct).hexdigest()
    assert b"usage" not in through
    assert upstream.requests[1].json()["stream_options"] == {"include_usage": True}
    assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert tree.model.attributes["otelgw.usage.source"] == "provider"


def test_usage_that_the_caller_asks_for_reaches_it(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(honouring(lambda script: script))
    body = {**STREAM, "stream_options": {"include_usage": True}}

    direct, through = direct_and_through(upstream, gateway, body)
    tree = tree_of(gateway)

    assert through == direct
    assert b'"prompt_tokens"' in through
    assert upstream.requests[1].body == upstream.requests[0].body
    assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])


def test_other_stream_options_are_kept(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(honouring(lambda script: script))
    body = {**STREAM, "stream_options": {"include_obfuscation": False}}

    direct, through = direct_and_through(upstream, gateway, body)
    tree_of(gateway)

    assert through == direct
    assert upstream.requests[1].json()["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_an_upstream_that_reports_usage_as_it_likes_is_left_alone(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, stream_usage="as_is")]) as gateway:
        ask(gateway, STREAM)

    assert upstream.requests[0].json() == STREAM


def refusing(request: Received) -> Script:
    if "stream_options" in request.json():
        return error(400, "Unknown field: stream_options", kind="invalid_request_error")
    return chat_stream("hello there")


def test_an_upstream_that_refuses_the_option_is_asked_without_it_from_then_on(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(refusing)
    with RunningGateway([deployment(upstream.url)]) as gateway:
        first, tree = asked(gateway, STREAM)
        second, later = asked(gateway, STREAM)

    expected = body_of(chat_stream("hello there"))
    assert (first.status, first.body, second.body) == (200, expected, expected)
    assert ["stream_options" in request.json() for request in upstream.requests] == [True, False, False]
    assert [attempt.attributes.get("error.type") for attempt in tree.attempts] == ["400", None]
    assert tree.attempts[1].attributes["otelgw.attempt.retry_reason"] == "stream_options_refused"
    assert not tree.model.failed
    assert len(later.attempts) == 1


def test_a_refusal_for_another_reason_is_not_blamed_on_the_option(upstream: ScriptedUpstream) -> None:
    """The message repeats what the caller sent, as validators do."""
    upstream.answer_with(error(400, "max_tokens is too large in {stream_options: …, max_tokens: 9}"))
    with RunningGateway([deployment(upstream.url)]) as gateway:
        got = ask(gateway, STREAM)
        upstream.answer_with(honouring(lambda script: script))
        ask(gateway, STREAM)

    assert (got.status, got.body) == (
        400,
        body_of(error(400, "max_tokens is too large in {stream_options: …, max_tokens: 9}")),
    )
    assert ["stream_options" in request.json() for request in upstream.requests] == [True, False, True]


def test_an_error_that_does_not_mention_the_option_is_passed_on_whole(upstream: ScriptedUpstream) -> None:
    script = error(400, "no such thing " + "x" * 200_000)
    upstream.answer_with(script)
    with RunningGateway([deployment(upstream.url)]) as gateway:
        got = ask(gateway, STREAM)

    assert got.body == body_of(script)
    assert got.header("content-length") == str(len(got.body))
    assert len(upstream.requests) == 1


def test_json_in_answer_to_a_stream_keeps_its_length(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(chat())

    got, tree = asked(gateway, STREAM)

    assert got.header("content-length") == str(len(got.body))
    assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])


def test_a_compressed_stream_is_not_touched(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """Its events cannot be seen, so nothing is held back and nothing is taken out."""
    events = b"".join(chat_events(include_usage=True))
    upstream.answer_with(answer(body=events, content_type=b"text/event-stream", encoding="gzip"))

    got, tree = asked(gateway, STREAM)

    assert gzip.decompress(got.body) == events
    assert tree.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])


# Upstreams in process


def test_the_echo_model_answers_and_is_traced_like_any_other() -> None:
    echo = deployment(
        "", alias="echo", provider="echo", otel_provider="echo", base_url="", urls={}, transport="echo", auth=()
    )
    with RunningGateway([echo]) as gateway:
        whole, tree = asked(gateway, {**HELLO, "model": "echo"})
        stream, streamed = asked(gateway, {**STREAM, "model": "echo"})

    assert whole.json()["choices"][0]["message"]["content"] == "hello"
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert b'"usage"' not in stream.body
    assert tree.usage() == streamed.usage() == (1, 1)
    assert tree.model.attributes["gen_ai.provider.name"] == "echo"


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
def test_a_mock_response_calls_nobody(upstream: ScriptedUpstream, body: Any) -> None:
    with RunningGateway([deployment(upstream.url, mock_response="mocked words")]) as gateway:
        got, tree = asked(gateway, body)

    assert (got.status, tree.said()) == (200, "mocked words")
    assert b"mocked" in got.body
    assert upstream.requests == []
    assert "server.address" not in tree.attempts[0].attributes


def test_any_httpx_transport_can_stand_behind_a_deployment(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], transports={"http": httpx.AsyncHTTPTransport()}) as gateway:
        whole, tree = asked(gateway, HELLO)
        stream, streamed = asked(gateway, STREAM)

    assert whole.json()["choices"][0]["message"]["content"] == "echo: hello"
    assert b"usage" not in stream.body
    assert tree.usage() == streamed.usage()
    assert len(tree.attempts) == len(streamed.attempts) == 1
