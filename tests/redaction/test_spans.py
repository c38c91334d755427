"""A span as a destination with a ``redact`` section gets it; what goes wrong costs the content, never the span."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otelgw.config.settings import Pattern, Redaction
from otelgw.errors import ConfigError
from otelgw.redaction.spans import redactor
from otelgw_exporters import semconv

MAIL = "zoe.q@mail.example"
EVERYTHING = Redaction(("email", "phone", "card", "api_key", "iban"), media=True)


def span(attributes: dict[str, Any], *, name: str = "chat m", status: str | None = None) -> ReadableSpan:
    return ReadableSpan(
        name,
        context=SpanContext(1, 2, False, TraceFlags(1)),
        resource=Resource({}),
        attributes=attributes,
        events=[Event("exception", {"exception.message": f"no {MAIL}", "n": 1}, 5)],
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR, status),
        start_time=1,
        end_time=2,
    )


TEXTS: dict[str, Any] = {
    semconv.GEN_AI_INPUT_MESSAGES: [{"role": "user", "parts": [{"type": "text", "content": f"mail {MAIL}"}]}],
    semconv.GEN_AI_OUTPUT_MESSAGES: [
        {"parts": [{"type": "tool_call", "arguments": {"to": MAIL, "deep": [{MAIL: 1}]}}]}
    ],
    semconv.GEN_AI_SYSTEM_INSTRUCTIONS: [{"type": "text", "content": MAIL}],
    semconv.GEN_AI_TOOL_DEFINITIONS: [{"name": "send", "description": f"such as {MAIL}"}],
    semconv.OTELGW_REQUEST_BODY: json.dumps({"messages": [{"content": json.dumps({"to": MAIL})}]}),
    semconv.OTELGW_RESPONSE_BODY: json.dumps({"content": MAIL}).replace("@", "\\u0040"),
    semconv.OTELGW_RAW_REQUEST: f'curl --data-raw \'{{"to":"{MAIL}"}}\''.replace("@", "\\u0040"),
    semconv.OTELGW_ERROR_MESSAGE: f"cannot send to {MAIL}",
    f"{semconv.OTELGW_METADATA}customer": MAIL,
    f"{semconv.OTELGW_METADATA}nested": json.dumps({"a": {"b": MAIL}}),
    semconv.OTELGW_TAGS: ["a", f"who:{MAIL}"],
    semconv.USER_ID: MAIL,
    semconv.SESSION_ID: f"s-{MAIL}",
    semconv.URL_FULL: "https://h/v1?q=zoe.q%40mail.example",
    semconv.GEN_AI_REQUEST_STOP_SEQUENCES: [MAIL],
    f"{semconv.HTTP_REQUEST_HEADER}x-who": [MAIL],
    "llm.input_messages.0.message.content": MAIL,
    "tenant.id": MAIL,
    MAIL: "a key",
}
FACTS: dict[str, Any] = {
    semconv.OTELGW_CALL_ID: "4111111111111111",
    semconv.GEN_AI_RESPONSE_ID: "chatcmpl-4111111111111111",
    semconv.GEN_AI_OPERATION_NAME: "chat",
    semconv.OTELGW_KEY_HASH: "4111111111111111" * 4,
    semconv.GEN_AI_USAGE_INPUT_TOKENS: 4111111111111111,
    semconv.OTELGW_COST_AMOUNT: 0.5,
    semconv.SERVER_ADDRESS: "h@mail.example",
    semconv.GEN_AI_REQUEST_STREAM: True,
}


def test_every_text_of_a_span_is_looked_through_and_no_fact_is_touched() -> None:
    given = span(TEXTS | FACTS, name=f"chat {MAIL}", status=f"no such user {MAIL}")
    found = redactor(EVERYTHING)(given)

    text = repr((found.name, found.attributes, found.status.description, [event.attributes for event in found.events]))
    assert MAIL not in text
    assert "zoe" not in text
    assert text.count("[REDACTED:email]") >= len(TEXTS)
    assert {key: (found.attributes or {})[key] for key in FACTS} == FACTS
    assert json.loads(str((found.attributes or {})[semconv.OTELGW_RESPONSE_BODY])) == {"content": "[REDACTED:email]"}
    assert (found.context, found.kind, found.start_time, found.end_time) == (given.context, SpanKind.CLIENT, 1, 2)
    assert found.status.status_code is StatusCode.ERROR
    assert MAIL in repr(given.attributes), "the span itself is shared and stays as it is"


def test_patterns_of_ones_own_have_their_names() -> None:
    patterns = (Pattern("ticket", r"(?i)ticket #\d+"), Pattern("pattern", r"EMP-\d{6}"))
    found = redactor(Redaction(patterns=patterns))(span({"otelgw.metadata.a": "Ticket #17 of EMP-123456, \\u0045MP-1"}))
    assert (found.attributes or {})["otelgw.metadata.a"] == "[REDACTED:ticket] of [REDACTED:pattern], \\u0045MP-1"


@pytest.mark.parametrize(
    ("expression", "says"), [("(", "no regular expression"), ("a*", "the empty text"), ("(?P<x>a)(?P=y)", "no regular")]
)
def test_a_pattern_that_cannot_be_used_is_refused(expression: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        redactor(Redaction(patterns=(Pattern("mine", expression),)))


def nested(depth: int) -> Any:
    value: Any = MAIL
    for _ in range(depth):
        value = [value]
    return value


FAILURES: dict[str, tuple[Redaction, Any]] = {
    "too slow": (Redaction(patterns=(Pattern("slow", r"(?:a|aa)+(?:b|c)$(?<=x)"),)), f"{MAIL} " + "a" * 60),
    "too deep": (EVERYTHING, nested(150)),
    "a list without end": (EVERYTHING, [nested(5000)]),
}


@pytest.mark.parametrize("how", FAILURES)
def test_what_cannot_be_redacted_is_left_out_and_the_span_stays(how: str, caplog: pytest.LogCaptureFixture) -> None:
    redaction, value = FAILURES[how]
    given = span(FACTS | {semconv.GEN_AI_INPUT_MESSAGES: value, "x": MAIL, MAIL: 1.5}, status=MAIL, name=MAIL)
    with caplog.at_level(logging.ERROR):
        found = redactor(redaction)(given)

    assert found.attributes == FACTS | {semconv.OTELGW_REDACTION_FAILED: True}
    assert (found.name, found.status.status_code, found.status.description) == ("chat", StatusCode.ERROR, None)
    assert (found.context, list(found.events), found.dropped_events) == (given.context, [], 1)
    assert "redaction failed" in caplog.text
    assert MAIL not in caplog.text


def test_a_destination_with_a_limit_gets_marked_pieces_after_redaction() -> None:
    attributes = {
        semconv.GEN_AI_INPUT_MESSAGES: [{"role": "user", "parts": [{"type": "text", "content": "x" * 290 + MAIL}]}],
        semconv.OTELGW_REQUEST_BODY: json.dumps({"a": "y" * 1000}),
        "otelgw.metadata.long": "z" * 1000,
        semconv.GEN_AI_OUTPUT_MESSAGES: [{"role": "assistant"}],
    }
    found = redactor(Redaction(("email",), limit=300))(span(attributes)).attributes or {}
    assert found[semconv.OTELGW_CONTENT_CUT] == [semconv.GEN_AI_INPUT_MESSAGES, semconv.OTELGW_REQUEST_BODY]
    assert "zoe" not in str(found[semconv.GEN_AI_INPUT_MESSAGES])
    assert json.loads(str(found[semconv.OTELGW_REQUEST_BODY]))["a"].endswith("characters cut]")
    assert found["otelgw.metadata.long"] == "z" * 1000
    assert found[semconv.GEN_AI_OUTPUT_MESSAGES] == attributes[semconv.GEN_AI_OUTPUT_MESSAGES]


VALUES = st.recursive(
    st.text(max_size=10) | st.integers() | st.floats() | st.booleans() | st.just(f"<{MAIL}>"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(MAIL), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(TEXTS)), VALUES, max_size=5))
def test_no_span_breaks_it_and_none_says_what_it_must_not(attributes: dict[str, Any]) -> None:
    found = redactor(EVERYTHING)(span(attributes))
    assert MAIL not in repr(found.attributes)
    assert semconv.OTELGW_REDACTION_FAILED not in (found.attributes or {})
