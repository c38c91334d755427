"""From received bytes to spans, and out again: nothing is lost on the way through."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import SpanKind, StatusCode

from otelgw_collector.otlp_spans import decode
from otelgw_exporters.otlp_wire import Encoder, assemble
from tests.collector.receiving import OWN, request, span

HAS_REMOTE, REMOTE = 0x100, 0x200


def through(asked: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Decode a request and encode its spans again, as an OTLP destination that changes nothing does."""
    encode = Encoder(lambda attributes: attributes)
    return ExportTraceServiceRequest.FromString(assemble(map(encode, decode(asked.SerializeToString()))))


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES: st.SearchStrategy[AnyValue] = st.recursive(
    st.one_of(
        TEXT.map(lambda value: AnyValue(string_value=value)),
        st.booleans().map(lambda value: AnyValue(bool_value=value)),
        st.integers(-(2**63), 2**63 - 1).map(lambda value: AnyValue(int_value=value)),
        st.floats(allow_nan=False).map(lambda value: AnyValue(double_value=value)),
        st.binary(max_size=8).map(lambda value: AnyValue(bytes_value=value)),
        st.just(AnyValue()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: AnyValue(array_value={"values": values})),
        st.dictionaries(TEXT, inner, max_size=3).map(
            lambda pairs: AnyValue(kvlist_value={"values": [KeyValue(key=k, value=v) for k, v in pairs.items()]})
        ),
    ),
    max_leaves=6,
)
ATTRIBUTES = st.dictionaries(TEXT.filter(bool), VALUES, max_size=4).map(
    lambda pairs: [KeyValue(key=key, value=value) for key, value in pairs.items()]
)
COUNTS, TIMES = st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)
STATES = st.sampled_from(["", "a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "0weird@Key=1"])
FLAGS = st.integers(0, 255).flatmap(lambda flags: st.sampled_from([flags | HAS_REMOTE, flags | HAS_REMOTE | REMOTE]))
EVENTS = st.builds(Span.Event, name=TEXT, time_unix_nano=TIMES, attributes=ATTRIBUTES, dropped_attributes_count=COUNTS)
LINKS = st.builds(
    Span.Link,
    trace_id=st.binary(min_size=16, max_size=16).filter(any),
    span_id=st.binary(min_size=8, max_size=8).filter(any),
    trace_state=STATES,
    attributes=ATTRIBUTES,
    dropped_attributes_count=COUNTS,
    flags=FLAGS,
)
STATUSES = st.one_of(
    st.just(Status()), st.just(Status(code=1)), TEXT.map(lambda message: Status(code=2, message=message))
)


@st.composite
def _spans(draw: st.DrawFn) -> Span:
    parent = draw(st.none() | st.binary(min_size=8, max_size=8).filter(any))
    flags = draw(st.integers(0, 255)) | HAS_REMOTE
    if parent is not None and draw(st.booleans()):
        flags |= REMOTE
    return Span(
        trace_id=draw(st.binary(min_size=16, max_size=16).filter(any)),
        span_id=draw(st.binary(min_size=8, max_size=8).filter(any)),
        parent_span_id=parent or b"",
        trace_state=draw(STATES),
        flags=flags,
        name=draw(TEXT),
        kind=draw(st.sampled_from([1, 2, 3, 4, 5])),
        start_time_unix_nano=draw(TIMES),
        end_time_unix_nano=draw(TIMES),
        attributes=draw(ATTRIBUTES),
        dropped_attributes_count=draw(COUNTS),
        events=draw(st.lists(EVENTS, max_size=2)),
        dropped_events_count=draw(COUNTS),
        links=draw(st.lists(LINKS, max_size=2)),
        dropped_links_count=draw(COUNTS),
        status=draw(STATUSES),
    )


@given(_spans(), ATTRIBUTES, ATTRIBUTES)
def test_a_span_comes_out_as_it_came_in(made: Span, resource: list[KeyValue], scope: list[KeyValue]) -> None:
    asked = request(made)
    group = asked.resource_spans[0]
    group.resource.attributes.extend(resource)
    group.schema_url = "https://schema.example/resource"
    group.scope_spans[0].scope.name = "scope"
    group.scope_spans[0].scope.version = "1"
    group.scope_spans[0].scope.attributes.extend(scope)
    group.scope_spans[0].schema_url = "https://schema.example/scope"
    came = through(asked)
    assert came.resource_spans[0].scope_spans[0].spans[0] == made
    assert came == asked


def test_kinds_and_status_have_the_sdks_words() -> None:
    (read,) = decode(request(span(1, kind=2, status=Status(code=2, message="no"))).SerializeToString())
    assert read.kind is SpanKind.SERVER
    assert read.status.status_code is StatusCode.ERROR
    assert read.status.description == "no"
    (read,) = decode(request(span(1, kind=99, status=Status(code=1, message="fine"))).SerializeToString())
    assert read.kind is SpanKind.INTERNAL
    assert (read.status.status_code, read.status.description) == (StatusCode.OK, None)


def test_each_gateway_on_the_way_adds_itself() -> None:
    asked = request(span(1), service_name="app")
    (read,) = decode(asked.SerializeToString(), OWN)
    assert dict(read.resource.attributes) == {"service.name": "app", "otelgw.via": [OWN]}
    pair: Any = asked.resource_spans[0].resource.attributes.add(key="otelgw.via")
    pair.value.array_value.values.add(string_value="first")
    (read,) = decode(asked.SerializeToString(), OWN)
    assert read.resource.attributes["otelgw.via"] == ["first", OWN]


def test_spans_of_one_group_share_its_resource_and_scope() -> None:
    first, second = decode(request(span(1), span(2), service_name="app").SerializeToString())
    assert first.resource is second.resource
    assert first.instrumentation_scope is second.instrumentation_scope
