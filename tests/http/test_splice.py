"""The caller's body on its way upstream."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.errors import RequestRefused
from otelgw.http.splice import read_fields, recordable, rewrite, unparsed, value_of

FAULTS = [
    (b'{"model": "a",}', "line 1", "trailing comma"),
    (b'{"model": "a", "messages": [1, 2, ],\n}', "line 1", "trailing comma"),
    (b'{\n  "model": "a" // which one\n}', "line 2", "comment"),
    (b'{\n  "no-log": true # off\n}', "line 2", "comment"),
    (b"{'model': 'a'}", "line 1", "single quotes"),
    (b'{"model": "a"', "line 1", ""),
    (b"", "", "empty"),
    (b"hello", "line 1", ""),
]


@pytest.mark.parametrize(("body", "line", "cause"), FAULTS)
def test_a_body_that_is_no_json_is_refused_with_place_and_likely_cause(body: bytes, line: str, cause: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_fields(body)

    assert refused.value.error_type == "invalid_json"
    assert line in refused.value.message
    assert cause in refused.value.message


@pytest.mark.parametrize("body", [b"[1]", b'"text"', b"3", b"null"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefused, match="JSON object") as refused:
        read_fields(body)

    assert refused.value.error_type == "invalid_request"


def test_only_the_model_name_changes() -> None:
    body = b'{ "messages" : [ {"content":"say \\"model\\": \\"a\\""} ],\n "model" : "a", "x": 1e2 }'

    sent = rewrite(body, read_fields(body), model="b/c")

    assert sent == body.replace(b'"model" : "a"', b'"model" : "b/c"')


def test_a_body_that_needs_no_change_is_the_same_object() -> None:
    body = b'{"model":"a"}'

    assert rewrite(body, read_fields(body), model="a") is body


def test_the_usage_option_is_spliced_in_front() -> None:
    body = b' {"model":"a","stream":true}'

    sent = rewrite(body, read_fields(body), model="a", inject_usage=True)

    assert sent == b' {"stream_options":{"include_usage":true},"model":"a","stream":true}'


def test_other_stream_options_stay_beside_the_usage_option() -> None:
    body = b'{"model":"a","stream_options":{"include_obfuscation":false}}'

    sent = json.loads(rewrite(body, read_fields(body), model="a", inject_usage=True))

    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_the_gateways_own_fields_stay_here_and_defaults_come_where_absent() -> None:
    body = b'{"model":"a","no-log":true,"temperature":0.5,"big":12345678901234567890.50}'

    sent = rewrite(body, read_fields(body), model="m", defaults={"temperature": 1, "top_p": 0.9})

    assert json.loads(sent)["top_p"] == 0.9
    assert json.loads(sent)["temperature"] == 0.5
    assert b"no-log" not in sent
    assert b"12345678901234567890.50" in sent


def test_a_nested_model_is_never_taken_for_the_top_level_one() -> None:
    body = b'{"tools":[{"model":"a"}],"model":"a"}'

    sent = json.loads(rewrite(body, read_fields(body), model="b"))

    assert sent == {"tools": [{"model": "a"}], "model": "b"}


@pytest.mark.parametrize("body", [b'{"model":"cheap","model":"a"}', b'{"m\\u006fdel":"cheap","model":"a"}'])
def test_a_second_model_field_does_not_reach_the_upstream(body: bytes) -> None:
    """Which of the two it would read is anybody's guess."""
    assert rewrite(body, read_fields(body), model="a") == b'{"model":"a"}'


def test_without_a_model_to_set_the_callers_stays() -> None:
    body = b'{"model":null,"input":"x"}'

    assert rewrite(body, read_fields(body), model="") is body


def test_an_escaped_key_cannot_move_the_splice() -> None:
    body = b'{"x":{"model":"keep"},"\\u006dodel":"a"}'

    sent = json.loads(rewrite(body, read_fields(body), model="b"))

    assert sent == {"x": {"model": "keep"}, "model": "b"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["messages", "x", "tools", "stream", '"model":', "user"]), json_values),
    st.text(max_size=12),
    st.text(min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_a_rewritten_body_means_the_same_but_for_the_model(
    fields: dict[str, object], before: str, after: str, inject: bool, spaced: bool
) -> None:
    document = {**fields, "model": before}
    body = json.dumps(document, indent=1 if spaced else None).encode()

    sent = json.loads(rewrite(body, read_fields(body), model=after, inject_usage=inject))

    expected = {**document, "model": after}
    if inject:
        expected["stream_options"] = {"include_usage": True}
    assert sent == expected


SECRETS = [
    b'{"model":"a","api_key":"sk-canary"}',
    b'{"model":"a","metadata":{"deep":[{"Authorization":"sk-canary"}]}}',
    b'{"model":"a","tools":[{"type":"mcp","headers":{"X-Api-Key":"sk-canary"}}]}',
    b'{"model":"a","extra":{"aws_secret_access_key":"sk-canary"}}',
    b'{"model":"a","langfuse_secret_key":"sk-canary"}',
    b'{"model":"a","user_config":{"client-secret":"sk-canary"}}',
]


@pytest.mark.parametrize("body", SECRETS)
def test_credential_fields_are_not_recorded_at_any_depth(body: bytes) -> None:
    kept = recordable(body, read_fields(body))

    assert b"sk-canary" not in kept
    assert json.loads(kept)["model"] == "a"


def test_a_schema_that_describes_a_password_is_no_secret() -> None:
    body = b'{"tools":[{"parameters":{"properties":{"password":{"type":"string"}}}}]}'

    assert recordable(body, read_fields(body)) is body


def test_messages_are_content_and_stay_as_they_are() -> None:
    body = b'{"messages":[{"content":"my api_key\\": is x"}]}'

    assert recordable(body, read_fields(body)) is body


def test_a_body_that_cannot_be_parsed_is_withheld_when_it_may_hold_a_credential() -> None:
    for body in (
        b'{"api_key": "sk-canary",}',
        b"{'api_key': 'sk-canary'}",
        b'"{\\"api_key\\": \\"sk-canary\\"}"x',
        b"api_key=sk-canary&x=1",
        b"Authorization: sk-canary",
        b"--header bearer sk-canary",
    ):
        assert unparsed(body) == b""
    assert unparsed(b'{"model": "a",}') == b'{"model": "a",}'


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(RequestRefused, match="nested") as refused:
        read_fields(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")

    assert refused.value.error_type == "invalid_json"


@pytest.mark.parametrize("value", [b'"\xff"', b'{"a":1e999}'])
def test_a_value_that_cannot_be_read_is_refused_when_it_is_needed(value: bytes) -> None:
    fields = read_fields(b'{"model":' + value + b"}")

    with pytest.raises(RequestRefused) as refused:
        value_of(fields, "model")

    assert (refused.value.error_type, refused.value.param) == ("invalid_json", "model")


def test_a_field_that_cannot_be_looked_through_is_not_recorded() -> None:
    body = b'{"model":"a","metadata":{"api_key":"sk-canary","x":"\xff"}}'

    assert json.loads(recordable(body, read_fields(body))) == {"model": "a", "metadata": "REDACTED"}


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused_with_400(body: bytes) -> None:
    statuses = {200}
    try:
        fields = read_fields(body)
        recordable(body, fields)
        for name in fields:
            value_of(fields, name)
    except RequestRefused as refused:
        statuses = {refused.answer.status}

    assert statuses <= {200, 400}
