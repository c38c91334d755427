"""The whole gateway, master, worker and pipeline, into the real OpenTelemetry Collector."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from otelgw import __version__
from tests.e2e.console import printed_spans
from tests.e2e.tree import Node, Tree, trees
from tests.servers import require
from tests.servers.answering import Asked
from tests.servers.collector import Collector
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import GrpcReceiver, HttpReceiver
from tests.servers.ports import free_port
from tests.servers.upstream import USAGE, ScriptedUpstream

ROOT_CONFIG = Path(__file__).parents[2] / "otel-collector-config.yaml"
MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
WAYS = ("grpc", "protobuf", "json", "structured")

# One pipeline for each way that spans come by, so that a file tells which way its spans came.
COLLECTOR = """\
receivers:
  otlp: {{protocols: {{grpc: {{}}, http: {{}}}}}}
  otlp/grpc: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
  otlp/protobuf: {{protocols: {{http: {{endpoint: "127.0.0.1:{protobuf}"}}}}}}
  otlp/json: {{protocols: {{http: {{endpoint: "127.0.0.1:{json}"}}}}}}
  otlp/structured: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{structured}"}}}}}}
exporters:
  file/grpc: {{path: "{directory}/grpc", format: proto, flush_interval: 50ms}}
  file/protobuf: {{path: "{directory}/protobuf", format: proto, flush_interval: 50ms}}
  file/json: {{path: "{directory}/json", format: proto, flush_interval: 50ms}}
  file/structured: {{path: "{directory}/structured", format: proto, flush_interval: 50ms}}
service:
  pipelines:
    traces/grpc: {{receivers: [otlp/grpc], exporters: [file/grpc]}}
    traces/protobuf: {{receivers: [otlp/protobuf], exporters: [file/protobuf]}}
    traces/json: {{receivers: [otlp/json], exporters: [file/json]}}
    traces/structured: {{receivers: [otlp/structured], exporters: [file/structured]}}
"""

GATEWAY = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: sk-upstream}}
otelgw:
  service_name: llm-gateway
  resource: {{deployment.environment.name: testing}}
  destinations:
    - {{name: otlp_grpc/grpc, endpoint: "http://127.0.0.1:{grpc}"}}
    - {{name: otlp_http/protobuf, endpoint: "http://127.0.0.1:{protobuf}", compression: gzip}}
    - {{name: otlp_http/json, endpoint: "http://127.0.0.1:{json}", protocol: http/json}}
    - {{name: otlp_grpc/structured, endpoint: "http://127.0.0.1:{structured}", form: structured}}
"""


