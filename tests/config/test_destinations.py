"""Callbacks, the section's destinations and the environment -> destinations."""

from __future__ import annotations

from typing import Any

import pytest

from otelgw.config.load import Outcome, examine
from otelgw.config.settings import Destination
from tests.config.conftest import Examine

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def names(outcome: Outcome) -> list[str]:
    return [destination.name for destination in outcome.settings.destinations]


@pytest.fixture
def only(examine_text: Examine) -> Any:
    def run(text: str, environment: dict[str, str] | None = None) -> Destination:
        settings, findings = examine_text(text, environment)
        assert findings.errors == ()
        (destination,) = settings.destinations
        return destination

    return run


@pytest.mark.parametrize(
    "text",
    [
        "litellm_settings: {callbacks: [otel]}",
        "litellm_settings: {callbacks: otel}",
        "litellm_settings: {success_callback: otel, failure_callback: [otel]}",
        "general_settings: {otel: True}",
        "litellm_settings: {callbacks: [otlp_grpc]}",
        "litellm_settings: {callbacks: [otel]}\ngeneral_settings: {otel: true}",
    ],
)
def test_otel_is_one_otlp_destination(only: Any, text: str) -> None:
    destination = only(text)
    assert (destination.name, destination.type, destination.on) == ("otlp_grpc", "otlp_grpc", "all")
    assert destination.options["endpoint"] == "http://127.0.0.1:4317"


@pytest.mark.parametrize(
    ("key", "on"), [("callbacks", "all"), ("success_callback", "success"), ("failure_callback", "failure")]
)
def test_the_kind_of_callback_says_which_outcomes_are_sent(only: Any, key: str, on: str) -> None:
    assert only(f"litellm_settings: {{{key}: [otel]}}").on == on


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OTEL_EXPORTER": "console"}, ["console"]),
        ({"OTEL_EXPORTER": "otlp_http"}, ["otlp_http"]),
        ({"OTEL_EXPORTER": "grpc"}, ["otlp_grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER": "grpc"}, ["otlp_http"]),
        ({ENDPOINT: "http://c:4317"}, ["otlp_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "console"}, ["console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, ["otlp_grpc", "console"]),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_EXPORTER": "console", ENDPOINT: "http://c:4317"}, ["console", "otlp_grpc"]),
    ],
)
def test_otel_means_what_the_standard_variables_say(
    examine_text: Examine, environment: dict[str, str], expected: list[str]
) -> None:
    outcome = examine_text("litellm_settings: {callbacks: [otel]}", environment)
    assert names(outcome) == expected
    assert outcome.findings.errors == ()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({ENDPOINT: " "}, []),
        ({ENDPOINT: "http://c:4317"}, ["otlp_grpc"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ["otlp_http"]),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "otelgw_console"}, ["console"]),
        ({"OTEL_EXPORTER": "console"}, []),
    ],
)
def test_the_environment_alone_counts_as_a_destination(
    examine_text: Examine, environment: dict[str, str], expected: list[str]
) -> None:
    assert names(examine_text("litellm_settings: {}", environment)) == expected


def test_an_unknown_exporter_in_the_environment_is_an_error(examine_text: Examine) -> None:
    outcome = examine_text("litellm_settings: {callbacks: [otel]}", {"OTEL_TRACES_EXPORTER": "consle"})
    assert len([error for error in outcome.findings.errors if "OTEL_TRACES_EXPORTER" in error]) >= 1


def test_without_a_config_spans_go_to_the_console_unless_the_environment_says_otherwise() -> None:
    assert names(examine(None, {}, prices=False)) == ["console"]
    assert names(examine(None, {ENDPOINT: "http://c:4317"}, prices=False)) == ["otlp_grpc"]
    assert names(examine(None, {"OTEL_TRACES_EXPORTER": "none"}, prices=False)) == []


def test_no_destination_disables_recording_and_says_how_to_add_one(examine_text: Examine) -> None:
    settings, findings = examine_text("model_list: []")
    assert settings.tracing.disabled
    (warning,) = findings.warnings
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in warning
    assert "otelgw: {destinations: [console]}" in warning


def test_a_disabled_sdk_records_nothing_and_is_not_warned_about(examine_text: Examine) -> None:
    settings, findings = examine_text("otelgw: {destinations: [console]}", {"OTEL_SDK_DISABLED": "true"})
    assert settings.tracing.disabled
    assert findings.warnings == ()


SEVERAL = """\
otelgw:
  destinations:
    - console
    - name: otlp_grpc/a
      endpoint: http://a:4317
      headers: {authorization: Bearer os.environ/A_TOKEN}
      compression: gzip
      timeout: 3
      content: false
      sampling: parent
      semconv: otel-1.36
      on: failure
      redact_user_api_key_info: true
    - {name: otlp_http/b, endpoint: 'https://b.example'}
"""


