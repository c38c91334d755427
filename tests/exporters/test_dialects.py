"""The vocabularies that destinations may ask for by ``semconv:``, and spans of other applications in any of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from otelgw_exporters import semconv
from otelgw_exporters.delivery import Exporter
from otelgw_exporters.dialects import TABLES
from otelgw_exporters.otlp import OtlpHttpExporter
from otelgw_exporters.otlp_vendor import Shape
from otelgw_exporters.reading import Reading
from tests.exporters.requests_told import TOLD
from tests.exporters.samples import context, span
from tests.servers.otlp import HttpReceiver
from tests.tracing.records import scenarios
from tests.tracing.test_spans import build


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "openinference",
            {
                "openinference.span.kind": "LLM",
                "llm.input_messages.0.message.content": "Be brief.",
                "llm.output_messages.0.message.content": "Rain it is.",
                "llm.token_count.total": 28,
                "llm.cost.total": 0.00012,
            },
        ),
        (
            "traceloop",
            {
                "llm.request.type": "chat",
                "gen_ai.prompt.0.content": "Be brief.",
                "gen_ai.completion.0.content": "Rain it is.",
                "gen_ai.completion.0.finish_reason": "stop",
                "gen_ai.prompt.2.tool_calls.0.name": "weather",
                "gen_ai.usage.prompt_tokens": 21,
                "llm.usage.total_tokens": 28,
                "traceloop.association.properties.session_id": "s-1",
            },
        ),
    ],
)
def test_an_otlp_destination_may_ask_for_it(
    name: str, expected: dict[str, Any], closing: Callable[[Exporter], Exporter]
) -> None:
    with HttpReceiver() as receiver:
        exporter = closing(OtlpHttpExporter(endpoint=receiver.endpoint, semconv=name))
        outcome = exporter.deliver(TOLD, time.monotonic() + 10)
        found = [{each.key: each.value for each in one.attributes} for one in receiver.spans]

    assert {verdict.state for verdict in outcome.verdicts} == {"done"}
    generation = found[1]
    told = {key: getattr(generation[key], str(generation[key].WhichOneof("value"))) for key in expected}
    assert told == expected
    assert not semconv.CONTENT & generation.keys()
    assert not any(key.startswith(("llm.token", "gen_ai.usage")) for one in (found[0], *found[2:]) for key in one)


def foreign(attributes: dict[str, Any]) -> ReadableSpan:
    return ReadableSpan("chat", context=context(3), attributes=attributes, start_time=1, end_time=2)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_span_that_is_in_a_vendors_words_already_keeps_them(name: str) -> None:
    marker = TABLES[name].marker
    given = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **({marker: "theirs"} if marker else {})}

    made = TABLES[name].attributes(Reading(foreign(given)))

    assert made.items() >= {key: value for key, value in given.items() if key.startswith(marker or "gen_ai.")}.items()


def test_a_generation_of_another_application_is_put_into_a_vendors_words() -> None:
    held = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3, "own": "x"}

    made = TABLES["openinference"].attributes(Reading(foreign(held)))

    assert (made["openinference.span.kind"], made["llm.model_name"], made["llm.token_count.prompt"]) == ("LLM", "m", 3)
    assert made["own"] == "x"


def test_a_span_that_is_no_generation_is_left_alone() -> None:
    assert dict(Shape("langfuse")(foreign({"db.system": "sqlite"})).attributes or {}) == {"db.system": "sqlite"}


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *(
            name
            for name in vars(semconv).values()
            if isinstance(name, str) and "." in name and not name.endswith(".py")
        ),
        *(f"{semconv.OTELGW_METADATA}{key}" for key in ("prompt", "trace_id", "x")),
    ]
)


@pytest.mark.parametrize("name", sorted(TABLES))
@given(st.dictionaries(NAMES, TREES, max_size=8))
def test_whatever_a_span_holds_it_is_told_without_an_exception(name: str, attributes: dict[str, Any]) -> None:
    held = {"gen_ai.operation.name": "chat", **attributes}

    TABLES[name].attributes(Reading(foreign(held)))
    TABLES[name].attributes(Reading(span(1, {"otelgw.call_id": "1", **attributes})), Reading(foreign(held)))


@pytest.mark.parametrize("name", ["model_not_found", "refused_by_upstream", "success"])
def test_the_root_of_a_failed_request_has_failed_where_the_vendor_goes_by_it(name: str) -> None:
    server, *rest = build(scenarios()[name])
    generation = rest[0] if rest else None
    expected = StatusCode.UNSET if name == "success" else StatusCode.ERROR
    assert server.status.is_unset

    told = Shape("mlflow")(server, generation).status

    assert told.status_code is expected
    assert bool(told.description) == (name != "success")
    assert Shape("openinference")(server, generation).status.is_unset
