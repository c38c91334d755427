from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otelgw_exporters import semconv
from otelgw_exporters.errors import DestinationConfigError

MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": "hé"}]}]
ATTRIBUTES: dict[str, Any] = {
    "gen_ai.provider.name": "x_ai",
    "gen_ai.request.top_k": 40,
    "gen_ai.response.finish_reasons": ["stop", "tool_call"],
    "gen_ai.usage.cache_write.input_tokens": 5,
    "openai.response.system_fingerprint": "fp",
    "gen_ai.input.messages": MESSAGES,
}


def span(attributes: Any) -> ReadableSpan:
    return ReadableSpan(
        "chat x",
        context=SpanContext(1, 2, is_remote=False),
        resource=Resource({}),
        attributes=attributes,
        start_time=1,
        end_time=2,
    )


def test_the_newest_vocabulary_is_the_default_and_messages_are_text() -> None:
    shaped = dict(semconv.profile()(span(ATTRIBUTES)).attributes or {})
    assert json.loads(shaped.pop("gen_ai.input.messages")) == MESSAGES
    assert shaped == {key: value for key, value in ATTRIBUTES.items() if key != "gen_ai.input.messages"}


def test_version_1_41_has_its_own_names_and_types() -> None:
    shaped = semconv.profile("otel-1.41", "structured").attributes(ATTRIBUTES)
    assert shaped["gen_ai.usage.cache_creation.input_tokens"] == 5
    assert "gen_ai.usage.cache_write.input_tokens" not in shaped
    assert shaped["gen_ai.request.top_k"] == 40.0
    assert isinstance(shaped["gen_ai.request.top_k"], float)
    assert shaped["gen_ai.input.messages"] == MESSAGES


def test_version_1_36_has_the_system_and_openais_words() -> None:
    shaped = semconv.profile("otel-1.36").attributes(ATTRIBUTES)
    assert shaped["gen_ai.system"] == "xai"
    assert "gen_ai.provider.name" not in shaped
    assert shaped["gen_ai.response.finish_reasons"] == ["stop", "tool_calls"]
    assert shaped["gen_ai.openai.response.system_fingerprint"] == "fp"


@pytest.mark.parametrize("name", sorted(semconv.DIALECTS))
@pytest.mark.parametrize("form", sorted(semconv.FORMS))
def test_the_shared_span_is_never_changed(name: str, form: str) -> None:
    shared = span(ATTRIBUTES)
    before = copy.deepcopy(dict(shared.attributes or {}))
    exported = semconv.profile(name, form)(shared)
    assert exported is not shared
    assert dict(shared.attributes or {}) == before
    assert (exported.name, exported.context, exported.start_time) == (shared.name, shared.context, shared.start_time)


def test_the_count_of_dropped_attributes_survives_the_copy() -> None:
    counted = BoundedAttributes(attributes=ATTRIBUTES)
    counted.dropped = 7
    assert semconv.json_string(span(counted)).dropped_attributes == 7


@pytest.mark.parametrize(
    ("name", "form"), [("openllmetry", "json_string"), ("otel", "xml"), ("otel-1.37", "structured")]
)
def test_an_unknown_profile_is_refused_with_the_known_ones(name: str, form: str) -> None:
    with pytest.raises(DestinationConfigError, match="use one of"):
        semconv.profile(name, form)


def test_what_otlp_cannot_carry_is_made_so_that_it_can() -> None:
    deep: Any = {"end": 1}
    for _ in range(300):
        deep = {"a": [deep]}
    exported = semconv.profile("otel", "structured")(span({"m": [{"big": 2**70, "deep": deep}], "s": "x"}))
    encoded = encode_spans([exported])
    assert type(encoded).FromString(encoded.SerializeToString()) == encoded
    assert len(encoded.resource_spans[0].scope_spans[0].spans[0].attributes) == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_structured_values_become_valid_json_and_simple_ones_stay(attributes: dict[str, Any]) -> None:
    shaped = semconv.profile().attributes(attributes)
    assert shaped.keys() == attributes.keys()
    for key, value in attributes.items():
        if isinstance(value, dict):
            assert json.loads(shaped[key]) == value
        elif not isinstance(value, list):
            assert shaped[key] == value
