"""otelgw test, against a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from otelgw.probe import Probe, ProbeError, probe
from tests.servers.answering import Asked, HttpAnswer, HttpServer

ANSWER = {"choices": [{"message": {"content": "hello to you"}}]}
CHUNK = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'
STREAM = CHUNK % b"hel" + CHUNK % b"lo" + b"data: [DONE]\n\n"


class Gateway(HttpServer):
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.url = self.origin
        self.models: Any = {"data": [{"id": "openai/*"}, {"id": "echo"}]}
        self.models_status = 200
        self.status = 200
        self.said: bytes = json.dumps(ANSWER).encode()
        self.requests: list[tuple[str, str, dict[str, Any]]] = []

    def answer(self, asked: Asked) -> HttpAnswer:
        headers = {"X-Otelgw-Trace-Id": "ab" * 16, "X-LiteLLM-Call-Id": "c1", "X-Other": "x"}
        if asked.method == "GET":
            return HttpAnswer(self.models_status, headers, json.dumps(self.models).encode())
        self.requests.append((asked.path, asked.headers.get("authorization", ""), json.loads(asked.body)))
        return HttpAnswer(self.status, headers, self.said)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


def test_the_first_named_model_is_asked_and_the_answer_comes_back(gateway: Gateway) -> None:
    answer = probe(Probe(gateway.url, key="sk-1"))
    assert answer.ok
    assert (answer.model, answer.text, answer.trace_id) == ("echo", "hello to you", "ab" * 16)
    assert answer.headers == (("x-otelgw-trace-id", "ab" * 16), ("x-litellm-call-id", "c1"))
    ((path, authorization, body),) = gateway.requests
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-1")
    assert body == {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


def test_a_stream_is_put_together(gateway: Gateway) -> None:
    gateway.said = STREAM
    answer = probe(Probe(gateway.url, model="m", message="hi", stream=True))
    assert answer.text == "hello"
    assert gateway.requests[0][2]["stream"] is True
    assert gateway.requests[0][1] == ""


def test_an_error_of_the_gateway_is_an_answer_that_is_not_ok(gateway: Gateway) -> None:
    gateway.status, gateway.said = 401, b'{"error":{"message":"no key"}}'
    answer = probe(Probe(gateway.url, model="m"))
    assert not answer.ok
    assert (answer.status, answer.text) == (401, "no key")


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b'{"choices": 1}', b"plain"])
def test_an_answer_that_is_no_json_is_shown_as_it_is(gateway: Gateway, body: bytes) -> None:
    gateway.said = body
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
