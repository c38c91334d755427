"""What the scripted upstream does for a request, step by step: whole answers as OpenAI gives them, and their faults.

A ``Script`` is a tuple of steps: ``Send``, ``Pause``, ``Stall`` (until the client leaves), ``Close`` (FIN) and
``Reset`` (RST). Builders make whole answers: ``answer``, ``chat``, ``chat_stream``, ``completion``, ``embeddings``,
``responses``, ``error``, ``sse``. Faults change a script: ``reset_after``, ``close_after``, ``stall_after`` (n bytes of
the answer; ``head_size`` says where its body begins), ``split_every``, ``spaced`` (a pause between two sends),
``preceded_by`` (1xx answers), ``early`` (answer after the head of the request, its body unread), ``on_accept`` (before
anything was read). ``refused_port()`` is a port that nobody listens on.

``openai`` chooses a script by what a request asks for.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "CREATED",
    "USAGE",
    "Answers",
    "Close",
    "Pause",
    "Received",
    "Reset",
    "Script",
    "Send",
    "Stall",
    "Step",
    "answer",
    "chat",
    "chat_body",
    "chat_events",
    "chat_stream",
    "close_after",
    "completion",
    "early",
    "embeddings",
    "error",
    "head_size",
    "on_accept",
    "openai",
    "payload",
    "preceded_by",
    "refused_port",
    "reset_after",
    "responses",
    "spaced",
    "split_every",
    "sse",
    "stall_after",
]

Headers = Sequence[tuple[bytes, bytes]]
CREATED = 1_700_000_000
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


@dataclass(frozen=True)
class Send:
    """Write ``data`` as one piece."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Wait; ends early when the client leaves."""

    seconds: float


@dataclass(frozen=True)
class Stall:
    """Say nothing more until the client leaves."""


@dataclass(frozen=True)
class Close:
    """Close the connection in order (FIN)."""


@dataclass(frozen=True)
class Reset:
    """Close the connection with a RST."""


Step = Send | Pause | Stall | Close | Reset


@dataclass(frozen=True)
class Script:
    """What is done for one request. ``when``: after the whole "request", after its "head", or on "accept"."""

    steps: tuple[Step, ...]
    when: str = "request"


@dataclass
class Received:
    """A request as it arrived. ``target`` is the request line's second word; times are ``time.monotonic()``."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    raw_head: bytes
    connection: int
    at: float
    body: bytes = b""
    complete: bool = False  # the whole body has arrived
    answered_at: float | None = None  # the last step of the script was done
    aborted_at: float | None = None

    def header(self, name: str) -> str | None:
        """Return the first value of a header, whatever its case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:
        return json.loads(self.body)


Answers = Script | Sequence[Script] | Callable[[Received], Script]


def answer(
    status: int = 200,
    body: bytes = b"",
    *,
    content_type: bytes = b"application/json",
    headers: Headers = (),
    framing: str = "length",
    encoding: str | None = None,
    reason: bytes = b"OK",
    chunk: int = 4096,
) -> Script:
    """Return one answer.

    ``framing``: "length", "chunked" (``chunk`` bytes each), "close", or "none" (what ``headers`` say). ``encoding``
    "gzip" compresses the body and says so.
    """
    lines = [(b"Content-Type", content_type), *headers]
    if encoding == "gzip":
        body = gzip.compress(body, mtime=0)
        lines.append((b"Content-Encoding", b"gzip"))
    pieces = [body] if body else []
    after: tuple[Step, ...] = ()
    if framing == "length":
        lines.append((b"Content-Length", b"%d" % len(body)))
    elif framing == "chunked":
        lines.append((b"Transfer-Encoding", b"chunked"))
        pieces = [_framed(body[at : at + chunk]) for at in range(0, len(body), chunk)] + [b"0\r\n\r\n"]
    elif framing == "close":
        lines.append((b"Connection", b"close"))
        after = (Close(),)
    return Script((Send(_head(status, reason, lines)), *(Send(piece) for piece in pieces), *after))


