"""The official OpenAI SDK through the gateway: what it sees is what the provider said, and the spans agree with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.e2e.conftest import Take
from tests.e2e.provider import COUNTRY, RESPONSE_USAGE, TRANSCRIPT_USAGE, form
from tests.e2e.tree import Tree
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway
from tests.servers.upstream import USAGE, ScriptedUpstream

MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Country(BaseModel):
    name: str
    capital: str


def assert_agree(tree: Tree, completion: ChatCompletion) -> None:
    """The generation's span says what the SDK's own object says."""
    facts = tree.model.attributes
    assert facts["gen_ai.response.id"] == completion.id
    assert facts["gen_ai.response.model"] == completion.model
    reasons = [choice.finish_reason for choice in completion.choices]
    assert facts["gen_ai.response.finish_reasons"] == reasons
    assert completion.usage is not None
    assert tree.usage() == (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    assert facts["otelgw.usage.source"] == "provider"
    assert not any(span.failed for span in tree.spans)
    assert tree.server.attributes["http.response.status_code"] == 200
    assert len(tree.attempts) == 1


def text_of(chunks: Iterable[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_chat_is_one_trace_that_agrees_with_the_sdk(client: openai.OpenAI, tree: Take) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=HELLO, temperature=0.2, max_tokens=50, seed=7, stop=["END"], n=1
    )
    seen = tree()
    assert completion.choices[0].message.content == "echo: hello"
    assert_agree(seen, completion)
    facts = seen.model.attributes
    assert seen.model.name == f"chat {MODEL}"
    assert seen.said() == "echo: hello"
    assert facts["gen_ai.input.messages"] == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "hello"}]},
    ]
    assert (facts["gen_ai.request.temperature"], facts["gen_ai.request.max_tokens"]) == (0.2, 50)
    assert (facts["gen_ai.request.seed"], facts["gen_ai.request.stop_sequences"]) == (7, ["END"])
    assert facts["gen_ai.usage.cost"] == pytest.approx(9 * 0.15e-6 + 4 * 0.6e-6)


def test_the_raw_response_names_the_trace(client: openai.OpenAI, tree: Take) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    seen = tree()
    assert raw.headers["x-otelgw-trace-id"] == seen.server.trace_id
    assert (
        raw.headers["x-litellm-call-id"] == raw.headers["x-otelgw-call-id"] == seen.server.attributes["otelgw.call_id"]
    )
    assert raw.headers["traceresponse"].split("-")[1:3] == [seen.server.trace_id, seen.server.span_id]
    assert float(raw.headers["x-litellm-response-cost"]) == pytest.approx(seen.model.attributes["gen_ai.usage.cost"])
    assert raw.headers["x-request-id"] == seen.attempts[0].attributes["otelgw.attempt.request_id"] == "req_scripted"
    assert raw.headers["x-litellm-model-group"] == seen.model.attributes["otelgw.model.alias"]
    assert_agree(seen, raw.parse())


def test_a_stream_reaches_the_sdk_without_the_usage_that_only_the_gateway_asked_for(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    seen = tree()
    assert text_of(chunks) == seen.said() == "echo: hello"
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    facts = seen.model.attributes
    assert facts["gen_ai.response.id"] == chunks[0].id
    assert facts["gen_ai.response.finish_reasons"] == [chunks[-1].choices[0].finish_reason] == ["stop"]
    assert facts["gen_ai.request.stream"] is True
    assert 0 < facts["gen_ai.response.time_to_first_chunk"] * 1e9 <= seen.model.end - seen.model.start
    assert seen.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])


def test_a_stream_with_usage_keeps_it(client: openai.OpenAI, tree: Take) -> None:
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True})
    )
    *words, last = chunks
    assert text_of(words) == "echo: hello"
    assert last.choices == []
    assert last.usage is not None
    assert tree().usage() == (last.usage.prompt_tokens, last.usage.completion_tokens)


def test_a_raw_stream_has_the_headers_before_its_first_chunk(client: openai.OpenAI, tree: Take) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, stream=True)
    trace_id = raw.headers["x-otelgw-trace-id"]
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert "x-litellm-response-cost" not in raw.headers
    assert text_of(raw.parse()) == "echo: hello"
    assert tree().server.trace_id == trace_id


def test_a_streaming_response_gives_the_bytes_as_they_are(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO) as response:
        assert json.loads(response.read())["id"] == tree().model.attributes["gen_ai.response.id"]


def test_the_streaming_helper_puts_the_same_completion_together(client: openai.OpenAI, tree: Take) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HELLO, stream_options={"include_usage": True}) as stream:
        stream.until_done()
        completion = stream.get_final_completion()
    seen = tree()
    assert completion.choices[0].message.content == seen.said()
    assert_agree(seen, completion)


def test_tool_calls_agree_and_their_results_stand_in_the_next_turn(client: openai.OpenAI, tree: Take) -> None:
    first = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER])
    seen = tree()
    message = first.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert_agree(seen, first)
    (said,) = seen.model.attributes["gen_ai.output.messages"]
    part = {"type": "tool_call", "id": call.id, "name": "weather", "arguments": json.loads(call.function.arguments)}
    assert said == {"role": "assistant", "parts": [part], "finish_reason": "tool_call"}
    (definition,) = seen.model.attributes["gen_ai.tool.definitions"]
    assert (definition["type"], definition["name"]) == ("function", "weather")

    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    client.chat.completions.create(model=MODEL, messages=[*HELLO, message, result])  # type: ignore[list-item]
    *_, called, answered = tree().model.attributes["gen_ai.input.messages"]
    assert called["parts"] == [part]
    assert answered["parts"] == [{"type": "tool_call_response", "id": call.id, "response": "sunny"}]


def test_streamed_tool_calls_are_put_together_from_their_pieces(client: openai.OpenAI, tree: Take) -> None:
    with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[WEATHER]) as stream:
        completion = stream.get_final_completion()
    seen = tree()
    (call,) = completion.choices[0].message.tool_calls or []
    (said,) = seen.model.attributes["gen_ai.output.messages"]
    assert said["parts"] == [
        {"type": "tool_call", "id": call.id, "name": "weather", "arguments": json.loads(call.function.arguments)}
    ]
    assert completion.choices[0].finish_reason == "tool_calls"
    assert seen.model.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]


def test_structured_outputs_parse(client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take) -> None:
    completion = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Country)
    seen = tree()
    assert completion.choices[0].message.parsed == Country(**COUNTRY)
    assert upstream.requests[0].json()["response_format"]["json_schema"]["name"] == "Country"
    assert seen.model.attributes["gen_ai.output.type"] == "json"
    assert_agree(seen, completion)


@pytest.mark.parametrize(("asked", "on_the_wire"), [({}, "base64"), ({"encoding_format": "float"}, "float")])
def test_embeddings_arrive_in_either_encoding(
    client: openai.OpenAI, tree: Take, asked: dict[str, Any], on_the_wire: str
) -> None:
    made = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"], **asked)
    seen = tree()
    assert [len(row.embedding) for row in made.data] == [3, 3]
    facts = seen.model.attributes
    assert seen.model.name == "embeddings text-embedding-3-small"
    assert facts["gen_ai.request.encoding_formats"] == [on_the_wire]
    assert facts["gen_ai.usage.input_tokens"] == made.usage.prompt_tokens
    assert "gen_ai.usage.output_tokens" not in facts
    assert facts["gen_ai.response.model"] == made.model


def test_legacy_completions_agree(client: openai.OpenAI, tree: Take) -> None:
    made = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello", max_tokens=5)
    seen = tree()
    facts = seen.model.attributes
    assert seen.model.name == "text_completion gpt-3.5-turbo-instruct"
    assert facts["gen_ai.response.id"] == made.id
    assert facts["gen_ai.response.finish_reasons"] == [made.choices[0].finish_reason]
    assert seen.said() == made.choices[0].text
    assert made.usage is not None
    assert seen.usage() == (made.usage.prompt_tokens, made.usage.completion_tokens)


@pytest.mark.parametrize("streamed", [False, True])
def test_responses_agree(client: openai.OpenAI, tree: Take, streamed: bool) -> None:
    if streamed:
        with client.responses.stream(model=MODEL, input="hello", instructions="Be brief.") as stream:
            made: Any = stream.get_final_response()
    else:
        made = client.responses.create(model=MODEL, input="hello", instructions="Be brief.")
    seen = tree()
    facts = seen.model.attributes
    assert made.output_text == seen.said() == "hello there"
    assert facts["gen_ai.response.id"] == made.id
    assert facts["openai.api.type"] == "responses"
    assert facts["gen_ai.system_instructions"] == [{"type": "text", "content": "Be brief."}]
    assert seen.usage() == (made.usage.input_tokens, made.usage.output_tokens) == (9, 4)
    assert facts["gen_ai.usage.cache_read.input_tokens"] == RESPONSE_USAGE["input_tokens_details"]["cached_tokens"]  # type: ignore[index]
    assert facts["gen_ai.usage.reasoning.output_tokens"] == 1
    assert facts.get("gen_ai.request.stream", False) is streamed


def test_models_are_listed_and_found_without_a_call_upstream(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    assert {model.id for model in client.models.list()} == {"*", "impatient"}
    assert client.models.retrieve("impatient").owned_by == "openai"
    assert upstream.requests == []
    for route in ("GET /v1/models", "GET /v1/models/{model}"):
        seen = tree()
        assert (seen.server.name, seen.generation, seen.attempts) == (route, None, ())


def test_images_are_made_and_edited(client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take) -> None:
    made = client.images.generate(model="gpt-image-1", prompt="a cat")
    assert made.data
    assert made.data[0].b64_json
    assert tree().model.attributes["gen_ai.request.model"] == "gpt-image-1"
    client.images.edit(model="gpt-image-1", prompt="a dog", image=("a.png", b"\x89PNG", "image/png"))
    seen = tree()
    assert seen.server.attributes["http.route"] == "/v1/images/edits"
    assert seen.model.attributes["gen_ai.request.model"] == "gpt-image-1"
    sent = form(upstream.requests[-1])
    assert (sent["prompt"], sent["image"], sent["model"]) == (b"a dog", b"\x89PNG", b"gpt-image-1")


@pytest.mark.parametrize("size", [10, 9 * 1024 * 1024])
def test_an_audio_file_is_passed_on_whole_and_never_recorded(
    client: openai.OpenAI, gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, size: int
) -> None:
    audio = (b"CANARYaudio" * (size // 11 + 1))[:size]
    heard = client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", audio, "audio/mpeg"), language="en")
    seen = tree()
    assert heard.text == f"{size} bytes heard"
    assert form(upstream.requests[-1])["file"] == audio
    facts = seen.model.attributes
    assert facts["gen_ai.request.model"] == "whisper-1"
    assert seen.usage() == (TRANSCRIPT_USAGE["input_tokens"], TRANSCRIPT_USAGE["output_tokens"])
    assert seen.said() == heard.text
    assert seen.server.attributes["http.request.body.size"] > size
    assert b"CANARYaudio" not in gateway.spool.payloads[-1]


def test_speech_is_passed_on_as_bytes(client: openai.OpenAI, gateway: RunningGateway, tree: Take) -> None:
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="hello")
    assert spoken.content.startswith(b"ID3\x00\x01")
    assert tree().model.attributes["gen_ai.request.model"] == "tts-1"
    assert bytes(range(128, 160)) not in gateway.spool.payloads[-1]


def test_moderations_are_traced_and_are_no_generation(client: openai.OpenAI, tree: Take) -> None:
    assert client.moderations.create(model="omni-moderation-latest", input="hello").results[0].flagged is False
    seen = tree()
    assert seen.generation is None
    assert len(seen.attempts) == 1


def test_files_pass_where_the_config_names_them(client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take) -> None:
    made = client.files.create(file=("a.jsonl", b"CANARYfile"), purpose="batch")
    assert (made.id, made.bytes) == ("file-scripted", 10)
    assert client.files.retrieve(made.id).id == made.id
    assert client.files.content(made.id).text == '{"line": 1}\n'
    assert client.files.delete(made.id).deleted
    assert [request.target for request in upstream.requests] == [
        "/v1/files",
        *["/v1/files/file-scripted", "/v1/files/file-scripted/content", "/v1/files/file-scripted"],
    ]
    found = [tree() for _ in range(4)]
    assert {seen.server.attributes["http.route"] for seen in found} == {"/v1/files", "/v1/files/{path}"}
    assert [seen.generation for seen in found] == [None] * 4
    with pytest.raises(openai.NotFoundError, match="pass_through"):
        client.batches.list()
    assert tree().server.attributes["error.type"] == "not_found"


def test_labels_from_the_body_stand_on_every_span_and_stay_here(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        user="palantir",
        extra_body={"metadata": {"tags": ["job:1", "task:2"], "session_id": "s-1", "feature": "search"}},
    )
    seen = tree()
    for span in seen.spans:
        assert span.attributes["user.id"] == "palantir"
        assert span.attributes["session.id"] == "s-1"
        assert list(span.attributes["otelgw.tags"]) == ["job:1", "task:2"]
        assert span.attributes["otelgw.metadata.feature"] == "search"
    assert "metadata" not in upstream.requests[0].json()


def test_the_callers_trace_goes_on_and_ends_here(client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take) -> None:
    parent = "00-80e1afed08e019fc1110464cfa66635c-7a085853722dc6d2-01"
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, extra_headers={"traceparent": parent, "tracestate": "a=1"}
    )
    seen = tree()
    assert (seen.server.trace_id, seen.server.parent_id) == tuple(parent.split("-")[1:3])
    assert raw.headers["x-otelgw-trace-id"] == seen.server.trace_id
    assert upstream.requests[0].header("traceparent") is None


def test_the_callers_key_stops_at_the_gateway(client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO)
    assert upstream.requests[0].header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert b"sk-anything" not in upstream.requests[0].raw_head
    tree()


async def _ask_asynchronously(url: str) -> tuple[ChatCompletion, list[ChatCompletionChunk], list[float]]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-anything", max_retries=0) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=HELLO)
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        made = await client.embeddings.create(model="text-embedding-3-small", input="one")
        return completion, chunks, made.data[0].embedding


def test_the_async_client_sees_and_leaves_the_same(gateway: RunningGateway, tree: Take) -> None:
    completion, chunks, vector = asyncio.run(_ask_asynchronously(gateway.url))
    assert_agree(tree(), completion)
    streamed = tree()
    assert text_of(chunks) == streamed.said() == "echo: hello"
    assert streamed.usage() == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert len(vector) == 3
    assert tree().model.attributes["gen_ai.operation.name"] == "embeddings"


def test_concurrent_requests_leave_one_whole_trace_each(gateway: RunningGateway, tree: Take) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0) as client:

            async def ask(number: int) -> str:
                messages: Any = [{"role": "user", "content": f"number {number}"}]
                if number % 2:
                    made = await client.chat.completions.create(model=MODEL, messages=messages)
                    return made.choices[0].message.content or ""
                stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
                return text_of([chunk async for chunk in stream])

            return await asyncio.gather(*map(ask, range(24)))

    heard = asyncio.run(ask_all())
    assert heard == [f"echo: number {number}" for number in range(24)]
    found = [tree() for _ in range(24)]
    assert sorted(seen.said() for seen in found) == sorted(heard)
    assert len({seen.server.trace_id for seen in found}) == 24


def test_the_sdk_over_http2_sees_and_leaves_the_same(gateway: RunningGateway, tree: Take) -> None:
    http = openai.DefaultHttpxClient(http1=False, http2=True)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", http_client=http, max_retries=0) as client:
        assert text_of(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)) == "echo: hello"
    assert tree().server.attributes["network.protocol.version"] == "2"
