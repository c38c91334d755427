"""Bounds on what one caller can make the gateway hold or wait for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from otelgw.config.settings import Limits
from tests.http.caller import CHAT, HELLO, Caller, asked, tree_of
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream

SMALL = Limits(body=10_000, file_body=50_000, request_body_idle=0.2, request_body_rate=1000)
FORM = ("Content-Type", "multipart/form-data; boundary=B")
CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.fixture(scope="module")
def gateway(standing_upstream: ScriptedUpstream) -> Iterator[RunningGateway]:
    with RunningGateway([deployment(standing_upstream.url)], limits=SMALL) as running:
        yield running


def padded(size: int) -> bytes:
    """Return a chat of ``size`` bytes."""
    body = json.dumps({**HELLO, "x": ""}).encode()
    return body[:-2] + b"x" * (size - len(body)) + b'"}'


def form(size: int) -> bytes:
    """Return an upload of about ``size`` bytes."""
    head = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4o-mini\r\n--B\r\n'
    return head + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * size + b"\r\n--B--\r\n"


def in_chunks(body: bytes, size: int = 4096) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_up_to_the_limit_passes_and_a_larger_one_is_413(
    gateway: RunningGateway, upstream: ScriptedUpstream, chunked: bool
) -> None:
    headers = [CHUNKED] if chunked else []
    frame = in_chunks if chunked else bytes

    passed, _ = asked(gateway, frame(padded(10_000)), headers=headers)
    refused, tree = asked(gateway, frame(padded(10_001)), headers=headers)

    assert passed.status == 200
    assert (refused.status, refused.error["code"], refused.header("connection")) == (413, "body_too_large", "close")
    assert "10000 bytes" in refused.error["message"]
    assert refused.header("x-otelgw-trace-id") == tree.server.trace_id
    assert tree.server.attributes["error.type"] == "body_too_large"
    assert tree.generation is None
    assert len(upstream.requests) == 1


def test_a_declared_length_above_the_limit_is_refused_without_waiting_for_the_body(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    with Caller(gateway.port) as caller:
        caller.send(CHAT, b"{", length=10_001)
        got = caller.answer()
    tree_of(gateway)

    assert got.status == 413


def test_uploads_have_a_limit_of_their_own(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    path = "/v1/audio/transcriptions"
    passed, _ = asked(gateway, form(40_000), path, headers=[FORM])
    declared, _ = asked(gateway, form(60_000), path, headers=[FORM])
    chunked, tree = asked(gateway, in_chunks(form(60_000)), path, headers=[FORM, CHUNKED])

    assert passed.status != 413
    assert (declared.status, chunked.status) == (413, 413)
    assert tree.server.attributes["error.type"] == "body_too_large"
    # The upstream must not take what it got of the refused upload for the whole.
    assert [request.complete for request in upstream.requests] in ([True], [True, False])


@pytest.mark.parametrize("sent", [b"", b'{"model": "gpt-4o-mini", '], ids=["nothing", "a beginning"])
def test_a_body_that_stops_coming_is_408(gateway: RunningGateway, upstream: ScriptedUpstream, sent: bytes) -> None:
    with Caller(gateway.port) as caller:
        caller.send(CHAT, sent, length=1000)
        got = caller.answer()
    tree = tree_of(gateway)

    assert (got.status, got.error["code"], got.header("connection")) == (408, "request_timeout", "close")
    assert tree.server.attributes["error.type"] == "request_timeout"
    assert upstream.requests == []


def test_a_body_that_drips_is_408(upstream: ScriptedUpstream) -> None:
    """Every piece comes in time, all of them together do not."""
    limits = Limits(request_body_idle=0.3, request_body_rate=1_000_000)
    with RunningGateway([deployment(upstream.url)], limits=limits) as gateway, Caller(gateway.port) as caller:
        caller.send(CHAT, b"{", length=100_000)
        caller.socket.settimeout(0.05)
        sent = 0
        while sent < 200:
            try:
                caller.socket.recv(1, 2)  # MSG_PEEK
                break
            except TimeoutError:
                caller.socket.sendall(b" ")
                sent += 1
        caller.socket.settimeout(10)
        got = caller.answer()

    assert got.status == 408
    assert sent < 200


def test_without_a_rate_a_slow_body_is_only_asked_to_go_on(upstream: ScriptedUpstream) -> None:
    limits = Limits(request_body_idle=5, request_body_rate=0)
    with RunningGateway([deployment(upstream.url)], limits=limits) as gateway, Caller(gateway.port) as caller:
        body = json.dumps(HELLO).encode()
        caller.send(CHAT, body[:10], length=len(body))
        for byte in body[10:]:
            caller.socket.sendall(bytes([byte]))
        got = caller.answer()

    assert got.status == 200


def test_an_upload_that_stops_halfway_is_not_taken_for_the_whole(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    with Caller(gateway.port) as caller:
        caller.send("/v1/audio/transcriptions", form(20_000)[:10_000], [FORM], length=20_000)
        got = caller.answer()
    tree = tree_of(gateway)

    assert got.status == 408
    assert tree.model.attributes["error.type"] == "request_timeout"
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)
    assert not upstream.requests[0].complete


# Compression


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)],
)
def test_a_compressed_body_is_read_and_goes_on_plain(
    gateway: RunningGateway, upstream: ScriptedUpstream, encoding: str, compress: Any
) -> None:
    got, tree = asked(gateway, compress(json.dumps(HELLO).encode()), headers=[("Content-Encoding", encoding)])

    assert got.status == 200
    assert upstream.requests[0].json() == HELLO
    assert upstream.requests[0].header("content-encoding") is None
    assert tree.model.attributes["gen_ai.input.messages"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(bytes(200 * 1024 * 1024), 1, mtime=0)[:9_000], 413),
        (gzip.compress(padded(10_001), mtime=0), 413),
        (gzip.compress(padded(10_000), mtime=0), 200),
        (gzip.compress(json.dumps(HELLO).encode(), mtime=0)[:-4], 400),
        (gzip.compress(json.dumps(HELLO).encode(), mtime=0) + b"more", 400),
        (gzip.compress(b"{}", mtime=0) + gzip.compress(b"{}", mtime=0), 400),
        (b"no gzip at all", 400),
    ],
    ids=["a bomb", "one byte too many", "just enough", "cut", "more behind", "two in one", "none"],
)
def test_a_compressed_body_is_bounded_by_what_it_becomes(gateway: RunningGateway, body: bytes, status: int) -> None:
    got, _ = asked(gateway, body, headers=[("Content-Encoding", "gzip")])

    assert got.status == status


def test_a_compressed_form_is_415(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    """Passed on without its Content-Encoding it would be noise."""
    body = gzip.compress(form(10))
    got, _ = asked(gateway, body, "/v1/audio/transcriptions", headers=[FORM, ("Content-Encoding", "gzip")])

    assert (got.status, upstream.requests) == (415, [])
