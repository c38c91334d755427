"""What is taken of a request, and what the sender is told."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from otelgw_collector import otlp_spans
from otelgw_collector.receiver import Answer, Intake, from_protobuf, is_allowed, screen
from otelgw_collector.segments import SegmentWriter
from tests.collector.receiving import OWN, payloads, request, span, spans_of


class FullSpool:
    """A disk without room, until there is some."""

    def __init__(self) -> None:
        self.full = True
        self.taken: list[bytes] = []

    def append(self, payload: bytes, kind: int = 0) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.taken.append(payload)


def test_a_request_is_in_the_spool_when_it_is_acknowledged(tmp_path: Path) -> None:
    intake = Intake(SegmentWriter(tmp_path, "r"), OWN)
    body = request(span(1), span(2)).SerializeToString()
    assert intake.take(body) == Answer("accepted")
    assert payloads(tmp_path) == [body]
    assert (intake.counters.requests, intake.counters.spans) == (1, 2)


def test_a_request_without_spans_is_fine_and_takes_no_room(tmp_path: Path) -> None:
    intake = Intake(SegmentWriter(tmp_path, "r"), OWN)
    assert intake.take(b"") == Answer("accepted")
    assert payloads(tmp_path) == []


def test_fields_of_a_newer_protocol_are_kept() -> None:
    body = request(span(1)).SerializeToString() + b"\xf2\x7f\x03new"
    assert screen(from_protobuf(body), OWN, body).payload == body


def test_spans_of_this_very_gateway_are_refused_and_the_others_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake(SegmentWriter(tmp_path, "r"), OWN)
    both = request(span(1), service_instance_id=OWN)
    both.MergeFrom(request(span(2), service_instance_id="another"))
    for _ in range(3):
        answer = intake.take(both.SerializeToString())
        assert (answer.kind, answer.rejected) == ("accepted", 1)
    assert "this gateway" in answer.message
    assert [each.name for payload in payloads(tmp_path) for each in spans_of(payload)] == ["span 2"] * 3
    assert intake.counters.looped == 3
    assert len(caplog.records) == 1


def test_spans_that_have_been_through_here_before_are_refused() -> None:
    """Another application's spans, delivered by this gateway to a Collector that sends them back."""
    first = screen(request(span(1), service_name="app"), OWN)
    resource = otlp_spans.decode(first.payload, OWN)[0].resource
    back = request(span(1), service_name="app")
    pair = back.resource_spans[0].resource.attributes.add(key="otelgw.via")
    for instance in resource.attributes["otelgw.via"]:  # type: ignore[union-attr]
        pair.value.array_value.values.add(string_value=str(instance))
    assert screen(back, OWN).looped == 1
    assert screen(back, "another").looped == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": bytes(16), "span_id": b"12345678"},
        {"trace_id": b"1" * 16, "span_id": bytes(8)},
        {"trace_id": b"1" * 8, "span_id": b"12345678"},
        {"trace_id": b"1" * 16, "span_id": b"1234"},
        {"span_id": b"12345678"},
        {"trace_id": b"1" * 16, "span_id": b"12345678", "parent_span_id": b"123"},
    ],
)
def test_a_span_without_valid_ids_is_refused_and_its_neighbours_are_taken(fields: dict[str, bytes]) -> None:
    asked = request(span(1), span(3), service_name="app")
    asked.resource_spans[0].schema_url = "https://schema.example/1"
    asked.resource_spans[0].scope_spans[0].scope.name = "scope"
    asked.resource_spans[0].scope_spans[0].spans.add(**fields)
    screened = screen(asked, OWN, asked.SerializeToString())
    assert (screened.taken, screened.invalid, screened.looped) == (2, 1, 0)
    kept = ExportTraceServiceRequest.FromString(screened.payload).resource_spans[0]
    assert kept.resource == asked.resource_spans[0].resource
    assert kept.schema_url == "https://schema.example/1"
    assert kept.scope_spans[0].scope.name == "scope"
    assert [each.name for each in kept.scope_spans[0].spans] == ["span 1", "span 3"]


