"""HTTP/2: prior knowledge and TLS, cut answers, floods, flow control, early answers."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.events as events
import httpx
import pytest
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from otelgw.config.settings import Limits
from tests.http.h2caller import H2Caller
from tests.http.wire import CHAT, Wire, chat_request
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import (
    Certificate,
    ScriptedUpstream,
    answer,
    chat,
    chat_stream,
    head_size,
    make_certificate,
    openai,
    reset_after,
    split_every,
    stall_after,
)

ECHO = deployment("http://127.0.0.1:9", alias="echo", transport="echo", provider="echo")
STREAM = CHAT[:-1] + b',"stream":true}'


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with RunningGateway([ECHO], limits=Limits(h2_resets=50)) as running:
        yield running


def _relaying(upstream: ScriptedUpstream, **settings: object) -> RunningGateway:
    return RunningGateway([deployment(upstream.url, alias="echo")], **settings)  # type: ignore[arg-type]


def test_requests_share_a_connection(gateway: RunningGateway) -> None:
    with H2Caller(gateway.port) as caller:
        streams = [caller.request() for _ in range(20)]
        for stream in streams:
            assert caller.status(stream) == 200
            assert json.loads(caller.body(stream))["choices"][0]["message"]["content"] == "hello"


def test_a_stream_arrives_whole(gateway: RunningGateway) -> None:
    with H2Caller(gateway.port) as caller:
        stream = caller.request(body=STREAM)
        body = caller.body(stream)
        assert body.startswith(b"data: ")
        assert body.endswith(b"data: [DONE]\n\n")


def test_a_body_larger_than_a_window_arrives_whole() -> None:
    text = "x" * 300_000
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": text}]}).encode()
    with ScriptedUpstream(openai) as upstream, _relaying(upstream) as gateway, H2Caller(gateway.port) as caller:
        stream = caller.request(body=None, end=False)
        at = 0
        while at < len(body):
            room = min(caller.h2.local_flow_control_window(stream), caller.h2.max_outbound_frame_size)
            if room:
                caller.h2.send_data(stream, body[at : at + room], end_stream=at + room >= len(body))
                at += room
                caller.flush()
            else:
                assert caller.read()
        assert text.encode() in caller.body(stream)
        assert upstream.requests[0].body.count(b"x") >= len(text)


def _curl() -> str:
    curl = shutil.which("curl")
    if curl is not None:
        version = subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout
        if "HTTP2" in version:
            return curl
    pytest.skip("no curl with HTTP/2")


def test_curl_speaks_http_2_by_prior_knowledge(gateway: RunningGateway) -> None:
    curl = _curl()
    command = [curl, "-s", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", "-d", CHAT.decode()]
    done = subprocess.run(
        [*command, f"{gateway.url}/v1/chat/completions"], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.endswith("2 200")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize(("offered", "version"), [(["h2", "http/1.1"], "2"), (["http/1.1"], "1.1")])
def test_tls_negotiates_the_version(certificate: Certificate, offered: list[str], version: str) -> None:
    server = {"certfile": str(certificate.certificate), "keyfile": str(certificate.key)}
    context = ssl.create_default_context(cafile=str(certificate.ca))
    with RunningGateway([ECHO], server=server) as gateway:
        if version == "2":
            context.set_alpn_protocols(offered)
            with H2Caller(gateway.port, context=context) as caller:
                assert caller.socket.selected_alpn_protocol() == "h2"  # type: ignore[attr-defined]
                assert caller.is_serving()
        else:
            with httpx.Client(verify=context) as client:
                reply = client.post(f"https://localhost:{gateway.port}/v1/chat/completions", content=CHAT)
                assert reply.status_code == 200
        record = gateway.record()
        assert (record.http_version, record.scheme) == (version, "https")


def test_an_answer_cut_upstream_is_reset_for_the_caller() -> None:
    script = chat_stream("one two three")
    cut = reset_after(script, head_size(script) + 400)
    with ScriptedUpstream(cut) as upstream, _relaying(upstream) as gateway, H2Caller(gateway.port) as caller:
        stream = caller.request(body=STREAM)
        reset = caller.until(stream, events.StreamReset, events.StreamEnded)
        assert isinstance(reset, events.StreamReset)
        assert reset.error_code == ErrorCodes.INTERNAL_ERROR
        assert caller.of(stream, events.DataReceived)[0].data.startswith(b"data: ")
        upstream.answer_with(openai)
        assert caller.is_serving()


def test_an_answer_cut_by_a_shutdown_is_reset_for_the_caller() -> None:
    script = chat_stream("one two three")
    with ScriptedUpstream(stall_after(script, head_size(script) + 400)) as upstream, _relaying(upstream) as gateway:
        with H2Caller(gateway.port) as caller:
            stream = caller.request(body=STREAM)
            caller.until(stream, events.DataReceived)
            gateway.call(gateway.gateway.drain(0))
            assert isinstance(caller.until(stream, events.StreamReset, events.StreamEnded), events.StreamReset)
        assert gateway.record().error_type == "shutdown"


def test_a_caller_that_resets_a_stream_cancels_the_upstream() -> None:
    script = chat_stream("one two three")
    stalling = stall_after(script, head_size(script) + 400)
    with ScriptedUpstream(stalling) as upstream, _relaying(upstream) as gateway, H2Caller(gateway.port) as caller:
        stream = caller.request(body=STREAM)
        caller.until(stream, events.DataReceived)
        caller.h2.reset_stream(stream, ErrorCodes.CANCEL)
        caller.flush()
        upstream.wait_until(lambda: upstream.requests[0].aborted_at)
        assert gateway.record().error_type == "client_disconnect"
        upstream.answer_with(openai)
        assert caller.is_serving()


def test_a_stream_whose_window_is_shut_stops_its_upstream_and_no_other_stream() -> None:
    """hypercorn's own buffer grows without bound here."""
    size = 32 * 1024 * 1024
    big = answer(body=b"x" * size, content_type=b"text/plain")
    with ScriptedUpstream([big, chat()]) as upstream, _relaying(upstream) as gateway:
        with H2Caller(gateway.port) as caller:
            caller.acknowledges = False
            caller.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 20_000})
            # The connection's own window stays open.
            caller.h2.increment_flow_control_window(1_000_000)
            caller.flush()
            stalled = caller.request()
            assert caller.status(stalled) == 200
            while sum(len(event.data) for event in caller.of(stalled, events.DataReceived)) < 20_000:
                assert caller.read()
            assert caller.is_serving()
            assert sum(len(event.data) for event in caller.of(stalled, events.DataReceived)) == 20_000
        records = {record.sent_bytes: record for record in (gateway.record(), gateway.record())}
        assert max(records) < size / 4
        assert records[max(records)].error_type == "client_disconnect"


