"""A caller, the gateway and a model server that all make spans, and what the real Jaeger makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from otelgw.config.load import load
from otelgw.doctor import MODEL as DOCTOR
from otelgw.doctor import diagnose
from tests.servers import require
from tests.servers.collector import Collector
from tests.servers.gateway import GatewayProcess
from tests.servers.jaeger import Jaeger
from tests.servers.ports import free_port
from tests.servers.upstream import Received, Script, ScriptedUpstream, error, openai

RECIPE = Path(__file__).parents[2] / "collector" / "recipes" / "jaeger.yaml"
MODEL = "llama"
FLAKY = "fails once"

GATEWAY = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: sk-upstream, num_retries: 2}}
litellm_settings:
  forward_traceparent_to_llm_provider: true
otelgw:
  service_name: llm-gateway
  destinations:
    - {{name: otlp_grpc/straight, endpoint: "http://127.0.0.1:{straight}"}}
"""


class Instrumented(NamedTuple):
    """An application that makes spans with the SDK and sends them to Jaeger itself."""

    provider: TracerProvider
    tracer: trace.Tracer


def instrumented(service: str, jaeger: Jaeger) -> Instrumented:
    provider = TracerProvider(resource=Resource({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{jaeger.http}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Instrumented(provider, provider.get_tracer(service))


@pytest.fixture(scope="module")
def jaeger() -> Iterator[Jaeger]:
    with Jaeger(require("jaeger")) as running:
        yield running


@pytest.fixture(scope="module")
def caller(jaeger: Jaeger) -> Iterator[trace.Tracer]:
    made = instrumented("caller", jaeger)
    yield made.tracer
    made.provider.shutdown()


@pytest.fixture(scope="module")
def model_server(jaeger: Jaeger) -> Iterator[ScriptedUpstream]:
    """An OpenAI that makes a span of each request, and fails the first try of those that ask for it."""
    made = instrumented("model-server", jaeger)
    failed: set[str] = set()

    def answer(request: Received) -> Script:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
        context = propagate.extract(headers)
        with made.tracer.start_as_current_span("generate", context, kind=SpanKind.SERVER) as span:
            whole = f"{span.get_span_context().trace_id:032x}"
            if FLAKY in request.body.decode() and whole not in failed:
                failed.add(whole)
                return error(500)
            return openai(request)

    with ScriptedUpstream(answer) as running:
        yield running
    made.provider.shutdown()


@pytest.fixture(scope="module")
def gateway(
    jaeger: Jaeger, model_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    written = GATEWAY.format(model=MODEL, upstream=model_server.url, straight=jaeger.grpc)
    with GatewayProcess(written, tmp_path_factory.mktemp("gateway")) as running:
        yield running


def ask(caller: trace.Tracer, gateway: GatewayProcess, content: str, *, stream: bool) -> tuple[str, httpx.Response]:
    """Call the gateway within a span of the caller's; return the trace id and the answer."""
    headers: dict[str, str] = {}
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": content}]}
    with caller.start_as_current_span("ask", kind=SpanKind.CLIENT) as span:
        propagate.inject(headers)
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
        return f"{span.get_span_context().trace_id:032x}", answer


def tags(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def tree(spans: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Return (depth, service, name) of each span, in the order of a picture of the tree."""
    parents = {
        span["spanID"]: next((each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"), None)
        for span in spans
    }
    assert [span for span in spans if parents[span["spanID"]] not in {None, *parents}] == [], "a parent is missing"

    def below(parent: str | None, depth: int) -> Iterator[tuple[int, str, str]]:
        children = [span for span in spans if parents[span["spanID"]] == parent]
        for span in sorted(children, key=lambda each: (each["startTime"], each["spanID"])):
            yield depth, span["process"]["serviceName"], span["operationName"]
            yield from below(span["spanID"], depth + 1)

    return list(below(None, 0))


def whole(retried: bool) -> list[tuple[int, str, str]]:
    attempt = [(3, "llm-gateway", "POST"), (4, "model-server", "generate")]
    return [
        (0, "caller", "ask"),
        (1, "llm-gateway", "POST /v1/chat/completions"),
        (2, "llm-gateway", f"chat {MODEL}"),
        *attempt * (2 if retried else 1),
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("content", ["hello", FLAKY], ids=["at once", "with a retry"])
def test_a_request_is_one_tree_from_the_caller_to_the_model_server(
    jaeger: Jaeger, caller: trace.Tracer, gateway: GatewayProcess, content: str, stream: bool
) -> None:
    trace_id, answer = ask(caller, gateway, content, stream=stream)
    assert answer.status_code == 200, answer.text
    expected = whole(retried=content == FLAKY)
    gateway.wait_until(lambda: len(jaeger.trace(trace_id)) >= len(expected))

    spans = jaeger.trace(trace_id)

    assert tree(spans) == expected
    generation = next(span for span in spans if span["operationName"].startswith("chat "))
    facts = tags(generation)
    assert facts["gen_ai.request.model"] == MODEL
    assert facts["gen_ai.usage.output_tokens"] == 4
    assert json.loads(facts["gen_ai.input.messages"])[0]["parts"][0]["content"] == content
    attempts = sorted((span for span in spans if span["operationName"] == "POST"), key=lambda span: span["startTime"])
    statuses = [tags(span)["http.response.status_code"] for span in attempts]
    assert statuses == ([500, 200] if content == FLAKY else [200])
    assert [tags(span).get("error") for span in attempts] == ([True, None] if content == FLAKY else [None])


def test_the_recipe_passes_a_trace_on_to_jaeger(jaeger: Jaeger, tmp_path: Path) -> None:
    environment = {"JAEGER_ENDPOINT": f"127.0.0.1:{jaeger.grpc}", "OTELCOL_STATE": str(tmp_path / "state")}
    overrides = {
        "extensions.health_check.endpoint": f"127.0.0.1:{free_port()}",
        "exporters.otlp_grpc/jaeger.sending_queue.batch.flush_timeout": "50ms",
    }
    with Collector(require("collector"), RECIPE, overrides, environment) as collector:
        sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc}"}
        with GatewayProcess(None, tmp_path, env=sent) as gateway:
            body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
            answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False)
            trace_id = answer.headers["x-otelgw-trace-id"]
            gateway.wait_until(lambda: len(jaeger.trace(trace_id)) == 3)
    assert [name for _, _, name in tree(jaeger.trace(trace_id))] == ["POST /v1/chat/completions", "chat echo", "POST"]


def test_what_the_doctor_sends_is_there(jaeger: Jaeger, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f'otelgw: {{destinations: [{{name: otlp_grpc, endpoint: "http://127.0.0.1:{jaeger.grpc}"}}]}}\n')

    (found,) = diagnose(load(str(path), {"HOME": str(tmp_path)}))

    assert found.ok, found
    query = {"service": "otelgw", "operation": f"chat {DOCTOR}"}
    (kept,) = httpx.get(f"{jaeger.url}/api/traces", params=query, trust_env=False).json()["data"]
    assert [span["operationName"] for span in kept["spans"]].count(f"chat {DOCTOR}") == 1
