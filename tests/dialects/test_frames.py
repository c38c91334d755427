from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otelgw.dialects import openai_chat
from otelgw.dialects.facts import Facts
from otelgw.dialects.frames import Frames
from tests.dialects import wire


def chunk(text: Any, **changes: Any) -> dict[str, Any]:
    """Return a chunk in OpenAI's shape; ``delta`` among the changes is put in its place."""
    delta = changes.pop("delta", {"content": text})
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": changes.pop("finish_reason", None)}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} | changes


def lines(*events: bytes) -> bytes:
    return b"".join(b"data: " + event + b"\n\n" for event in events)


def written(made: Any, *, ascii_only: bool = False, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return json.dumps(made, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")


def read(stream: bytes) -> Facts:
    return openai_chat.read_response(stream, wire.SSE, stream=True)


def one_by_one(stream: bytes) -> Facts:
    """Read the same events, each with a comment before it: no frame begins like that, so that every one is decoded."""
    return read(re.sub(rb"(?m)^data: ", b":\ndata: ", stream))


STREAMS = {
    "plain": [chunk(f"word {n} ") for n in range(50)],
    "spaced": [chunk(f"word {n} ") for n in range(50)],
    "escapes": [chunk(text) for text in ['"', "\\", "\n", "é", "\u2028", "/", "😀"] * 8],
    "padded": [chunk(f"w{n}", obfuscation="aZ09"[: n % 4 + 1]) for n in range(50)],
    "thoughts": [chunk("", delta={"content": None, "reasoning_content": f"w{n}"}) for n in range(50)],
    "role in every chunk": [chunk("", delta={"role": "assistant", "content": f"w{n}"}) for n in range(50)],
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_long_answer_is_read_without_decoding_every_chunk(name: str) -> None:
    made = STREAMS[name]
    model, *events = [written(each, spaced=name == "spaced") for each in made]
    stream = lines(model, *events, b"[DONE]")
    run = Frames().run(stream, len(lines(model)), b"data: " + model, made[0])

    assert run is not None
    assert run.length >= len(lines(*events[:-1]))
    assert read(stream) == one_by_one(stream)


TEXT = st.one_of(
    st.text(max_size=4), st.sampled_from(['"', "\\", '\\"', "\n", "\ud83d", "\ude00", "}\n\ndata: ", "é", "", '"},'])
)
RAW = st.sampled_from(
    [
        b"[DONE]",
        b'{"error":{"message":"no","code":"overloaded"}}',
        b'{"id":"c-1","choices":[]}',
        written(chunk("x")) + b"\nid: 4",
        written(chunk("x"))[:-9],
        written(chunk("a\\")).replace(b"\\\\", b"\\"),
        written(chunk("xy")).replace(b"xy", b"\xc3"),
        written(chunk("xy")).replace(b"xy", b"\xa9"),
        written(chunk("xy")).replace(b"xy", b"\\ud83d"),
        written(chunk("xy")).replace(b"xy", b"\\ude00"),
        written(chunk("xy")).replace(b"xy", b"a\tb"),
        written(chunk("xy")).replace(b'"xy"', b'"x","content":"y"'),
        written(chunk("xy")).replace(b'"xy"', b'"x","tool_calls":[{"id":"t","function":{"name":"f"}}]'),
        written(chunk("xy")) + b"\n\nhello" + written(chunk("xy"))[-60:],
    ]
)
CHUNKS = st.one_of(
    TEXT.map(chunk),
    TEXT.map(chunk),
    st.builds(chunk, TEXT, obfuscation=st.text("aZ0-", max_size=3)),
    st.builds(chunk, TEXT, usage=st.none() | st.builds(lambda n: {"prompt_tokens": n}, st.integers(0, 3))),
    st.builds(chunk, TEXT, finish_reason=st.sampled_from([None, "stop"]), created=st.integers(0, 1)),
    st.builds(
        lambda text, n: chunk(text) | {"choices": [chunk(text)["choices"][0] | {"index": n}]}, TEXT, st.integers(0, 1)
    ),
    st.builds(lambda text: chunk("", delta={"content": None, "reasoning": text}), TEXT),
    st.builds(lambda text: chunk("", delta={"role": text, "content": text}), TEXT),
    st.builds(lambda text: chunk("", delta={"content": [{"type": "text", "text": text}]}), TEXT),
)
EVENTS = st.one_of(
    st.builds(written, CHUNKS, ascii_only=st.booleans()).flatmap(
        lambda event: st.integers(1, 6).map(lambda n: [event] * n)
    ),
    RAW.map(lambda event: [event]),
)


@given(st.lists(EVENTS, max_size=12), st.binary(max_size=6), st.booleans())
@example([[written(chunk("a"))] * 9, [written(chunk("é"))] * 9], b"", True)
def test_a_stream_says_the_same_as_with_every_chunk_decoded(runs: list[list[bytes]], end: bytes, crlf: bool) -> None:
    stream = lines(*(event for run in runs for event in run)) + end
    if crlf:
        stream = stream.replace(b"\n", b"\r\n")

    assert read(stream) == one_by_one(stream)


@given(st.lists(CHUNKS.map(written), min_size=1, max_size=9), st.integers(0, 400))
def test_a_stream_cut_anywhere_says_the_same_as_with_every_chunk_decoded(events: list[bytes], cut: int) -> None:
    stream = lines(*events)[:cut]

    assert read(stream) == one_by_one(stream)


def test_a_stream_of_which_no_two_chunks_are_alike_is_not_searched_on_and_on() -> None:
    frames = Frames()
    different = [chunk("x", created=n) for n in range(9)]
    alike = lines(*[written(chunk("y"))] * 9)
    events = [b"data: " + written(each) for each in different]

    for event, following, each in zip(events, events[1:], different, strict=False):
        assert frames.run(following + b"\n\n", 0, event, each) is None
    assert frames.run(alike, 0, alike.partition(b"\n")[0], chunk("y")) is None
