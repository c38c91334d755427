from __future__ import annotations

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


def encoded(attributes: dict[str, Any]) -> bytes:
    span = ReadableSpan("x", context=SpanContext(1, 2, is_remote=False), attributes=attributes)
    return to_json(assemble([encoder(profile())(span)]))


def test_what_is_shared_prevails_and_no_name_stands_twice() -> None:
    layers = Layers.of(({"a": 1}, {"b": 2}), {"a": 9, "c": 3})

    assert layers == {"a": 1, "b": 2, "c": 3}
    assert layers.own == {"c": 3}


@given(LAYER, LAYER)
def test_layers_leave_as_the_same_attributes_in_one_mapping_do(shared: dict[str, Any], own: dict[str, Any]) -> None:
    layers = Layers.of((shared,), own)

    assert encoded(layers) == encoded(dict(layers))
