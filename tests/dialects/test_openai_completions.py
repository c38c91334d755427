from __future__ import annotations

import json

from msgspec.structs import replace

from otelgw.dialects.facts import Usage
from otelgw.dialects.openai_completions import read_request, read_response
from tests.dialects import wire
from tests.dialects.conventions import check_attributes, check_content


def test_prompts_are_messages_and_token_ids_are_none() -> None:
    facts = read_request(b'{"model":"m","prompt":["Hello","World"],"max_tokens":7,"n":2,"stop":"."}', wire.JSON)
    check_attributes(dict(facts.attributes))
    check_content(dict(facts.content))
    assert facts.attributes["gen_ai.request.max_tokens"] == 7
    assert facts.attributes["gen_ai.request.stop_sequences"] == ["."]
    assert [m["parts"][0]["content"] for m in facts.content["gen_ai.input.messages"]] == ["Hello", "World"]
    assert read_request(b'{"model":"m","prompt":[[1,2],[3]]}', wire.JSON).content == {}


def test_streamed_and_whole_answers_read_the_same() -> None:
    whole = read_response(wire.answer("completions.json"), wire.JSON, stream=False)
    streamed = read_response(wire.answer("completions.sse"), wire.SSE, stream=True)
    check_content(dict(whole.content))
    assert whole == replace(streamed, answer=None)
    assert streamed.answer == json.loads(wire.answer("completions.json"))
    assert whole.attributes["gen_ai.response.finish_reasons"] == ["length", "stop"]
    assert whole.usage == Usage(input=1, output=2)
    assert [m["parts"][0]["content"] for m in whole.content["gen_ai.output.messages"]] == [" world", " there"]


def test_a_cut_stream_ends_its_open_choices_with_error() -> None:
    body = wire.answer("completions.sse")
    facts = read_response(body[: body.index(b'"ld"')], wire.SSE, stream=True)
    assert facts.attributes["gen_ai.response.finish_reasons"] == ["error", "stop"]
    assert not facts.complete