class Line(NamedTuple):
    """A gateway and the files that its Collector writes."""

    gateway: GatewayProcess
    directory: Path

    def requests(self, way: str) -> list[ExportTraceServiceRequest]:
        """Return what the Collector has written so far: each message after its size, four bytes, big end first."""
        data = (self.directory / way).read_bytes()
        found, position = [], 0
        while len(data) >= position + 4:
            (size,) = struct.unpack_from(">I", data, position)
            if len(data) < position + 4 + size:
                break
            found.append(ExportTraceServiceRequest.FromString(data[position + 4 : position + 4 + size]))
            position += 4 + size
        return found

    def trees(self, way: str) -> dict[str, Tree]:
        """Return the whole traces that came by ``way``, by trace id."""
        nodes = [
            Node.of_otlp(span)
            for request in self.requests(way)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return {tree.server.trace_id: tree for tree in trees(nodes)}

    def tree(self, trace_id: str, way: str) -> Tree:
        """Wait for a trace."""
        self.gateway.wait_until(lambda: (self.directory / way).exists() and trace_id in self.trees(way))
        return self.trees(way)[trace_id]


@pytest.fixture(scope="module")
def line(standing: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    program = require("collector")
    directory = tmp_path_factory.mktemp("collector")
    ports: dict[str, Any] = {way: free_port() for way in WAYS}
    config = directory / "collector.yaml"
    config.write_text(COLLECTOR.format(directory=directory, **ports))
    written = GATEWAY.format(model=MODEL, upstream=standing.url, **ports)
    with Collector(program, config), GatewayProcess(written, directory) as gateway:
        yield Line(gateway, directory)


@pytest.fixture
def client(line: Line) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{line.gateway.url}/v1", api_key="sk-anything", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_a_chat_of_the_sdk_arrives_as_one_whole_trace(line: Line, client: openai.OpenAI, way: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, user="u-1", temperature=0.5)
    completion = raw.parse()
    seen = line.tree(raw.headers["x-otelgw-trace-id"], way)
    assert [span.name for span in seen.spans] == ["POST /v1/chat/completions", f"chat {MODEL}", "POST"]
    assert [span.kind for span in seen.spans] == ["SERVER", "CLIENT", "CLIENT"]
    facts = seen.model.attributes
    assert facts["gen_ai.response.id"] == completion.id
    assert facts["gen_ai.response.model"] == completion.model
    assert facts["gen_ai.response.finish_reasons"] == ["stop"]
    assert facts["gen_ai.request.temperature"] == 0.5
    assert completion.usage is not None
    assert seen.usage() == (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    assert facts["gen_ai.input.messages"][-1] == {"role": "user", "parts": [{"type": "text", "content": "hello"}]}
    assert seen.said() == completion.choices[0].message.content
    assert facts["gen_ai.usage.cost"] == float(raw.headers["x-litellm-response-cost"])
    assert {span.attributes["user.id"] for span in seen.spans} == {"u-1"}
    assert seen.attempts[0].attributes["url.full"].endswith("/v1/chat/completions")


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_of_the_sdk_arrives_with_its_usage(line: Line, client: openai.OpenAI, way: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
    seen = line.tree(raw.headers["x-otelgw-trace-id"], way)
    assert seen.said() == text == "echo: hello"
    assert seen.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert seen.model.attributes["gen_ai.request.stream"] is True
    assert seen.model.attributes["gen_ai.response.time_to_first_chunk"] > 0


def test_every_way_carries_the_same_spans(line: Line, client: openai.OpenAI) -> None:
    calls = (
        client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, tools=[TOOL]),
        client.embeddings.with_raw_response.create(model=MODEL, input="one"),
        client.responses.with_raw_response.create(model=MODEL, input="hello"),
    )
    ids = [raw.headers["x-otelgw-trace-id"] for raw in calls]
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="unknown", messages=HELLO)
    ids.append(caught.value.response.headers["x-otelgw-trace-id"])
    for trace_id in ids:
        first, *others = [line.tree(trace_id, way) for way in WAYS]
        assert others == [first] * len(others)
    assert line.trees("grpc")[ids[-1]].server.attributes["error.type"] == "model_not_found"


def read(attributes: Any) -> Mapping[str, str]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: pair.value.string_value for pair in pairs}


@pytest.mark.parametrize("way", WAYS)
def test_the_resource_and_the_scope_say_who_made_the_spans(line: Line, client: openai.OpenAI, way: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    line.tree(raw.headers["x-otelgw-trace-id"], way)
    for request in line.requests(way):
        for resource in request.resource_spans:
            described = read(resource.resource.attributes)
            assert described["service.name"] == "llm-gateway"
            assert described["service.version"] == __version__
            assert described["deployment.environment.name"] == "testing"
            assert described["telemetry.sdk.language"] == "python"
            assert described["service.instance.id"]
            assert {(scope.scope.name, scope.scope.version) for scope in resource.scope_spans} == {
                ("otelgw", __version__)
            }


def test_the_config_at_the_root_prints_the_spans_of_the_sdk(standing: ScriptedUpstream, tmp_path: Path) -> None:
    with Collector(require("collector"), ROOT_CONFIG) as collector:
        # As the comment at the head of the file says.
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc}"}
        with GatewayProcess(None, tmp_path, env=environment) as gateway:
            client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0)
            raw = client.chat.completions.with_raw_response.create(model="echo", messages=HELLO)
            client.close()
            collector.eventually(lambda: len(collector.spans) == 3)
        output = collector.output
    assert output.count(raw.headers["x-otelgw-trace-id"]) == 3
    for text in (
        "POST /v1/chat/completions",
        "chat echo",
        "gen_ai.request.model: Str(echo)",
        "service.name: Str(otelgw)",
    ):
        assert text in output
    assert gateway.output.read_text() == ""


GRPC_SECRET, HTTP_SECRET = "Bearer grpc-canary-4711", "http-canary-0815"
TWO_SINKS = """\
otelgw:
  destinations:
    - {{name: otlp_grpc, endpoint: "{grpc}", headers: {{authorization: os.environ/GRPC_SECRET}}}}
    - {{name: otlp_http/vendor, endpoint: "{http}", headers: {{x-vendor-key: os.environ/HTTP_SECRET}}, content: false}}
    - console
"""


