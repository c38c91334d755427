"""Spans from other applications, as destinations may see them."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination
from otelgw.selection import Trace, selector
from otelgw_collector import otlp_spans
from tests.collector.receiving import request, span


def received(**attributes: str) -> Trace:
    pairs: list[Any] = [{"key": key, "value": {"string_value": value}} for key, value in attributes.items()]
    return Trace(None, otlp_spans.decode(request(span(1, attributes=pairs)).SerializeToString()))


def only(destination: Destination, trace: Trace) -> ReadableSpan:
    (found,) = selector(destination)(trace)
    return found


def test_a_destination_without_content_gets_none_of_any_vocabulary() -> None:
    names = ("gen_ai.prompt.0.content", "llm.input_messages.0.message.content", "input.value", "gen_ai.input.messages")
    trace = received(**dict.fromkeys(names, "canary"), **{"llm.model_name": "m"})
    assert only(Destination("a", "console", content=False), trace).attributes == {"llm.model_name": "m"}
    assert len(only(Destination("a", "console"), trace).attributes or {}) == 5


def test_what_was_exported_was_sampled() -> None:
    assert only(Destination("a", "console", sampling="parent"), received(a="b")).attributes == {"a": "b"}


def test_who_called_is_left_out_in_any_vocabulary() -> None:
    trace = received(**{"enduser.id": "u", "traceloop.association.properties.user_id": "u", "a": "b"})
    assert only(Destination("a", "console", redact_user_api_key_info=True), trace).attributes == {"a": "b"}
