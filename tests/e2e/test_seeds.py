"""The examples that users copy from LiteLLM's documentation, as they stand: curl lines, Python, YAML and commands.

Those of the seeds beside the repository are taken from them at test time; a handful of our own in ``curls/`` are always
there. Only the address is changed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otelgw.config.load import load
from otelgw.errors import ConfigError
from tests.config import seeds
from tests.e2e.conftest import Take
from tests.e2e.console import printed_spans
from tests.e2e.curl import program
from tests.e2e.tree import Node, Tree, trees
from tests.servers.gateway import GatewayProcess, RunningGateway
from tests.servers.otlp import GrpcReceiver
from tests.servers.upstream import ScriptedUpstream, refused_port

SEEDS = Path(__file__).parents[2] / "../shared/seeds"
OURS = sorted((Path(__file__).parent / "curls").glob("*.sh"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDRESS = re.compile(r"http://0\.0\.0\.0:\d+")
MISINDENTED = re.compile(r"^ - model_name:", re.MULTILINE)
# What the seeds' configs refer to, or tell to be put into the environment.
VARIABLES = {"OPENAI_API_KEY": "sk-x", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


class Block(NamedTuple):
    name: str
    language: str
    text: str


def blocks() -> list[Block]:
    """Return every fenced block of the seeds, named by file and line."""
    return [
        Block(f"{path.stem}:{path.read_text()[: match.start()].count(chr(10)) + 1}", match[1], match[2])
        for path in sorted(SEEDS.glob("*.md"))
        for match in FENCE.finditer(path.read_text())
    ]


BLOCKS = blocks()
CURLS = [Block(path.stem, "bash", path.read_text()) for path in OURS]
CURLS += [block for block in BLOCKS if block.text.lstrip().startswith("curl ")]
PYTHONS = [block for block in BLOCKS if block.language == "python" and "openai.OpenAI" in block.text]
CONFIGS = [block for block in BLOCKS if block.language == "yaml"]
needs_seeds = pytest.mark.skipif(not BLOCKS, reason="the seeds are not beside the repository")


def name(block: Block) -> str:
    return block.name


def body_of(script: str) -> str:
    """Return the body that a curl line sends."""
    words = shlex.split(script.replace("\\\n", " "))
    return words[next(at for at, word in enumerate(words) if word in {"-d", "--data"}) + 1]


def run(command: list[str], directory: Path) -> str:
    """Return what a command prints, run without the user's settings and proxies."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def at(gateway_url: str, script: str) -> str:
    adapted, count = ADDRESS.subn(gateway_url, script)
    assert count == 1
    return adapted


@pytest.mark.parametrize("block", CURLS, ids=name)
def test_every_curl_line_gets_what_it_must_and_leaves_a_trace(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, tmp_path: Path, block: Block
) -> None:
    program()
    printed = run(["bash", "-o", "pipefail", "-c", at(gateway.url, block.text)], tmp_path)
    seen = tree()
    body = body_of(block.text)
    try:
        asked: dict[str, Any] = json.loads(body)
    except ValueError as error:
        assert_refused(seen, json.loads(printed), error)
        assert upstream.requests == []
        return
    assert_served(seen, asked)
    if "x-litellm" in block.text and "grep" in block.text:
        assert {line.partition(":")[0] for line in printed.splitlines()} >= LITELLM_HEADERS
    else:
        answer = json.loads(printed[printed.index("{") :])
        assert answer["id"] == seen.model.attributes["gen_ai.response.id"]


LITELLM_HEADERS = {
    *("x-litellm-call-id", "x-litellm-model-id", "x-litellm-model-api-base", "x-litellm-version"),
    *("x-litellm-response-cost", "x-litellm-key-tpm-limit", "x-litellm-key-rpm-limit"),
}


def assert_served(seen: Tree, asked: dict[str, Any]) -> None:
    assert seen.server.attributes["http.response.status_code"] == 200
    assert seen.model.attributes["otelgw.model.alias"] == asked["model"]
    assert seen.model.attributes["gen_ai.input.messages"][-1]["role"] == "user"
    assert seen.said().startswith("echo: ")
    assert seen.usage() == (9, 4)
    assert len(seen.attempts) == 1
    assert seen.server.attributes.get("user.id") == asked.get("user") or "trace_user_id" in asked.get("metadata", {})


