"""``otelgw collector render``: what the user's own config becomes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from otelgw import cli
from otelgw.collector_render import TARGETS, render
from otelgw.config.load import load
from otelgw.config.settings import Settings
from tests.servers import require

CANARY = "canary-4711-secret"


def settings(directory: Path, *destinations: str) -> Settings:
    path = directory / "config.yaml"
    lines = "\n".join(f"    - {destination}" for destination in destinations)
    path.write_text(
        "model_list: [{model_name: a, litellm_params: {model: echo/a}}]\n"
        f"general_settings: {{master_key: sk-{CANARY}-master}}\notelgw:\n  destinations:\n{lines}\n"
    )
    return load(str(path), {"KEY": CANARY})


def rendered(directory: Path, target: str, *destinations: str) -> tuple[dict[str, Any], str]:
    text = render(settings(directory, *destinations), target)
    assert CANARY not in text
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree, text


def protocols(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tree["receivers"]["otlp"]["protocols"]
    return found


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ('{name: otlp_grpc, endpoint: "http://127.0.0.1:14317"}', {"grpc": "127.0.0.1:14317"}),
        ('{name: otlp_grpc, endpoint: "localhost:4317", insecure: true}', {"grpc": "127.0.0.1:4317"}),
        ('{name: otlp_http, endpoint: "http://localhost:5318"}', {"http": "127.0.0.1:5318"}),
        ('{name: otlp_grpc, endpoint: "http://[::1]:4317"}', {"grpc": "[::1]:4317"}),
        ('{name: otlp_grpc, endpoint: "http://collector:4317"}', {"grpc": "0.0.0.0:4317"}),
        (
            '{name: otlp_grpc, endpoint: "https://vendor.example:443"}',
            {"grpc": "127.0.0.1:4317", "http": "127.0.0.1:4318"},
        ),
        ("{name: console}", {"grpc": "127.0.0.1:4317", "http": "127.0.0.1:4318"}),
    ],
)
def test_it_receives_where_the_gateway_sends(destination: str, expected: dict[str, str], tmp_path: Path) -> None:
    tree, _ = rendered(tmp_path, "kafka", destination)
    assert {name: each["endpoint"] for name, each in protocols(tree).items()} == expected


def test_an_endpoint_with_tls_is_received_with_tls(tmp_path: Path) -> None:
    tree, _ = rendered(tmp_path, "kafka", '{name: otlp_grpc, endpoint: "https://collector:4317"}')
    assert protocols(tree)["grpc"]["tls"] == {
        "cert_file": "${env:OTELCOL_TLS_CERT}",
        "key_file": "${env:OTELCOL_TLS_KEY}",
    }


def test_what_goes_to_the_backend_today_goes_there_by_the_collector_without_its_secrets(tmp_path: Path) -> None:
    tree, text = rendered(
        tmp_path,
        "tempo",
        '{name: otlp_grpc/near, endpoint: "http://127.0.0.1:4317"}',
        '{name: otlp_grpc/far, endpoint: "https://tempo.example:443", '
        "headers: {authorization: os.environ/KEY, x-scope-orgid: team}}",
    )
    exporter = tree["exporters"]["otlp_grpc/tempo"]
    assert exporter["endpoint"] == "https://tempo.example:443"
    assert exporter["tls"] == {"insecure": False}
    assert exporter["headers"] == {
        "authorization": "${env:TEMPO_AUTHORIZATION}",
        "x-scope-orgid": "${env:TEMPO_X_SCOPE_ORGID}",
    }
    assert "TEMPO_AUTHORIZATION" in text.partition("receivers:")[0]
    assert "the destination otlp_grpc/far" in text


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("api_key: os.environ/KEY", {"api_key": "${env:ELASTICSEARCH_API_KEY}"}),
        (
            "username: writer, password: os.environ/KEY",
            {"user": "writer", "password": "${env:ELASTICSEARCH_PASSWORD}"},
        ),
    ],
)
def test_a_direct_destination_tells_the_collector_where_to(
    identity: str, expected: dict[str, str], tmp_path: Path
) -> None:
    tree, text = rendered(
        tmp_path,
        "elastic",
        f'{{name: elasticsearch, endpoint: "https://u:{CANARY}@es.example:9243/x?k={CANARY}", namespace: prod, '
        f"{identity}}}",
    )
    exporter = tree["exporters"]["elasticsearch"]
    assert exporter["endpoint"] == "https://es.example:9243/x"
    assert {name: exporter[name] for name in ("api_key", "user", "password") if name in exporter} == expected
    assert '"prod"' in text


def test_a_bucket_is_the_users_own(tmp_path: Path) -> None:
    tree, _ = rendered(
        tmp_path,
        "s3",
        "{name: s3, bucket: mine, region: eu-west-1, path: calls, secret_access_key: os.environ/KEY, access_key_id: a}",
    )
    uploader = tree["exporters"]["awss3"]["s3uploader"]
    assert (uploader["s3_bucket"], uploader["region"], uploader["s3_prefix"]) == ("mine", "eu-west-1", "calls")


def test_brokers_and_topic_are_the_users_own(tmp_path: Path) -> None:
    tree, _ = rendered(
        tmp_path, "kafka", "{name: kafka, brokers: [a:9092, b:9092], topic: mine, password: os.environ/KEY}"
    )
    exporter = tree["exporters"]["kafka"]
    assert (exporter["brokers"], exporter["traces"]["topic"]) == (["a:9092", "b:9092"], "mine")


@pytest.mark.parametrize(
    ("target", "destination", "place", "expected"),
    [
        ("datadog", "name: datadog, site: datadoghq.eu", "traces_endpoint", "https://otlp.datadoghq.eu/v1/traces"),
        (
            "datadog",
            "name: datadog_llm_observability, site: us5.datadoghq.com",
            "traces_endpoint",
            "https://otlp.us5.datadoghq.com/v1/traces",
        ),
        (
            "langfuse",
            f'name: langfuse, endpoint: "https://u:{CANARY}@lf.example/?k={CANARY}", public_key: pk-lf-1',
            "endpoint",
            "https://lf.example/api/public/otel",
        ),
        (
            "langfuse",
            'name: langfuse, endpoint: "https://lf.example/api/public/otel/v1/traces", public_key: pk-lf-1',
            "endpoint",
            "https://lf.example/api/public/otel",
        ),
        (
            "langfuse",
            "name: langfuse, region: us, public_key: pk-lf-1",
            "endpoint",
            "https://us.cloud.langfuse.com/api/public/otel",
        ),
        ("phoenix", 'name: phoenix, endpoint: "https://p.example/v1/traces"', "endpoint", "https://p.example"),
    ],
)
def test_a_platform_is_the_users_own(target: str, destination: str, place: str, expected: str, tmp_path: Path) -> None:
    key = "secret_key" if target == "langfuse" else "api_key"
    tree, text = rendered(tmp_path, target, f"{{{destination}, {key}: os.environ/KEY}}")
    assert tree["exporters"][f"otlp_http/{target}"][place] == expected
    assert "sends on to where the destination" in text


def test_a_project_of_phoenix_is_the_users_own(tmp_path: Path) -> None:
    tree, _ = rendered(tmp_path, "phoenix", "{name: phoenix, project: mine}")
    (statement,) = tree["processors"]["transform"]["trace_statements"]
    assert statement == 'set(resource.attributes["openinference.project.name"], "mine")'


def test_a_dollar_of_the_users_is_no_variable_of_the_collectors(tmp_path: Path) -> None:
    _, text = rendered(tmp_path, "s3", '{name: s3, bucket: "a${env:HOME}b", region: x}')
    assert "a$${env:HOME}b" in text


@pytest.mark.parametrize("target", TARGETS)
def test_the_collector_takes_what_is_printed_for_a_users_config(target: str, tmp_path: Path) -> None:
    text = render(
        settings(
            tmp_path,
            '{name: otlp_http/near, endpoint: "http://127.0.0.1:4318", headers: {x-key: os.environ/KEY}}',
            '{name: otlp_http/far, endpoint: "https://far.example/otel/v1/traces", headers: {x-key: os.environ/KEY}}',
            '{name: otlp_grpc/far, endpoint: "https://far.example:4317", headers: {x-key: os.environ/KEY}}',
            '{name: elasticsearch, endpoint: "https://es.example:9243", api_key: os.environ/KEY}',
            "{name: kafka, brokers: [a:9092, b:9092], topic: mine, password: os.environ/KEY}",
            "{name: s3, bucket: mine, region: eu-west-1, secret_access_key: os.environ/KEY, access_key_id: a}",
            "{name: langfuse, public_key: pk-lf-1, secret_key: os.environ/KEY, region: us}",
            "{name: datadog, api_key: os.environ/KEY, site: datadoghq.eu}",
            "{name: phoenix, api_key: os.environ/KEY, project: mine}",
        ),
        target,
    )
    path = tmp_path / "collector.yaml"
    path.write_text(text)
    env = {**os.environ, "OTELCOL_TLS_CERT": "server.pem", "OTELCOL_TLS_KEY": "server.key"}
    command = [require("collector"), "validate", "--config", path]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert run.returncode == 0, run.stderr
    assert CANARY not in text


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(tmp_path, '{name: otlp_grpc, endpoint: "http://127.0.0.1:14317"}')
    path = tmp_path / "config.yaml"
    assert cli.main(["collector", "render", "--config", str(path), "--to", "jaeger"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert protocols(tree)["grpc"]["endpoint"] == "127.0.0.1:14317"
