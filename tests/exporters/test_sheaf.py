"""Sheaves are a short cut: everything is held against what is done with their spans one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelgw_exporters.delivery import Reply
from otelgw_exporters.otlp import OtlpHttpExporter
from otelgw_exporters.otlp_post import deliver_encoded
from otelgw_exporters.otlp_wire import EncodedSpan, Encoder, Ready, assemble, split
from otelgw_exporters.sheaf import Sheaf, Sheaves, gathered
from tests.exporters.samples import span
from tests.servers.answering import HttpAnswer
from tests.servers.otlp import HttpReceiver

encode = Encoder(lambda attributes: attributes)
RESOURCES = [Resource({"service.name": name}) for name in ("one", "two")]
SCOPES = [InstrumentationScope("scope", version) for version in ("1", "2")]
REPLIES = [
    Reply("accepted"),
    Reply("accepted", "some were bad", rejected=1),
    Reply("again", "later", 3.0),
    Reply("too_large", "too large"),
    Reply("refused", "no"),
]


def made(number: int, resource: int, scope: int) -> ReadableSpan:
    found = span(number, {"text": "x" * (number % 50)}, resource=RESOURCES[resource])
    found._instrumentation_scope = SCOPES[scope]
    return found


# Records of spans, each by its resource and scope; which of the parts of a batch are sheaves.
records = st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=3), min_size=1, max_size=4)
batches = st.lists(st.tuples(st.booleans(), records), max_size=4)


def batch(drawn: list[tuple[bool, list[list[tuple[int, int]]]]]) -> tuple[Sheaves, list[ReadableSpan]]:
    parts: list[Sheaf | Sequence[ReadableSpan]] = []
    flat: list[ReadableSpan] = []
    for bound, content in drawn:
        spans: list[list[ReadableSpan]] = []
        for record in content:
            spans.append([])
            for place in record:
                each = made(len(flat) + 1, *place)
                flat.append(encode.ready(each) if bound else each)
                spans[-1].append(flat[-1])
        sheaf = gathered(spans) if bound else None
        parts += [sheaf] if sheaf is not None else spans
    return Sheaves(parts), flat


@given(batches)
def test_a_batch_of_sheaves_is_the_sequence_of_their_spans(
    drawn: list[tuple[bool, list[list[tuple[int, int]]]]],
) -> None:
    sheaves, flat = batch(drawn)

    assert list(sheaves) == flat
    assert (len(sheaves), bool(sheaves)) == (len(flat), bool(flat))
    assert sheaves[1:] == flat[1:]
    assert [sheaves[at] for at in range(len(flat))] == flat


@given(batches, st.integers(0, 3000))
def test_a_request_of_sheaves_is_byte_by_byte_the_one_of_their_spans(
    drawn: list[tuple[bool, list[list[tuple[int, int]]]]], most: int
) -> None:
    sheaves, flat = batch(drawn)
    one_by_one = [encode(each) for each in flat]

    together, size = sheaves.encoded(encode)

    assert assemble(together) == assemble(one_by_one)
    if flat:
        assert size > most or split(one_by_one, most) == [one_by_one]
        assert size == sum(len(part) + 8 for each in one_by_one for part in each)


@given(batches, st.integers(50, 3000), st.lists(st.sampled_from(REPLIES), max_size=12))
def test_delivering_sheaves_sends_and_comes_out_as_delivering_their_spans_does(
    drawn: list[tuple[bool, list[list[tuple[int, int]]]]], most: int, replies: list[Reply]
) -> None:
    sheaves, flat = batch(drawn)

    def delivered(spans: Sequence[ReadableSpan]) -> tuple[object, list[bytes]]:
        left, sent = list(replies), []

        def send(part: Sequence[EncodedSpan]) -> Reply:
            sent.append(assemble(part))
            return left.pop(0) if left else Reply("accepted")

        return deliver_encoded(spans, encode, send, most, time.monotonic() + 60), sent

    assert delivered(sheaves) == delivered(flat)


def test_spans_that_are_not_encoded_make_no_sheaf() -> None:
    assert gathered([[encode.ready(span(1)), span(2)]]) is None


def test_a_span_that_cannot_be_encoded_dies_alone_beside_a_sheaf() -> None:
    good = [encode.ready(span(number)) for number in (1, 2)]
    sheaf = gathered([good])
    assert sheaf is not None
    strange = span(3, {"key": object()})
    sent: list[bytes] = []

    def send(part: Sequence[EncodedSpan]) -> Reply:
        sent.append(assemble(part))
        return Reply("accepted")

    outcome = deliver_encoded(Sheaves([sheaf, [strange]]), encode, send, 10_000, time.monotonic() + 60)

    assert [verdict.state for verdict in outcome.verdicts] == ["done", "done", "dead"]
    assert sent == [assemble(encode(each) for each in good)]


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"protocol": "http/json"}])
def test_a_server_is_sent_the_same_request_for_sheaves_as_for_spans(options: dict[str, str]) -> None:
    with HttpReceiver([HttpAnswer(503), HttpAnswer(503)]) as receiver:
        exporter = OtlpHttpExporter(endpoint=receiver.endpoint, **options)
        assert exporter.ahead is not None
        assert exporter.gather is not None
        ready = [[exporter.ahead(span(number))] for number in range(1, 9)]
        assert all(type(each) is Ready for record in ready for each in record)
        sheaf = exporter.gather(ready)
        assert sheaf is not None
        for spans in (Sheaves([sheaf]), [each for record in ready for each in record]) * 2:
            exporter.deliver(spans, time.monotonic() + 10)
        exporter.shutdown()

    assert len({asked.body for asked in receiver.asked}) == 1
    assert len(receiver.asked) == 4
