"""Requests and answers as they are on the wire, written after the providers' published API shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"


def request(name: str) -> bytes:
    return (HERE / "requests" / name).read_bytes()


def answer(name: str) -> bytes:
    return (HERE / "answers" / name).read_bytes()


def stream(*chunks: Any, done: bool = True) -> bytes:
    """Return chunks as server-sent events."""
    events = [b"data: " + msgspec.json.encode(chunk) for chunk in chunks]
    if done:
        events.append(b"data: [DONE]")
    return b"".join(event + b"\n\n" for event in events)
