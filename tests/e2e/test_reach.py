"""Every destination works in any OpenTelemetry application, from environment variables alone.

Real scripts run through ``opentelemetry-instrument`` with ``OTEL_TRACES_EXPORTER=otelgw_<name>``: one that calls a
model with OpenAI's client under OpenTelemetry's own instrumentation of it, one that makes its spans with the API.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import quote

import confluent_kafka
import httpx
import psycopg
import pytest
from jsonschema import Draft202012Validator

from otelgw_exporters import catalog, payload
from tests.e2e.provider import provider
from tests.exporters.stand_ins import declared
from tests.exporters.vendor import Vendor, serve
from tests.servers import require
from tests.servers import upstream as scripts
from tests.servers.gateway import GatewayProcess
from tests.servers.kafka import Kafka
from tests.servers.otlp import GrpcReceiver, HttpReceiver
from tests.servers.postgres import Postgres
from tests.servers.upstream import Received, Script, ScriptedUpstream

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
VALIDATOR = Draft202012Validator(payload.schema())
QUESTION = "what is a reach"

CLIENT = """
import openai
client = openai.OpenAI(max_retries=0)
said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is a reach"}]
print(client.chat.completions.create(model="gpt-4o-mini", messages=said, temperature=0.5).choices[0].message.content)
for _ in client.chat.completions.create(
    model="gpt-4o-mini", messages=said, stream=True, stream_options={"include_usage": True}
):
    pass
client.embeddings.create(model="text-embedding-3-small", input="one")
try:
    client.chat.completions.create(model="gpt-4o-mini", messages=said, extra_headers={"x-fault": "429"})
except openai.RateLimitError:
    pass
"""
TRACER = """
from opentelemetry import trace
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("handle"):
    with tracer.start_as_current_span("chat m", kind=trace.SpanKind.CLIENT) as span:
        span.set_attributes({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4,
            "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "what is a reach"}]}]',
        })
"""
FAILING = """
    with tracer.start_as_current_span("chat m", kind=trace.SpanKind.CLIENT) as failed:
        failed.set_attributes({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
            "error.type": "429",
        })
        failed.set_status(trace.StatusCode.ERROR, "Rate limit reached")
for each in (span, failed):
    print(f"{each.get_span_context().trace_id:032x}-{each.get_span_context().span_id:016x}")
