"""Heads that come again: what is recognised is what a parser would have read, and each request stays its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from httptools import HttpParserError, HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from otelgw.config.settings import Auth
from otelgw.http.framing import HeadRefused, check
from otelgw.http.heads import KnownHead
from otelgw.http.stream import OUTLET, http_scope
from tests.http.test_edge import LAST, VECTORS, Vector
from tests.http.wire import CHAT, Wire, chat_request
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"traceparent: 00-" + TRACE + b"-00f067aa0ba902b7-01"
KEY = "sk-caller-canary"
HELD = b"Authorization: Bearer " + KEY.encode()


class Parsed:
    """What llhttp makes of some bytes, if they are one whole request that may be served."""

    def __init__(self, data: bytes) -> None:
        self.target = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = 0
        parser = HttpRequestParser(self)
        parser.feed_data(data)
        if self.complete != 1:
            raise ValueError("not one request")
        method = parser.get_method()
        target = check(method, self.target, parser.get_http_version(), self.headers)
        self.scope = http_scope(method.decode(), target, parser.get_http_version(), self.headers, "http", None, None)
        self.persistent = parser.should_keep_alive()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def known(data: bytes) -> KnownHead | None:
    return KnownHead.of(data, {**Parsed(data).scope, OUTLET: object()})


FIRST = chat_request(CHAT, HELD, PARENT, b"X-Thing:  a b ")


def test_a_head_is_recognised_whatever_the_length_and_the_trace() -> None:
    head = known(FIRST)
    other = chat_request(CHAT * 20, HELD, PARENT.replace(TRACE, TRACE[::-1]), b"X-Thing:  a b ")

    assert head is not None
    found = head.match(other)

    assert found is not None
    scope, body = found
    assert body == CHAT * 20
    assert scope == Parsed(other).scope
    assert OUTLET not in scope


def test_a_request_does_not_change_what_the_next_one_is_compared_with() -> None:
    head = known(FIRST)
    assert head is not None
    first = head.match(FIRST)
    assert first is not None
    first[0]["headers"].clear()
    first[0]["path"] = "/"

    again = head.match(FIRST)

    assert again is not None
    assert again[0] == Parsed(FIRST).scope


@st.composite
def alike(draw: st.DrawFn) -> bytes:
    """Return a request that is, but for a few bytes, the one that is known."""
    data = draw(st.sampled_from((FIRST, chat_request(CHAT * 3, HELD, PARENT, b"X-Thing:  a b "))))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 3))
        piece = draw(st.one_of(st.binary(max_size=3), st.sampled_from((b"\r\n", b"\n", b" ", b"0", b"9", b"f", b"\t"))))
        data = data[:start] + piece + data[end:]
    return data


@given(alike())
@example(FIRST + b"\r\n")
@example(FIRST + FIRST)
@example(FIRST[:-1])
@example(FIRST.replace(b"Content-Length: 6", b"Content-Length: +6"))
@example(FIRST.replace(b"Content-Length: 6", b"Content-Length: 06"))
@example(FIRST.replace(b"Content-Length: 63", b"Content-Length: 63\r\nContent-Length: 3"))
@example(FIRST.replace(b"Content-Length: 63", b"Content-Length: 63\r\nTransfer-Encoding: chunked"))
@example(FIRST.replace(b"-01\r\n", b"-01\nX: y\r\n"))
def test_what_is_recognised_is_what_the_parser_reads(data: bytes) -> None:
    head = known(FIRST)
    assert head is not None
    found = head.match(data)
    if found is None:
        return
    try:
        parsed = Parsed(data)
    except (HttpParserError, HeadRefused, ValueError) as error:
        pytest.fail(f"recognised, but {error!r}")
    assert found == (parsed.scope, parsed.body)
    assert parsed.persistent


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", id="without a length"),
        pytest.param(chat_request(CHAT, b"Expect: 100-continue"), id="that expects"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="in chunks"),
        pytest.param(chat_request(CHAT, b"X-Long: " + b"a" * 9000), id="that is long"),
        pytest.param(b"\r\n" + FIRST, id="after an empty line"),
    ],
)
def test_other_heads_are_parsed_every_time(data: bytes) -> None:
    assert known(data) is None


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def echo(request: pytest.FixtureRequest) -> Iterator[RunningGateway]:
    row = deployment("http://127.0.0.1:9", alias="echo", transport="echo", provider="echo")
    with RunningGateway([row], server={"kind": request.param}) as running:
        yield running


def _acquaint(wire: Wire, data: bytes, times: int = 4) -> None:
    for _ in range(times):
        wire.send(data)
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 200


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name.replace(" ", "-"))
def test_on_a_connection_whose_head_is_known_nothing_else_passes_for_it(echo: RunningGateway, vector: Vector) -> None:
    outcomes = [part.strip() for part in vector.expected.split(",")]
    in_step = all(part.startswith("served") for part in outcomes)
    with Wire(echo.port) as fresh, Wire(echo.port) as wire:
        fresh.send(vector.data + (LAST if in_step else b""))
        _acquaint(wire, chat_request())
        wire.send(vector.data + (LAST if in_step else b""))
        for _ in outcomes:
            expected, got = fresh.answer(), wire.answer()
            if expected is None or got is None:
                assert expected is got
                return
            assert (got.status, got.whole) == (expected.status, expected.whole)


def test_each_request_has_its_own_trace_and_body(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    sent = []
    with Wire(gateway.port) as wire:
        for number in range(6):
            trace = b"%032x" % (number + 1)
            body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}' % (b"x" * number)
            wire.send(chat_request(body, PARENT.replace(TRACE, trace)))
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 200
            record = gateway.record()
            assert (record.trace_id.encode(), record.request.head) == (trace, body)
            sent.append(upstream.requests[-1].body)
    assert [len(body) for body in sent] == list(range(len(sent[0]), len(sent[0]) + 6))


def test_another_key_on_the_same_connection_is_another_caller(upstream: ScriptedUpstream) -> None:
    auth = Auth(master_key_sha256=hashlib.sha256(KEY.encode()).hexdigest())
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
    with RunningGateway([deployment(upstream.url)], auth=auth) as gateway, Wire(gateway.port) as wire:
        _acquaint(wire, chat_request(body, HELD))
        statuses = []
        for line in (HELD[:-1] + b"z", HELD, b"X-Nothing: 1"):
            wire.send(chat_request(body, line))
            answer = wire.answer()
            assert answer is not None
            statuses.append(answer.status)
        assert statuses == [401, 200, 401]
        assert not any(KEY.encode() in payload for payload in gateway.spool.payloads)


def test_a_key_from_a_body_is_sent_with_that_request_only(upstream: ScriptedUpstream) -> None:
    row = deployment(upstream.url, allow_client_params=("api_key",))
    keys = {"own": b"", "theirs": b'"api_key":"sk-from-a-body",'}
    with RunningGateway([row]) as gateway, Wire(gateway.port) as wire:
        for turn in ("own", "own", "own", "theirs", "theirs", "own"):
            wire.send(
                chat_request(b'{%b"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}' % keys[turn])
            )
            answer = wire.answer()
            assert answer is not None
            assert answer.status == 200
            key = UPSTREAM_KEY if turn == "own" else "sk-from-a-body"
            assert dict(upstream.requests[-1].headers)[b"authorization"] == f"Bearer {key}".encode()
