"""Strategies for chats from ordinary to nearly ordinary: bodies as text, so that odd numbers, members that come twice
and what is no UTF-8 get into them as they would on the wire, and records around them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from otelgw.dialects.labels import FIELDS
from otelgw.tracing.record import Audience, Caller, Capture, Price, Record, decode, encode
from tests.dialects import wire
from tests.tracing.records import CALLER, CHAT, MS, START, attempt, plain

__all__ = ["answers", "records", "requests", "streams"]

NUMBERS = (
    *("0", "1", "-1", "-0", "7", "0.0", "-0.0", "0.7", "1.0", "12.0", "1e2", "1e308", "1e400", "1e-400", "4.9e-324"),
    *("9007199254740993", "9007199254740993.0", "9223372036854775807", "9223372036854775808", "18446744073709551617"),
    *("9.223372036854775807e18", "-9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "NaN", "-Infinity"),
)
TEXTS = (
    *(
        '""',
        '"a"',
        '"assistant"',
        '"stop"',
        '"error"',
        '"unknown"',
        '"tool_calls"',
        '"end_turn"',
        '"auto"',
        '"ü\u2028"',
    ),
    *(r'"\u00fc"', r'"\ud83d\ude00"', r'"\ud800"', r'"\udc00x"', r'"\u0000\n\"\\\/"', '"\x01"', f'"{"x" * 81}"'),
    *(f'"{"ü" * 64}"', f'"{"y" * 20_000}"', '"chat.completion"', '"\udcff"'),  # the last one as a byte that is no UTF-8
)
WORDS = ("null", "true", "false", "[]", "{}", "[1]", '["a"]', '["a", null]', '["a", "b"]', '[{"type": "text"}]')
NESTED = ('{"a": {"b": [1e400]}}', "[" * 5000 + "]" * 5000, '{"cached_tokens": 3}', '{"a": 1, "a": "\\ud800"}')
values = st.sampled_from((*NUMBERS, *TEXTS, *WORDS, *NESTED))

Members = Sequence[tuple[str, str]]


def _object(members: Members) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members) + "}"


def _list(items: Sequence[str]) -> str:
    return "[" + ", ".join(items) + "]"


def _some(table: dict[str, tuple[str, ...]]) -> st.SearchStrategy[Members]:
    """Members of ``table``, which says what each may be; now and then twice."""
    each = [st.tuples(st.just(name), st.sampled_from(told)) for name, told in table.items()]
    return st.lists(st.one_of(each), max_size=5)


def _rarely(other: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Something ``other`` than usual about once in twenty times, as many of these make one body."""
    return st.integers(0, 19).flatmap(lambda drawn: other if drawn == 13 else usual)


def _odd(*names: str) -> st.SearchStrategy[Members]:
    """Nothing mostly; else members of which anything is possible."""
    odd = st.lists(st.tuples(st.sampled_from(names), values), min_size=1, max_size=2)
    return _rarely(odd, st.just(()))


def _mostly(*usual: str) -> st.SearchStrategy[str]:
    return _rarely(values, st.sampled_from(usual))


_numbers = (
    "0",
    "1",
    "-1",
    "-0",
    "0.0",
    "-0.0",
    "0.7",
    "1.0",
    "null",
    "1e308",
    "9007199254740993",
    "18446744073709551617",
)
_counts = ("0", "1", "2", "null", "9223372036854775807")
PARAMETERS = {
    "max_tokens": _counts,
    "max_completion_tokens": _counts,
    "n": _counts,
    "temperature": _numbers,
    "top_p": _numbers,
    "frequency_penalty": _numbers,
    "presence_penalty": _numbers,
    "top_k": ("-1", "0", "40", "null"),
    "seed": ("-9223372036854775808", "0", "1", "null"),
    "stop": ('"END"', '""', '["END"]', '["a", "b"]', "[]", '["", "ü"]', "null"),
    "stream": ("false", "null"),
    "service_tier": ('"auto"', '""', "null"),
    "reasoning_effort": ('"low"', '""', "null"),
    "logit_bias": ('{"50256": -100}', "null"),
    "logprobs": ("true", "false"),
    "parallel_tool_calls": ("true",),
    "prompt_cache_key": ('"k"', "7"),
    "store": ("false",),
    "stream_options": ('{"include_usage": true}',),
    "top_logprobs": ("3",),
    "verbosity": ('"low"',),
}
BEYOND = ("functions", "modalities", "reasoning", "response_format", "tools", "api_key", "extra_body", *sorted(FIELDS))

