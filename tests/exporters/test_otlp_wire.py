from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import EncodedSpan, Encoder, Ready, Singly, apart, assemble, split, to_json
from otelgw_exporters.semconv import BODIES, FORMS, profile
from tests.exporters.samples import context, generation, span
from tests.servers.otlp import spans_in

encode = Encoder(lambda attributes: attributes)


def decoded(spans: list[ReadableSpan]) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(assemble(encode(each) for each in spans))


def rich() -> list[ReadableSpan]:
    return [
        span(1, status=Status(StatusCode.ERROR, "upstream_reset"), links=[Link(context(9, trace=7, remote=True))]),
        generation(2, list_of_numbers=[1, 2.5], flag=True, nothing=None, raw=b"\x00\xff"),
        span(3, events=[Event("retry", {"n": 1}, timestamp=5)], parent=2, kind=SpanKind.INTERNAL),
        span(4, resource=Resource({"service.name": "other"}, "https://schema.example/1")),
        span(5),
    ]


def test_a_request_is_what_the_sdk_encodes_but_for_the_trace_flags() -> None:
    ours, reference = decoded(rich()), encode_spans(rich())

    for each in spans_in([ours]):
        assert each.flags & 0xFF == 1
        each.flags &= ~0xFF
        for link in each.links:
            link.flags &= ~0xFF
    for link in (link for each in spans_in([reference]) for link in each.links):
        link.trace_state = "vendor=x"  # which the SDK's encoder leaves out
    assert ours == reference


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "lone \ud800 surrogate", {"a": {"b": [1]}}, [{"x": 1}, "y"]])
def test_values_that_protobuf_refuses_are_made_to_fit(value: Any) -> None:
    (attribute,) = spans_in([decoded([span(1, {"key": value})])])[0].attributes

    assert attribute.key == "key"
    assert attribute.value.WhichOneof("value") is not None


def test_a_span_that_is_encoded_already_is_sent_the_same_and_keeps_its_name_and_end() -> None:
    ready = [encode.ready(each) for each in rich()]

    assert assemble(map(encode, ready)) == assemble(map(encode, rich()))
    assert [(each.name, each.end_time, each.context) for each in ready] == [
        (each.name, each.end_time, each.context) for each in rich()
    ]


@given(st.lists(st.integers(0, 40_000), max_size=5))
def test_spans_that_were_joined_come_apart_again(sizes: list[int]) -> None:
    encoded = [encode(span(number, {"text": "x" * size})) for number, size in enumerate(sizes, 1)]
    joined = EncodedSpan(b"resource", b"scope", b"".join(each.span for each in encoded))

    assert apart(joined) == [EncodedSpan(b"resource", b"scope", each.span) for each in encoded]


def test_a_span_is_known_again_by_what_it_was_encoded_to() -> None:
    for each in rich():
        ready, again = encode.ready(each), Ready.of(encode(each))
        context, other = ready.get_span_context(), again.get_span_context()
        assert context is not None
        assert other is not None
        assert (other.trace_id, other.span_id) == (context.trace_id, context.span_id)
        assert (again.name, again.end_time, again.encoded) == (ready.name, ready.end_time, ready.encoded)
        assert encode(again) is again.encoded


def test_what_stands_around_a_span_and_its_attributes_are_what_they_are_in_one() -> None:
    for each in (span(1, {"a": 1, "b": ["x"], "c": 0.5, "d": [{"e": "ü"}]}), *rich()):
        encoded = encode(each)
        assert encode.around(each.resource, each.instrumentation_scope) == encoded[:2]
        assert encode.attributes(each.attributes or {}) in encoded.span


def _plain(**changes: Any) -> Encoder:
    none = frozenset[str]()
    fields = {"form": FORMS["json_string"], "dropped": BODIES, "special": none, "merged": none}
    return Encoder(dict, Singly(**fields | changes))


def test_an_encoder_is_plain_that_leaves_names_and_writes_structures_as_json() -> None:
    names, bodies = frozenset({"a", "b"}), BODIES
    assert _plain().is_plain(names, bodies)
    assert _plain(special=frozenset({"c"}), merged=frozenset({"d"}), dropped=BODIES | {"e"}).is_plain(names, bodies)
    assert encoder(profile()).is_plain(names, bodies)
    for other in (
        Encoder(dict),
        _plain(form=FORMS["structured"]),
        _plain(form=dict),
        _plain(dropped=frozenset()),
        _plain(dropped=BODIES - {min(BODIES)}),
        _plain(dropped=BODIES | {"a"}),
        _plain(special=names),
        _plain(merged=frozenset({"b"})),
    ):
        assert not other.is_plain(names, bodies)


def test_a_value_without_any_form_is_an_error_of_that_span() -> None:
    with pytest.raises(TypeError, match="object"):
        encode(span(1, {"key": object()}))


def test_json_has_hex_ids_numeric_enums_and_64_bit_integers_as_text() -> None:
    request = json.loads(to_json(assemble([encode(span(1, {"n": 5}, links=[Link(context(9, trace=7))]))])))

    (sent,) = request["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert sent["traceId"] == f"{0xABCDEF:032x}"
    assert sent["spanId"] == f"{1:016x}"
    assert sent["links"][0]["traceId"] == f"{7:032x}"
    assert sent["kind"] == 2
    assert sent["attributes"] == [{"key": "n", "value": {"intValue": "5"}}]
    assert isinstance(sent["startTimeUnixNano"], str)


sizes = st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([b"r1", b"resource2"]), st.sampled_from([b"s", b"t"])))


@given(sizes, st.integers(100, 5000))
def test_no_request_is_larger_than_asked_unless_it_is_a_single_span(
    shapes: list[tuple[int, bytes, bytes]], limit: int
) -> None:
    spans = [EncodedSpan(resource, scope, bytes(size)) for size, resource, scope in shapes]

    runs = split(spans, limit)

    assert [each for run in runs for each in run] == spans
    assert all(run for run in runs)
    assert all(len(assemble(run)) <= limit or len(run) == 1 for run in runs)