def test_destinations_get_their_own_credentials_and_nobody_elses(tmp_path: Path) -> None:
    with GrpcReceiver() as grpc, HttpReceiver() as http:
        config = TWO_SINKS.format(grpc=grpc.endpoint, http=http.endpoint)
        secrets = {"GRPC_SECRET": GRPC_SECRET, "HTTP_SECRET": HTTP_SECRET}
        with GatewayProcess(config, tmp_path, env=secrets) as gateway:
            client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0)
            client.chat.completions.create(model="echo", messages=HELLO)
            client.close()
            gateway.wait_until(lambda: len(grpc.spans) == len(http.spans) == 3)
            gateway.wait_until(lambda: len(printed_spans(gateway.output.read_text())) == 3)
        (by_grpc,) = trees(map(Node.of_otlp, grpc.spans))
        (by_http,) = trees(map(Node.of_otlp, http.spans))
        (printed,) = trees(map(Node.of_console, printed_spans(gateway.output.read_text())))
    assert grpc.asked[0].headers["authorization"] == GRPC_SECRET
    assert http.asked[0].headers["x-vendor-key"] == HTTP_SECRET
    assert not told(grpc.asked, HTTP_SECRET)
    assert not told(http.asked, GRPC_SECRET)
    assert by_grpc.said() == printed.said() == "hello"
    assert "gen_ai.output.messages" not in by_http.model.attributes
    assert by_http.usage() == by_grpc.usage()
    assert [span.span_id for span in by_http.spans] == [span.span_id for span in printed.spans]
    for path in (gateway.output, gateway.errors):
        assert "canary" not in path.read_text()


def told(asked: list[Asked], secret: str) -> bool:
    return any(secret in json.dumps(dict(request.headers)) or secret.encode() in request.body for request in asked)


async def _burst(url: str, count: int) -> list[str]:
    """Return the trace ids of ``count`` requests at once, half of them streamed."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as client:
        create = client.chat.completions.with_raw_response.create

        async def ask(number: int) -> str:
            raw = await create(model="echo", messages=HELLO, stream=bool(number % 2))
            if number % 2:
                async for _ in raw.parse():  # type: ignore[union-attr]
                    pass
            return str(raw.headers["x-otelgw-trace-id"])

        return await asyncio.gather(*map(ask, range(count)))


def only_grpc(directory: Path) -> Path:
    """Write a config whose Collector puts what it gets into the file ``grpc``, and return its path."""
    config = directory / "collector.yaml"
    config.write_text(
        "receivers: {otlp: {protocols: {grpc: {}, http: {}}}}\n"
        f"exporters: {{file: {{path: '{directory}/grpc', format: proto}}}}\n"
        "service: {pipelines: {traces: {receivers: [otlp], exporters: [file]}}}\n"
    )
    return config


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_right_after_a_burst_loses_no_trace(tmp_path: Path, workers: str) -> None:
    with Collector(require("collector"), only_grpc(tmp_path)) as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc}"}
        with GatewayProcess(None, tmp_path, "--workers", workers, env=environment) as gateway:
            answered = asyncio.run(_burst(gateway.url, 100))
            assert gateway.stop() == 0
    # The Collector has ended, so its file is complete.
    assert sorted(Line(gateway, tmp_path).trees("grpc")) == sorted(answered)
    assert len(set(answered)) == 100


def test_what_a_collector_takes_late_is_delivered_while_the_gateway_stops(tmp_path: Path) -> None:
    with Collector(require("collector"), only_grpc(tmp_path)) as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc}"}
        with GatewayProcess(None, tmp_path, env=environment) as gateway:
            collector._process.send_signal(signal.SIGSTOP)
            try:
                answered = asyncio.run(_burst(gateway.url, 100))
                gateway.process.send_signal(signal.SIGTERM)
                gateway.wait_until(lambda: not gateway.children("otelgw.worker"))
                assert gateway.process.poll() is None, "it must not end before its spans are delivered"
            finally:
                collector._process.send_signal(signal.SIGCONT)
            assert gateway.process.wait(20) == 0
    assert sorted(Line(gateway, tmp_path).trees("grpc")) == sorted(answered)
