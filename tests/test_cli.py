"""The command line as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otelgw import __version__
from otelgw.cli import main

ROOT = Path(__file__).parents[1]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with nothing of the developer's environment."""
    kept = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "otelgw.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_list: [{model_name: a, litellm_params: {model: gpt-4o-mini}}]\notelgw: {destinations: [console]}\n"
    )
    return path


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"otelgw {__version__}\n"


def test_the_version_needs_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("pydantic", "yaml", "httpx", "genai_prices", "grpc", "opentelemetry")
    code = (
        "import sys; from otelgw.cli import main; main(['--version']); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("serve", "check", "test", "models", "destinations", "schema", "completion"):
        assert command in shown


def test_a_good_config_checks_with_status_0(config: Path, tmp_path: Path) -> None:
    found = run("check", "--config", str(config), cwd=tmp_path)
    assert found.returncode == 0
    assert "models: a  destinations: console  auth: off  content: on" in found.stdout
    assert found.stderr == ""


@pytest.mark.parametrize("spelling", [["-c"], ["-config"], ["--config"]])
def test_the_config_flag_has_litellms_spellings(config: Path, tmp_path: Path, spelling: list[str]) -> None:
    config.write_text("otelgw: {a: 1}")
    found = run("check", *spelling, str(config), cwd=tmp_path)
    assert found.returncode == 2
    assert f"error: {config}:1: otelgw.a: unknown key" in found.stdout


def test_strict_turns_warnings_into_status_2(config: Path, tmp_path: Path) -> None:
    assert run("check", "-c", str(config), cwd=tmp_path).returncode == 0
    for found in (
        run("check", "-c", str(config), "--strict", cwd=tmp_path),
        run("check", "-c", str(config), cwd=tmp_path, OTELGW_STRICT="true"),
    ):
        assert found.returncode == 2
        assert "error: " in found.stdout
    assert run("check", "-c", str(config), cwd=tmp_path, OTELGW_STRICT="perhaps").returncode == 2


@pytest.mark.parametrize("arguments", [["serve"], [], ["-config"]])
def test_a_broken_config_never_serves(config: Path, tmp_path: Path, arguments: list[str]) -> None:
    config.write_text("model_list:\n - model_name: a\n    litellm_params:\n      model: a\n")
    flags = [str(config)] if arguments == ["-config"] else ["--config", str(config)]
    found = run(*arguments, *flags, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith(f"error: {config}:2: not YAML: ")
    assert 'write "  - model_name: a"' in found.stderr


def test_an_open_bind_without_a_key_exits_2(tmp_path: Path) -> None:
    found = run("--host", "0.0.0.0", cwd=tmp_path)
    assert found.returncode == 2
    assert "set general_settings.master_key" in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["serve", "--bogus"], ["--port", "x"], ["check", "extra"], ["completion"], ["completion", "tcsh"],
     ["destinations", "nowhere"], ["--server", "gunicorn"], ["--con", "x"], ["collector", "check", "one", "two"]],
)  # fmt: skip
def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prot", "canary-0123"], "otelgw serve: error: there is no flag --prot; did you mean --port?"),
        (["serve", "--bogus=canary-0123"], "otelgw serve: error: there is no flag --bogus"),
        (["check", "--strct"], "otelgw check: error: there is no flag --strct; did you mean --strict?"),
        (["check", "c.yaml"], "one word too many: c.yaml; the config file is named by --config"),
        (["models", "--config", "c.yaml", "more"], "one word too many: more"),
    ],
)
def test_a_slip_is_told_with_the_commands_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"usage: otelgw {arguments[0] if arguments[0][0] != '-' else 'serve'} [-h] [--config X]")
    assert said in told
    assert "canary" not in told


def test_a_misspelt_variable_is_warned_of_before_anything_starts(config: Path, tmp_path: Path) -> None:
    found = run("check", "--config", str(config), cwd=tmp_path, OTELGW_PROT="4001")
    assert found.returncode == 0
    assert "warning: OTELGW_PROT: nothing reads this variable; did you mean OTELGW_PORT?" in found.stdout


@pytest.mark.parametrize("arguments", [["test"], ["--test"], ["--test", "--debug"]])
def test_a_gateway_that_is_not_there_exits_1(tmp_path: Path, arguments: list[str]) -> None:
    found = run(*arguments, cwd=tmp_path, OTELGW_PORT="1")
    assert found.returncode == 1
    assert found.stderr.startswith("error: http://127.0.0.1:1: ")


def test_models_are_listed_with_their_prices(config: Path, tmp_path: Path) -> None:
    found = run("models", "-c", str(config), cwd=tmp_path)
    assert found.returncode == 0
    head, row = found.stdout.splitlines()
    assert head.split()[0] == "MODEL"
    assert row.startswith("a ")
    assert "openai" in row
    assert "0.15 in, 0.6 out" in row


def test_destinations_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["destinations"]) == 0
    listed = capsys.readouterr().out
    assert {line.split()[0] for line in listed.splitlines()[1:]} >= {"console", "otlp_grpc", "otlp_http"}
    assert any(line.split()[:3] == ["langfuse", "langfuse,", "langfuse_otel"] for line in listed.splitlines())
    assert any(line.split()[:2] == ["gcs_bucket", "gcs_bucket"] for line in listed.splitlines())
    assert main(["destinations", "otlp_grpc"]) == 0
    shown = capsys.readouterr().out
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in shown
    assert "compression" in shown


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert "otelgw" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "otelgw" in capsys.readouterr().out


def test_nothing_is_coloured_where_nobody_looks(config: Path, tmp_path: Path) -> None:
    config.write_text("otelgw: {a: 1}")
    assert "\033" not in run("check", "-c", str(config), cwd=tmp_path).stdout


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_no_color_is_set(config: Path, no_color: str, coloured: bool) -> None:
    config.write_text("otelgw: {a: 1}")
    reading, writing = os.openpty()
    try:
        command = [sys.executable, "-m", "otelgw.cli", "check", "-c", str(config)]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "NO_COLOR": no_color}
        subprocess.run(command, cwd=ROOT, env=environment, stdout=writing, check=False)
        assert (b"\033[31merror" in os.read(reading, 65536)) is coloured
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    "arguments",
    [["check", "{file}", "--otelcol", "{program}"], ["check", "--otelcol", "{program}", "{file}"],
     ["--otelcol", "{program}", "check", "{file}"]],
)  # fmt: skip
def test_a_file_may_stand_before_and_after_the_flags(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    program, file = tmp_path / "otelcol", tmp_path / "collector.yaml"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    file.write_text(
        "receivers: {otlp: {protocols: {http: {}}}}\nexporters: {debug: {}}\n"
        "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n"
    )
    assert main(["collector", *(each.format(file=file, program=program) for each in arguments)]) == 0
    assert f"{file} is valid" in capsys.readouterr().out


def test_a_closed_pipe_is_no_accident(tmp_path: Path) -> None:
    command = f"{sys.executable} -m otelgw.cli schema | head -c 1"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    found = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.stdout == "{"
    assert found.stderr == ""
