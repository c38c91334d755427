"""Trace context through the gateway: the caller's trace goes on here, and upstream where that is configured."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from otelgw.config.settings import Auth, Timeouts, Tracing
from tests.http.caller import CHAT, HELLO, STREAM, Caller, ask, asked, tree_of
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import (
    Script,
    ScriptedUpstream,
    Stall,
    chat,
    chat_events,
    error,
    sse,
)

TRACE = "80e1afed08e019fc1110464cfa66635c"
SPAN = "7a085853722dc6d2"
PARENT = ("traceparent", f"00-{TRACE}-{SPAN}-01")
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7,a@b=1"
KEY = "sk-master"
LOCKED = Auth(master_key_sha256=hashlib.sha256(KEY.encode()).hexdigest())
TRACE_HEADERS = [
    ("traceparent", f"00-{TRACE}-{SPAN}-01"),
    ("tracestate", STATE),
    ("baggage", "user=canary"),
    ("b3", f"{TRACE}-{SPAN}-1"),
    ("x-b3-traceid", TRACE),
    ("x-b3-spanid", SPAN),
    ("x-b3-parentspanid", SPAN),
    ("x-b3-sampled", "1"),
    ("x-b3-flags", "1"),
    ("uber-trace-id", f"{TRACE}:{SPAN}:0:1"),
    ("x-datadog-trace-id", "1234567890"),
    ("x-amzn-trace-id", f"Root=1-{TRACE[:8]}-{TRACE[8:]}"),
    ("x-cloud-trace-context", f"{TRACE}/1;o=1"),
    ("sentry-trace", f"{TRACE}-{SPAN}-1"),
    ("grpc-trace-bin", "AAAA"),
]

Request = tuple[Any, str, str]
REQUESTS: dict[str, Request] = {
    "chat": (HELLO, CHAT, "POST"),
    "chat without v1": (HELLO, "/chat/completions", "POST"),
    "completions": ({"model": "gpt-4o-mini", "prompt": "x"}, "/v1/completions", "POST"),
    "embeddings": ({"model": "gpt-4o-mini", "input": "x"}, "/v1/embeddings", "POST"),
    "responses": ({"model": "gpt-4o-mini", "input": "x"}, "/v1/responses", "POST"),
    "images": ({"model": "gpt-4o-mini", "prompt": "x"}, "/v1/images/generations", "POST"),
    "speech": ({"model": "gpt-4o-mini", "input": "x"}, "/v1/audio/speech", "POST"),
    "moderations": ({"model": "gpt-4o-mini", "input": "x"}, "/v1/moderations", "POST"),
    "rerank": ({"model": "gpt-4o-mini", "query": "x"}, "/v1/rerank", "POST"),
    "files": (None, "/v1/files", "GET"),
    "models": (None, "/v1/models", "GET"),
    "no json": (b"{", CHAT, "POST"),
    "no such model": ({"model": "x"}, CHAT, "POST"),
    "no such path": (HELLO, "/v1/nothing", "POST"),
    "a wrong method": (None, CHAT, "GET"),
    "dot segments": (None, "/v1/../x", "GET"),
    "another origin": (HELLO, CHAT, "POST"),
}
OUTCOMES: dict[str, Script | None] = {
    "success": None,
    "error": error(500),
    "cut": sse(chat_events("hello"), done=False, ended=False),
    "silence": Script((Stall(),)),
}


@pytest.fixture(scope="module")
def gateway(standing_upstream: ScriptedUpstream) -> Any:
    quick = Timeouts(first_byte=0.2, idle=0.2)
    with RunningGateway([deployment(standing_upstream.url, timeouts=quick)], pass_through=("files",)) as running:
        yield running


# A stream is asked for in a body, and an upstream's outcome needs one that is asked.
REFUSED = {"models", "no json", "no such model", "no such path", "a wrong method", "dot segments", "another origin"}
COMBINATIONS = [
    (name, stream, outcome)
    for name, (body, _, _) in REQUESTS.items()
    for stream in (False, True)
    for outcome in OUTCOMES
    if (isinstance(body, dict) or not stream) and (name not in REFUSED or outcome == "success")
]


@pytest.mark.parametrize(("name", "stream", "outcome"), COMBINATIONS)
def test_the_callers_trace_goes_on_whatever_happens(
    gateway: RunningGateway, upstream: ScriptedUpstream, name: str, stream: bool, outcome: str
) -> None:
    body, path, method = REQUESTS[name]
    if OUTCOMES[outcome] is not None:
        upstream.answer_with(OUTCOMES[outcome])  # type: ignore[arg-type]
    origin = [("Origin", "https://evil.example")] if name == "another origin" else []

    got, tree = asked(
        gateway, {**body, "stream": True} if stream else body, path, method=method, headers=[PARENT, *origin]
    )

    assert {node.trace_id for node in tree.spans} == {TRACE}
    assert tree.server.parent_id == SPAN
    assert got.header("traceresponse") == f"00-{TRACE}-{tree.server.span_id}-01"
    assert all("traceparent" not in dict(request.headers) for request in upstream.requests)


def test_a_caller_that_left_has_its_trace_too(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    upstream.answer_with(Script((Stall(),)))
    with Caller(gateway.port) as caller:
        caller.send(CHAT, HELLO, [PARENT])
        upstream.wait_until(lambda: upstream.requests)
        caller.hang_up()

    tree = tree_of(gateway)
    assert ({node.trace_id for node in tree.spans}, tree.server.parent_id) == ({TRACE}, SPAN)


# Trust


def test_an_authenticated_caller_is_trusted_and_an_unknown_one_is_not(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], auth=LOCKED) as gateway:
        _, known = asked(gateway, HELLO, headers=[PARENT, ("Authorization", f"Bearer {KEY}")])
        got, unknown = asked(gateway, HELLO, headers=[PARENT, ("Authorization", "Bearer sk-wrong")])

    assert (known.server.trace_id, known.server.parent_id) == (TRACE, SPAN)
    assert got.status == 401
    assert unknown.server.trace_id != TRACE
    assert unknown.server.parent_id == ""
    assert "otelgw.caller.trace_id" not in unknown.server.attributes


def test_a_linked_caller_keeps_its_trace_and_is_pointed_at(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(trust="link")) as gateway:
        ask(gateway, HELLO, headers=[PARENT, ("tracestate", STATE)])
        server, *_ = gateway.spans()

    (link,) = server.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert server.context is not None
    assert f"{server.context.trace_id:032x}" != TRACE
    assert server.parent is None
    assert dict(server.attributes or {})["otelgw.caller.trace_id"] == TRACE


def test_an_ignored_caller_leaves_no_mark(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], tracing=Tracing(trust="ignore")) as gateway:
        got = ask(gateway, HELLO, headers=[PARENT, ("tracestate", STATE)])
        server, *_ = gateway.spans()

    assert (server.links, server.parent) == ((), None)
    assert TRACE not in str(got)
    assert TRACE.encode() not in b"".join(gateway.spool.payloads)


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"ff-{TRACE}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}-{SPAN}-01-x")],
        [("traceparent", f"00-{TRACE.upper()}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}-{SPAN}")],
        [("traceparent", "")],
        [PARENT, PARENT],
        [PARENT, ("traceparent", f"00-{TRACE}-{'1' * 16}-01")],
        [],
    ],
    ids=lambda headers: " ".join(value for _, value in headers)[:40] or "none",
)
def test_what_is_no_traceparent_restarts_the_trace_and_drops_the_state(
    upstream: ScriptedUpstream, headers: list[tuple[str, str]]
) -> None:
    row = deployment(upstream.url, forward_trace=("tracecontext",))
    with RunningGateway([row]) as gateway:
        _, tree = asked(gateway, HELLO, headers=[*headers, ("tracestate", STATE)])

    assert (tree.server.trace_id != TRACE, tree.server.parent_id) == (True, "")
    assert upstream.requests[0].header("tracestate") is None
    assert upstream.requests[0].header("traceparent") == f"00-{tree.server.trace_id}-{tree.attempts[0].span_id}-03"


def test_a_later_version_is_read_as_far_as_it_is_known(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    _, tree = asked(gateway, HELLO, headers=[("traceparent", f"01-{TRACE}-{SPAN}-ff-what-the-future-holds")])

    assert (tree.server.trace_id, tree.server.parent_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "headers",
    [
        [("b3", f"{TRACE}-{SPAN}-1")],
        [("b3", f"{TRACE}-{SPAN}")],
        [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")],
        [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN)],
    ],
    ids=["single", "single without decision", "multi", "multi without decision"],
)
def test_b3_goes_on_as_well(gateway: RunningGateway, headers: list[tuple[str, str]]) -> None:
    _, tree = asked(gateway, HELLO, headers=headers)

    assert (tree.server.trace_id, tree.server.parent_id) == (TRACE, SPAN)


def test_w3c_wins_over_b3(gateway: RunningGateway) -> None:
    _, tree = asked(gateway, HELLO, headers=[("b3", f"{'1' * 32}-{'2' * 16}-1"), PARENT])

    assert (tree.server.trace_id, tree.server.parent_id) == (TRACE, SPAN)


# Towards upstreams


def test_without_forwarding_no_trace_header_goes_upstream(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    asked(gateway, HELLO, headers=TRACE_HEADERS)

    (received,) = upstream.requests
    names = {name.decode().lower() for name, _ in received.headers}
    assert names.isdisjoint(name for name, _ in TRACE_HEADERS)
    assert TRACE.encode() not in received.raw_head


def forwarded(upstream: ScriptedUpstream, formats: tuple[str, ...], *headers: tuple[str, str], **more: Any) -> Any:
    """Return the trace of a request with ``headers``, and what the upstream received of it."""
    with RunningGateway([deployment(upstream.url, forward_trace=formats)], **more) as gateway:
        _, tree = asked(gateway, HELLO, headers=headers)
    return tree, upstream.requests[-1]


def test_the_upstreams_parent_is_the_attempt(upstream: ScriptedUpstream) -> None:
    tree, received = forwarded(upstream, ("tracecontext",), PARENT, ("tracestate", STATE))

    assert received.header("traceparent") == f"00-{TRACE}-{tree.attempts[0].span_id}-01"
    assert received.header("tracestate") == STATE
    assert received.header("b3") is None
    assert tree.attempts[0].parent_id == tree.model.span_id


def test_b3_in_one_header(upstream: ScriptedUpstream) -> None:
    tree, received = forwarded(upstream, ("b3",), PARENT)

    assert received.header("b3") == f"{TRACE}-{tree.attempts[0].span_id}-1"
    assert received.header("traceparent") is None


def test_b3_in_several_headers(upstream: ScriptedUpstream) -> None:
    tree, received = forwarded(upstream, ("b3multi",), PARENT)

    found = [received.header(f"x-b3-{name}") for name in ("traceid", "spanid", "sampled", "parentspanid")]
    assert found == [TRACE, tree.attempts[0].span_id, "1", None]


def test_several_formats_at_once_agree(upstream: ScriptedUpstream) -> None:
    tree, received = forwarded(upstream, ("tracecontext", "b3"), PARENT)

    attempt = tree.attempts[0].span_id
    assert received.header("traceparent") == f"00-{TRACE}-{attempt}-01"
    assert received.header("b3") == f"{TRACE}-{attempt}-1"


def test_every_attempt_is_the_parent_of_its_own_call(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([error(500), chat()])
    row = deployment(upstream.url, forward_trace=("tracecontext",), retries=1)
    with RunningGateway([row]) as gateway:
        _, tree = asked(gateway, HELLO, headers=[PARENT])

    sent = [request.header("traceparent") for request in upstream.requests]
    assert sent == [f"00-{TRACE}-{attempt.span_id}-01" for attempt in tree.attempts]
    assert len(set(sent)) == 2


@pytest.mark.parametrize(("flags", "onward"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03")])
def test_the_callers_flags_travel_on_and_the_request_is_recorded(
    upstream: ScriptedUpstream, flags: str, onward: str
) -> None:
    parent = ("traceparent", f"00-{TRACE}-{SPAN}-{flags}")
    row = deployment(upstream.url, forward_trace=("tracecontext",))
    with RunningGateway([row]) as gateway:
        got = ask(gateway, HELLO, headers=[parent])
        record = gateway.record()

    assert upstream.requests[0].header("traceparent") == f"00-{TRACE}-{record.attempts[0].span_id}-{onward}"
    assert (got.header("traceresponse") or "")[-2:] == onward
    assert record.trace_flags == int(onward, 16)
    assert record.sampled is bool(record.trace_flags & 1)


def test_a_denial_in_b3_travels_on(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, forward_trace=("b3",))]) as gateway:
        ask(gateway, HELLO, headers=[("b3", "0")])
        record = gateway.record()

    assert record.sampled is False
    assert upstream.requests[0].header("b3") == f"{record.trace_id}-{record.attempts[0].span_id}-0"


@pytest.mark.parametrize(
    ("sampler", "ratio", "sampled"),
    [("always_on", 1.0, True), ("always_off", 1.0, False), ("traceidratio", 0.0, False), ("traceidratio", 1.0, True)],
)
def test_the_sampler_decides_where_no_caller_did(
    upstream: ScriptedUpstream, sampler: str, ratio: float, sampled: bool
) -> None:
    for name in (sampler, f"parentbased_{sampler}"):
        with RunningGateway([deployment(upstream.url)], tracing=Tracing(sampler=name, sampler_ratio=ratio)) as gateway:
            ask(gateway, HELLO)
            record = gateway.record()
        assert (record.sampled, record.trace_flags) == (sampled, 3 if sampled else 2)


def test_baggage_goes_on_as_far_as_it_is_named(upstream: ScriptedUpstream) -> None:
    tracing = Tracing(baggage_allow=("tenant", "plan"))
    baggage = ("baggage", "tenant=a%20b,secret=canary,plan=gold")
    tree, received = forwarded(upstream, ("tracecontext", "baggage"), PARENT, baggage, tracing=tracing)

    assert received.header("baggage") == "tenant=a%20b,plan=gold"
    assert (tree.server.attributes["tenant"], tree.server.attributes["plan"]) == ("a b", "gold")
    assert "canary" not in str(tree)


@pytest.mark.parametrize(
    "headers", [[("baggage", "tenant=a")], [PARENT, ("baggage", "tenant=a")]], ids=["alone", "with a trace"]
)
def test_baggage_stays_here_where_it_is_not_forwarded(
    upstream: ScriptedUpstream, headers: list[tuple[str, str]]
) -> None:
    _, received = forwarded(upstream, ("tracecontext",), *headers, tracing=Tracing(baggage_allow=("tenant",)))

    assert received.header("baggage") is None


def test_streams_have_the_attempt_as_parent_too(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, forward_trace=("tracecontext",))]) as gateway:
        _, tree = asked(gateway, STREAM, headers=[PARENT])

    assert upstream.requests[0].header("traceparent") == f"00-{TRACE}-{tree.attempts[0].span_id}-01"


@pytest.mark.parametrize("format_", ["tracecontext", "b3", "b3multi"])
def test_a_linked_callers_trace_does_not_reach_the_upstream(upstream: ScriptedUpstream, format_: str) -> None:
    tree, received = forwarded(upstream, (format_,), PARENT, ("tracestate", STATE), tracing=Tracing(trust="link"))

    assert TRACE.encode() not in received.raw_head
    assert STATE.encode() not in received.raw_head
    assert tree.server.trace_id.encode() in received.raw_head
