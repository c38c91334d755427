"""Files, .env and the environment."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from otelgw.config.flags import Flags
from otelgw.config.load import examine, load
from otelgw.errors import ConfigError
from otelgw.tracing.record import Price
from tests.config.conftest import Examine

MODEL = """\
model_list:
  - model_name: a
    litellm_params: {model: openai/a, api_key: os.environ/KEY, organization: "os.environ/ORG-x"}
"""


def auth(outcome: object) -> bytes:
    return outcome.settings.deployments[0].auth[0][1]  # type: ignore[attr-defined, no-any-return]


def test_references_are_resolved_anywhere_in_a_value(examine_text: Examine) -> None:
    outcome = examine_text(MODEL, {"KEY": " sk-1\n", "ORG": "o"})
    assert outcome.findings.errors == ()
    assert auth(outcome) == b"Bearer sk-1"
    assert outcome.settings.deployments[0].headers == ((b"openai-organization", b"o-x"),)


@pytest.mark.parametrize("environment", [{}, {"KEY": "", "ORG": " "}])
def test_a_missing_variable_is_an_error_with_path_line_and_name(
    examine_text: Examine, environment: dict[str, str]
) -> None:
    first, second = examine_text(MODEL, environment).findings.errors
    assert "config.yaml:3: model_list[0].litellm_params.api_key: the environment variable KEY is not set" in first
    assert "organization: the environment variable ORG is not set" in second


def test_a_reference_without_a_name_is_an_error(examine_text: Examine) -> None:
    (error,) = examine_text("general_settings: {master_key: os.environ/}").findings.errors
    assert "must be followed by the name of an environment variable" in error


def test_the_dotenv_beside_the_config_is_read_and_never_wins(examine_text: Examine) -> None:
    dotenv = 'KEY = "sk-file"\nexport ORG=file # comment\n'
    assert auth(examine_text(MODEL, {"ORG": "x"}, dotenv=dotenv)) == b"Bearer sk-file"
    assert auth(examine_text(MODEL, {"KEY": "sk-env"}, dotenv=dotenv)) == b"Bearer sk-env"
    assert auth(examine_text(MODEL, {"KEY": " "}, dotenv=dotenv)) == b"Bearer sk-file"


def test_a_broken_dotenv_is_an_error(examine_text: Examine) -> None:
    with pytest.raises(ConfigError, match=r"\.env:1: not an assignment"):
        examine_text(MODEL, dotenv="sk-secret")


def test_the_dotenv_gives_flags_and_standard_variables_too(examine_text: Examine) -> None:
    outcome = examine_text("{}", dotenv="OTELGW_PORT=4100\nOTEL_SERVICE_NAME=named\n")
    assert outcome.settings.server.port == 4100
    assert outcome.settings.tracing.service_name == "named"


def test_declared_variables_come_last(examine_text: Examine) -> None:
    text = MODEL + "environment_variables: {KEY: sk-declared, ORG: os.environ/OTHER, NUMBER: 3, FLAG: true}\n"
    assert auth(examine_text(text, {"OTHER": "o"})) == b"Bearer sk-declared"
    assert auth(examine_text(text, {"OTHER": "o", "KEY": "sk-env"})) == b"Bearer sk-env"
    assert any("OTHER is not set" in error for error in examine_text(text).findings.errors)
    assert examine_text("environment_variables: {A: [1]}").findings.errors
    assert examine_text("environment_variables: [A]").findings.errors


def test_the_config_may_be_named_by_flag_or_variable(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("otelgw: {server: {port: 4300}}")
    for found in (
        examine(str(path), {}, prices=False),
        examine(None, {}, Flags(config=str(path)), prices=False),
        examine(None, {"OTELGW_CONFIG": str(path)}, prices=False),
    ):
        assert found.settings.server.port == 4300
        assert found.settings.source == str(path)


@pytest.mark.parametrize("name", ["nowhere.yaml", "", "a\0b"])
def test_a_config_that_cannot_be_read_is_a_config_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load(f"{tmp_path}/{name}", {})


def test_an_empty_config_is_like_none_but_without_the_console(examine_text: Examine) -> None:
    for text in ("", "# nothing\n", "model_list:\n", "otelgw:\n", "litellm_settings:\ngeneral_settings: ~\n"):
        outcome = examine_text(text)
        assert outcome.findings.errors == ()
        assert [each.alias for each in outcome.settings.deployments] == ["echo"]
        assert outcome.settings.destinations == ()


def test_without_a_config_the_models_are_echo_and_what_there_are_keys_for() -> None:
    found = examine(
        None, {"OPENAI_API_KEY": "sk-1", "XAI_API_KEY": "sk-2", "MISTRAL_API_KEY": " "}, prices=False
    ).settings
    assert [each.alias for each in found.deployments if each.listed] == ["echo", "openai/*", "xai/*"]
    bare = {each.alias: each for each in found.deployments if not each.listed}
    assert bare["gpt-*"].model == "gpt-*"
    assert bare["grok-*"].auth == ((b"authorization", b"Bearer sk-2"),)
    assert found.source == ""
    assert len({each.id for each in found.deployments}) == len(found.deployments)


def test_a_provider_without_an_address_needs_its_variable_too() -> None:
    assert [
        each.alias
        for each in examine(None, {"AZURE_API_KEY": "k"}, prices=False).settings.deployments
        if "azure" in each.alias
    ] == []
    environment = {"AZURE_API_KEY": "k", "AZURE_API_BASE": "https://x.openai.azure.com"}
    (azure,) = [
        each for each in examine(None, environment, prices=False).settings.deployments if each.alias == "azure/*"
    ]
    assert azure.auth == ((b"api-key", b"k"),)


def test_prices_are_resolved_when_the_config_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model_list: [{model_name: a, litellm_params: {model: gpt-4o-mini, api_key: k}}]")
    assert load(str(path), {}).deployments[0].price == Price("genai-prices", "openai", "gpt-4o-mini")
    assert examine(str(path), {}, prices=False).settings.deployments[0].price is None


def test_settings_travel_to_workers_whole(examine_text: Examine) -> None:
    text = MODEL + "otelgw: {destinations: [console, {name: otlp_grpc/a, endpoint: 'http://a:4317'}]}\n"
    found = examine_text(text, {"KEY": "k", "ORG": "o"}).settings
    assert pickle.loads(pickle.dumps(found)) == found


def test_load_raises_every_problem_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("otelgw: {a: 1, b: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load(str(path), {"OTEL_SDK_DISABLED": "x"})
    assert len(caught.value.problems) == 3


def test_no_value_of_the_environment_is_in_a_message(examine_text: Examine) -> None:
    text = """\
        model_list: [{model_name: a, litellm_params: {model: openai/a, api_key: os.environ/S, rpm: os.environ/S}}]
        general_settings: {otel: os.environ/S, pass_through: os.environ/S}
        otelgw:
          server: {kind: os.environ/S, port: os.environ/S}
          destinations: [{name: otlp_http, endpoint: os.environ/S}]
        """
    findings = examine_text(text, {"S": "sk-canary with blank"}).findings
    assert len(findings.errors) == 6
    assert not any("canary" in line for line in (*findings.errors, *findings.strict, *findings.warnings))
