"""The JSON Schema of the config file, for editors: LiteLLM's sections and ``otelgw:``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from otelgw.config.model import OtelgwSection
from otelgw.config.vocabulary import (
    ACCESS_CONTROLS,
    GENERAL_IGNORED,
    LITELLM_IGNORED,
    PARAMS_IGNORED,
    ROUTER_IGNORED,
    SECTIONS_IGNORED,
    CallbackSettings,
    GeneralSettings,
    LitellmParams,
    LitellmSettings,
    ModelEntry,
    ModelInfo,
    RouterSettings,
)

__all__ = ["schema"]

_REF = "#/$defs/"
_REFERENCE = {"type": "string", "pattern": "os\\.environ/[A-Za-z_]", "description": "from the environment"}
_IGNORED: dict[type[BaseModel], frozenset[str]] = {
    LitellmParams: PARAMS_IGNORED,
    LitellmSettings: LITELLM_IGNORED | ACCESS_CONTROLS,
    GeneralSettings: GENERAL_IGNORED | ACCESS_CONTROLS,
    RouterSettings: ROUTER_IGNORED,
}
_MODELS: tuple[type[BaseModel], ...] = (
    OtelgwSection,
    ModelEntry,
    LitellmParams,
    ModelInfo,
    LitellmSettings,
    GeneralSettings,
    RouterSettings,
    CallbackSettings,
)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the config file."""
    _, generated = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF + "{model}")
    definitions: dict[str, Any] = generated["$defs"]
    for model, ignored in _IGNORED.items():
        for key in sorted(ignored):
            note = {"description": "Known, without effect in this version."}
            definitions[model.__name__]["properties"].setdefault(key, note)
    for definition in definitions.values():
        for name, each in definition.get("properties", {}).items():
            definition["properties"][name] = _or_reference(each)
    destination = {"anyOf": [{"type": "string"}, {"$ref": _REF + "DestinationSection"}]}
    definitions["OtelgwSection"]["properties"]["destinations"]["items"] = destination
    entry = definitions["ModelEntry"]["properties"]
    entry["litellm_params"] = {"$ref": _REF + "LitellmParams"}
    entry["model_info"] = {"$ref": _REF + "ModelInfo"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "otelgw",
        "type": "object",
        "properties": {
            "model_list": {"type": ["array", "null"], "items": {"$ref": _REF + "ModelEntry"}},
            "litellm_settings": _optional("LitellmSettings"),
            "general_settings": _optional("GeneralSettings"),
            "router_settings": _optional("RouterSettings"),
            "callback_settings": {
                "type": ["object", "null"],
                "additionalProperties": {"$ref": _REF + "CallbackSettings"},
            },
            "environment_variables": {
                "type": ["object", "null"],
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            },
            "otelgw": _optional("OtelgwSection"),
            **{name: {"description": "Known, without effect in this version."} for name in sorted(SECTIONS_IGNORED)},
        },
        "$defs": definitions,
    }


def _optional(name: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": _REF + name}, {"type": "null"}]}


def _or_reference(each: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that may also be a reference to the environment, or absent."""
    notes: dict[str, Any] = {key: each[key] for key in ("title", "description", "default") if key in each}
    value = {key: rest for key, rest in each.items() if key not in notes}
    forms = value.pop("anyOf") if set(value) == {"anyOf"} else [value]
    if value.get("type") == "array" or "$ref" in value:
        return each
    return {**notes, "anyOf": [*forms, _REFERENCE, *([] if {"type": "null"} in forms else [{"type": "null"}])]}
