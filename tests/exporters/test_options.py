from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw_exporters import catalog, options
from otelgw_exporters.errors import DestinationConfigError

GRPC, HTTP, CONSOLE = catalog.row("otlp_grpc"), catalog.row("otlp_http"), catalog.row("console")
SECRET = "sk-secret-0123456789"


def test_without_variables_there_is_nothing_and_a_blank_one_is_none() -> None:
    assert options.from_environment(GRPC, {}) == {}
    assert options.from_environment(GRPC, {"OTEL_EXPORTER_OTLP_ENDPOINT": "  ", "OTEL_HEADERS": ""}) == {}


def test_a_variable_of_the_signal_prevails_over_the_general_one_and_that_over_litellms() -> None:
    env = {"OTEL_ENDPOINT": "http://c:1", "OTEL_HEADERS": "a=c"}
    assert options.from_environment(GRPC, env) == {"endpoint": "http://c:1", "headers": {"a": "c"}}
    env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}
    assert options.from_environment(GRPC, env) == {"endpoint": "http://b:1", "headers": {"a": "b"}}
    env |= {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=a"}
    assert options.from_environment(GRPC, env) == {"endpoint": "http://a:1", "headers": {"a": "a"}}


def test_all_standard_variables_are_read() -> None:
    prefix = "OTEL_EXPORTER_OTLP_"
    env = {
        f"{prefix}ENDPOINT": "https://collector.example:4317",
        f"{prefix}HEADERS": "Authorization=Bearer%20xyz, x-tenant = a%2Cb ,",
        f"{prefix}TIMEOUT": "2500",
        f"{prefix}COMPRESSION": "gzip",
        f"{prefix}CERTIFICATE": "ca.pem",
        f"{prefix}CLIENT_KEY": "client.key",
        f"{prefix}CLIENT_CERTIFICATE": "client.pem",
        f"{prefix}INSECURE": "True",
        f"{prefix}PROTOCOL": "http/json",
    }

    common = {
        "headers": {"authorization": "Bearer xyz", "x-tenant": "a,b"},
        "timeout": 2.5,
        "compression": "gzip",
        "certificate": "ca.pem",
        "client_key": "client.key",
        "client_certificate": "client.pem",
    }
    assert options.from_environment(GRPC, env) == {
        "endpoint": "https://collector.example:4317",
        "insecure": True,
        **common,
    }
    assert options.from_environment(HTTP, env) == {
        "endpoint": "https://collector.example:4317/v1/traces",
        "protocol": "http/json",
        **common,
    }


@pytest.mark.parametrize(
    ("variable", "value", "endpoint"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/", "http://c:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/", "http://c:4318/base/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/my/path", "http://c:4318/my/path"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318", "http://c:4318/"),
        ("OTEL_ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"),
        ("OTEL_ENDPOINT", "http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ("OTEL_ENDPOINT", "127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
    ],
)
def test_the_http_path_follows_the_specification(variable: str, value: str, endpoint: str) -> None:
    assert options.from_environment(HTTP, {variable: value}) == {"endpoint": endpoint}


@pytest.mark.parametrize(
    ("given_endpoint", "endpoint"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318?x=1", "http://c:4318/v1/traces?x=1"),
        ("http://c:4318/", "http://c:4318/"),
        ("http://c:4318/own", "http://c:4318/own"),
    ],
)
def test_a_configured_http_endpoint_is_the_whole_url_unless_it_has_no_path(given_endpoint: str, endpoint: str) -> None:
    assert options.resolve(HTTP, {"endpoint": given_endpoint}, {})["endpoint"] == endpoint


def test_litellms_endpoint_on_this_machine_needs_no_scheme_and_elsewhere_means_tls() -> None:
    assert options.from_environment(GRPC, {"OTEL_ENDPOINT": "127.0.0.1:4317"}) == {"endpoint": "http://127.0.0.1:4317"}
    assert options.from_environment(GRPC, {"OTEL_ENDPOINT": "c.example:4317"}) == {"endpoint": "c.example:4317"}
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317"}
    assert options.from_environment(GRPC, standard) == {"endpoint": "127.0.0.1:4317"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("10000", 10.0), ("250", 0.25), ("10", 10.0), ("99", 99.0), ("100", 0.1)]
)
def test_a_timeout_is_in_milliseconds_unless_that_makes_no_sense(text: str, seconds: float) -> None:
    assert options.from_environment(GRPC, {"OTEL_EXPORTER_OTLP_TIMEOUT": text}) == {"timeout": seconds}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-5"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "maybe"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http:/c:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:port"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "c/path"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(variable: str, value: str) -> None:
    with pytest.raises(DestinationConfigError, match=variable):
        options.from_environment(GRPC, {variable: value})


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (SECRET, "entry 1"),
        (f"a=b,Authorization: Bearer {SECRET}", "entry 2"),
        (f"a=b,,={SECRET}", "entry 3"),
        (f"bad name={SECRET}", "entry 1"),
        (f"x-key={SECRET}%0D%0Aevil: yes", "x-key"),
        (f"x-key={SECRET}%E2%82%AC", "x-key"),
    ],
)
def test_a_malformed_header_is_named_and_its_value_is_not_shown(text: str, entry: str) -> None:
    with pytest.raises(DestinationConfigError, match=entry) as failure:
        options.from_environment(GRPC, {"OTEL_EXPORTER_OTLP_HEADERS": text})

    assert "OTEL_EXPORTER_OTLP_HEADERS" in str(failure.value)
    assert SECRET not in str(failure.value)