def test_a_full_disk_asks_the_sender_to_come_again_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    spool, now = FullSpool(), [0.0]
    intake = Intake(spool, OWN, clock=lambda: now[0])
    body = request(span(1)).SerializeToString()
    for _ in range(5):
        answer = intake.take(body)
        assert (answer.kind, answer.retry_after) == ("unavailable", 5.0)
    assert [record.getMessage() for record in caplog.records] == [
        "the spool takes nothing: No space left on device; senders are asked to come again"
    ]
    now[0] = 61.0
    intake.take(body)
    assert len(caplog.records) == 2
    spool.full = False
    assert intake.take(body).kind == "accepted"
    assert spool.taken == [body]
    assert intake.counters.unavailable == 6


def test_nothing_is_acknowledged_before_it_is_safe_from_power_loss(tmp_path: Path) -> None:
    failing = True

    async def commit() -> None:
        if failing:
            raise OSError(errno.EIO, "Input/output error")

    intake = Intake(SegmentWriter(tmp_path, "r"), OWN, commit)
    body = request(span(1)).SerializeToString()
    assert asyncio.run(intake.receive(body)).kind == "unavailable"
    failing = False
    assert asyncio.run(intake.receive(body)).kind == "accepted"


def test_where_content_is_off_none_gets_into_the_spool(tmp_path: Path) -> None:
    intake = Intake(SegmentWriter(tmp_path, "r"), OWN, content=False)
    said = {"value": {"string_value": "canary"}}
    names = ("gen_ai.prompt.0.content", "llm.input_messages.0.message.content", "gen_ai.input.messages", "input.value")
    made = span(
        1,
        attributes=[{"key": name, **said} for name in names]
        + [{"key": "llm.model_name", "value": {"string_value": "m"}}],
        events=[{"name": "gen_ai.user.message", "attributes": [{"key": "content", **said}]}],
        status={"code": 2, "message": "canary"},
    )
    assert intake.take(request(made).SerializeToString()).kind == "accepted"
    (payload,) = payloads(tmp_path)
    assert b"canary" not in payload
    (kept,) = spans_of(payload)
    assert [pair.key for pair in kept.attributes] == ["llm.model_name"]
    assert (kept.status.code, [event.name for event in kept.events]) == (2, ["gen_ai.user.message"])


def test_a_receiver_that_stops_takes_nothing_any_more(tmp_path: Path) -> None:
    intake = Intake(SegmentWriter(tmp_path, "r"), OWN, stopping=True)
    assert intake.take(request(span(1)).SerializeToString()).kind == "unavailable"
    assert payloads(tmp_path) == []


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("Bearer secret", True),
        ("bearer  secret", True),
        ("Bearer secret2", False),
        ("Bearer", False),
        ("Basic secret", False),
        ("secret", False),
        ("", False),
        ("Bearer sécret", False),
        ("Bearer \udcff", False),
    ],
)
def test_a_token_is_asked_for_by_its_hash(header: str, allowed: bool) -> None:
    assert is_allowed(header, hashlib.sha256(b"secret").hexdigest()) is allowed
    assert is_allowed(header, "")


@given(st.binary(max_size=400) | st.binary(max_size=60).map(lambda data: b"\x0a" + bytes((len(data),)) + data))
def test_no_body_in_protobuf_breaks_the_intake(body: bytes) -> None:
    spool = FullSpool()
    spool.full = False
    answer = Intake(spool, OWN).take(body)
    assert answer.kind in {"accepted", "unreadable"}
    for payload in spool.taken:
        assert otlp_spans.decode(payload)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.booleans(), max_size=4)), max_size=4))
def test_every_span_is_either_taken_or_counted_as_refused(groups: list[tuple[bool, list[bool]]]) -> None:
    asked = ExportTraceServiceRequest()
    for own, valid in groups:
        spans = [span(1) if each else span(1, trace_id=b"1") for each in valid]
        asked.MergeFrom(request(*spans, service_instance_id=OWN if own else "another"))
    screened = screen(asked, OWN)
    every = sum(len(valid) for _, valid in groups)
    assert screened.taken + screened.looped + screened.invalid == every
    assert screened.taken == sum(sum(valid) for own, valid in groups if not own)
    kept: list[ResourceSpans] = list(ExportTraceServiceRequest.FromString(screened.payload).resource_spans)
    assert sum(len(scope.spans) for group in kept for scope in group.scope_spans) == screened.taken