def assert_refused(seen: Tree, answer: dict[str, Any], error: ValueError) -> None:
    """A body that is no JSON: 400 that says where and why, and a trace of it."""
    message = answer["error"]["message"]
    assert answer["error"]["code"] == seen.server.attributes["error.type"] == "invalid_json"
    assert seen.server.attributes["http.response.status_code"] == 400
    assert re.search(r"line \d+, column \d+", message)
    assert f"line {error.lineno}" in message  # type: ignore[attr-defined]
    assert "likely cause: a trailing comma" in message or "likely cause: a comment" in message


@needs_seeds
@pytest.mark.parametrize("block", PYTHONS, ids=name)
def test_every_python_example_runs_and_leaves_a_trace(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, tmp_path: Path, block: Block
) -> None:
    printed = run([sys.executable, "-c", at(gateway.url, block.text)], tmp_path)
    seen = tree()
    assert "ChatCompletion(id='chatcmpl-scripted'" in printed
    assert seen.said().startswith("echo: this is a test request")
    if "traceparent" in block.text:
        assert f"Trace ID:  {seen.server.trace_id}" in printed
        assert seen.server.parent_id == "02e80198930058d4"
    else:
        assert seen.server.attributes["user.id"] == "palantir"
        assert list(seen.server.attributes["otelgw.tags"]) == [
            "jobID:214590dsff09fds",
            "taskName:run_page_classification",
        ]


@needs_seeds
@pytest.mark.parametrize("block", CONFIGS, ids=name)
def test_every_config_starts_a_gateway_or_is_refused_as_promised(tmp_path: Path, block: Block) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block.text)
    environment = {"HOME": str(tmp_path), **VARIABLES}
    if MISINDENTED.search(block.text):
        with pytest.raises(ConfigError) as caught:
            load(str(path), environment)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{path}:2: ")
        assert 'write "  - model_name: gpt-' in problem
        return
    if seeds.REMOTE.search(block.text):
        with pytest.raises(ConfigError, match="allow_remote_callbacks"):
            load(str(path), environment)
        return
    settings = load(str(path), environment | seeds.surroundings(block.text, tmp_path))
    assert seeds.destinations_named(block.text) == bool(settings.destinations)
    with RunningGateway(settings.deployments, auth=settings.auth, tracing=settings.tracing) as gateway:
        printed = run([program(), "-q", "-sS", "--noproxy", "*", f"{gateway.url}/v1/models"], tmp_path)
    served = {model["id"] for model in json.loads(printed)["data"]}
    assert set(re.findall(r"model_name: (\S+)", block.text)) <= served


def block_with(language: str, *texts: str) -> str:
    """Return the first block of the seeds that holds all ``texts``."""
    return next(b.text for b in BLOCKS if b.language == language and all(text in b.text for text in texts))


class Served(NamedTuple):
    process: GatewayProcess
    upstream: ScriptedUpstream


