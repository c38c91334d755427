"""The standard variables, typed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.config.document import Document
from otelgw.config.env import VARIABLES, Environment, process_environment, read
from otelgw.config.findings import Findings

HEADERS = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def run(**variables: str) -> tuple[Environment, Findings]:
    findings = Findings(Document("c.yaml"))
    return read(variables, findings), findings


def test_an_empty_environment_says_nothing() -> None:
    environment, findings = run()
    assert environment == Environment()
    assert not findings.errors


def test_a_blank_variable_counts_as_unset() -> None:
    blank = dict.fromkeys(VARIABLES, " ")
    environment, findings = run(**blank)
    assert environment == Environment()
    assert not findings.errors


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "service.name=b"}, "service_name", "a"),
        ({"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "service.name=b,x=1"}, "resource", {"x": "1"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=b,x=1%2C2"}, "service_name", "b"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=b, x = 1%2C2 ,"}, "resource", {"x": "1,2"}),
        ({"OTEL_ENVIRONMENT_NAME": "prod"}, "resource", {"deployment.environment.name": "prod"}),
        (
            {"OTEL_ENVIRONMENT_NAME": "prod", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=dev"},
            "resource",
            {"deployment.environment.name": "dev"},
        ),
        ({"OTEL_TRACER_NAME": "t"}, "tracer_name", "t"),
        ({"OTEL_PROPAGATORS": "b3, tracecontext,b3"}, "propagators", ("b3", "tracecontext")),
        ({"OTEL_PROPAGATORS": "none"}, "propagators", ()),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, "sampler_ratio", 0.25),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "sampler", "parentbased_always_off"),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "9", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "7"}, "attribute_count_limit", 7),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "9"}, "attribute_count_limit", 9),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0"}, "attribute_length_limit", 0),
        ({HEADERS: "X-Request-Id, user-agent"}, "capture_request_headers", ("x-request-id", "user-agent")),
        ({CONTENT: "NO_CONTENT"}, "content", False),
        ({CONTENT: "EVENT_ONLY"}, "content", False),
        ({CONTENT: "false"}, "content", False),
        ({CONTENT: "SPAN_AND_EVENT"}, "content", True),
        ({CONTENT: "true"}, "content", True),
        ({"OTEL_SDK_DISABLED": "TRUE"}, "disabled", True),
        ({"OTEL_SDK_DISABLED": "false"}, "disabled", False),
    ],
)
def test_standard_variables_are_read(variables: dict[str, str], name: str, value: object) -> None:
    environment, findings = run(**variables)
    assert getattr(environment, name) == value
    assert not findings.errors


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,broken", "entry 2 (`broken`) is not key=value"),
        ("OTEL_PROPAGATORS", "tracecontxt", "did you mean `tracecontext`?"),
        ("OTEL_TRACES_SAMPLER", "always", "is not one of"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "between 0.0 and 1.0"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "between 0.0 and 1.0"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "0 or more"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "many", "must be a number"),
        (HEADERS, "x y", "is no header name"),
        (CONTENT, "NOCONTENT", "must be true, false or one of NO_CONTENT"),
        ("OTEL_SDK_DISABLED", "maybe", "must be true or false"),
    ],
)
def test_a_malformed_variable_is_an_error_that_names_it(name: str, value: str, part: str) -> None:
    _, findings = run(**{name: value})
    (error,) = findings.errors
    assert error.startswith(f"{name}: ")
    assert part in error


def test_headers_with_credentials_are_left_out_and_said_so() -> None:
    environment, findings = run(**{HEADERS: "Authorization,cookie,x-id"})
    assert environment.capture_request_headers == ("x-id",)
    assert len(findings.strict) == 2


def test_a_propagator_that_others_have_is_a_warning() -> None:
    environment, findings = run(OTEL_PROPAGATORS="tracecontext,xray")
    assert environment.propagators == ("tracecontext",)
    assert "xray" in findings.strict[0]
    assert not findings.errors


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.text(max_size=30)))
def test_hostile_variables_are_reported_never_raised(variables: dict[str, str]) -> None:
    assert isinstance(run(**variables)[0], Environment)


def test_the_process_environment_is_a_copy() -> None:
    before = dict(os.environ)
    process_environment()["OTELGW_TEST"] = "x"
    assert dict(os.environ) == before
