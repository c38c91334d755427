"""The report of otelgw check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otelgw.config.check import check

WARNED = """\
model_list:
  - model_name: a
    litellm_params: {model: gpt-4o, rpm: 3}
litellm_settings: {callbacks: [humanloop], drop_param: true, cache: true}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def test_a_good_config_is_summed_up(config: Path) -> None:
    config.write_text("general_settings: {master_key: k}\notelgw: {destinations: [console], content: false}\n")
    report = check(str(config), {})
    assert report.ok
    assert report.summary == "models: echo  destinations: console  auth: on  content: off"


def test_what_warns_at_start_is_an_error_when_strict(config: Path) -> None:
    config.write_text(WARNED)
    plain, strict = check(str(config), {}), check(str(config), {}, strict=True)
    assert plain.ok
    assert not strict.ok
    assert len(strict.errors) == 3
    for part in ("no key: set api_key", "the destination `humanloop` is not available", "did you mean `drop_params`?"):
        assert any(part in line for line in plain.warnings)
        assert any(part in line for line in strict.errors)
    assert len(plain.not_enforced) == len(plain.ignored) == 1


def test_what_was_read_comes_along(config: Path) -> None:
    config.write_text("otelgw: {destinations: [console/mine]}\n")
    settings = check(str(config), {}).settings
    assert settings is not None
    assert [each.name for each in settings.destinations] == ["console/mine"]


def test_a_collectors_config_is_told_apart_and_what_checks_it(config: Path) -> None:
    recipe = Path(__file__).parents[2] / "otel-collector-config.yaml"
    first, *others = check(str(recipe), {}).warnings
    kind = "this is an OpenTelemetry Collector's config, not a gateway's"
    assert first == f"{recipe}: {kind}: `otelgw collector check {recipe}` checks it"
    assert [each for each in others if "unknown key" in each] == []
    assert not check(str(recipe), {}, strict=True).ok
    config.write_text("exporters: {debug: {}}\nmodel_list: []\n")  # one of its sections makes none of it
    assert "exporters: unknown key" in check(str(config), {}).warnings[0]


def test_an_unreadable_file_is_reported_not_raised(config: Path) -> None:
    report = check(str(config), {})
    assert not report.ok
    assert report.settings is None
    assert "cannot be read: No such file or directory" in report.errors[0]


def test_checking_does_not_wait_for_the_price_list(config: Path) -> None:
    config.write_text(WARNED)
    code = (
        f"import sys; from otelgw.config.check import check; check({str(config)!r}, {{}}); "
        "print('genai_prices' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_wrong_value_or_a_missing_key_hides_no_other_problem_of_its_section(config: Path) -> None:
    config.write_text(
        "model_list:\n"
        "  - model_name: a\n"
        "    litellm_param: {model: echo}\n"
        "litellm_settings:\n"
        "  turn_off_message_logging: maybe\n"
        "  callbacks: [oteel]\n"
        "  sucess_callback: [otel]\n"
        "general_settings: {pass_through: [fils], store_model_in_db: true}\n"
    )
    report = check(str(config), {})
    found = (*report.errors, *report.warnings, *report.ignored)
    assert [line.removeprefix(f"{config}:").partition(" ")[2].partition(";")[0] for line in found] == [
        "model_list[0].litellm_params: is required",
        "litellm_settings.turn_off_message_logging: must be a valid boolean, unable to interpret input",
        "litellm_settings.callbacks[0]: unknown callback `oteel`",
        "general_settings.pass_through[0]: must be 'files', 'batches', 'uploads', 'vector_stores' or 'fine_tuning'",
        "model_list[0].litellm_param: unknown key",
        "litellm_settings.sucess_callback: unknown key",
        "general_settings.store_model_in_db: known, without effect in this version",
    ]