def sse(events: Iterable[bytes], *, headers: Headers = (), done: bool = True, ended: bool = True) -> Script:
    """Return a stream of server-sent events, one chunk and one write each.

    ``done`` False leaves out ``[DONE]``; ``ended`` False leaves out the last chunk of the framing and closes.
    """
    lines = [(b"Content-Type", b"text/event-stream; charset=utf-8"), *headers, (b"Transfer-Encoding", b"chunked")]
    pieces = [*events, b"data: [DONE]\n\n"] if done else list(events)
    sends = [Send(_head(200, b"OK", lines)), *(Send(_framed(piece)) for piece in pieces)]
    return Script((*sends, Send(b"0\r\n\r\n")) if ended else (*sends, Close()))


def error(status: int, message: str = "scripted error", *, headers: Headers = (), kind: str = "server_error") -> Script:
    """Return OpenAI's error JSON under ``status``."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return answer(status, _json(body), headers=headers, reason=b"Scripted")


def payload(script: Script) -> bytes:
    """Return all bytes that ``script`` sends."""
    return b"".join(step.data for step in script.steps if isinstance(step, Send))


def head_size(script: Script) -> int:
    """Return how many bytes of ``script`` come before its body."""
    return payload(script).index(b"\r\n\r\n") + 4


def _cut(script: Script, size: int, ending: Step) -> Script:
    steps: list[Step] = []
    for step in script.steps:
        if isinstance(step, Send):
            steps.append(Send(step.data[:size]))
            size -= len(step.data)
            if size <= 0:
                break
        else:
            steps.append(step)
    return replace(script, steps=(*steps, ending))


def reset_after(script: Script, size: int) -> Script:
    """Send the first ``size`` bytes, then RST."""
    return _cut(script, size, Reset())


def close_after(script: Script, size: int) -> Script:
    """Send the first ``size`` bytes, then FIN."""
    return _cut(script, size, Close())


def stall_after(script: Script, size: int) -> Script:
    """Send the first ``size`` bytes, then nothing."""
    return _cut(script, size, Stall())


def split_every(script: Script, size: int = 1, pause: float = 0.0) -> Script:
    """Send ``size`` bytes a write, ``pause`` seconds apart; with 0, one turn of the server's loop apart."""
    steps: list[Step] = []
    for step in script.steps:
        if isinstance(step, Send):
            steps += [Send(step.data[at : at + size]) for at in range(0, len(step.data), size)]
        else:
            steps.append(step)
    return spaced(replace(script, steps=tuple(steps)), pause)


def spaced(script: Script, seconds: float) -> Script:
    """Pause before every send but the first."""
    steps: list[Step] = []
    for step in script.steps:
        steps += (Pause(seconds), step) if steps and isinstance(step, Send) else (step,)
    return replace(script, steps=tuple(steps))


def preceded_by(script: Script, *statuses: int) -> Script:
    """Send informational answers first: 100, 103 …"""
    heads = (Send(b"HTTP/1.1 %d Interim\r\nLink: </a>\r\n\r\n" % status) for status in statuses)
    return replace(script, steps=(*heads, *script.steps))


def early(script: Script) -> Script:
    """Answer as soon as the head of the request is there; its body is not read."""
    return replace(script, when="head")


def on_accept(*steps: Step) -> Script:
    """Do ``steps`` as soon as the connection is accepted, ``Reset()`` for example."""
    return Script(steps, when="accept")


