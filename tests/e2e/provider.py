"""A provider that has the whole of OpenAI's API that clients use through the gateway, on top of the scripted upstream.

What ``tests.servers.upstream.openai`` answers stays as it is; here come structured outputs, base64 embeddings, streamed
responses, images, audio, moderations and files.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from email.parser import BytesParser
from typing import Any

from tests.servers import upstream
from tests.servers.upstream import CREATED, Received, Script, answer

__all__ = ["COUNTRY", "RESPONSE_USAGE", "TRANSCRIPT_USAGE", "form", "provider"]

COUNTRY = {"name": "France", "capital": "Paris"}
RESPONSE_USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 13,
}
TRANSCRIPT_USAGE = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    "output_tokens": 6,
    "total_tokens": 20,
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n pixel").decode()
FILE = {"id": "file-scripted", "object": "file", "created_at": CREATED, "filename": "a.jsonl", "purpose": "batch"}


def form(received: Received) -> dict[str, bytes]:
    """Return the fields of a multipart request; a file is its bytes."""
    head = f"Content-Type: {received.header('content-type')}\r\n\r\n".encode()
    parsed = BytesParser().parsebytes(head + received.body)
    fields: dict[str, bytes] = {}
    for part in parsed.get_payload():
        name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
        fields[str(name)] = part.get_payload(decode=True)  # type: ignore[union-attr,assignment]
    return fields


def provider(request: Received) -> Script:
    """Answer like OpenAI, for the paths of the table and all that the scripted upstream knows."""
    path = re.sub(r"^(?:/v1|/openai/deployments/[^/]+|/openai)", "", request.target.partition("?")[0])
    for pattern, method, answerer in _PATHS:
        if request.method in method and re.fullmatch(pattern, path):
            return answerer(request)
    return upstream.openai(request)


def _chat(request: Received) -> Script:
    body = request.json()
    wanted = (body.get("response_format") or {}).get("type")
    if wanted != "json_schema" or body.get("stream"):
        return upstream.openai(request)
    return upstream.chat(json.dumps(COUNTRY), model=body["model"])


def _embeddings(request: Received) -> Script:
    body = request.json()
    if body.get("encoding_format") != "base64":
        return upstream.openai(request)
    packed = base64.b64encode(struct.pack("<3f", 0.5, -0.25, 0.125)).decode()
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": n, "embedding": packed} for n in range(len(inputs))]
    return _json(
        {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    )


def _responses(request: Received) -> Script:
    body = request.json()
    part = {"type": "output_text", "text": "hello there", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    done = {
        "id": "resp_scripted",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": body["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSE_USAGE,
    }
    if not body.get("stream"):
        return _json(done)
    at = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    begun = done | {"status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        {"type": "response.content_part.added", **at, "part": part | {"text": ""}},
        {"type": "response.output_text.delta", **at, "delta": "hello ", "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": "there", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "hello there", "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": done},
    ]
    lines = [
        f"event: {event['type']}\ndata: {json.dumps({'sequence_number': n, **event})}\n\n".encode()
        for n, event in enumerate(events)
    ]
    return upstream.sse(lines, done=False)


def _images(request: Received) -> Script:
    return _json({"created": CREATED, "data": [{"b64_json": PIXEL}]})


def _transcription(request: Received) -> Script:
    heard = f"{len(form(request)['file'])} bytes heard"
    return _json({"text": heard, "usage": TRANSCRIPT_USAGE})


def _speech(request: Received) -> Script:
    return answer(body=b"ID3" + bytes(range(256)) * 8, content_type=b"audio/mpeg")


def _moderation(request: Received) -> Script:
    result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    return _json({"id": "modr-scripted", "model": "omni-moderation-latest", "results": [result]})


def _file(request: Received) -> Script:
    if request.method == "DELETE":
        return _json({"id": FILE["id"], "object": "file", "deleted": True})
    if request.method == "POST":
        return _json(FILE | {"bytes": len(form(request)["file"]), "status": "processed"})
    return _json(FILE | {"bytes": 3, "status": "processed"})


def _content(request: Received) -> Script:
    return answer(body=b'{"line": 1}\n', content_type=b"application/octet-stream")


_PATHS: tuple[tuple[str, str, Callable[[Received], Script]], ...] = (
    (r"/chat/completions", "POST", _chat),
    (r"/embeddings", "POST", _embeddings),
    (r"/responses", "POST", _responses),
    (r"/images/(?:generations|edits)", "POST", _images),
    (r"/audio/transcriptions", "POST", _transcription),
    (r"/audio/speech", "POST", _speech),
    (r"/moderations", "POST", _moderation),
    (r"/files(?:/[^/]+)?", "GET POST DELETE", _file),
    (r"/files/[^/]+/content", "GET", _content),
)


def _json(value: object) -> Script:
    return answer(body=json.dumps(value).encode(), headers=[(b"x-request-id", b"req_scripted")])
