"""Callbacks in Python, by their places, as destinations."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.config.conftest import Examine

BUCKET = "s3://bucket/folder/custom_callbacks.handler"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "custom_callbacks.py"
    path.write_text("raise SystemExit('a check runs no code')\n")
    return path


def only(examine_text: Examine, text: str, environment: dict[str, str] | None = None, **more: Any) -> Any:
    settings, findings = examine_text(text, environment, **more)
    assert findings.errors == ()
    assert findings.strict == ()
    (found,) = settings.destinations
    return found


@pytest.mark.parametrize(
    ("key", "on"), [("callbacks", "all"), ("success_callback", "success"), ("failure_callback", "failure")]
)
def test_a_callback_beside_the_config_is_a_destination(
    examine_text: Examine, module: Path, tmp_path: Path, key: str, on: str
) -> None:
    for form in ("custom_callbacks.handler", "[custom_callbacks.handler]"):
        found = only(examine_text, f"litellm_settings: {{{key}: {form}}}")
        assert (found.name, found.type, found.on) == ("callback/custom_callbacks.handler", "callback", on)
        assert found.options["target"] == "custom_callbacks.handler"
        assert found.options["directory"] == str(tmp_path)


def test_a_list_holds_callbacks_and_destinations_alike(examine_text: Examine, module: Path) -> None:
    text = "litellm_settings: {callbacks: [custom_callbacks.a, otel, custom_callbacks.b]}"
    settings, findings = examine_text(text)
    assert findings.errors == ()
    names = [destination.name for destination in settings.destinations]
    assert names == ["callback/custom_callbacks.a", "otlp_grpc", "callback/custom_callbacks.b"]


def test_a_path_and_an_installed_module_are_found(examine_text: Examine, module: Path) -> None:
    for target in (str(module.with_suffix(".handler")), "./custom_callbacks.handler", "~/custom_callbacks.handler"):
        found = only(examine_text, f"litellm_settings: {{callbacks: ['{target}']}}")
        assert found.options["target"] == str(module.with_suffix(".handler"))
    sdk = "opentelemetry.sdk.trace.export.ConsoleSpanExporter"
    assert only(examine_text, f"litellm_settings: {{callbacks: {sdk}}}").options["target"] == sdk


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("custom_callbaks.handler", "custom_callbaks.py, and no module `custom_callbaks` is installed"),
        ("/nowhere/custom_callbacks.handler", "there is no file /nowhere/custom_callbacks.py"),
        (BUCKET, "allow_remote_callbacks: [bucket]"),
        ("gcs://bucket/m.handler", "allow_remote_callbacks: [bucket]"),
        ("s3://bucket/handler", "names no callback"),
        ("s3://bucket/../m.handler", "names no callback"),
    ],
)
def test_a_callback_that_cannot_be_loaded_is_an_error_with_its_line(
    examine_text: Examine, target: str, part: str
) -> None:
    (error,) = examine_text(f"litellm_settings: {{callbacks: ['{target}']}}").findings.errors
    assert part in error
    assert "config.yaml:1: litellm_settings.callbacks[0]: " in error


@pytest.mark.parametrize("allowed", ["bucket", "s3://bucket", "[other, s3://bucket/]"])
def test_code_from_a_bucket_is_run_only_where_the_bucket_is_named(examine_text: Examine, allowed: str) -> None:
    text = f"litellm_settings: {{callbacks: ['{BUCKET}']}}\notelgw: {{allow_remote_callbacks: {allowed}}}"
    assert only(examine_text, text).name == "callback/s3-bucket-folder-custom_callbacks.handler"
    other = text.replace(f"callbacks: {allowed}", "callbacks: [gcs://bucket]")
    assert examine_text(other).findings.errors != ()


def test_a_folder_of_a_bucket_cannot_be_allowed_and_that_is_said(examine_text: Examine) -> None:
    (error,) = examine_text("otelgw: {allow_remote_callbacks: [s3://bucket/folder]}").findings.errors
    assert "otelgw.allow_remote_callbacks" in error
    assert "without a folder" in error


def test_a_callback_of_the_section_has_options_of_its_own(examine_text: Examine, module: Path) -> None:
    text = "{name: callback/mine, target: custom_callbacks.handler, timeout: 5, attempts: 1, content: false}"
    found = only(examine_text, f"otelgw: {{destinations: [{text}]}}")
    assert found.name == "callback/mine"
    assert (found.options["timeout"], found.options["attempts"], found.content) == (5.0, 1, False)


def test_its_process_has_the_variables_of_the_environment_and_of_the_file(examine_text: Examine, module: Path) -> None:
    found = only(
        examine_text,
        "litellm_settings: {callbacks: custom_callbacks.handler}\nenvironment_variables: {C: '3'}",
        {"A": "1"},
        dotenv="B=2\nA=9",
    )
    assert found.options["environment"].items() >= {"A": "1", "B": "2", "C": "3"}.items()


def test_it_is_told_the_model_info_of_each_deployment(examine_text: Examine, module: Path) -> None:
    text = """\
model_list:
  - model_name: echo
    litellm_params: {model: echo/echo}
    model_info: {id: one, mode: embedding, input_cost_per_token: 0.002}
litellm_settings: {callbacks: custom_callbacks.handler}
"""
    info = only(examine_text, text).options["model_info"]["one"]
    assert (info["mode"], info["input_cost_per_token"]) == ("embedding", 0.002)


def test_nothing_is_run_or_written_when_a_config_is_read(examine_text: Examine, module: Path, tmp_path: Path) -> None:
    module.chmod(stat.S_IRUSR)
    only(examine_text, "litellm_settings: {callbacks: custom_callbacks.handler}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "custom_callbacks.py"]