def refused_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _head(status: int, reason: bytes, headers: Headers) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *(b"%b: %b" % header for header in headers), b"", b""]
    return b"\r\n".join(lines)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chat_body(
    text: str | None = "hello there",
    *,
    model: str = "gpt-4o-2024-08-06",
    tool_calls: Sequence[tuple[str, str]] = (),
    usage: dict[str, Any] | None = None,
) -> bytes:
    """Return a chat completion. ``tool_calls``: (function name, JSON arguments) each."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if tool_calls:
        message["tool_calls"] = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(tool_calls)
        ]
    finish = "tool_calls" if tool_calls else "stop"
    return _json(
        {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": CREATED,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": usage or USAGE,
            "system_fingerprint": "fp_scripted",
        }
    )


def chat(text: str | None = "hello there", *, headers: Headers = (), **fields: Any) -> Script:
    """Return a chat answer; ``fields`` are those of ``chat_body``."""
    return answer(body=chat_body(text, **fields), headers=[(b"x-request-id", b"req_scripted"), *headers])


def chat_events(
    text: str = "hello there",
    *,
    model: str = "gpt-4o-2024-08-06",
    tool_calls: Sequence[tuple[str, str]] = (),
    include_usage: bool = False,
    usage: dict[str, Any] | None = None,
) -> list[bytes]:
    """Return the events of a chat stream without ``[DONE]``: a word each, tool-call arguments in two halves.

    With ``include_usage`` the last one has the usage and no choices, and the others ``"usage": null``.
    """

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk: dict[str, Any] = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": CREATED}
        chunk |= {"model": model, "system_fingerprint": "fp_scripted", "choices": choices}
        return b"data: " + _json(chunk | ({"usage": None} if include_usage else {}) | more) + b"\n\n"

    def delta(value: dict[str, Any], finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": value, "logprobs": None, "finish_reason": finish}])

    events = [delta({"role": "assistant", "content": "" if text else None, "refusal": None})]
    events += [delta({"content": word}) for word in _words(text)]
    for n, (name, arguments) in enumerate(tool_calls):
        start = {"index": n, "id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(delta({"tool_calls": [start]}))
        half = len(arguments) // 2
        for part in (arguments[:half], arguments[half:]):
            events.append(delta({"tool_calls": [{"index": n, "function": {"arguments": part}}]}))
    events.append(delta({}, "tool_calls" if tool_calls else "stop"))
    if include_usage:
        events.append(event([], usage=usage or USAGE))
    return events


def chat_stream(text: str = "hello there", *, headers: Headers = (), done: bool = True, **fields: Any) -> Script:
    """Return a chat stream; ``fields`` are those of ``chat_events``."""
    return sse(chat_events(text, **fields), headers=[(b"x-request-id", b"req_scripted"), *headers], done=done)


def completion(text: str = "hello there", *, model: str = "gpt-3.5-turbo-instruct") -> Script:
    """Return a legacy completion."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}
    value = {"id": "cmpl-scripted", "object": "text_completion", "created": CREATED, "model": model}
    return answer(body=_json(value | {"choices": [choice], "usage": USAGE}))


def embeddings(count: int = 1, *, dimensions: int = 3, model: str = "text-embedding-3-small") -> Script:
    """Return ``count`` float vectors."""
    vector = [round(0.1 * (n + 1), 3) for n in range(dimensions)]
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(count)]
    usage = {"prompt_tokens": 4 * count, "total_tokens": 4 * count}
    return answer(body=_json({"object": "list", "data": data, "model": model, "usage": usage}))


def responses(text: str = "hello there", *, model: str = "gpt-4o-2024-08-06") -> Script:
    """Return an answer of the Responses API."""
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg_scripted", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    value = {"id": "resp_scripted", "object": "response", "created_at": CREATED, "status": "completed", "model": model}
    return answer(body=_json(value | {"output": [message], "usage": usage}))


def openai(request: Received) -> Script:
    """Answer like OpenAI: what a chat says is ``echo: `` and the last message; tools are called if there are any."""
    path = request.target.partition("?")[0].rstrip("/")
    if path.endswith("/models"):
        row = {"id": "gpt-4o", "object": "model", "created": CREATED, "owned_by": "scripted"}
        return answer(body=_json({"object": "list", "data": [row]}))
    try:
        body = json.loads(request.body)
    except ValueError:
        return error(400, "the body is not JSON", kind="invalid_request_error")
    model = str(body.get("model", "gpt-4o"))
    if path.endswith("/chat/completions"):
        tools = [(tool["function"]["name"], '{"city":"Paris"}') for tool in body.get("tools", ())]
        text = None if tools else f"echo: {body['messages'][-1]['content']}"
        if not body.get("stream"):
            return chat(text, model=model, tool_calls=tools)
        include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return chat_stream(text or "", model=model, tool_calls=tools, include_usage=include_usage)
    if path.endswith("/completions"):
        return completion(model=model)
    if path.endswith("/responses"):
        return responses(model=model)
    if path.endswith("/embeddings"):
        inputs = body.get("input")
        return embeddings(len(inputs) if isinstance(inputs, list) else 1, model=model)
    return error(404, f"no such path: {path}", kind="invalid_request_error")


def _words(text: str) -> list[str]:
    """Split after each space: the pieces join to ``text``."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + ([words[-1]] if words[-1] else [])
