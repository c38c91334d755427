"""Messages there and back: OpenAI's -> ``gen_ai.*`` -> the payload's."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from otelgw.dialects.openai_chat import read_request, read_response
from otelgw_exporters import payload
from tests.dialects import wire
from tests.dialects.conventions import SCHEMAS, check_content
from tests.exporters.samples import span

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
BASE64 = st.sampled_from(["AAAA", "iVBORw0KGgo="])


def item(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


def held(key: str, **fields: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return {key: st.fixed_dictionaries(fields)}


URLS = st.sampled_from(["https://example.com/a.png", "data:image/png;base64,AAAA", "gs://bucket/b"])
MEDIA = st.one_of(
    item("image_url", **held("image_url", url=URLS)),
    item("image_url", file_id=TEXT),
    item("video_url", **held("video_url", url=URLS)),
    item("audio_url", **held("audio_url", url=st.just("https://example.com/a.wav"))),
    item("input_audio", **held("input_audio", data=BASE64, format=st.sampled_from(["wav", "mp3", "pcm16"]))),
    item("file", **held("file", file_id=TEXT)),
    item("file", **held("file", file_data=st.just("data:application/pdf;base64,AAAA"), filename=TEXT)),
    item("file", **held("file", file_url=st.just("https://example.com/a.pdf"))),
)
OWN = st.builds(
    lambda kind, rest: {"type": kind, **rest},
    st.sampled_from(["x_search", "text_block", "custom"]),
    st.dictionaries(st.sampled_from(["a", "b", "items"]), JSON, min_size=1, max_size=2),
)
PART = item("text", text=TEXT) | MEDIA | OWN
CONTENT = TEXT | st.lists(PART, min_size=2, max_size=3) | st.lists(MEDIA | OWN, min_size=1, max_size=1)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": TEXT,
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {
                    "name": TEXT,
                    "arguments": st.dictionaries(TEXT, JSON, max_size=2).map(json.dumps) | st.just("not json"),
                }
            ),
        }
    ),
    min_size=1,
    max_size=2,
)
NAME = {"name": TEXT}
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user"]), "content": CONTENT}, optional=NAME
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": TEXT, "content": CONTENT}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none() | CONTENT},
        optional={"tool_calls": CALLS, "refusal": TEXT, "reasoning_content": TEXT, **NAME},
    ),
)


def back(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the payload of a span that holds nothing but ``gen_ai.*``."""
    check_content({key: value for key, value in attributes.items() if key in SCHEMAS})
    return payload.standard_payload(span(2, {"gen_ai.operation.name": "chat", **attributes}))


def normal(message: dict[str, Any]) -> dict[str, Any]:
    """Return ``message`` with the JSON in its tool calls read: its spelling is not what was said."""
    calls = [
        {**call, "function": {**call["function"], "arguments": _read(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return message | ({"tool_calls": calls} if calls else {})


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@settings(max_examples=300, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=4))
def test_messages_come_back_from_the_conventions_as_they_were(messages: list[dict[str, Any]]) -> None:
    facts = read_request(json.dumps({"model": "m", "messages": messages}).encode(), wire.JSON)
    found = back(dict(facts.content))["messages"]
    assert [normal(message) for message in found] == [normal(message) for message in messages]


ANSWER = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={"tool_calls": CALLS, "refusal": TEXT, "reasoning_content": TEXT},
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(ANSWER, st.sampled_from(["stop", "length", "tool_calls", "content_filter"])), min_size=1, max_size=3
    )
)
def test_choices_come_back_from_the_conventions_as_they_were(given_choices: list[tuple[dict[str, Any], str]]) -> None:
    choices = [
        {"index": index, "message": message, "finish_reason": reason}
        for index, (message, reason) in enumerate(given_choices)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    answer = json.dumps({"id": "c-1", "model": "m-1", "choices": choices, "usage": usage}).encode()
    facts = read_response(answer, wire.JSON, stream=False)
    found = back({**facts.attributes, **facts.content})["response"]
    assert (found["id"], found["model"], found["object"]) == ("c-1", "m-1", "chat.completion")
    assert [choice | {"message": normal(choice["message"])} for choice in found["choices"]] == [
        choice | {"message": normal(choice["message"])} for choice in choices
    ]


def test_results_of_tools_in_one_message_become_messages_of_their_own() -> None:
    parts = [
        {"type": "tool_call_response", "id": "a", "response": {"sun": True}},
        {"type": "text", "content": "and?"},
        {"type": "tool_call_response", "id": "b", "response": "rain"},
    ]
    found = back({"gen_ai.input.messages": [{"role": "user", "parts": parts}]})["messages"]
    assert found == [
        {"role": "tool", "content": '{"sun":true}', "tool_call_id": "a"},
        {"role": "tool", "content": "rain", "tool_call_id": "b"},
        {"role": "user", "content": "and?"},
    ]


def test_system_instructions_are_the_first_message() -> None:
    found = back(
        {
            "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
            "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}],
        }
    )["messages"]
    assert found == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


def test_a_part_that_openai_has_no_word_for_stays_as_it_is() -> None:
    call = {"type": "server_tool_call", "id": "s", "name": "search", "server_tool_call": {"type": "search", "q": "x"}}
    found = back({"gen_ai.output.messages": [{"role": "assistant", "parts": [call], "finish_reason": "stop"}]})
    assert found["response"]["choices"][0]["message"]["content"] == [call]


def test_a_spoken_answer_is_the_messages_audio() -> None:
    voice = {"id": "audio_1", "data": "AAAA", "transcript": "hello"}
    message = {"role": "assistant", "content": None, "audio": voice}
    answer = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    facts = read_response(answer, wire.JSON, stream=False)
    (choice,) = back(dict(facts.content))["response"]["choices"]
    assert choice["message"]["audio"] == {"data": "AAAA", "transcript": "hello"}
