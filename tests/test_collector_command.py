"""``otelgw collector check``: with the real Collector, with one that is named, and without any."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otelgw import cli
from otelgw.collector_command import check, find_program
from otelgw.errors import ConfigError
from tests.servers import require

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/how-to/opentelemetry-collector.md"
SEED = ROOT.parent / "shared/seeds/litellm-proxy-logging-2023.md"
BROKEN = {
    "unknown component": ("exporters: {nosuch/a: {}}", "exporters.nosuch/a: unknown component"),
    "missing endpoint": ("exporters: {otlp_http: {}}", "exporters.otlp_http.endpoint: missing"),
    "a reference to nothing": ("exporters: {debug: {}}", "service.pipelines.traces.exporters: gone is not defined"),
    "a removed exporter": ("exporters: {logging: {loglevel: debug}}", "exporters.logging: removed; use debug"),
    "an older one": ("exporters: {jaeger: {endpoint: x}}", "exporters.jaeger: removed; Jaeger takes OTLP"),
}
# Only the program knows these.
REFUSED = {
    "an unknown key": ("exporters: {debug: {loglevel: debug}}", "exporters.debug: has invalid keys: loglevel"),
    "a wrong value": (
        "exporters: {debug: {verbosity: loud}}",
        'exporters.debug.verbosity: unknown metrics level "loud"',
    ),
    "no directory": (
        "exporters: {debug: {}}\nextensions: {file_storage: {directory: /nonexistent}}",
        "extensions.file_storage: directory must exist",
    ),
}


def written(directory: Path, exporters: str, *, reference: str = "") -> str:
    name = reference or exporters.partition("{")[2].partition(":")[0]
    path = directory / "collector.yaml"
    path.write_text(
        f"receivers: {{otlp: {{protocols: {{grpc: {{}}}}}}}}\n{exporters}\n"
        f"service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [{name}]}}}}}}\n"
    )
    return str(path)


@pytest.fixture(params=["with", "without"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a Collector, and of one without."""
    bare = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    return bare | ({"OTELGW_OTELCOL": str(require("collector"))} if request.param == "with" else {})


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_config_is_refused_with_the_path_of_the_fault(
    case: str, environment: dict[str, str], tmp_path: Path
) -> None:
    exporters, fault = BROKEN[case]
    path = written(tmp_path, exporters, reference="gone" if "gone" in fault else "")
    with pytest.raises(ConfigError) as caught:
        check(path, environment.get("OTELGW_OTELCOL", ""), environment)
    assert any(problem.startswith(f"{path}: {fault}") for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("case", REFUSED)
def test_what_only_the_collector_knows_is_told_with_its_path(case: str, tmp_path: Path) -> None:
    exporters, fault = REFUSED[case]
    path = written(tmp_path, exporters)
    with pytest.raises(ConfigError) as caught:
        check(path, str(require("collector")), {"PATH": ""})
    assert any(problem.startswith(f"{path}: {fault}") for problem in caught.value.problems), caught.value.problems


def test_the_config_of_2023_is_refused_until_it_is_mended_as_the_page_says(tmp_path: Path) -> None:
    if not SEED.is_file():
        pytest.skip("the seeds are not beside the repository")
    (old,) = re.findall(r"```yaml\n(receivers:.*?)```", SEED.read_text(), re.DOTALL)
    path = tmp_path / "old.yaml"
    path.write_text(old)
    with pytest.raises(ConfigError) as caught:
        check(str(path), str(require("collector")), {"PATH": ""})
    removed = "exporters.logging: removed; use debug, with verbosity instead of loglevel"
    assert caught.value.problems[0] == f"{path}: {removed}"
    page = PAGE.read_text()
    settings = {word.strip(" \"'") for word in re.split(r"[\[\],\n]|: ?", old)}
    assert [word for word in settings if word not in page] == []  # each is in the page's table
    mended = {"logging:": "debug:", "loglevel: debug": "verbosity: detailed", "logging": "debug"}
    for before, after in mended.items():
        old = old.replace(before, after)
    path.write_text(old)
    assert check(str(path), str(require("collector")), {"PATH": ""}).by  # what else is wrong no program can tell


def test_a_good_config_is_valid_and_it_is_said_who_says_so(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "exporters: {debug: {}}")
    for name in ("PATH", "HOME", "OTELGW_OTELCOL", "OTELGW_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["collector", "check", path]) == 0
    said = capsys.readouterr().out
    if program := environment.get("OTELGW_OTELCOL"):
        assert f"is valid, says {program}" in said
    else:
        assert "only YAML, component names and the pipelines' references were checked" in said


def test_variables_that_are_not_set_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, 'exporters: {debug: {verbosity: "${env:LEVEL}"}}')
    assert check(path, "", {"PATH": "", "HOME": str(tmp_path)}).notes == ("not set here: LEVEL",)
    assert check(path, "", {"PATH": "", "HOME": str(tmp_path), "LEVEL": "basic"}).notes == ()


def test_the_collector_is_found_on_the_path_and_where_the_tests_have_built_it(tmp_path: Path) -> None:
    assert find_program("", {"PATH": str(tmp_path), "HOME": str(tmp_path)}) is None
    built = tmp_path / ".cache/otelgw/collector/0123/otelcol-otelgw"
    built.parent.mkdir(parents=True)
    built.touch(0o755)
    assert find_program("", {"PATH": str(tmp_path), "HOME": str(tmp_path)}) == built
    assert find_program("", {"PATH": str(tmp_path), "OTELGW_CACHE": str(tmp_path / ".cache/otelgw")}) == built
    installed = tmp_path / "otelcol-contrib"
    installed.touch(0o755)
    assert find_program("", {"PATH": str(tmp_path), "HOME": str(tmp_path)}) == installed
    with pytest.raises(ConfigError, match="no program missing"):
        find_program("missing", {"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "which file"),
        (["check", "missing.yaml"], "missing.yaml"),
        (["render"], "--to is missing"),
        (["render", "config.yaml", "--to", "kafka"], "--config config.yaml"),
    ],
)
def test_what_is_missing_is_asked_for_with_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["collector", *words]) == 2
    assert said in capsys.readouterr().err