@pytest.fixture(scope="module")
def otel(standing: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The seed's OpenTelemetry example as it is told: the callback, OTEL_EXPORTER, --detailed_debug."""
    if not BLOCKS:
        pytest.skip("the seeds are not beside the repository")
    directory = tmp_path_factory.mktemp("otel")
    (directory / "config.yaml").write_text(block_with("yaml", 'callbacks: ["otel"]'))
    (directory / ".env").write_text(block_with("bash", "OTEL_EXPORTER="))
    keys = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": f"{standing.url}/v1"}
    arguments = ("--config", str(directory / "config.yaml"), "--detailed_debug")
    with GatewayProcess(None, directory, *arguments, env=keys) as process:
        yield Served(process, standing)


def test_the_console_prints_the_shape_that_the_seed_shows(otel: Served, tmp_path: Path) -> None:
    expected = json.loads(next(b.text for b in BLOCKS if b.language == "json" and '"trace_id"' in b.text))
    section = (SEEDS / "litellm-proxy-logging.md").read_text().partition('OTEL_EXPORTER="console"')[2]
    script = next(text for _, text in FENCE.findall(section) if text.startswith("curl "))
    run(["bash", "-c", at(otel.process.url, script)], tmp_path)
    otel.process.wait_until(lambda: len(printed_spans(otel.process.output.read_text())) == 3)
    spans = printed_spans(otel.process.output.read_text())
    for span in spans:
        assert span.keys() == expected.keys()
        assert span["context"].keys() == expected["context"].keys()
        assert span["resource"].keys() == expected["resource"].keys()
        assert span["start_time"].endswith("Z")
        assert span["kind"].startswith("SpanKind.")
    (seen,) = trees(map(Node.of_console, spans))
    assert seen.model.name == "chat gpt-3.5-turbo"
    assert seen.said() == "echo: what llm are you"


def test_the_test_command_works_as_litellms(otel: Served, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "otelgw.cli", "--port", str(otel.process.port)]
    config = str(otel.process.directory / "config.yaml")
    for arguments in (["--test"], ["--config", config, "--test"], ["-config", config, "--test", "--debug"]):
        printed = run([*command, *arguments], tmp_path)
        assert re.search(r"^trace id  [0-9a-f]{32}$", printed, re.MULTILINE)
        assert "x-litellm-call-id: " in printed
        assert printed.endswith("\nhello\n")


@needs_seeds
def test_the_seeds_of_2023_send_to_the_endpoint_that_the_variable_names(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(block_with("yaml", "otel: True"))
    script = next(b.text for b in BLOCKS if "sk-1244" in b.text and b.text.startswith("curl "))
    with GrpcReceiver() as sink:
        # Whoever owns the example's Azure resource is not asked: nobody listens where the proxy would be.
        environment = {"OTEL_ENDPOINT": sink.endpoint, "HTTPS_PROXY": f"http://127.0.0.1:{refused_port()}"}
        with GatewayProcess(None, tmp_path, "-config", str(config), env=environment) as process:
            printed = run(["bash", "-c", at(process.url, script)], tmp_path)
            process.wait_until(lambda: len(sink.spans) == 3)
        (seen,) = trees(map(Node.of_otlp, sink.spans))
    error = json.loads(printed)["error"]
    assert error["type"] == "upstream_error"
    assert seen.model.attributes["error.type"] == error["code"]
    assert seen.model.attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert seen.attempts[0].attributes["server.address"] == "my-endpoint-europe-berri-992.openai.azure.com"
    described = {pair.key: pair.value.string_value for pair in sink.received[0].resource_spans[0].resource.attributes}
    assert described["service.name"] == "otelgw"


@needs_seeds
def test_the_seed_that_turns_messages_off_records_none(standing: ScriptedUpstream, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(block_with("yaml", "message_logging: False"))
    keys = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": f"{standing.url}/v1"}
    script = next(b.text for b in BLOCKS if "good morning good sir" in b.text and b.text.startswith("curl "))
    with GrpcReceiver() as sink:
        environment = {**keys, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        with GatewayProcess(None, tmp_path, "--config", str(config), "--debug", env=environment) as process:
            printed = run(["bash", "-c", at(process.url, script)], tmp_path)
            process.wait_until(lambda: len(sink.spans) == 3)
        (seen,) = trees(map(Node.of_otlp, sink.spans))
        assert json.loads(printed)["choices"][0]["message"]["content"] == "echo: good morning good sir"
        assert seen.usage() == (9, 4)
        assert b"good morning" not in b"".join(asked.body for asked in sink.asked)
        assert not {key for span in seen.spans for key in span.attributes} & {
            "gen_ai.input.messages",
            "gen_ai.output.messages",
        }


@needs_seeds
def test_the_seed_that_forwards_the_trace_has_the_attempt_as_parent(standing: ScriptedUpstream, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(block_with("yaml", "forward_traceparent_to_llm_provider"))
    environment = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": f"{standing.url}/v1"}
    parent = "00-80e1afed08e019fc1110464cfa66635c-7a085853722dc6d2-01"
    script = next(b.text for b in BLOCKS if "good morning good sir" in b.text and b.text.startswith("curl "))
    settings = load(str(path), environment)
    with RunningGateway(settings.deployments) as gateway:
        run(["bash", "-c", at(gateway.url, script).replace("curl ", f"curl -H 'traceparent: {parent}' ", 1)], tmp_path)
        (seen,) = trees(map(Node.of_sdk, gateway.spans()))
    version, trace_id, span_id, flags = str(standing.requests[-1].header("traceparent")).split("-")
    assert (version, trace_id, flags) == ("00", parent.split("-")[1], "01")
    assert span_id == seen.attempts[0].span_id


def test_a_request_that_asks_not_to_be_logged_leaves_no_trace(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, tmp_path: Path
) -> None:
    body = json.dumps({"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "hi"}], "no-log": True})
    command = [program(), "-q", "-sS", "--noproxy", "*", "-d", body, f"{gateway.url}/v1/chat/completions"]
    assert json.loads(run(command, tmp_path))["object"] == "chat.completion"
    assert "no-log" not in upstream.requests[0].json()
    assert gateway.no_record()
