"""The GenAI conventions' schemas and registry, from beside the repository; absent ones skip the tests that need them.

The schemas as published accept a malformed part as a GenericPart. The derivative here refuses a GenericPart (and a
GenericToolDefinition) whose type the conventions define, so that a part of a known type must have its shape.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
NEWEST = ROOT / "../shared/semconv/semantic-conventions-genai-2026-08-03"
OLDER = ROOT / "../shared/semconv/semantic-conventions-v1.41.1"

SCHEMAS = {
    "gen_ai.input.messages": "gen-ai-input-messages.json",
    "gen_ai.output.messages": "gen-ai-output-messages.json",
    "gen_ai.system_instructions": "gen-ai-system-instructions.json",
    "gen_ai.tool.definitions": "gen-ai-tool-definitions.json",
}

# Emitted although the saved registry does not have them, each with where it comes from.
NEWER = {
    "gen_ai.usage.cache_write.input_tokens": "int",  # cache_creation renamed, semantic-conventions-genai#440
    "gen_ai.usage.audio.input_tokens": "int",  # token counts per modality, client-inference.md @024a4f9
    "gen_ai.usage.audio.output_tokens": "int",
    "gen_ai.usage.image.input_tokens": "int",
    "gen_ai.usage.image.output_tokens": "int",
    "gen_ai.usage.cost": "double",  # no convention; what Langfuse, Bifrost and LiteLLM use
}


@cache
def validator(folder: Path, attribute: str) -> Draft202012Validator:
    path = folder / SCHEMAS[attribute]
    if not path.exists():
        pytest.skip("the conventions' schemas are not beside the repository (../shared/semconv)")
    schema = copy.deepcopy(json.loads(path.read_text()))
    definitions = schema["$defs"]
    known = {
        definition["properties"]["type"]["const"]
        for definition in definitions.values()
        if "const" in definition.get("properties", {}).get("type", {})
    }
    for name in ("GenericPart", "GenericToolDefinition"):
        if name in definitions:
            definitions[name]["properties"]["type"]["not"] = {"enum": sorted(known)}
    return Draft202012Validator(schema)


def check_content(content: dict[str, Any], folder: Path = NEWEST) -> None:
    """Assert that structured content has the strict shape of the conventions."""
    for attribute, value in content.items():
        errors = [
            f"{error.json_path}: {error.message[:200]}" for error in validator(folder, attribute).iter_errors(value)
        ]
        assert not errors, (attribute, errors)


@cache
def registry() -> dict[str, str]:
    """Return the type of every attribute that the conventions define; ``enum`` for one with members."""
    if not NEWEST.exists():
        pytest.skip("the conventions' registry is not beside the repository (../shared/semconv)")
    known = dict(NEWER)
    for name in ("model_gen-ai_registry.yaml", "model_openai_registry.yaml"):
        for attribute in yaml.safe_load((NEWEST / name).read_text())["attributes"]:
            kind = attribute["type"]
            known[attribute["key"]] = kind if isinstance(kind, str) else "enum"
    return known


_TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "enum": str, "int": int, "double": float, "boolean": bool}


def check_attributes(attributes: dict[str, Any]) -> None:
    """Assert that every gen_ai and openai attribute is one of the conventions' and has its type."""
    known = registry()
    for key, value in attributes.items():
        if not key.startswith(("gen_ai.", "openai.")):
            continue
        kind = known.get(key)
        assert kind is not None, f"{key} is not in the registry"
        if kind == "any":
            assert isinstance(value, list), key
        elif kind == "string[]":
            assert isinstance(value, list), key
            assert all(isinstance(item, str) for item in value), key
        else:
            assert isinstance(value, _TYPES[kind]), (key, value)
            assert kind == "boolean" or not isinstance(value, bool), key
