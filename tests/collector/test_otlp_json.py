"""OTLP's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otelgw_collector.otlp_json import from_json, to_json
from otelgw_collector.receiver import screen
from otelgw_exporters.otlp_wire import to_json as request_to_json
from tests.collector.receiving import OWN, request, span

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def body(**fields: Any) -> bytes:
    spans = [{"traceId": TRACE, "spanId": SPAN, "name": "a", **fields}]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def test_ids_are_hex_and_numbers_may_be_text() -> None:
    read = from_json(
        body(
            parentSpanId="EEE19B7EC3C1B173",
            startTimeUnixNano="1544712660000000000",
            endTimeUnixNano=1544712661000000000,
            kind=2,
            unknownField={"a": 1},
            attributes=[{"key": "n", "value": {"intValue": "7"}}, {"key": "b", "value": {"bytesValue": "AQI="}}],
            links=[{"traceId": TRACE, "spanId": SPAN}],
        )
    )
    (made,) = read.resource_spans[0].scope_spans[0].spans
    assert made.trace_id.hex() == TRACE
    assert made.span_id.hex() == SPAN
    assert made.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert made.start_time_unix_nano == 1544712660000000000
    assert made.attributes[0].value.int_value == 7
    assert made.attributes[1].value.bytes_value == b"\x01\x02"
    assert made.links[0].trace_id.hex() == TRACE


def test_what_our_own_exporter_writes_is_read_back() -> None:
    asked = request(span(1, parent_span_id=b"12345678", kind=3), span(2), service_name="app")
    assert from_json(request_to_json(asked.SerializeToString())) == asked


@pytest.mark.parametrize("field", ["traceId", "spanId"])
@pytest.mark.parametrize("value", ["zz", "abc", "", 7, None, ["a"], {"a": 1}, "é"])
def test_an_id_that_is_no_hex_costs_the_span_only(field: str, value: Any) -> None:
    screened = screen(from_json(body(**{field: value})), OWN)
    assert (screened.taken, screened.invalid) == (0, 1)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"text"',
        b"\xff\xfe",
        b'{"resourceSpans": 1}',
        b'{"resourceSpans": [1]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -1}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": 1e400}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\\ud800"}]}]}]}',
        b'{"resourceSpans": ' + b"[" * 100_000,
        b'{"resourceSpans": ' + b"9" * 10_000 + b"}",
    ],
)
def test_what_is_no_request_is_a_value_error_that_quotes_nothing(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the body (is no ExportTraceServiceRequest in JSON|is nested too deeply)"):
        from_json(broken)


def test_values_nested_deeper_than_protobuf_takes_are_refused() -> None:
    value = b'{"arrayValue": {"values": [' * 400 + b'{"stringValue": "x"}' + b"]}}" * 400
    whole = body(attributes=[{"key": "k", "value": "VALUE"}]).replace(b'"VALUE"', value)
    with pytest.raises(ValueError, match="the body is"):
        from_json(whole)


FIELDS = (
    *("resourceSpans", "scopeSpans", "spans", "links", "events", "resource", "traceId", "spanId", "flags", "kind"),
    *("attributes", "key", "value", "arrayValue", "kvlistValue", "values", "stringValue", "intValue", "bytesValue"),
    *("doubleValue", "status", "code"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*FIELDS]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_breaks_the_reader(value: Any) -> None:
    spans = {"resourceSpans": [{"resource": value, "scopeSpans": [{"scope": value, "spans": [value]}]}]}
    for tree in (value, {"resourceSpans": value}, spans):
        try:
            read = from_json(json.dumps(tree).encode())
        except ValueError:
            continue
        assert isinstance(read, ExportTraceServiceRequest)


def test_answers_are_in_otlps_json() -> None:
    answer = ExportTraceServiceResponse()
    assert to_json(answer) == b"{}"
    answer.partial_success.rejected_spans = 2
    assert json.loads(to_json(answer)) == {"partialSuccess": {"rejectedSpans": "2"}}