"""


def instrumented(script: str, directory: Path, exporter: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as its user would, in ``directory``, with nothing of otelgw but the name of an exporter."""
    if not INSTRUMENT.exists():
        pytest.fail("opentelemetry-instrument is missing; `make test` installs it")
    path = directory / "app.py"
    path.write_text(script)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        "OTEL_TRACES_EXPORTER": exporter,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
        "OPENAI_API_KEY": "sk-canary-0123456789",
    }
    return subprocess.run(
        [INSTRUMENT, sys.executable, str(path)],
        cwd=directory,
        env=kept | environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(script: str, directory: Path, exporter: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script that must go well."""
    done = instrumented(script, directory, exporter, **variables)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def answers(request: Received) -> Script:
    fault = request.header("x-fault")
    return scripts.error(int(fault), "Rate limit reached") if fault else provider(request)


def read(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert [error.message for error in VALIDATOR.iter_errors(line)] == []
    return lines


def test_every_destination_is_registered_and_can_be_built_without_arguments() -> None:
    registered = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    for row in catalog.ROWS:
        assert f"otelgw_{row.name}" in registered, "install otelgw again: pyproject.toml has changed (`make test` does)"
        assert registered[f"otelgw_{row.name}"].value == row.factory


def test_an_application_with_openais_client_writes_payloads_to_files(tmp_path: Path) -> None:
    with ScriptedUpstream(answers) as upstream:
        done = run(
            CLIENT, tmp_path, "otelgw_file", OPENAI_BASE_URL=f"{upstream.url}/v1", OTELGW_FILE_PATH="{service}.jsonl"
        )
    assert done.stdout == f"echo: {QUESTION}\n"

    chat, stream, embedding, failure = read(tmp_path / "shop.jsonl")

    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": QUESTION}]
    for each in (chat, stream, failure):
        assert each["messages"] == said
        assert each["call_type"] == "acompletion"
        assert each["model"] == "gpt-4o-mini"
        assert each["otelgw"]["service_name"] == "shop"
    assert chat["response"]["choices"][0]["message"]["content"] == f"echo: {QUESTION}"
    assert stream["response"]["choices"][0]["message"]["content"] == f"echo: {QUESTION}"
    assert (chat["prompt_tokens"], chat["completion_tokens"]) == (9, 4)
    assert chat["model_parameters"] == {"temperature": 0.5}
    assert chat["response_cost"] > 0
    assert embedding["call_type"] == "aembedding"
    assert embedding["prompt_tokens"] == 4
    assert [each["status"] for each in (chat, stream, embedding, failure)] == ["success"] * 3 + ["failure"]
    assert failure["error_information"]["error_code"] == "429"
    assert failure["error_information"]["error_class"] == "RateLimitError"
    assert (
        len({(each["otelgw"]["trace_id"], each["otelgw"]["span_id"]) for each in (chat, stream, embedding, failure)})
        == 4
    )
    assert "sk-canary" not in (tmp_path / "shop.jsonl").read_text()


@pytest.mark.parametrize("name", [row.name for row in catalog.ROWS])
def test_spans_made_with_the_api_arrive(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    check = CHECKS.get(name)
    if check is not None:
        check(tmp_path)
        return
    made, arrived = request.getfixturevalue("applications")[name]
    assert arrived
    assert set(arrived) <= made


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[set[str], list[str]]]:
    """What became of the calls of an application at each vendor that is stood in for: the ids of those that were made,
    and of those that arrived.

    An application has as many destinations as there are whose variables agree: the comma in OTEL_TRACES_EXPORTER.
    """
    stand_ins = {row.name: declared(row.name) for row in catalog.ROWS if row.name not in CHECKS}
    found: dict[str, tuple[set[str], list[str]]] = {}
    with contextlib.ExitStack() as servers:
        vendors = {name: servers.enter_context(serve(each)) for name, each in stand_ins.items() if each is not None}
        for variables, names in _agreeing(vendors):
            exporters = ",".join(f"otelgw_{name}" for name in names)
            done = run(TRACER + FAILING, tmp_path_factory.mktemp("app"), exporters, **variables)
            found |= {name: (set(done.stdout.split()), vendors[name].items()) for name in names}
    return found


def _agreeing(vendors: Mapping[str, Vendor]) -> list[tuple[dict[str, str], list[str]]]:
    """Return variables, and the names of the rows that they lead to their vendors."""
    groups: list[tuple[dict[str, str], list[str]]] = []
    for name, vendor in vendors.items():
        env = catalog.row(name).env
        given = vendor.stand_in.options(vendor.origin)
        needed = {env[option][0]: _text(value) for option, value in given.items() if option in env}
        for variables, names in groups:
            if all(variables.get(each, value) == value for each, value in needed.items()):
                variables.update(needed)
                names.append(name)
                break
        else:
            groups.append((needed, [name]))
    return groups


def _text(value: Any) -> str:
    return ",".join(f"{key}={quote(text)}" for key, text in value.items()) if isinstance(value, dict) else str(value)


def _file(directory: Path) -> None:
    run(TRACER, directory, "otelgw_file")
    (path,) = directory.glob("otelgw-*.jsonl")  # the default: the day's file, where the application runs
    (line,) = read(path)
    assert line["messages"] == [{"role": "user", "content": QUESTION}]
    run(TRACER, directory, "otelgw_file", OTELGW_FILE_FORMAT="otlp", OTELGW_FILE_PATH="otlp.jsonl")
    (line,) = [json.loads(line) for line in (directory / "otlp.jsonl").read_text().splitlines()]
    assert {span["name"] for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]} == {"handle", "chat m"}


def _console(directory: Path) -> None:
    spans = run(TRACER, directory, "otelgw_console").stdout
    assert QUESTION in spans
    assert spans.count('"trace_id"') >= 2


def _otlp_grpc(directory: Path) -> None:
    with GrpcReceiver() as receiver:
        run(TRACER, directory, "otelgw_otlp_grpc", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        assert {span.name for span in receiver.spans} == {"handle", "chat m"}


def _otlp_http(directory: Path) -> None:
    with HttpReceiver() as receiver:
        run(TRACER, directory, "otelgw_otlp_http", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.origin)
        assert {span.name for span in receiver.spans} == {"handle", "chat m"}


def _callback(directory: Path) -> None:
    (directory / "mine.py").write_text("def seen(kwargs, *_):\n    print('seen', kwargs['messages'])\n")
    done = run(TRACER, directory, "otelgw_callback", OTELGW_CALLBACK=str(directory / "mine.seen"))
    assert done.stdout == f"seen {[{'role': 'user', 'content': QUESTION}]}\n"


def _gcs_bucket(directory: Path) -> None:
    making = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    key = subprocess.run(making, check=True, capture_output=True, text=True).stdout
    account = {"private_key": key, "private_key_id": "1", "client_email": "app@p.example", "type": "service_account"}
    (directory / "account.json").write_text(json.dumps(account))
    stand_in = declared("gcs_bucket")
    assert stand_in is not None
    with serve(stand_in) as vendor:
        where = {"OTELGW_GCS_ENDPOINT": vendor.origin, "GCS_BUCKET_NAME": "logs"}
        run(TRACER, directory, "otelgw_gcs_bucket", GCS_PATH_SERVICE_ACCOUNT="account.json", **where)
        assert len(vendor.items()) == 1


def _postgres(directory: Path) -> None:
    with Postgres(require("postgres")) as server:
        run(TRACER, directory, "otelgw_postgres", OTELGW_POSTGRES_DSN=server.dsn)
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT count(*) FROM otelgw_calls").fetchone() == (1,)


def _kafka(directory: Path) -> None:
    with Kafka(require("kafka")) as server:
        server.create("reach")
        run(TRACER, directory, "otelgw_kafka", OTELGW_KAFKA_BROKERS=server.brokers, OTELGW_KAFKA_TOPIC="reach")
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": server.brokers, "group.id": "reach", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe(["reach"])
        message = consumer.poll(30)
        assert message is not None
        assert QUESTION.encode() in (message.value() or b"")
        consumer.close()


CHECKS = {
    "callback": _callback,
    "console": _console,
    "file": _file,
    "gcs_bucket": _gcs_bucket,
    "kafka": _kafka,
    "otlp_grpc": _otlp_grpc,
    "otlp_http": _otlp_http,
    "postgres": _postgres,
}


def test_an_option_that_cannot_be_used_is_said_and_the_application_runs(tmp_path: Path) -> None:
    done = instrumented("print('runs')", tmp_path, "otelgw_file", OTELGW_FILE_PATH="{nonsense}.jsonl")
    assert done.stdout == "runs\n"
    assert "known fields are {date}" in done.stderr


CONFIG = """\
model_list:
  - model_name: gpt
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{upstream}", api_key: os.environ/UPSTREAM_KEY}}
  - model_name: embed
    litellm_params: {{model: openai/text-embedding-3-small, api_base: "{upstream}", api_key: os.environ/UPSTREAM_KEY}}
general_settings: {{master_key: sk-master-canary}}
otelgw:
  destinations:
    - {{name: file, path: "{directory}/calls.jsonl", fsync: true}}
    - {{name: file/otlp, path: "{directory}/spans.jsonl", format: otlp}}
    - {{name: file/quiet, path: "{directory}/quiet.jsonl", content: false}}
"""


def test_the_gateway_writes_a_payload_for_every_request(tmp_path: Path) -> None:
    said = [{"role": "user", "content": QUESTION, "name": "n"}]
    chat = {
        "model": "gpt",
        "messages": said,
        "user": "u-1",
        "metadata": {"a": {"b": 1}},
        "response_format": {"type": "text"},
    }
    headers = {"authorization": "Bearer sk-master-canary", "x-litellm-call-id": "the-same"}
    with ScriptedUpstream(answers) as upstream:
        config = CONFIG.format(upstream=f"{upstream.url}/v1", directory=tmp_path)
        with (
            GatewayProcess(config, tmp_path, env={"UPSTREAM_KEY": "sk-upstream-canary"}) as gateway,
            httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=20) as client,
        ):
            plain = client.post("/v1/chat/completions", json=chat)
            client.post("/v1/chat/completions", json=chat | {"stream": True})
            vectors = client.post("/v1/embeddings", json={"model": "embed", "input": ["one", "two"]})
            client.post("/v1/chat/completions", json=chat, headers={"x-fault": "429"})
            client.post("/v1/chat/completions", json=chat | {"model": "nobody"})
            client.post("/v1/chat/completions", content=b'{"model": "gpt", }')
            client.post("/v1/chat/completions", json=chat, headers={"authorization": "Bearer wrong-canary"})
            client.get("/v1/models")
            path = tmp_path / "calls.jsonl"
            gateway.wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 7)
            gateway.stop()

    found = read(path)
    assert len(found) == 7
    assert {each["id"] for each in found} == {"the-same"}
    assert len({(each["otelgw"]["trace_id"], each["otelgw"]["span_id"]) for each in found}) == 7
    by_error = {each["otelgw"]["error_type"]: each for each in found if each["status"] == "failure"}
    assert set(by_error) == {"429", "model_not_found", "invalid_json", "unauthorized"}
    success, stream, embedding = (each for each in found if each["status"] == "success")
    assert success["response"] == plain.json()
    assert success["messages"] == stream["messages"] == by_error["429"]["messages"] == said
    assert success["model_parameters"] == {"user": "u-1", "response_format": {"type": "text"}}
    assert success["metadata"]["requester_metadata"] == {"a": {"b": 1}}
    assert (success["model"], success["model_group"]) == ("gpt-4o-mini", "gpt")
    assert success["model_id"] == plain.headers["x-otelgw-model-id"]
    assert success["api_base"] == f"{upstream.url}/v1"
    assert success["cost_breakdown"]["input_cost"] + success["cost_breakdown"]["output_cost"] == pytest.approx(
        success["response_cost"]
    )
    assert success["response_cost"] == pytest.approx(float(plain.headers["x-litellm-response-cost"]))
    assert stream["response"]["choices"][0]["message"]["content"] == f"echo: {QUESTION}"
    assert stream["completion_tokens"] > 0
    assert embedding["response"] == vectors.json()
    assert by_error["model_not_found"]["model"] == "nobody"
    assert by_error["unauthorized"]["messages"] == []
    everything = path.read_text() + (tmp_path / "spans.jsonl").read_text()
    assert "canary" not in everything
    assert "otelgw.request.body" not in everything
    quiet = (tmp_path / "quiet.jsonl").read_text()
    assert quiet.count("\n") == 7
    assert QUESTION not in quiet