def test_a_stream_whose_window_stays_shut_is_reset_in_the_end() -> None:
    big = answer(body=b"x" * 10_000_000, content_type=b"text/plain")
    limits = Limits(response_idle=0.3)
    with ScriptedUpstream(big) as upstream, _relaying(upstream, limits=limits) as gateway:
        with H2Caller(gateway.port) as caller:
            caller.acknowledges = False
            stream = caller.request()
            assert isinstance(caller.until(stream, events.StreamReset), events.StreamReset)
        upstream.wait_until(lambda: upstream.requests[0].aborted_at)


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v1/chat/completions", 413)])
def test_an_early_answer_leaves_the_connection_usable(path: str, status: int) -> None:
    with RunningGateway([ECHO], limits=Limits(body=100_000)) as gateway, H2Caller(gateway.port) as caller:
        stream = caller.request(path, None, end=False, headers=[("content-length", "10000000")])
        sent = 0
        while not caller.of(stream, events.StreamEnded):
            room = min(caller.h2.local_flow_control_window(stream), 16384) if sent < 2_000_000 else 0
            if room:
                caller.h2.send_data(stream, b" " * room)
                caller.flush()
                sent += room
            else:
                assert caller.read()
        assert caller.status(stream) == status
        assert caller.is_serving()


def _rapid_reset(caller: H2Caller) -> None:
    for _ in range(200):
        stream = caller.request()
        caller.h2.reset_stream(stream, ErrorCodes.CANCEL)
        caller.flush()


def _made_you_reset(caller: H2Caller) -> None:
    """Make the server do the resetting: a window that overflows."""
    for _ in range(200):
        stream = caller.request(body=None, end=False)
        caller.socket.sendall(struct.pack(">BHBBLL", 0, 4, 8, 0, stream, 2**31 - 1))


def _pings(caller: H2Caller) -> None:
    for _ in range(200):
        caller.socket.sendall((b"\0\0\x08\x06\0\0\0\0\0" + b"12345678") * 100)


def _settings(caller: H2Caller) -> None:
    for _ in range(200):
        caller.socket.sendall(b"\0\0\0\x04\0\0\0\0\0" * 100)


def _windows(caller: H2Caller) -> None:
    for _ in range(200):
        caller.socket.sendall((b"\0\0\x04\x08\0\0\0\0\0" + b"\0\0\0\1") * 100)