def test_any_number_of_destinations_each_with_its_own_options(examine_text: Examine) -> None:
    settings, findings = examine_text(SEVERAL, {"A_TOKEN": "sk-a"})
    assert findings.errors == ()
    console, a, b = settings.destinations
    assert (console.name, console.on, console.content, console.sampling, console.semconv) == (
        "console", "all", True, "all", "otel",
    )  # fmt: skip
    assert (a.name, a.type, a.on, a.content, a.sampling, a.semconv) == (
        "otlp_grpc/a", "otlp_grpc", "failure", False, "parent", "otel-1.36",
    )  # fmt: skip
    assert a.redact_user_api_key_info
    assert (a.options["endpoint"], a.options["compression"], a.options["timeout"]) == ("http://a:4317", "gzip", 3.0)
    assert a.options["headers"] == {"authorization": "Bearer sk-a"}
    assert b.options["endpoint"] == "https://b.example/v1/traces"
    assert "sk-a" not in repr(settings)


def test_the_environments_credentials_do_not_reach_a_destination_with_its_own_endpoint(examine_text: Examine) -> None:
    environment = {"A_TOKEN": "x", ENDPOINT: "http://env:4317", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret"}
    outcome = examine_text(SEVERAL, environment)
    by_name = {each.name: each for each in outcome.settings.destinations}
    assert sorted(by_name) == ["console", "otlp_grpc", "otlp_grpc/a", "otlp_http/b"]
    assert by_name["otlp_http/b"].options["headers"] is None
    assert by_name["otlp_grpc"].options["headers"] == {"authorization": "secret"}
    assert by_name["otlp_grpc"].options["endpoint"] == "http://env:4317"


def test_a_destination_without_an_endpoint_stands_for_the_environments(examine_text: Examine) -> None:
    outcome = examine_text(
        "otelgw: {destinations: [{name: otlp_grpc/main, timeout: 2}]}", {ENDPOINT: "http://env:4317"}
    )
    assert names(outcome) == ["otlp_grpc/main"]
    assert outcome.settings.destinations[0].options["endpoint"] == "http://env:4317"


def test_the_environments_destination_is_named_apart_from_a_configured_one(examine_text: Examine) -> None:
    text = "otelgw: {destinations: [{name: otlp_grpc, endpoint: 'http://own:4317'}]}"
    assert names(examine_text(text, {ENDPOINT: "http://env:4317"})) == ["otlp_grpc", "otlp_grpc/environment"]


def test_the_section_configures_what_a_callback_names(examine_text: Examine) -> None:
    text = "litellm_settings: {success_callback: otel}\notelgw: {destinations: [{name: otlp_grpc, endpoint: 'http://x:1'}]}"
    outcome = examine_text(text)
    assert names(outcome) == ["otlp_grpc"]
    assert outcome.settings.destinations[0].options["endpoint"] == "http://x:1"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("otelgw: {destinations: [consol]}", "destinations[0].name: unknown destination type `consol`"),
        ("otelgw: {destinations: [{endpoint: x}]}", "destinations[0].name: is required"),
        ("otelgw: {destinations: [Console]}", "must be `type` or `type/name`"),
        ("otelgw: {destinations: [3]}", "must be `key: value` pairs"),
        ("otelgw: {destinations: [console, console]}", "two destinations are called console"),
        ("otelgw: {destinations: [{name: console, contnet: false}]}", "contnet: unknown key; did you mean `content`?"),
        ("otelgw: {destinations: [{name: console, frmat: json}]}", "has no option 'frmat'; did you mean 'format'?"),
        ("otelgw: {destinations: [{name: console, format: xml}]}", "destinations[0].format: "),
        ("otelgw: {destinations: [{name: console, semconv: nope}]}", "destinations[0].semconv: "),
        ("otelgw: {destinations: [{name: console, on: never}]}", "on: must be 'all', 'success' or 'failure'"),
        ("otelgw: {destinations: [{name: otlp_grpc, timeout: soon}]}", "destinations[0].timeout: "),
        ("otelgw: {destinations: [{name: otlp_grpc, certificate: nope.pem}]}", "certificate: no such file: "),
        ("otelgw: {destinations: [{name: otlp_grpc, headers: {a: os.environ/NOPE}}]}", "headers.a: the environment"),
        ("litellm_settings: {callbacks: [otell]}", "callbacks[0]: unknown callback `otell`; did you mean `otel`?"),
        ("litellm_settings: {callbacks: [presidio]}", "content would be recorded unmasked"),
        ("litellm_settings: {callbacks: {a: b}}", "callbacks: must be a valid list"),
        ("callback_settings: {otell: {message_logging: false}}", "unknown callback; did you mean `otel`?"),
        ("callback_settings: {otel: {mesage_logging: false}}\nlitellm_settings: {callbacks: otel}", "did you mean"),
        ("callback_settings: []", "callback_settings: must be"),
        ("callback_settings: {otel: {message_logging: perhaps}}", "must be a valid boolean"),
    ],
)
def test_a_mistake_is_an_error_with_its_line(examine_text: Examine, text: str, part: str) -> None:
    found = examine_text(text).findings.errors
    assert any(part in error and "config.yaml" in error for error in found), found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("console", "must be a list, also of one: `destinations: [console]`"),
        ("s3/second", "must be a list, also of one: `destinations: [s3/second]`"),
        ("{name: s3, secret_access_key: canary-0123}", "must be a list, also of one: `- name: …`, and its options"),
        ("console canary-0123", "must be a list, also of one: `- name: …`, and its options below"),
    ],
)
def test_one_destination_without_its_list_is_told_how_to_be_one(examine_text: Examine, value: str, said: str) -> None:
    (error,) = examine_text(f"otelgw:\n  destinations: {value}\n").findings.errors
    assert "config.yaml:2: otelgw.destinations: " + said in error
    assert "canary" not in error


