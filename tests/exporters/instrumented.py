"""Spans as other instrumentations of the OpenAI client made them, captured from their runs (``foreign/*.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

__all__ = ["LIBRARIES", "MESSAGES", "captured", "scenarios"]

FOLDER = Path(__file__).parent / "foreign"
LIBRARIES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
START = 1_790_000_000_000_000_000

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "user", "content": "thanks"},
]
"""What every library was asked in the scenario ``chat``."""


def scenarios(library: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{library}.json").read_text())
    return found


def captured(library: str, scenario: str) -> ReadableSpan:
    held = scenarios(library)[scenario]
    return ReadableSpan(
        held["name"],
        context=SpanContext(0xABC, 0xDEF, is_remote=False),
        resource=Resource({"service.name": "app"}),
        attributes=held["attributes"],
        events=[Event(event["name"], event["attributes"], START) for event in held["events"]],
        kind=SpanKind[held["kind"]],
        status=Status(StatusCode[held["status"]["status_code"]], held["status"].get("description")),
        start_time=START,
        end_time=START + 250_000_000,
    )
