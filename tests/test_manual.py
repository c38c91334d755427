"""``otelgw destinations NAME``: every example is a config that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from otelgw.config.load import examine
from otelgw.manual import example, page
from otelgw_exporters import catalog
from tests.config.seeds import value_of

ROWS = pytest.mark.parametrize("row", catalog.ROWS, ids=lambda row: row.name)


@ROWS
def test_the_example_is_a_config_that_check_accepts(row: catalog.Row, tmp_path: Path) -> None:
    (tmp_path / "custom_callbacks.py").write_text("proxy_handler_instance = None\n")
    path = tmp_path / "config.yaml"
    path.write_text(example(row))
    (item,) = yaml.safe_load(path.read_text())["otelgw"]["destinations"]
    for option in row.options:
        if option.kind == "path" and option.name in item:
            (tmp_path / item[option.name]).write_text("{}")
    known = {name: value_of(option) for option in row.options for name in option.env}
    environment = {name: known.get(name, "x") for name in re.findall(r"os\.environ/(\w+)", path.read_text())}
    settings, findings = examine(str(path), environment, prices=False)
    assert findings.errors == ()
    assert findings.strict == ()
    assert [each.type for each in settings.destinations] == [row.name]


@ROWS
def test_the_page_tells_every_option_and_its_variables(row: catalog.Row) -> None:
    text = "\n".join(page(row))
    for option in row.options:
        assert f"\n{option.name} " in text
        assert " ".join(option.description.split()) in " ".join(text.split())
        assert all(name in text for name in option.env)
    assert text.endswith(f"Try it: otelgw doctor {row.name}")
    assert max(map(len, text.splitlines())) < 400
