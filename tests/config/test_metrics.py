"""Where the metrics go by OTLP: the section and the standard variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from otelgw.config.settings import MetricsExport
from tests.config.conftest import Examine

CONSOLE = "otelgw: {destinations: [console]}"
ASKED = {"OTEL_METRICS_EXPORTER": "otlp"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
        {"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317"},
        {"OTEL_METRICS_EXPORTER": "prometheus"},
    ],
)
def test_unless_somebody_asks_nothing_is_sent(examine_text: Examine, environment: dict[str, str]) -> None:
    outcome = examine_text(CONSOLE, environment)

    assert outcome.findings.errors == ()
    assert outcome.settings.metrics is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (ASKED, MetricsExport("http://127.0.0.1:4317")),
        (ASKED | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c.example:4317"}, MetricsExport("http://c.example:4317")),
        (
            ASKED | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c.example:4318"},
            MetricsExport("http://c.example:4318/v1/metrics", "http/protobuf"),
        ),
        (
            ASKED | {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.example/otlp/"},
            MetricsExport("https://c.example/otlp/v1/metrics", "http/protobuf"),
        ),
        (
            ASKED | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json"},
            MetricsExport("http://127.0.0.1:4318/v1/metrics", "http/json"),
        ),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c.example/own", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
            MetricsExport("http://c.example/own", "http/protobuf"),
        ),
        (
            ASKED
            | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "c.example:4317",
                "OTEL_EXPORTER_OTLP_INSECURE": "true",
                "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
                "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "api-key=k%2C1",
                "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "2500",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                "OTEL_METRIC_EXPORT_INTERVAL": "1500",
            },
            MetricsExport("http://c.example:4317", "grpc", {"api-key": "k,1"}, 2.5, 1.5, "gzip"),
        ),
        (ASKED | {"OTEL_EXPORTER_OTLP_ENDPOINT": "c.example:4317"}, MetricsExport("https://c.example:4317")),
    ],
)
def test_the_standard_variables_say_where(
    examine_text: Examine, environment: dict[str, str], expected: MetricsExport
) -> None:
    outcome = examine_text(CONSOLE, environment)

    assert outcome.findings.errors == ()
    assert outcome.settings.metrics == expected


def test_the_section_goes_before_the_variables_and_takes_none_of_their_credentials(
    examine_text: Examine, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("x")
    outcome = examine_text(
        """
        otelgw:
          destinations: [console]
          metrics:
            otlp:
              endpoint: https://c.example
              protocol: http/protobuf
              timeout: 3
              interval: 15
              compression: gzip
              certificate: ca.pem
        """,
        ASKED
        | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other.example:4317",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "7000",
            "OTEL_METRIC_EXPORT_INTERVAL": "9000",
        },
    )

    assert outcome.findings.errors == ()
    pem = str(tmp_path / "ca.pem")
    expected = MetricsExport("https://c.example/v1/metrics", "http/protobuf", {}, 3.0, 15.0, "gzip", pem)
    assert outcome.settings.metrics == expected


def test_an_empty_section_turns_it_on(examine_text: Examine) -> None:
    outcome = examine_text("otelgw: {destinations: [console], metrics: {otlp: {}}}")

    assert outcome.settings.metrics == MetricsExport("http://127.0.0.1:4317")


def test_a_secret_header_is_in_no_representation(examine_text: Examine) -> None:
    text = "otelgw: {destinations: [console], metrics: {otlp: {headers: {api-key: os.environ/KEY}}}}"
    outcome = examine_text(text, {"KEY": "sk-canary-0123"})

    assert outcome.settings.metrics is not None
    assert outcome.settings.metrics.headers == {"api-key": "sk-canary-0123"}
    assert "sk-canary-0123" not in repr(outcome.settings)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_METRICS_EXPORTER": "otpl"}, "OTEL_METRICS_EXPORTER: `otpl` is not one of otlp, prometheus, none; did"),
        ({"OTEL_METRICS_EXPORTER": "console"}, "OTEL_METRICS_EXPORTER: `console` is not one of"),
        (ASKED | {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: `udp` is not"),
        (ASKED | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: expected"),
        (ASKED | {"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "OTEL_METRIC_EXPORT_INTERVAL: `soon` is no number of"),
        (ASKED | {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "sk-canary"}, "OTEL_EXPORTER_OTLP_METRICS_HEADERS: entry 1"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    examine_text: Examine, environment: dict[str, str], message: str
) -> None:
    errors = examine_text(CONSOLE, environment).findings.errors

    assert any(message in error for error in errors), errors
    assert "sk-canary" not in "".join(errors)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{endpoint: nowhere, protocol: http/json}", "otelgw.metrics.otlp.endpoint: expected a URL"),
        ("{protocol: udp}", "otelgw.metrics.otlp.protocol"),
        ("{interval: 0}", "otelgw.metrics.otlp.interval"),
        ("{certificate: a.pem}", "otelgw.metrics.otlp.certificate: no such file"),
        ("{client_key: os.environ/PEM}", "client_key and client_certificate go together"),
        ("{headers: {'a b': c}}", "otelgw.metrics.otlp.headers: 'a b' is no header name"),
        ("{endpont: x}", "otelgw.metrics.otlp.endpont: unknown key; did you mean `endpoint`?"),
    ],
)
def test_a_mistake_in_the_section_is_named_with_its_place(
    examine_text: Examine, tmp_path: Path, section: str, message: str
) -> None:
    (tmp_path / "pem").write_text("x")
    text = f"otelgw: {{destinations: [console], metrics: {{otlp: {section}}}}}"
    errors = examine_text(text, {"PEM": str(tmp_path / "pem")}).findings.errors

    assert any(message in error for error in errors), errors


def test_without_a_destination_there_is_nothing_to_count(examine_text: Examine) -> None:
    outcome = examine_text("otelgw: {metrics: {otlp: {}}}")
    told: Any = (*outcome.findings.strict, *outcome.findings.warnings)

    assert outcome.settings.metrics is None
    assert any("metrics are counted from records" in each for each in told)


def test_deltas_are_said_to_be_the_collectors(examine_text: Examine) -> None:
    environment = ASKED | {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    outcome = examine_text(CONSOLE, environment)

    assert outcome.settings.metrics is not None
    assert any("cumulativetodelta" in each for each in outcome.findings.strict)