_message = st.builds(
    lambda role, content, odd: _object([("role", role), ("content", content), *odd]),
    _mostly('"user"', '"system"', '"assistant"', '"developer"'),
    _mostly('"hello"', '"ü\\n"', r'"\u00fc"', f'"{"x" * 300}"'),
    _odd("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "reasoning_content"),
)
_prompt = _rarely(values, st.lists(_message, min_size=1, max_size=3).map(_list))
requests = st.builds(
    lambda model, prompt, parameters, odd: _object([("model", model), ("messages", prompt), *parameters, *odd]),
    _mostly('"gpt"', '""', "null"),
    _prompt,
    _some(PARAMETERS),
    _odd("model", "messages", *PARAMETERS, *BEYOND),
)
"""Bodies of requests, as text."""

_details = {
    "cached_tokens": ("0", "3", "5000", "null"),
    "cache_write_tokens": ("0", "2"),
    "audio_tokens": ("0", "4"),
    "image_tokens": ("0", "1"),
    "reasoning_tokens": ("0", "6"),
    "accepted_prediction_tokens": ("0",),
}
_cost = ("0", "0.5", "-1", "1e-9", "1e308", "-0.0", '{"total_cost": 0.25}', "null", '"free"')
_usage = st.builds(
    lambda given, made, total, put, got, more, odd: _object(
        [
            *(("prompt_tokens", given), ("completion_tokens", made), ("total_tokens", total)),
            *(("prompt_tokens_details", _object(put)), ("completion_tokens_details", _object(got))),
            *(*more, *odd),
        ]
    ),
    _mostly("12", "12", "0", "9223372036854775807"),
    _mostly("5", "5", "0", "9223372036854775807"),
    _mostly("17", "17", "12", "20", "0"),
    _some(_details),
    _some(_details),
    _some({"cost": _cost, "estimated_cost": _cost, "prompt_cache_hit_tokens": ("3",), "is_byok": ("false",)}),
    _odd("prompt_tokens", "input_tokens", "output_tokens", "completion_tokens", "total_tokens", "cost"),
)
SAID = {
    "refusal": ("null",),
    "annotations": ("[]", "null", '[{"type": "url_citation"}]'),
    "audio": ("null",),
    "function_call": ("null",),
    "reasoning": ("null",),
    "reasoning_content": ("null",),
    "tool_calls": ("[]", "null"),
}
_said = st.builds(
    lambda role, content, more, odd: _object([("role", role), ("content", content), *more, *odd]),
    _mostly('"assistant"', '"model"'),
    _mostly('"hi"', '"ü\\u0000"'),
    _some(SAID),
    _odd("role", "content", "name", *SAID),
)
_choice = st.builds(
    lambda said, reason, more, odd: _object([("message", said), ("finish_reason", reason), *more, *odd]),
    _rarely(values, _said),
    _mostly('"stop"', '"length"', '"tool_call"', '"end_turn"', '"error"', '"ünlike"'),
    _some(
        {"index": ("0", "3", "null", '"a"'), "logprobs": ("null", '{"content": []}'), "stop_reason": ("7", '"</s>"')}
    ),
    _odd("message", "finish_reason", "index", "delta", "native_finish_reason"),
)
_choices = _rarely(values, st.lists(_choice, min_size=1, max_size=1).map(_list))
TOLD = {
    "created": ("1741569952", "null", "1e400"),
    "model": ('"gpt-4o-2024-08-06"', '""', "null", '"ü"'),
    "service_tier": ('"default"', '""', "null"),
    "system_fingerprint": ('"fp_1"', '""', "null"),
    "prompt_filter_results": ("[]",),
    "kv_transfer_params": ("null",),
    "x_groq": ('{"id": "req_1"}', '{"usage": {"prompt_tokens": 1}}'),
}
answers = st.builds(
    lambda name, kind, choices, usage, more, odd: _object(
        [("id", name), ("object", kind), ("choices", choices), ("usage", usage), *more, *odd]
    ),
    _mostly('"chatcmpl-1"', '"ü"'),
    _mostly('"chat.completion"'),
    _choices,
    _rarely(values, _usage),
    _some(TOLD),
    _odd("id", "object", "choices", "usage", "error", "detail", "message", "type", "output", "provider", *TOLD),
)
"""Bodies of answers, as text."""

_WHOLE: tuple[tuple[str, Any], ...] = (
    *[("", lambda body: body)] * 9,
    ("identity", lambda body: body),
    (" ", lambda body: body),
    ("gzip", gzip.compress),
    ("GZIP ", gzip.compress),
    ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    ("deflate", zlib.compress),
    ("", lambda body: b" \r\n" + body + b"\n\n"),
)
_DAMAGED: tuple[tuple[str, Any], ...] = (
    ("gzip", lambda body: gzip.compress(body)[:-9]),
    ("gzip", lambda body: body),
    ("br", lambda body: body),
    ("", lambda body: body[:-1]),
    ("", lambda body: b"\xef\xbb\xbf" + body),
    ("", lambda body: body + b"x"),
    ("", lambda _: b""),
)


def _captured(text: str, kind: str, wrapping: tuple[str, Any], more: dict[str, Any]) -> Capture:
    encoding, wrap = wrapping
    body = wrap(text.encode("utf-8", "surrogateescape"))
    return Capture(**{"content_type": kind, "encoding": encoding, "size": len(body), "head": body, **more})


def _capture(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Capture]:
    kinds = _rarely(
        st.just(wire.SSE), st.sampled_from((wire.JSON, "", "text/plain", "application/json; charset=utf-8"))
    )
    wrappings = _rarely(st.sampled_from(_DAMAGED), st.sampled_from(_WHOLE))
    partly = st.sampled_from(({"tail": b"}"}, {"sha256": "ab" * 32}, {"withheld": True}))
    return st.builds(
        _captured, texts, kinds, wrappings, _rarely(partly, st.sampled_from(({}, {"size": 0}, {"size": 1 << 40})))
    )


_TIMES = (0, 1, 22 * MS, 91 * MS, 10**12)
_USUAL: dict[str, tuple[Any, ...]] = {
    "call_id": ("", "call-2", "c" * 200),
    "trace_id": ("0" * 31 + "1", "f" * 32, "0AF7651916cd43dd8448eb211c80319c"),
    "span_id": ("f" * 16, "0" * 15 + "1"),
    "generation_span_id": ("e" * 16,),
    "parent_span_id": ("", "a" * 16),
    "trace_flags": (0, 1, 2, 3, 128, 255, 256, 511),
    "sampled": (False,),
    "start": (1, START + 7, (1 << 63) + 1),
    **dict.fromkeys(("upstream_start", "first_byte", "first_chunk", "generation_end"), _TIMES),
    "end": (1, 10**12),
    "route": ("", "/v1/{path}", "/openai/deployments/{model}/chat/completions"),
    "path": ("", "/ü"),
    "scheme": ("", "https"),
    "http_version": ("2", ""),
    "server_address": ("", "other.example"),
    "server_port": (0, 70_000),
    "client_address": ("", "2001:db8::1"),
    "user_agent": ("", "ÿ"),
    "sent_bytes": (0, 1 << 40),
    "target": (
        *(replace(CHAT, **each) for each in ({"alias": ""}, {"provider": "x_ai"}, {"provider": ""}, {"price": None})),
        replace(CHAT, price=Price("genai-prices", "openai"), deployment_id="d-1", server_address="", server_port=0),
        replace(CHAT, price=Price("genai-prices", "openai", "gpt-4o-audio-preview"), model="gpt-ü"),
    ),
    "caller": (Caller(), replace(CALLER, user_id="user-7", user_email="ann@mail.example"), Caller(user_id="ü")),
    "cost": (0.0, -0.0, 0.25, 0.5, 1e308),
    "retry_count": (1,),
    "stream_usage_injected": (True,),
    "audience": (Audience(without=("console",)), Audience(nobody=True)),
}
_UNUSUAL: dict[str, tuple[Any, ...]] = {
    "generation_span_id": ("",),
    "trace_state": ("congo=t61", ",", "="),
    "link_trace_id": ("ab" * 16,),
    "baggage": ({"k": "v"}, {"gen_ai.request.model": "x"}),
    "end": (0,),
    "method": ("GET", "BREW"),
    "status": (0, 201, 204, 400, 404, 500, 503),
    "error_type": ("timeout", "client_disconnect"),
    "error_message": ("it broke",),
    "stream": (True,),
    "request_headers": ([("x-a", "1")],),
    "response_headers": ([("x-b", "2")],),
    "target": (
        *(replace(CHAT, **each) for each in ({"operation": "embeddings"}, {"operation": "fetch_response"})),
        *(replace(CHAT, **each) for each in ({"dialect": "openai_completions"}, {"model": ""})),
    ),
    "content": (False,),
    "facts": ({"usage": {"input": 1}},),
    "metadata": ({"tags": ["a"]}, {"session_id": 7}),
    "labels": ({"otelgw.metadata.a": "b"}, {"user.id": "u"}),
    "raw_request": ("curl https://api.example",),
    "credentials": (("authorization",),),
}
_TRIED: dict[str, tuple[Any, ...]] = {
    "number": (2, 3),
    "start": (0, 10**12),
    "end": (0, 1),
    "first_byte": (0, 1),
    "url": ("", "https://h.example/v1?key=CANARY&x=1", "https://user:CANARY@h.example/v1"),
    "server_address": ("", "h.example"),
    "server_port": (0, 8443),
    "retry_reason": ("429", "timeout"),
    "provider": ("", "azure.ai.openai"),
    "model": ("", "gpt-4.1"),
    "request_id": ("", "ü", "r" * 100),
}
_TRIED_ODDLY: dict[str, tuple[Any, ...]] = {
    "method": ("GET", "BREW"),
    "status": (0, 201, 429),
    "error_type": ("upstream_reset",),
    "request_headers": ([("x-a", "1")],),
    "response_headers": ([("x-b", "2")],),
}


def _changes(table: dict[str, tuple[Any, ...]], least: int = 0, most: int = 1) -> st.SearchStrategy[dict[str, Any]]:
    each = [st.tuples(st.just(name), st.sampled_from(told)) for name, told in table.items()]
    return st.lists(st.one_of(each), min_size=least, max_size=most).map(dict)


def _tries(count: int, usual: dict[str, Any], odd: dict[str, Any]) -> list[Any]:
    return [replace(attempt(number + 1), **(usual | odd if number == 0 else {})) for number in range(count)]


def _record(usual: dict[str, Any], odd: dict[str, Any], tries: list[Any], asked: Capture, answered: Capture) -> Record:
    fields = {"request": asked, "response": answered, "attempts": tries, **usual, **odd}
    return decode(encode(plain(**fields)))


_nothing: st.SearchStrategy[dict[str, Any]] = st.just({})
records = st.builds(
    _record,
    _changes(_USUAL, most=4),
    _rarely(_changes(_UNUSUAL, least=1), _nothing),
    st.builds(
        _tries,
        _rarely(st.sampled_from((0, 2)), st.just(1)),
        _changes(_TRIED, most=3),
        _rarely(_changes(_TRIED_ODDLY, least=1), _nothing),
    ),
    _capture(requests),
    _capture(answers),
)
"""Records as the pipeline reads them from the spool."""

_delta = st.builds(
    lambda said, more, odd: _object([*said, *more, *odd]),
    st.sampled_from(((), (("content", '"hel"'),), (("content", '"ü\\n"'),), (("content", '""'),))),
    _some({"role": ('"assistant"',), "refusal": ("null",)}),
    _odd("role", "content", "refusal", "tool_calls", "reasoning_content", "audio", "function_call"),
)
_part = st.builds(
    lambda index, delta, reason, odd: _object([("index", index), ("delta", delta), ("finish_reason", reason), *odd]),
    _mostly("0"),
    _rarely(values, _delta),
    _mostly("null"),
    _odd("index", "delta", "message", "logprobs", "text"),
)
_NAMED = (("id", '"chatcmpl-1"'), ("object", '"chat.completion.chunk"'), ("model", '"gpt-4o"'))


def _chunk(named: Members, choices: str, more: Members, odd: Members) -> str:
    return _object([*named, ("choices", choices), *more, *odd])


def _chunks(choices: st.SearchStrategy[str], more: st.SearchStrategy[Members]) -> st.SearchStrategy[str]:
    named = _rarely(st.permutations(_NAMED).map(lambda drawn: drawn[:2]), st.just(_NAMED))
    return st.builds(_chunk, named, choices, more, _odd("id", "model", "choices", "usage", "error", "created", *TOLD))


_TOLD_MORE = _some({"usage": ("null",), "service_tier": ('"default"',), "system_fingerprint": ('"fp_1"', "null")})
_saying = _chunks(st.lists(_part, min_size=1, max_size=1).map(_list), _TOLD_MORE)
_ending = _chunks(
    _mostly('"stop"', '"length"').map(lambda why: f'[{{"index": 0, "delta": {{}}, "finish_reason": {why}}}]'),
    _TOLD_MORE,
)
_counting = _chunks(st.just("[]"), _usage.map(lambda usage: [("usage", usage)]))


def _sent(said: list[str], ends: list[str], counts: list[str], done: str, line: str) -> str:
    return "".join(f"data: {chunk}{line}{line}" for chunk in (*said, *ends, *counts) if chunk) + done


_sse = st.builds(
    _sent,
    st.lists(_saying, min_size=1, max_size=5),
    _rarely(st.lists(_ending, max_size=2), _ending.map(lambda chunk: [chunk])),
    _rarely(st.just([]), _counting.map(lambda chunk: [chunk])),
    _rarely(st.sampled_from(("", "data: [DO", "event: error\ndata: {}\n\n", ": x\n\n")), st.just("data: [DONE]\n\n")),
    _rarely(st.just("\r\n"), st.just("\n")),
)
_asking = _rarely(requests, requests.map(lambda text: text.replace("{", '{"stream": true, ', 1)))
streams = st.builds(
    lambda usual, odd, asked, answered: _record({"stream": True, **usual}, odd, [attempt()], asked, answered),
    _changes(_USUAL, most=3),
    _rarely(_changes(_UNUSUAL, least=1), _nothing),
    _capture(_asking),
    _capture(_sse).map(lambda drawn: replace(drawn, content_type=wire.SSE)),
)
"""Records of streams, as the pipeline reads them from the spool."""