def _empty_data(caller: H2Caller) -> None:
    stream = caller.request(body=None, end=False)
    for _ in range(200):
        caller.socket.sendall((b"\0\0\0\0\0" + struct.pack(">L", stream)) * 100)


def _priorities(caller: H2Caller) -> None:
    for at in range(200):
        frames = (struct.pack(">LLB", 2 * (at * 100 + n) + 1, 0, 1) for n in range(100))
        caller.socket.sendall(b"".join(b"\0\0\5\2\0" + frame for frame in frames))


def _unknown(caller: H2Caller) -> None:
    for _ in range(200):
        caller.socket.sendall(b"\0\0\0\xfa\0\0\0\0\0" * 100)


def _continuations(caller: H2Caller) -> None:
    caller.socket.sendall(b"\0\0\0\1\0\0\0\0\1")
    for _ in range(200):
        caller.socket.sendall((b"\0\0\1\x09\0\0\0\0\1" + b"\0") * 100)


def _dead_windows(caller: H2Caller) -> None:
    """Frames that h2 drops without an event: for a stream that was reset."""
    stream = caller.request()
    caller.h2.reset_stream(stream, ErrorCodes.CANCEL)
    caller.flush()
    for _ in range(2000):
        caller.socket.sendall((b"\0\0\4\x08\0" + struct.pack(">LL", stream, 1)) * 500)


FLOODS: dict[str, Callable[[H2Caller], None]] = {
    "rapid-reset": _rapid_reset,
    "made-you-reset": _made_you_reset,
    "ping": _pings,
    "settings": _settings,
    "window-update": _windows,
    "empty-data": _empty_data,
    "priority": _priorities,
    "unknown-frames": _unknown,
    "continuation": _continuations,
    "window-update-on-a-dead-stream": _dead_windows,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection_and_no_other(gateway: RunningGateway, flood: str) -> None:
    with H2Caller(gateway.port) as bystander, H2Caller(gateway.port) as attacker:
        assert bystander.is_serving()

        def attack() -> None:
            try:
                FLOODS[flood](attacker)
            except (OSError, ProtocolError):
                return

        sender = threading.Thread(target=attack, daemon=True)
        sender.start()
        try:
            terminated = attacker.until_closed()
        except (ProtocolError, OSError):
            terminated = None
            attacker.ended = True
        assert attacker.ended
        assert terminated is None or terminated.error_code != ErrorCodes.NO_ERROR
        sender.join(10)
        assert not sender.is_alive()
        assert bystander.is_serving()


BAD_HEADERS: dict[str, list[tuple[str, str]]] = {
    "connect": [(":method", "CONNECT"), (":authority", "127.0.0.1:80")],
    "high-byte-in-the-path": [(":method", "GET"), (":path", "/v1/\xff"), (":scheme", "http"), (":authority", "a")],
    "no-slash": [(":method", "GET"), (":path", "v1/models"), (":scheme", "http"), (":authority", "a")],
    "absolute-path": [(":method", "GET"), (":path", "http://b/v1/models"), (":scheme", "http"), (":authority", "a")],
    "fragment": [(":method", "GET"), (":path", "/v1/models#a"), (":scheme", "http"), (":authority", "a")],
    "authority-with-a-path": [(":method", "GET"), (":path", "/v1/models"), (":scheme", "http"), (":authority", "a/b")],
    "many-headers": [
        *((":method", "GET"), (":path", "/v1/models"), (":scheme", "http"), (":authority", "a")),
        *((f"x-{n}", "y") for n in range(300)),
    ],
}


@pytest.mark.parametrize("bad", BAD_HEADERS)
def test_a_request_that_cannot_be_served_costs_its_stream_only(gateway: RunningGateway, bad: str) -> None:
    with H2Caller(gateway.port) as caller:
        caller.h2.config.validate_outbound_headers = False
        caller.h2.config.normalize_outbound_headers = False
        stream = caller.h2.get_next_available_stream_id()
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in BAD_HEADERS[bad]]
        caller.h2.send_headers(stream, headers, end_stream=True)
        caller.flush()
        assert caller.status(stream) in {400, 431, 501}
        assert caller.is_serving()


