"""The built-in ``echo`` model and ``mock_response``: answers in OpenAI's shapes, offline, in process.

It says the last user message again, or the mock text. Token counts are counts of words (what stands between white
space), so they are plausible and can be checked by eye; they are nobody's tokenizer. ``max_tokens`` cuts after so many
words; tools, temperature and the like are ignored. A stream gives a word a chunk, without delay.

The text of ``mock_response`` travels in ``request.extensions["otelgw.mock_response"]``, or is the transport's own.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NamedTuple

import httpx
import msgspec

__all__ = ["EchoTransport"]

Json = dict[str, Any]

DIMENSIONS = 16  # of an embedding, unless the request says otherwise
MOST_DIMENSIONS = 4096
MOST_CHOICES = 128
_PIECES = re.compile(r"\s*\S+\s*")
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_JSON_HEADER = (b"Content-Type", b"application/json")
_SSE_HEADER = (b"Content-Type", b"text/event-stream; charset=utf-8")
_DONE = b"data: [DONE]\n\n"


class _InvalidError(Exception):
    """The request is none that OpenAI would take."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status


class _Call(NamedTuple):
    """A request, read as far as it matters."""

    body: Json
    model: str
    mock: str | None
    created: int
    id: str  # without its prefix

    def texts(self, spoken: str) -> list[str]:
        """Return what each of the ``n`` choices says."""
        return [self.mock if self.mock is not None else spoken] * _count(self.body, "n", MOST_CHOICES, 1)


class EchoTransport(httpx.AsyncBaseTransport):
    """Answers requests itself. ``clock`` gives seconds since the epoch, ``new_id`` an id's random part."""

    def __init__(
        self,
        mock_response: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._mock = mock_response
        self._clock = clock
        self._new_id = new_id

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await _read(request)
        path = request.url.path.rstrip("/")
        answer = next((answer for suffix, answer in _PATHS if path.endswith(suffix)), None)
        try:
            if answer is None or request.method != "POST":
                raise _InvalidError(f"Invalid URL ({request.method} {request.url.path})", status=404)
            call = self._call(content, request.extensions.get("otelgw.mock_response", self._mock))
            made = answer(call)
            if isinstance(made, dict):
                return self._respond(200, _encode(made))
            return self._stream(made)
        except _InvalidError as error:
            return self._respond(error.status, _encode(_error(error.message, error.param)))

    def _call(self, content: bytes, mock: str | None) -> _Call:
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise _InvalidError(f"We could not parse the JSON body of your request: {error}") from error
        if not isinstance(body, dict):
            raise _InvalidError("The body of your request is not a JSON object.")
        model = body.get("model")
        return _Call(body, model if isinstance(model, str) else "echo", mock, int(self._clock()), self._new_id())

    def _respond(self, status: int, content: bytes) -> httpx.Response:
        headers = [_JSON_HEADER, (b"Content-Length", b"%d" % len(content)), self._request_id()]
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content), extensions=_extensions(status))

    def _stream(self, events: Iterator[bytes]) -> httpx.Response:
        headers = [_SSE_HEADER, (b"Cache-Control", b"no-cache"), self._request_id()]
        return httpx.Response(200, headers=headers, stream=_Events(events), extensions=_extensions(200))

    def _request_id(self) -> tuple[bytes, bytes]:
        return b"x-request-id", b"req_" + self._new_id().encode()


class _Events(httpx.AsyncByteStream):
    """A stream of server-sent events, one a chunk."""

    def __init__(self, events: Iterator[bytes]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield event


def _extensions(status: int) -> Json:
    return {"http_version": b"HTTP/1.1", "reason_phrase": httpx.codes.get_reason_phrase(status).encode()}


async def _read(request: httpx.Request) -> bytes:
    if isinstance(request.stream, httpx.AsyncByteStream):
        return b"".join([chunk async for chunk in request.stream])
    return b"".join(request.stream)


# Chat completions


def _chat(call: _Call) -> Json | Iterator[bytes]:
    messages = call.body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _InvalidError("Missing required parameter: 'messages'.", "messages")
    texts, finish = _limited(call, call.texts(_last_said(messages)), "max_completion_tokens", "max_tokens")
    usage = _chat_usage(_words(_text_of(_content(message)) for message in messages), _words(texts))
    if call.body.get("stream") is True:
        return _chat_stream(call, texts, finish, usage)
    choices: list[Json] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": finish,
        }
        for index, text in enumerate(texts)
    ]
    return {**_chat_frame(call, "chat.completion"), "choices": choices, "usage": usage}


