"""The JSON Schema and the reference page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from otelgw.config import reference, vocabulary
from otelgw.config.env import VARIABLES
from otelgw.config.flags import FLAGS
from otelgw.config.model import OtelgwSection
from otelgw.config.schema import schema
from otelgw.providers.catalog import PROVIDERS
from tests.config.test_litellm import BLOCKS, SECTION

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_fits_the_schema(path: Path) -> None:
    data = yaml.safe_load(
        path.read_text(encoding="utf-8").replace(" on:", ' "on":').replace("2024-10-21", "'2024-10-21'")
    )
    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


@pytest.mark.skipif(not BLOCKS, reason="the seeds are not beside the repository")
def test_every_seed_block_that_is_yaml_fits_the_schema() -> None:
    fitting = 0
    for block in BLOCKS:
        try:
            data = yaml.safe_load(block)
        except yaml.YAMLError:
            continue
        assert [error.message for error in VALIDATOR.iter_errors(data)] == []
        fitting += 1
    assert fitting == 16


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        ({"otelgw": {"server": {"port": 4000}}}, True),
        ({"otelgw": {"server": {"port": "os.environ/PORT"}}}, True),
        ({"otelgw": {"server": {"port": "four"}}}, False),
        ({"otelgw": {"serer": {}}}, False),
        ({"otelgw": None}, True),
        ({"otelgw": {"destinations": ["console", {"name": "otlp_grpc/a", "endpoint": "x"}]}}, True),
        ({"otelgw": {"destinations": [{"endpoint": "x"}]}}, False),
        ({"otelgw": {"propagators": "none"}}, True),
        ({"otelgw": {"propagators": ["w3c"]}}, False),
        ({"model_list": [{"model_name": "a", "litellm_params": {"model": "b", "rpm": 1, "seed": 3}}]}, True),
        ({"model_list": [{"model_name": "a", "litellm_params": {"model": "b", "rpm": "x"}}]}, False),
        ({"model_list": [{"litellm_params": {"model": "b"}}]}, False),
        ({"litellm_settings": {"callbacks": "otel", "forward_traceparent_to_llm_provider": True, "cache": 1}}, True),
        ({"litellm_settings": {"turn_off_message_logging": "perhaps"}}, False),
        ({"callback_settings": {"otel": {"message_logging": False}}}, True),
        ({"general_settings": {"pass_through": ["organization"]}}, False),
    ],
)
def test_the_schema_tells_right_from_wrong(data: Any, fits: bool) -> None:
    assert VALIDATOR.is_valid(data) is fits


def test_the_committed_reference_page_is_the_generated_one() -> None:
    committed = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    assert committed == reference.page(), "write it anew: python -m otelgw.config.reference > docs/reference/config.md"


def test_the_page_documents_every_key_variable_flag_and_provider() -> None:
    page = reference.page()
    keys = OtelgwSection.every_key() | set(VARIABLES) | {flag.variable for flag in FLAGS}
    keys |= {name for flag in FLAGS for name in flag.names}
    for model in (
        vocabulary.LitellmParams, vocabulary.ModelInfo, vocabulary.LitellmSettings, vocabulary.GeneralSettings,
        vocabulary.RouterSettings, vocabulary.CallbackSettings,
    ):  # fmt: skip
        keys |= set(model.model_fields)
    keys |= vocabulary.LITELLM_IGNORED | vocabulary.GENERAL_IGNORED | vocabulary.ROUTER_IGNORED
    keys |= vocabulary.PARAMS_IGNORED | vocabulary.ACCESS_CONTROLS | vocabulary.SECTIONS_IGNORED
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    assert [row.docs for row in PROVIDERS if f"<{row.docs}>" not in page] == []


def test_every_key_has_a_description() -> None:
    definitions = schema()["$defs"]
    undescribed = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, each in definition.get("properties", {}).items()
        if not each.get("description") and "$ref" not in each
    ]
    assert undescribed == []


def test_the_whole_section_fits_the_schema() -> None:
    data = yaml.safe_load(SECTION.replace("h2c: off", "h2c: 'off'").replace("{a: 1}", "{a: '1'}"))
    assert [error.message for error in VALIDATOR.iter_errors(data)] == []
