"""The index template of the data stream: which fields of a span can be searched, and as what.

It is what Elasticsearch 8.16 and later bring of their own for ``traces-*.otel-*``, for clusters without it, and below
it in priority; besides, messages can be searched as text.
"""

from __future__ import annotations

from typing import Any, Literal

from otelgw_exporters import semconv

__all__ = ["OPENSEARCH", "STOCK", "Flavor", "template"]

Flavor = Literal["elasticsearch", "opensearch"]
STOCK: Flavor = "elasticsearch"
OPENSEARCH: Flavor = "opensearch"

_VERSION = 1
_PRIORITY = 95  # Elasticsearch's own template has 120

_KEYWORD = {"type": "keyword", "ignore_above": 1024}
_TEXT = (
    semconv.GEN_AI_INPUT_MESSAGES,
    semconv.GEN_AI_OUTPUT_MESSAGES,
    semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
    semconv.OTELGW_ERROR_MESSAGE,
)
# As JSON a whole number of seconds or dollars has no fraction: the first one that comes must not make the field a whole
# number's.
_FRACTIONS = (
    semconv.GEN_AI_USAGE_COST,
    semconv.OTELGW_COST_AMOUNT,
    semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
    semconv.OTELGW_ATTEMPT_TIME_TO_FIRST_BYTE,
    semconv.OTELGW_OVERHEAD_DURATION,
    semconv.GEN_AI_REQUEST_TEMPERATURE,
    semconv.GEN_AI_REQUEST_TOP_P,
)
_UNSEARCHED = (*sorted(semconv.BODIES), semconv.GEN_AI_TOOL_DEFINITIONS)


def template(dataset: str, flavor: Flavor = STOCK) -> dict[str, Any]:
    """Return the body of ``PUT _index_template`` for ``traces-<dataset>-*``."""
    mapping: dict[str, Any] = {"ignore_malformed": True}
    if flavor == STOCK:
        mapping["total_fields"] = {"limit": 2000, "ignore_dynamic_beyond_limit": True}
    else:
        mapping["total_fields"] = {"limit": 2000}
    return {
        "index_patterns": [f"traces-{dataset}-*"],
        "priority": _PRIORITY,
        "version": _VERSION,
        "data_stream": {},
        "_meta": {"managed_by": "otelgw", "description": "spans in OpenTelemetry's fields"},
        "template": {"settings": {"index": {"mapping": mapping}}, "mappings": _mappings(flavor)},
    }


def _mappings(flavor: Flavor) -> dict[str, Any]:
    return {
        "date_detection": False,
        "dynamic": False,
        "dynamic_templates": [
            {"strings": {"match_mapping_type": "string", "mapping": _KEYWORD}},
            {"fractions": {"match_mapping_type": "double", "mapping": {"type": "double"}}},
        ],
        "properties": {
            "@timestamp": {"type": "date_nanos"},
            "data_stream": {"properties": dict.fromkeys(("type", "dataset", "namespace"), _KEYWORD)},
            **dict.fromkeys(("trace_id", "span_id", "parent_span_id", "name", "kind"), _KEYWORD),
            "duration": {"type": "long"},
            "status": {"properties": {"code": _KEYWORD, "message": {"type": "text"}}},
            "attributes": _attributes(flavor, 20, _known()),
            "resource": {"properties": {"attributes": _attributes(flavor, 10, {})}},
            "scope": {"properties": {"name": _KEYWORD, "version": _KEYWORD}},
            "links": {"properties": {"trace_id": _KEYWORD, "span_id": _KEYWORD}},
            "events": {"type": "object", "enabled": False},
        },
    }


def _known() -> dict[str, Any]:
    """Return the fields whose type the first value that comes must not decide."""
    types: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
        (_TEXT, {"type": "text"}),
        (_FRACTIONS, {"type": "double"}),
        (_UNSEARCHED, {"type": "keyword", "index": False, "doc_values": False}),
    )
    return {name: mapping for names, mapping in types for name in names}


def _attributes(flavor: Flavor, priority: int, known: dict[str, Any]) -> dict[str, Any]:
    if flavor == OPENSEARCH:
        return {"type": "object", "dynamic": True, "properties": known}
    # passthrough: `gen_ai.request.model` finds `attributes.gen_ai.request.model`, as in Elasticsearch's own template.
    return {"type": "passthrough", "dynamic": True, "priority": priority, "properties": known}
