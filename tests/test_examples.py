"""The examples load as they stand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from otelgw.config.check import check
from otelgw.config.load import load

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
ENVIRONMENT = {
    "HOME": "/nowhere",
    "OPENAI_API_KEY": "sk-1",
    "AZURE_API_KEY": "k",
    "AZURE_API_BASE": "https://r.openai.azure.com",
    "VENDOR_TOKEN": "t",
    "OTELGW_MASTER_KEY": "sk-master",
    "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
    "LANGFUSE_SECRET_KEY": "sk-lf-1",
    "LANGSMITH_API_KEY": "ls-1",
}


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"echo.yaml", "openai.yaml", "otlp.yaml", "multi-destination.yaml"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_nothing_to_complain_about(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name  # apart from any .env that a developer keeps beside the examples
    shutil.copy(path, copy)
    report = check(str(copy), ENVIRONMENT, strict=True)
    assert (report.errors, report.warnings, report.ignored) == ((), (), ())
    settings = load(str(copy), ENVIRONMENT)
    assert settings.deployments
    assert settings.destinations


def test_the_collector_example_withholds_content_from_the_collector_only() -> None:
    (path,) = [path for path in EXAMPLES if path.name == "multi-destination.yaml"]
    contents = {each.name: each.content for each in load(str(path), ENVIRONMENT).destinations}
    assert contents == {
        "console": True,
        "otlp_grpc/collector": True,
        "otlp_http/vendor": False,
        "otlp_http/incidents": True,
    }
