"""``/openapi.json``: OpenAPI 3.1 made from the route table, so that it lists exactly what is served."""

from __future__ import annotations

import re
from typing import Any

import otelgw
from otelgw.config.settings import Settings
from otelgw.http.routes import ADMIN, ADMIN_ROUTES, LOCAL, MODEL, ROUTES, Route

__all__ = ["document"]

_PARAMETER = re.compile(r"\{(\w+)\}")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MODEL_REQUEST = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "description": "One of GET /v1/models."},
        "stream": {"type": "boolean"},
        "metadata": {"type": "object", "description": "Put on the spans; not sent upstream unless configured."},
        "user": {"type": "string", "description": "The span's user.id."},
    },
    "additionalProperties": True,
}
_OWN = {
    "/health": "The configured models; asks them for one token each only with probe=1.",
    "/health/liveliness": "Liveness.",
    "/health/liveness": "Liveness.",
    "/health/readiness": "Readiness; 503 while draining.",
    "/metrics": "Metrics, in Prometheus' text format.",
}


def document(settings: Settings) -> dict[str, Any]:
    """Return the description of what a gateway with these settings serves."""
    paths: dict[str, Any] = {path: {"get": _local(text, path.split("/")[1])} for path, text in _OWN.items()}
    # Without a master key nobody may manage keys.
    for route in (*ROUTES, *(ADMIN_ROUTES if settings.auth.master_key_sha256 else ())):
        if route.group and route.group not in settings.pass_through:
            continue
        methods = sorted(route.methods - {"HEAD"})
        paths[route.template] = {method.lower(): _operation(route, method) for method in methods}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "otelgw",
            "version": otelgw.__version__,
            "description": "Every path also exists without /v1. Requests and answers are those of the OpenAI API.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}] if settings.auth.master_key_sha256 else [],
    }


def _local(text: str, tag: str) -> dict[str, Any]:
    return {"summary": text, "tags": [tag], "security": [], "responses": {"200": {"description": "OK"}}}


def _operation(route: Route, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}{route.template}".replace("/", "_"),
        "tags": [route.template.split("/")[1 if route.kind == ADMIN else 2]],
        "responses": {
            "200": {"description": "OK" if route.kind in {ADMIN, LOCAL} else "The upstream's answer, unchanged."},
            "default": {
                "description": "The gateway's own error, or the upstream's.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    names = _PARAMETER.findall(route.template)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.kind == MODEL:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _MODEL_REQUEST}}}
    return operation