@given(st.text(max_size=60))
def test_headers_are_read_or_refused_and_never_anything_else(text: str) -> None:
    try:
        headers = options.parse_headers(text, "HERE")
    except DestinationConfigError as error:
        assert "HERE" in str(error)  # noqa: PT017
    else:
        assert all(name == name.lower() and name and "\n" not in value for name, value in headers.items())


def test_a_url_with_a_password_is_not_shown_in_an_error() -> None:
    with pytest.raises(DestinationConfigError) as failure:
        options.resolve(GRPC, {"endpoint": f"https://user:{SECRET}@c.example:4317"}, {})

    assert SECRET not in str(failure.value)


def test_another_endpoints_credentials_are_not_taken_from_the_environment() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://a.example:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "a.pem",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }

    other = options.resolve(GRPC, {"endpoint": "https://b.example:4317"}, env)
    same = options.resolve(GRPC, {"timeout": 3}, env)

    assert (other["headers"], other["certificate"], other["compression"]) == (None, None, "gzip")
    assert (same["headers"], same["certificate"], same["timeout"]) == ({"authorization": SECRET}, "a.pem", 3.0)


def test_every_option_has_a_value_once_resolved_and_resolving_again_changes_nothing() -> None:
    for row in catalog.ROWS:
        once = options.resolve(row, {}, {})
        assert once.keys() == {option.name for option in row.options}
        assert options.resolve(row, once, {"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}) == once


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (GRPC, {"timeout": 0}),
        (GRPC, {"timeout": "3"}),
        (GRPC, {"timeout": True}),
        (GRPC, {"insecure": "perhaps"}),
        (GRPC, {"headers": ["a"]}),
        (GRPC, {"headers": {"a b": "c"}}),
        (GRPC, {"headers": {"a": None}}),
        (GRPC, {"max_request_bytes": 0}),
        (GRPC, {"max_request_bytes": "many"}),
        (GRPC, {"endpoint": 4317}),
        (GRPC, {"certificate": ""}),
        (GRPC, {"semconv": "otel-0.1"}),
        (HTTP, {"endpoint": "collector:4318"}),
        (HTTP, {"protocol": "grpc"}),
        (CONSOLE, {"format": "xml"}),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(row: catalog.Row, wrong: Mapping[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(DestinationConfigError, match=f"{row.name}: {name}"):
        options.resolve(row, wrong, {})


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({}, "otlp_grpc"),
        ({"OTEL_EXPORTER": "console"}, "console"),
        ({"OTEL_EXPORTER": "otlp_http"}, "otlp_http"),
        ({"OTEL_EXPORTER": "grpc"}, "otlp_grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER": "console"}, "otlp_http"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "otlp_grpc"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "otlp_grpc"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp_http"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.example/otlp"}, "otlp_http"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c.example/v1/traces"}, "otlp_http"),
        ({"OTEL_ENDPOINT": "127.0.0.1:4317"}, "otlp_grpc"),
        ({"OTEL_ENDPOINT": "127.0.0.1:4318"}, "otlp_http"),
    ],
)
def test_otel_stands_for_what_the_variables_say(env: Mapping[str, str], kind: str) -> None:
    assert options.otlp_type(env) == kind


def test_an_unknown_protocol_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(DestinationConfigError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL: 'thrift' .* http/protobuf"):
        options.otlp_type({"OTEL_EXPORTER_OTLP_PROTOCOL": "thrift"})


@pytest.mark.parametrize(
    ("value", "types"),
    [
        ("", ()),
        ("none", ()),
        ("console", ("console",)),
        ("otlp, console,otlp", ("otlp_grpc", "console")),
        ("otelgw_otlp_http", ("otlp_http",)),
    ],
)
def test_traces_exporter_names_destination_types(value: str, types: tuple[str, ...]) -> None:
    assert options.traces_exporter_types({"OTEL_TRACES_EXPORTER": value}) == types


def test_a_misspelt_traces_exporter_is_corrected() -> None:
    with pytest.raises(DestinationConfigError, match="did you mean 'console'"):
        options.traces_exporter_types({"OTEL_TRACES_EXPORTER": "consol"})


def test_what_there_is_is_told_where_a_name_is_not_known() -> None:
    with pytest.raises(DestinationConfigError) as refused:
        options.traces_exporter_types({"OTEL_TRACES_EXPORTER": "zzz"})
    for name in ("otlp", "console", "none", *(row.name for row in catalog.ROWS)):
        assert f" {name}" in str(refused.value)


def test_litellms_console_means_json_and_no_color_no_colours() -> None:
    assert options.from_environment(CONSOLE, {"OTEL_EXPORTER": "console"}) == {"format": "json"}
    assert options.from_environment(CONSOLE, {"OTEL_EXPORTER": "otlp_http", "NO_COLOR": "1"}) == {"color": False}


@pytest.mark.parametrize("row", catalog.ROWS, ids=lambda row: row.name)
def test_options_that_were_resolved_can_be_resolved_again(row: catalog.Row) -> None:
    resolved = options.resolve(row, {}, {})
    assert options.resolve(row, resolved, {}) == resolved
