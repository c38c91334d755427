"""Sheaves are a short cut: everything is held against what is done with their spans one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

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
from otelgw_exporters.sheaf import Bundle, Sheaf, Sheaves, gathered
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


# Records of spans, each by its resource and scope; what is done with those of a part of a batch: nothing, each encoded,
# all encoded in a bundle, or one record so and the next one so; and whether they are gathered.
records = st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=3), min_size=1, max_size=4)
Parts = list[tuple[str, bool, list[list[tuple[int, int]]]]]
batches = st.lists(
    st.tuples(st.sampled_from(["spans", "ready", "bundles", "mixed"]), st.booleans(), records), max_size=4
)


def bundle(spans: Sequence[ReadableSpan]) -> Bundle:
    """Return spans of one resource and scope in a bundle."""
    encoded = [encode(each) for each in spans]
    return Bundle(encoded[0]._replace(span=b"".join(each.span for each in encoded)), len(encoded))


def batch(drawn: Parts) -> tuple[Sheaves, list[ReadableSpan]]:
    parts: list[Sheaf | Sequence[ReadableSpan]] = []
    flat: list[ReadableSpan] = []
    for kind, bound, content in drawn:
        spans: list[Sequence[ReadableSpan]] = []
        for at, record in enumerate(content):
            bundled = bool(record) and (kind == "bundles" or (kind == "mixed" and at % 2 == 1))
            places = [record[0]] * len(record) if bundled else record
            each = [made(len(flat) + 1 + number, *place) for number, place in enumerate(places)]
            if kind != "spans":
                spans.append(bundle(each) if bundled else [encode.ready(one) for one in each])
            else:
                spans.append(each)
            flat += spans[-1]
        sheaf = gathered(spans) if bound else None
        assert (sheaf is None) == (not bound or (kind == "spans" and any(spans)))
        parts += [sheaf] if sheaf is not None else spans
    return Sheaves(parts), flat


@given(batches)
def test_a_batch_of_sheaves_is_the_sequence_of_their_spans(drawn: Parts) -> None:
    sheaves, flat = batch(drawn)

    assert list(sheaves) == flat
    assert (len(sheaves), bool(sheaves)) == (len(flat), bool(flat))
    assert sheaves[1:] == flat[1:]
    assert [sheaves[at] for at in range(len(flat))] == flat


@given(batches, st.integers(0, 3000))
def test_a_request_of_sheaves_is_byte_by_byte_the_one_of_their_spans(drawn: Parts, most: int) -> None:
    sheaves, flat = batch(drawn)
    one_by_one = [encode(each) for each in flat]

    together, size = sheaves.encoded(encode)

    assert assemble(together) == assemble(one_by_one)
    if flat:
        assert size > most or split(one_by_one, most) == [one_by_one]
        assert size == sum(len(part) + 8 for each in one_by_one for part in each)


@given(batches, st.integers(50, 3000), st.lists(st.sampled_from(REPLIES), max_size=12))
def test_delivering_sheaves_sends_and_comes_out_as_delivering_their_spans_does(
    drawn: Parts, most: int, replies: list[Reply]
) -> None:
    sheaves, flat = batch(drawn)

    def delivered(spans: Sequence[ReadableSpan]) -> tuple[object, list[bytes]]:
        left, sent = list(replies), []

        def send(part: Sequence[EncodedSpan]) -> Reply:
            sent.append(assemble(part))
            return left.pop(0) if left else Reply("accepted")

        return deliver_encoded(spans, encode, send, most, time.monotonic() + 60), sent

    assert delivered(sheaves) == delivered(flat)


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=4))
def test_a_bundle_is_its_spans_in_all_that_can_be_asked_of_one(sizes: list[int]) -> None:
    whole = [span(number, {"text": "x" * size}) for number, size in enumerate(sizes, 1)]
    found, ready = bundle(whole), [encode.ready(each) for each in whole]

    assert (len(found), found.size) == (len(ready), sum(sum(map(len, each.encoded)) + 24 for each in ready))
    assert [known(each) for each in found] == [known(each) for each in ready]
    assert [known(found[at]) for at in range(-len(ready), 0)] == [known(each) for each in ready]
    assert [known(each) for each in reversed(found)] == [known(each) for each in reversed(ready)]
    assert [known(each) for each in found[1:]] == [known(each) for each in ready[1:]]
    assert found[0] is found[0], "taken apart once"
    assert found[0] in found
    with pytest.raises(IndexError):
        found[len(sizes)]


def known(span: ReadableSpan) -> tuple[Any, ...]:
    assert isinstance(span, Ready)
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id, span.name, span.end_time, span.encoded


def test_of_a_bundle_that_is_refused_each_span_has_its_own_verdict() -> None:
    found = [bundle([span(number), span(number + 1), span(number + 2)]) for number in (1, 4)]
    bad = encode(span(5)).span
    for parts in (Sheaves(found), Sheaves([made for made in (gathered(found),) if made is not None])):
        outcome = deliver_encoded(
            parts,
            encode,
            lambda part: Reply("refused", "no") if any(bad in each.span for each in part) else Reply("accepted"),
            10_000,
            time.monotonic() + 60,
        )
        assert [verdict.state for verdict in outcome.verdicts] == ["done", "done", "done", "done", "dead", "done"]


def test_spans_that_are_not_encoded_make_no_sheaf() -> None:
    assert gathered([[encode.ready(span(1)), span(2)]]) is None
    assert gathered([bundle([span(1)]), [span(2)]]) is None


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
        bundles = [bundle([span(number), span(number + 1)]) for number in (1, 3, 5, 7)]
        sheaf, of_bundles = exporter.gather(ready), exporter.gather(bundles)
        assert sheaf is not None
        assert of_bundles is not None
        flat = [each for record in ready for each in record]
        for spans in (Sheaves([sheaf]), flat, Sheaves([of_bundles]), Sheaves(bundles), [*bundles[0], *flat[2:]]):
            exporter.deliver(spans, time.monotonic() + 10)
        exporter.shutdown()

    assert len({asked.body for asked in receiver.asked}) == 1
    assert len(receiver.asked) == 5
