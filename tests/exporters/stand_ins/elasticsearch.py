"""Elasticsearch's ``_bulk``: 200 with a status for each document; a template is acknowledged."""

from __future__ import annotations

import json
from typing import Any

from tests.exporters.stand_ins import Answer, Request, StandIn

__all__ = ["STAND_IN", "documents"]

_HEADERS = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}


def documents(request: Request) -> list[tuple[str, dict[str, Any]]]:
    """Return the ids and documents of a bulk request; none of any other."""
    if "/_bulk" not in request.path:
        return []
    lines = [json.loads(line) for line in request.body.splitlines()]
    return [(action["create"]["_id"], made) for action, made in zip(lines[::2], lines[1::2], strict=True)]


def _answer(request: Request, first: dict[str, Any]) -> Answer:
    held = documents(request)
    generations = [at for at, (_, made) in enumerate(held) if "gen_ai.operation.name" in made["attributes"]]
    items: list[dict[str, Any]] = [{"create": {"status": 201}} for _ in held]
    if generations and first:
        items[generations[0]] = {"create": first}
    said = {"errors": bool(first), "items": items} if held else {"acknowledged": True}
    return Answer(200, _HEADERS, json.dumps(said).encode())


STAND_IN = StandIn(
    options=lambda origin: {
        "endpoint": origin,
        "api_key": "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw==",
    },
    accepted=lambda request: _answer(request, {}),
    items=lambda request: [name for name, made in documents(request) if "gen_ai.operation.name" in made["attributes"]],
    partial=lambda request: _answer(
        request,
        {
            "status": 400,
            "error": {
                "type": "document_parsing_exception",
                "reason": "[1:99] failed to parse field [attributes.x] of type [long] in document with id 'a'. "
                "Preview of field's value: 'what was said'",
            },
        },
    ),
)