def _chat_frame(call: _Call, kind: str) -> Json:
    frame: Json = {"id": f"chatcmpl-{call.id}", "object": kind, "created": call.created, "model": call.model}
    return frame | {"service_tier": "default", "system_fingerprint": None}


def _chat_stream(call: _Call, texts: list[str], finish: str, usage: Json) -> Iterator[bytes]:
    frame = _chat_frame(call, "chat.completion.chunk")

    def choice(index: int, delta: Json, finished: str | None = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finished}

    choices: list[Json] = []
    for index, text in enumerate(texts):
        choices.append(choice(index, {"role": "assistant", "content": "", "refusal": None}))
        choices.extend(choice(index, {"content": piece}) for piece in _pieces(text))
    choices.extend(choice(index, {}, finish) for index in range(len(texts)))
    return _completion_events(call, frame, choices, usage)


def _completion_events(call: _Call, frame: Json, choices: Iterable[Json], usage: Json) -> Iterator[bytes]:
    """Yield a chunk a choice, then the usage where it was asked for; the other chunks say then that they have none."""
    options = call.body.get("stream_options")
    wanted = isinstance(options, dict) and options.get("include_usage") is True
    null = {"usage": None} if wanted else {}
    for choice in choices:
        yield _event({**frame, "choices": [choice], **null})
    if wanted:
        yield _event({**frame, "choices": [], "usage": usage})
    yield _DONE


def _chat_usage(prompt: int, completion: int) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


# Completions


def _completion(call: _Call) -> Json | Iterator[bytes]:
    prompts = _inputs(call.body.get("prompt", ""), "prompt")
    said = [text for prompt in prompts for text in call.texts(prompt)]
    texts, finish = _limited(call, said, "max_tokens")
    prompt_words, words = _words(prompts), _words(texts)
    usage = {"prompt_tokens": prompt_words, "completion_tokens": words, "total_tokens": prompt_words + words}
    frame = {"id": f"cmpl-{call.id}", "object": "text_completion", "created": call.created, "model": call.model}

    def choice(index: int, text: str, finished: str | None) -> Json:
        return {"text": text, "index": index, "logprobs": None, "finish_reason": finished}

    if call.body.get("stream") is not True:
        choices = [choice(index, text, finish) for index, text in enumerate(texts)]
        return {**frame, "choices": choices, "usage": usage}
    pieces = (choice(index, piece, None) for index, text in enumerate(texts) for piece in _pieces(text))
    ends = (choice(index, "", finish) for index in range(len(texts)))
    return _completion_events(call, frame, (*pieces, *ends), usage)


# Embeddings


def _embeddings(call: _Call) -> Json:
    if "input" not in call.body:
        raise _InvalidError("Missing required parameter: 'input'.", "input")
    inputs = _inputs(call.body["input"], "input")
    encoding = call.body.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise _InvalidError("Invalid value for 'encoding_format': use 'float' or 'base64'.", "encoding_format")
    size = _count(call.body, "dimensions", MOST_DIMENSIONS, DIMENSIONS)
    vectors: list[list[float] | str] = []
    for text in inputs:
        vector = _vector(text, size)
        packed = struct.pack(f"<{size}f", *vector)
        floats = list(struct.unpack(f"<{size}f", packed))  # as exact as base64 is
        vectors.append(base64.b64encode(packed).decode() if encoding == "base64" else floats)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    words = _words(inputs)
    return {
        "object": "list",
        "data": data,
        "model": call.model,
        "usage": {"prompt_tokens": words, "total_tokens": words},
    }


def _vector(text: str, size: int) -> list[float]:
    """Return a unit vector that depends on ``text`` alone."""
    noise = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(size * 4)
    raw = [value / 2**31 for value in struct.unpack(f"<{size}i", noise)]
    length = math.hypot(*raw) or 1.0
    return [value / length for value in raw]


# Responses


