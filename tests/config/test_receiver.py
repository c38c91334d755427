"""The section ``otelgw.receiver``."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from otelgw.config.load import load
from otelgw.config.receiver import Address, address, leads_to
from otelgw.config.settings import Receiver
from otelgw.errors import ConfigError
from tests.config.conftest import Examine


def test_without_the_section_nothing_is_received(examine_text: Examine) -> None:
    assert examine_text("otelgw: {destinations: [console]}").settings.receiver is None


def test_an_empty_section_receives_on_the_standard_ports(examine_text: Examine) -> None:
    outcome = examine_text("otelgw: {destinations: [console], receiver: {}}")
    assert outcome.findings.errors == ()
    assert outcome.settings.receiver == Receiver("127.0.0.1:4317", "127.0.0.1:4318")


def test_every_key_reaches_the_settings(examine_text: Examine, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("x")
    outcome = examine_text(
        """
        otelgw:
          destinations: [console]
          receiver:
            grpc: "[::1]:5317"
            http: off
            token: os.environ/TOKEN
            ssl_certfile: c.pem
            ssl_keyfile: c.pem
            max_request_bytes: 4096
        """,
        {"TOKEN": "secret"},
    )
    assert outcome.findings.errors == ()
    digest = hashlib.sha256(b"secret").hexdigest()
    pem = str(tmp_path / "c.pem")
    assert outcome.settings.receiver == Receiver("[::1]:5317", "", digest, pem, pem, 4096)
    assert digest not in repr(outcome.settings)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{grpc: nonsense}", "otelgw.receiver.grpc: `nonsense` is no host:port, such as 127.0.0.1:4317"),
        ("{grpc: 4317}", "`4317` is no host:port"),
        ("{http: 'http://127.0.0.1:4318'}", "is no host:port"),
        ("{grpc: '127.0.0.1:99999'}", "otelgw.receiver.grpc"),
        ("{grpc: off, http: off}", "otelgw.receiver: gRPC and HTTP are both off"),
        ("{grpc: '127.0.0.1:1', http: '127.0.0.1:1'}", "cannot share an address"),
        ("{grpc: '0.0.0.0:4317'}", "0.0.0.0 can be reached from other machines and no token is asked for"),
        ("{token: ' '}", "otelgw.receiver.token: is blank"),
        ("{ssl_certfile: a.pem}", "certificate and key go together"),
        ("{ssl_certfile: a.pem, ssl_keyfile: a.pem}", "no such file"),
        ("{max_request_bytes: 1}", "otelgw.receiver.max_request_bytes"),
        ("{tokn: a}", "otelgw.receiver.tokn: unknown key; did you mean `token`?"),
    ],
)
def test_a_mistake_is_named_with_its_place(examine_text: Examine, section: str, message: str) -> None:
    errors = examine_text(f"otelgw: {{destinations: [console], receiver: {section}}}").findings.errors
    assert any(message in error for error in errors), errors


@pytest.mark.parametrize("extra", ["token: secret", "allow_open: true"])
def test_beyond_loopback_a_token_or_a_word_is_needed(examine_text: Examine, extra: str) -> None:
    outcome = examine_text(f"otelgw: {{destinations: [console], receiver: {{grpc: '0.0.0.0:4317', {extra}}}}}")
    assert outcome.findings.errors == ()


@pytest.mark.parametrize(
    "destination",
    [
        "otlp_grpc",
        "{name: otlp_grpc, endpoint: 'http://localhost:4317'}",
        "{name: otlp_grpc, endpoint: '127.0.0.1:4317'}",
        "{name: otlp_http, endpoint: 'http://127.0.0.1:4318/v1/traces'}",
        "{name: otlp_http/wrong_port, endpoint: 'http://127.0.0.1:4317/v1/traces'}",
    ],
)
def test_a_destination_that_leads_back_is_an_error(examine_text: Examine, destination: str) -> None:
    errors = examine_text(f"otelgw: {{destinations: [{destination}], receiver: {{}}}}").findings.errors
    assert any("leads back to the receiver's own" in error for error in errors), errors


def test_a_destination_elsewhere_is_fine(examine_text: Examine) -> None:
    text = "otelgw: {destinations: [{name: otlp_grpc, endpoint: 'http://127.0.0.1:5317'}, otlp_http], receiver: {%s}}"
    assert examine_text(text % "http: '127.0.0.1:5318'").findings.errors == ()
    assert examine_text("otelgw: {destinations: [otlp_grpc]}").findings.errors == ()


@pytest.mark.parametrize(
    ("endpoint", "host", "back"),
    [
        ("http://127.0.0.1:4317", "0.0.0.0", True),
        ("http://127.0.0.1:4317", "127.0.0.1", True),
        ("http://127.0.0.1:4317", "127.0.0.2", False),
        ("http://127.0.0.1:4318", "127.0.0.1", False),
        ("http://[::1]:4317", "::1", True),
        ("https://192.0.2.1:4317", "0.0.0.0", False),
        ("https://192.0.2.1:4317", "127.0.0.1", False),
        ("//:bad", "127.0.0.1", False),
        ("http://host:notaport", "127.0.0.1", False),
    ],
)
def test_where_an_endpoint_leads_is_told_by_address(endpoint: str, host: str, back: bool) -> None:
    assert leads_to(endpoint, Address(host, 4317)) is back


def test_the_machines_own_name_leads_to_a_wildcard_address() -> None:
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        pytest.skip("this machine's own name cannot be resolved")
    assert leads_to(f"http://{name}:4317", Address("0.0.0.0", 4317))


def test_addresses_are_read_with_ipv6_in_brackets() -> None:
    assert address("[::1]:4317") == Address("::1", 4317)
    with pytest.raises(ValueError, match="no host:port"):
        address("::1:4317:")


def test_collecting_needs_no_model_and_no_master_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: os.environ/UNSET}}]\n"
        "otelgw: {server: {host: 0.0.0.0}, destinations: [console], receiver: {grpc: '127.0.0.1:5317'}}\n"
    )
    found = load(str(path), {"HOME": str(tmp_path)}, collecting=True)
    assert found.receiver == Receiver("127.0.0.1:5317", "127.0.0.1:4318")
    assert found.deployments == ()
    assert found.state_dir == f"{tmp_path}/.local/state/otelgw/5317"


def test_collecting_has_a_receiver_without_being_told(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("otelgw: {destinations: [console]}\n")
    assert load(str(path), {"HOME": str(tmp_path)}, collecting=True).receiver == Receiver()


@pytest.mark.parametrize("environment", [{}, {"OTEL_SDK_DISABLED": "true"}])
def test_collecting_for_nobody_is_an_error(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("otelgw: {destinations: [console]}\n" if environment else "{}")
    with pytest.raises(ConfigError) as caught:
        load(str(path), {"HOME": str(tmp_path), **environment}, collecting=True)
    assert "there is nothing to collect for" in " ".join(caught.value.problems)
