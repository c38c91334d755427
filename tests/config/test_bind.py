"""How the gateway is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelgw.config.bind import is_loopback
from otelgw.config.flags import FLAGS, Flags
from tests.config.conftest import Examine


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST.", "::1", "[::1]"])
def test_loopback_names_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "", "1270.0.0.1"]
)
def test_everything_else_can_be_reached_from_elsewhere(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("flags", "environment", "port"),
    [
        (Flags(port=1), {"OTELGW_PORT": "2"}, 1),
        (Flags(), {"OTELGW_PORT": "2"}, 2),
        (Flags(), {"OTELGW_PORT": " "}, 3),
        (Flags(), {"OTELGW_PORT": "tcp://10.96.0.1:4000"}, 3),
        (Flags(port=0), {}, 0),
    ],
)
def test_a_flag_wins_over_its_variable_and_that_over_the_file(
    examine_text: Examine, flags: Flags, environment: dict[str, str], port: int
) -> None:
    outcome = examine_text("otelgw: {server: {port: 3}}", environment, flags)
    assert outcome.findings.errors == ()
    assert outcome.settings.server.port == port


def test_every_flag_of_serve_reaches_the_settings(examine_text: Examine, tmp_path: Path) -> None:
    certificate = tmp_path / "c.pem"
    certificate.write_text("x")
    environment = {
        "OTELGW_HOST": "::1",
        "OTELGW_PORT": "5000",
        "OTELGW_WORKERS": "3",
        "OTELGW_SERVER": "uvicorn",
        "OTELGW_DEBUG": "yes",
        "OTELGW_ALLOW_OPEN": "1",
        "OTELGW_SSL_CERTFILE": str(certificate),
        "OTELGW_SSL_KEYFILE": str(certificate),
    }
    outcome = examine_text("{}", environment)
    assert outcome.findings.errors == ()
    server = outcome.settings.server
    assert (server.host, server.port, server.workers, server.kind, server.log_level, server.allow_open) == (
        "::1", 5000, 3, "uvicorn", "debug", True,
    )  # fmt: skip
    assert (server.certfile, server.keyfile) == (str(certificate), str(certificate))
    assert examine_text("{}", {"OTELGW_DETAILED_DEBUG": "on"}).settings.server.log_level == "debug"
    assert {flag.variable for flag in FLAGS if "serve" in flag.commands} == {
        *environment, "OTELGW_CONFIG", "OTELGW_DETAILED_DEBUG",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"OTELGW_PORT": "http"}, "OTELGW_PORT: must be a number"),
        ({"OTELGW_PORT": "70000"}, "70000 must be between 0 and 65535"),
        ({"OTELGW_WORKERS": "0"}, "0 must be between 1 and 1024"),
        ({"OTELGW_SERVER": "gunicorn"}, "OTELGW_SERVER: must be one of hypercorn, uvicorn"),
        ({"OTELGW_ALLOW_OPEN": "maybe"}, "OTELGW_ALLOW_OPEN: must be true or false"),
        ({"OTELGW_HOST": "a b"}, "must be an address or a host name"),
        ({"OTELGW_SSL_CERTFILE": "/nowhere.pem"}, "certificate and key go together"),
        ({"OTELGW_SSL_CERTFILE": "/nowhere.pem", "OTELGW_SSL_KEYFILE": "/nowhere.pem"}, "no such file: /nowhere.pem"),
    ],
)
def test_a_malformed_variable_is_an_error(examine_text: Examine, environment: dict[str, str], part: str) -> None:
    found = examine_text("{}", environment).findings.errors
    assert any(part in error for error in found), found


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "gateway.internal"])
def test_a_bind_beyond_loopback_needs_a_master_key_or_an_explicit_word(examine_text: Examine, host: str) -> None:
    (error,) = examine_text("{}", flags=Flags(host=host)).findings.errors
    assert "set general_settings.master_key" in error
    assert examine_text("{}", flags=Flags(host=host, allow_open=True)).findings.errors == ()
    assert examine_text("general_settings: {master_key: sk-1}", flags=Flags(host=host)).findings.errors == ()
    assert examine_text("{}", {"LITELLM_MASTER_KEY": "sk-1"}, Flags(host=host)).findings.errors == ()


def test_certificates_of_the_file_are_beside_it(examine_text: Examine, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("x")
    server = examine_text("otelgw: {server: {ssl_certfile: c.pem, ssl_keyfile: c.pem}}").settings.server
    assert server.certfile == str(tmp_path / "c.pem")


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("otelgw: {state_dir: /s}", {"OTELGW_STATE_DIR": "/e"}, "/s"),
        ("otelgw: {state_dir: ~/s}", {"HOME": "/home/u"}, "/home/u/s"),
        ("{}", {"OTELGW_STATE_DIR": "/e", "STATE_DIRECTORY": "/d"}, "/e"),
        ("{}", {"STATE_DIRECTORY": "/d:/other", "XDG_STATE_HOME": "/x"}, "/d"),
        ("{}", {"XDG_STATE_HOME": "/x"}, "/x/otelgw/4000"),
        ("{}", {"XDG_STATE_HOME": "relative", "HOME": "/home/u"}, "/home/u/.local/state/otelgw/4000"),
        ("{}", {"HOME": "/home/u", "OTELGW_PORT": "5000"}, "/home/u/.local/state/otelgw/5000"),
    ],
)
def test_the_state_directory_is_found_in_order(
    examine_text: Examine, text: str, environment: dict[str, str], expected: str
) -> None:
    assert examine_text(text, environment).settings.state_dir == expected
