from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from otelgw_exporters.layers import Layers
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import assemble, to_json
from otelgw_exporters.semconv import profile

VALUES = st.one_of(st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3))
LAYER = st.dictionaries(st.sampled_from("abcdefgh"), VALUES, max_size=5)


def encoded(attributes: Mapping[str, Any]) -> bytes:
    span = ReadableSpan("x", context=SpanContext(1, 2, is_remote=False), attributes=attributes)
    return to_json(assemble([encoder(profile())(span)]))


def test_what_is_shared_prevails_and_no_name_stands_twice() -> None:
    layers = Layers.of(({"a": 1}, {"b": 2}), {"a": 9, "c": 3})

    assert layers == {"a": 1, "b": 2, "c": 3}
    assert layers.own == {"c": 3}


def test_what_a_request_has_in_common_prevails_over_what_a_span_has_and_not_over_what_is_shared() -> None:
    layers = Layers.of(({"a": 1},), {"b": 2, "c": 3}, {"a": 8, "b": 9})

    assert layers == {"a": 1, "b": 9, "c": 3}
    assert (layers.own, layers.common) == ({"c": 3}, {"b": 9})


@given(LAYER, LAYER, LAYER)
def test_layers_read_as_one_mapping(shared: dict[str, Any], own: dict[str, Any], common: dict[str, Any]) -> None:
    whole = own | common | shared
    layers = Layers.of((shared,), dict(own), common)

    assert dict(layers) == whole == {key: layers[key] for key in layers}
    assert len(layers) == len(whole)
    assert all((key in layers, layers.get(key)) == (key in whole, whole.get(key)) for key in "abcdefgh")
    assert (layers | {"a": 0}, {"z": 0} | layers) == (whole | {"a": 0}, {"z": 0} | whole)
    assert dict(zip(layers.keys(), layers.values(), strict=True)) == whole


@given(LAYER, LAYER, LAYER)
def test_layers_leave_as_the_same_attributes_in_one_mapping_do(
    shared: dict[str, Any], own: dict[str, Any], common: dict[str, Any]
) -> None:
    layers = Layers.of((shared,), own, common)

    for _ in "twice":  # as they are remembered, too
        assert encoded(layers) == encoded(dict(layers))