def _responses(call: _Call) -> Json | Iterator[bytes]:
    given = call.body.get("input")
    if not isinstance(given, str | list) or not given:
        raise _InvalidError("Missing required parameter: 'input'.", "input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    spoken = call.mock if call.mock is not None else _last_said(items)
    (text,), finish = _limited(call, [spoken], "max_output_tokens")
    instructions = call.body.get("instructions")
    heard = _words([_text_of(_content(item)) for item in items] + [_text_of(instructions)])
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": f"msg_{call.id}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    response = _response(call, "completed" if finish == "stop" else "incomplete")
    response["output"] = [item]
    response["usage"] = {
        "input_tokens": heard,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": _words([text]),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": heard + _words([text]),
    }
    return _response_events(call, response, item, part) if call.body.get("stream") is True else response


def _response(call: _Call, status: str) -> Json:
    body = call.body
    return {
        "id": f"resp_{call.id}",
        "object": "response",
        "created_at": call.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": call.model,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": None,
        "metadata": body.get("metadata") or {},
    }


def _response_events(call: _Call, response: Json, item: Json, part: Json) -> Iterator[bytes]:
    begun = _response(call, "in_progress")
    at = {"output_index": 0, "content_index": 0, "item_id": item["id"]}
    text = part["text"]
    events: list[tuple[str, Json]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
        ("output_item.added", {"output_index": 0, "item": item | {"status": "in_progress", "content": []}}),
        ("content_part.added", {**at, "part": part | {"text": ""}}),
        *(("output_text.delta", {**at, "delta": piece, "logprobs": []}) for piece in _pieces(text)),
        ("output_text.done", {**at, "text": text, "logprobs": []}),
        ("content_part.done", {**at, "part": part}),
        ("output_item.done", {"output_index": 0, "item": item}),
        (response["status"], {"response": response}),
    ]
    for number, (name, fields) in enumerate(events):
        kind = f"response.{name}"
        yield f"event: {kind}\n".encode() + _event({"type": kind, "sequence_number": number, **fields})


_PATHS: tuple[tuple[str, Callable[[_Call], Json | Iterator[bytes]]], ...] = (
    ("/chat/completions", _chat),
    ("/completions", _completion),
    ("/embeddings", _embeddings),
    ("/responses", _responses),
)


# Reading and writing


def _content(message: object) -> object:
    return message.get("content") if isinstance(message, dict) else None


def _text_of(content: object) -> str:
    """Return the text of a message: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS)
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _last_said(messages: list[Any]) -> str:
    """Return the text of the last user message; without one, of the last message."""
    by_user = [message for message in messages if isinstance(message, dict) and message.get("role") == "user"]
    return _text_of(_content((by_user or messages)[-1]))


def _inputs(value: object, param: str) -> list[str]:
    """Return the texts of an ``input`` or ``prompt``: one, several, or token ids, which are shown as numbers."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return list(value)
        if all(isinstance(item, int) for item in value):
            return [" ".join(map(str, value))]
        if all(isinstance(item, list) and all(isinstance(token, int) for token in item) for item in value):
            return [" ".join(map(str, item)) for item in value]
    raise _InvalidError(f"Invalid value for '{param}': a string, an array of strings, or token ids.", param)


def _limited(call: _Call, texts: list[str], *params: str) -> tuple[list[str], str]:
    """Cut each text after as many words as the first of ``params`` allows; return the finish reason as well."""
    for param in params:
        if call.body.get(param) is not None:
            most = _count(call.body, param, 1 << 31, 0)
            cut = ["".join(_pieces(text)[:most]) for text in texts]
            return cut, "stop" if cut == texts else "length"
    return texts, "stop"


def _count(body: Json, param: str, most: int, default: int) -> int:
    value = body.get(param)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _InvalidError(f"Invalid value for '{param}': an integer from 1 to {most}.", param)
    return value


def _pieces(text: str) -> list[str]:
    """Split into words, each with the white space around it; joined they are ``text`` again."""
    return _PIECES.findall(text) or ([text] if text else [])


def _words(texts: Iterable[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _error(message: str, param: str | None) -> Json:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


def _encode(value: Json) -> bytes:
    return msgspec.json.encode(value)


def _event(value: Json) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