@pytest.mark.parametrize(
    "headers",
    [
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("X-Upper", "y")],
        [("x", "a\r\nb: c")],
        [("x", "a\0b")],
        [("host", "a"), ("host", "b")],
        [(":path", "/again")],
        [("content-length", "1")],
    ],
    ids=lambda headers: headers[0][0],
)
def test_a_malformed_request_is_never_served(gateway: RunningGateway, headers: list[tuple[str, str]]) -> None:
    with H2Caller(gateway.port) as caller:
        caller.h2.config.validate_outbound_headers = False
        caller.h2.config.normalize_outbound_headers = False
        stream = caller.request("/v1/models", b"{}" if headers[0][0] == "content-length" else None, headers=headers,
                                method="GET")  # fmt: skip
        try:
            found = caller.until(stream, events.StreamReset, events.ResponseReceived)
            assert not isinstance(found, events.ResponseReceived) or dict(found.headers)[":status"] == "400"
        except (AssertionError, OSError):
            assert caller.ended


def test_more_streams_than_allowed_are_refused() -> None:
    with RunningGateway([ECHO], limits=Limits(h2_streams=3)) as gateway, H2Caller(gateway.port) as caller:
        assert caller.is_serving()
        caller.h2.remote_settings.acknowledge()
        assert caller.h2.remote_settings.max_concurrent_streams == 3


def test_headers_above_the_limit_end_the_connection() -> None:
    with RunningGateway([ECHO], limits=Limits(headers=4096)) as gateway:
        with H2Caller(gateway.port) as caller:
            caller.request("/v1/models", None, method="GET", headers=[("x", "a" * 6000)])
            terminated = caller.until_closed()
            assert terminated is not None
            assert terminated.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        with H2Caller(gateway.port) as caller:
            assert caller.is_serving()


def test_an_idle_connection_is_closed_with_a_goaway() -> None:
    with RunningGateway([ECHO], server={"keep_alive": 0.3}) as gateway, H2Caller(gateway.port) as caller:
        assert caller.is_serving()
        terminated = caller.until_closed()
        assert terminated is not None
        assert terminated.error_code == ErrorCodes.NO_ERROR


def _frames(sock: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, stream, payload) of what comes: h2's client cannot go on after a GOAWAY."""
    data = b""
    while more := sock.recv(65536):
        data += more
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3]):
            size = int.from_bytes(data[:3])
            yield data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]
            data = data[9 + size :]


def test_a_busy_connection_is_wound_down_without_breaking_what_runs_on_it() -> None:
    script = chat_stream("one two three four five six")
    slow = split_every(script, 200, 0.15)
    limits = Limits(request_head=0.4)
    with ScriptedUpstream(slow) as upstream, _relaying(upstream, limits=limits, server={"drain": 1.6}) as gateway:
        with H2Caller(gateway.port) as caller:
            stream = caller.request(body=STREAM)
            caller.until(stream, events.DataReceived)
            gateway._loop.call_soon_threadsafe(gateway._stop.set)
            seen = [(kind, flags, number) for kind, flags, number, _ in _frames(caller.socket)]
        goaway = next(at for at, frame in enumerate(seen) if frame[0] == 7)
        ended = next(at for at, frame in enumerate(seen) if frame[0] == 0 and frame[1] & 1)
        assert goaway < ended
        assert seen[ended][2] == stream
        assert gateway.record().error_type == ""


UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")


@pytest.mark.parametrize("h2c", ["prior_knowledge", "off"])
def test_an_upgrade_to_h2c_is_not_taken_unless_configured(h2c: str) -> None:
    with RunningGateway([ECHO], server={"h2c": h2c}) as gateway, Wire(gateway.port) as wire:
        wire.send(b"\r\n".join([b"GET /v1/models HTTP/1.1", b"Host: 127.0.0.1", *UPGRADE, b"", b""]))
        reply = wire.answer()
        assert reply is not None
        assert reply.status == 200


def test_http_2_without_tls_can_be_turned_off() -> None:
    with RunningGateway([ECHO], server={"h2c": "off"}) as gateway:
        with Wire(gateway.port) as wire:
            wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            reply = wire.answer()
            assert reply is not None
            assert reply.status == 505
            assert wire.is_closed()
        with Wire(gateway.port) as wire:
            wire.send(chat_request())
            reply = wire.answer()
            assert reply is not None
            assert reply.status == 200


def test_an_upgrade_to_h2c_can_be_turned_on(tmp_path: Path) -> None:
    curl = _curl()
    with RunningGateway([ECHO], server={"h2c": "upgrade"}) as gateway:
        command = [curl, "-s", "--http2", "-w", "%{http_version} %{http_code} ", "-o", str(tmp_path / "models")]
        done = subprocess.run(
            [*command, f"{gateway.url}/v1/models"], capture_output=True, text=True, timeout=20, check=True
        )
        assert done.stdout == "2 200 "
        with Wire(gateway.port) as wire:
            wire.send(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                      b"Upgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n")  # fmt: skip
            reply = wire.answer()
            assert reply is not None
            assert reply.status == 400
