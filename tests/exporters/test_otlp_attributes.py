from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otelgw_exporters import otlp_attributes, semconv
from otelgw_exporters.otlp_attributes import Attributes
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_values import attributes as written

TEXT = st.one_of(
    st.text(max_size=5), st.sampled_from(["\ud800", "x" * 200]), st.sampled_from(["x" * n for n in range(90, 140)])
)
SIMPLE = st.one_of(
    st.booleans(), st.integers(-(1 << 64), 1 << 64), st.sampled_from([0, 1, 0.0, 1.0]), st.floats(allow_nan=False), TEXT
)
VALUES = st.one_of(
    SIMPLE, st.lists(SIMPLE, max_size=3), st.lists(st.dictionaries(TEXT, SIMPLE, max_size=2), max_size=2)
)
NAMES = st.sampled_from(
    [
        semconv.OTELGW_CALL_ID,
        semconv.OTELGW_REQUEST_BODY,
        semconv.GEN_AI_PROVIDER_NAME,
        semconv.GEN_AI_REQUEST_TOP_K,
        semconv.GEN_AI_RESPONSE_FINISH_REASONS,
        semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
        semconv.GEN_AI_INPUT_MESSAGES,
        "any",
        "other",
    ]
)


def read(encoded: bytes) -> list[KeyValue]:
    return list(Span.FromString(encoded).attributes)


@pytest.mark.parametrize("dialect", semconv.DIALECTS)
@pytest.mark.parametrize("form", semconv.FORMS)
@given(given_attributes=st.lists(st.dictionaries(NAMES, VALUES, max_size=6), min_size=1, max_size=4))
def test_attributes_one_by_one_are_those_of_the_profile_as_a_whole(
    dialect: str, form: str, given_attributes: list[dict[str, Any]]
) -> None:
    profile = semconv.profile(dialect, form)
    one_by_one = encoder(profile)._attributes

    for attributes in given_attributes:
        assert read(b"".join(one_by_one(attributes))) == read(written(9, profile.attributes(attributes)))


def test_what_is_equal_and_of_another_type_is_another_value() -> None:
    encode = encoder(semconv.profile())._attributes

    said = [
        read(b"".join(encode({"a": value})))[0].value.WhichOneof("value") for value in (1, True, 1.0, "1", ["1"], 1)
    ]

    assert said == ["int_value", "bool_value", "double_value", "string_value", "array_value", "int_value"]


def test_names_and_values_that_never_come_again_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_attributes, "_VALUES", 50)
    encode = Attributes(dict, otlp_attributes.Singly(lambda value: value, frozenset(), frozenset(), frozenset()))

    for number in range(500):
        (encoded,) = encode({f"name{number % 100}": number})
        assert read(encoded)[0].value.int_value == number
        assert len(encode._names) <= 51
        assert sum(len(name.values or ()) for name in encode._names.values()) <= 50