def test_every_bad_destination_is_reported_at_once(examine_text: Examine) -> None:
    found = examine_text("otelgw: {destinations: [consol, {name: console, format: 1}, {name: x}]}").findings.errors
    assert len(found) == 3


@pytest.mark.parametrize("callback", ["humanloop", "promptlayer", "argilla"])
def test_a_destination_of_a_later_version_is_a_clear_warning(examine_text: Examine, callback: str) -> None:
    for text in (f"litellm_settings: {{callbacks: [{callback}]}}", f"otelgw: {{destinations: [{callback}]}}"):
        outcome = examine_text(text)
        assert names(outcome) == []
        assert outcome.findings.errors == ()
        message = f"the destination `{callback}` is not available in this version; nothing is sent there"
        assert outcome.findings.strict[0].endswith(message)


def test_what_is_built_in_is_said_and_is_no_destination(examine_text: Examine) -> None:
    outcome = examine_text("litellm_settings: {callbacks: [prometheus]}")
    assert names(outcome) == []
    assert (outcome.findings.errors, outcome.findings.strict) == ((), ())
    assert any("`/metrics` is always there" in line for line in outcome.findings.ignored)


@pytest.mark.parametrize("environment", [{}, {"OTEL_EXPORTER": "console"}, {"OTEL_EXPORTER": "otlp_http"}])
def test_message_logging_off_withholds_content_from_what_otel_means(only: Any, environment: dict[str, str]) -> None:
    text = "litellm_settings: {callbacks: [otel]}\ncallback_settings: {otel: {message_logging: False}}"
    assert only(text, environment).content is False


def test_message_logging_off_reaches_the_environments_destination(only: Any) -> None:
    assert only("callback_settings: {otel: {message_logging: no}}", {ENDPOINT: "http://c:4317"}).content is False


def test_message_logging_off_is_about_one_destination(examine_text: Examine) -> None:
    text = """\
        litellm_settings: {callbacks: [otel]}
        callback_settings: {otel: {message_logging: false}, langfuse: {message_logging: false}}
        otelgw: {destinations: [console]}
        """
    outcome = examine_text(text)
    assert {each.name: each.content for each in outcome.settings.destinations} == {"console": True, "otlp_grpc": False}
    assert "callback_settings.langfuse" in outcome.findings.ignored[0]


def test_message_logging_on_does_not_undo_content_off(only: Any) -> None:
    text = """\
        otelgw: {destinations: [{name: otlp_grpc, content: false}]}
        callback_settings: {otel: {message_logging: true}}
        """
    assert only(text).content is False


def test_redaction_of_the_caller_reaches_every_destination(examine_text: Examine) -> None:
    text = "litellm_settings: {callbacks: [otel], redact_user_api_key_info: true}\notelgw: {destinations: [console]}"
    assert all(each.redact_user_api_key_info for each in examine_text(text).settings.destinations)


@pytest.mark.parametrize(
    ("environment", "section", "sampling"),
    [
        ({}, "", "all"),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}, "", "parent"),
        ({}, "sampler: always_off,", "parent"),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, "", "all"),
    ],
)
def test_a_sampler_makes_destinations_obey_it(
    examine_text: Examine, environment: dict[str, str], section: str, sampling: str
) -> None:
    text = f"otelgw: {{{section} destinations: [console, {{name: otlp_grpc, sampling: all}}]}}"
    console, otlp = examine_text(text, environment).settings.destinations
    assert (console.sampling, otlp.sampling) == (sampling, "all")
