"""otelgw test, against a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from otelgw.probe import Probe, ProbeError, probe

ANSWER = {"choices": [{"message": {"content": "hello to you"}}]}
CHUNK = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'
STREAM = CHUNK % b"hel" + CHUNK % b"lo" + b"data: [DONE]\n\n"


class Gateway:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.models: Any = {"data": [{"id": "openai/*"}, {"id": "echo"}]}
        self.models_status = 200
        self.status = 200
        self.answer: bytes = json.dumps(ANSWER).encode()
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.url = ""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    state = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(state.models_status, json.dumps(state.models).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.requests.append((self.path, self.headers.get("authorization", ""), body))
            self.reply(state.status, state.answer)

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            for name, value in (("X-Otelgw-Trace-Id", "ab" * 16), ("X-LiteLLM-Call-Id", "c1"), ("X-Other", "x")):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_first_named_model_is_asked_and_the_answer_comes_back(gateway: Gateway) -> None:
    answer = probe(Probe(gateway.url, key="sk-1"))
    assert answer.ok
    assert (answer.model, answer.text, answer.trace_id) == ("echo", "hello to you", "ab" * 16)
    assert answer.headers == (("x-otelgw-trace-id", "ab" * 16), ("x-litellm-call-id", "c1"))
    ((path, authorization, body),) = gateway.requests
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-1")
    assert body == {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


def test_a_stream_is_put_together(gateway: Gateway) -> None:
    gateway.answer = STREAM
    answer = probe(Probe(gateway.url, model="m", message="hi", stream=True))
    assert answer.text == "hello"
    assert gateway.requests[0][2]["stream"] is True
    assert gateway.requests[0][1] == ""


def test_an_error_of_the_gateway_is_an_answer_that_is_not_ok(gateway: Gateway) -> None:
    gateway.status, gateway.answer = 401, b'{"error":{"message":"no key"}}'
    answer = probe(Probe(gateway.url, model="m"))
    assert not answer.ok
    assert (answer.status, answer.text) == (401, "no key")


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"choices": 1}', b"plain"])
def test_an_answer_that_is_no_json_is_shown_as_it_is(gateway: Gateway, body: bytes) -> None:
    gateway.answer = body
    assert probe(Probe(gateway.url, model="m")).text == body.decode("utf-8", "replace")


def test_without_a_key_the_flag_for_it_is_named(gateway: Gateway) -> None:
    gateway.models_status = 401
    with pytest.raises(ProbeError, match=r"GET /v1/models: 401 .*--key.*OTELGW_KEY"):
        probe(Probe(gateway.url))


@pytest.mark.parametrize("models", [[], {"data": []}, {"data": [{"id": "openai/*"}]}, {"data": [1, {"id": 2}]}, None])
def test_without_a_model_to_ask_the_flag_is_named(gateway: Gateway, models: Any) -> None:
    gateway.models = models
    with pytest.raises(ProbeError, match="--model"):
        probe(Probe(gateway.url))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://", "nowhere", "http://[::1", "ftp://127.0.0.1:1"])
def test_a_gateway_that_is_not_there_is_named(url: str) -> None:
    with pytest.raises(ProbeError, match="is the gateway running there"):
        probe(Probe(url, model="m", timeout=2))
