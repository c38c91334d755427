"""Ordinary requests on their way through the pipeline: what arrives is what would of the spans, each of them once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan

from otelgw import pipeline_main
from otelgw.config.settings import Destination, Tracing
from otelgw.pipeline_main import decoder, decoders, writers
from otelgw.selection import Trace
from otelgw.tracing import record as records
from otelgw.tracing.ordinary_spans import OrdinarySpans
from otelgw_collector.pipeline import Batching, Pipeline
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters import semconv
from otelgw_exporters.otlp import OtlpHttpExporter
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import assemble
from otelgw_exporters.sheaf import Bundle
from tests.collector.destinations import QUICK, Spool, eventually, running
from tests.servers.answering import HttpAnswer
from tests.servers.otlp import HttpReceiver, spans_in
from tests.tracing.records import CALLER, plain, record

SMALL = Batching(records=5, queue_records=10, linger=0.02, first=0.01)
TRACING = Tracing(service_name="shop")


def test_a_record_is_decoded_to_an_ordinary_request_where_it_is_one() -> None:
    decode = decoder(TRACING, "state")
    found, other = (decode(records.encode(made)) for made in (plain(), record()))

    assert found.ordinary is not None
    assert other.ordinary is None
    assert [span.name for span in found.spans] == [span.name for span in other.spans]


def test_a_limit_on_the_length_of_attributes_has_all_spans_made() -> None:
    payload = records.encode(plain())
    cut = decoder(replace(TRACING, attribute_length_limit=7), "state")(payload)

    assert cut.ordinary is None
    assert cut.spans[1].attributes is not None
    assert cut.spans[1].attributes["gen_ai.provider.name"] == "openai"
    assert cut.spans[1].attributes["gen_ai.response.id"] == "chatcmp"
    assert cut.spans[1].attributes["gen_ai.input.messages"][1]["parts"][0]["content"] == "CANARY "


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_limit_on_their_number_is_none_for_what_the_gateway_says_itself(count: int) -> None:
    limited = replace(TRACING, attribute_count_limit=count)
    made = decoder(limited, "state")(records.encode(plain()))
    encode = encoder(semconv.profile())
    write = writers(limited, "state")(encode)

    assert made.ordinary is not None
    assert write is not None
    assert assemble([write(made.ordinary).piece]) == assemble(map(encode, made.spans))


def test_destinations_that_share_an_encoder_share_what_writes_for_it() -> None:
    def exporter(**options: Any) -> OtlpHttpExporter:
        return OtlpHttpExporter(endpoint="http://127.0.0.1:9", **options)

    writer = writers(TRACING, "state")
    one, two, other, whole, table = (
        exporter(),
        exporter(headers={"x-key": "another"}),
        exporter(semconv="otel-1.36"),
        exporter(bodies=True),
        exporter(semconv="traceloop"),
    )
    assert isinstance(writer(one.encoder), OrdinarySpans)
    assert writer(one.encoder) is writer(two.encoder)
    assert writer(other.encoder) not in (None, writer(one.encoder))
    assert writer(whole.encoder) is writer(table.encoder) is None
    for each in (one, two, other, whole, table):
        each.shutdown()


def test_destinations_that_get_all_of_every_request_have_it_prepared_by_the_same_function() -> None:
    writer = writers(TRACING, "state")
    built = [
        pipeline_main._built(Destination(f"otlp_http/{name}", "otlp_http", options, **more), 0, None, writer)
        for name, options, more in (
            ("one", {"endpoint": "http://127.0.0.1:9"}, {}),
            ("two", {"endpoint": "http://127.0.0.1:10", "headers": {"x-key": "another"}}, {}),
            ("other", {"endpoint": "http://127.0.0.1:9"}, {"content": False}),
        )
    ]
    made = decoder(TRACING, "state")(records.encode(plain()))

    one, two, other = (each.prepare for each in built)
    assert one is not None
    assert other is not None
    assert one is two is not other
    assert type(one(made).spans) is Bundle
    assert not any(b"CANARY" in piece for span in other(made).spans for piece in _encoded(span))
    for each in built:
        each.exporter.shutdown()


def _encoded(span: ReadableSpan) -> Sequence[bytes]:
    return encoder(semconv.profile())(span)


# On their way


def requests(count: int) -> list[records.Record]:
    """Records of which most are ordinary, and no two spans have the same id."""
    made = []
    for number in range(1, count + 1):
        own = {"trace_id": f"{number:032x}", "span_id": f"{number:016x}", "call_id": f"call-{number}"}
        changes = [{}, {}, {"status": 500, "error_type": "500"}, {"trace_state": "a=b"}, {"parent_span_id": ""}]
        made.append(plain(**own, **changes[number % 5]))
    return made


def shown(spans: Iterable[Span]) -> list[bytes]:
    return sorted(span.SerializeToString(deterministic=True) for span in spans)


def expected(made: Sequence[records.Record], **profile: Any) -> list[bytes]:
    """Return what a receiver reads of all spans, made one by one."""
    decode, encode = decoder(TRACING, "state"), encoder(semconv.profile(**profile))
    spans = [span for each in made for span in decode(records.encode(each)).spans]
    return shown(spans_in([ExportTraceServiceRequest.FromString(assemble(map(encode, spans)))]))


@contextmanager
def delivering(spool: Spool, *destinations: Destination, limit: float = 5.0) -> Iterator[Pipeline[Trace]]:
    writer = writers(TRACING, "state")
    built = [replace(pipeline_main._built(each, 0, None, writer), batching=SMALL, retry=QUICK) for each in destinations]
    with running(spool.pipeline(*built, decode=decoders(TRACING, "state"), age=pipeline_main.age), limit) as pipeline:
        yield pipeline


def write(spool: Spool, made: Sequence[records.Record]) -> None:
    writer = SegmentWriter(spool.segments, "w0")
    for each in made:
        writer.append(records.encode(each))
    writer.close()


def otlp(name: str, receiver: HttpReceiver, semconv: str = "otel", **policy: Any) -> Destination:
    options = {"endpoint": receiver.origin, "semconv": semconv}
    return Destination(f"otlp_http/{name}", "otlp_http", options, semconv=semconv, **policy)


def test_a_destination_that_falls_behind_gets_the_same_as_one_that_does_not(tmp_path: Path) -> None:
    made, spool = requests(60), Spool(tmp_path)
    trouble = [HttpAnswer(503)] * 6 + [HttpAnswer(413), HttpAnswer(200), HttpAnswer(503), HttpAnswer(413)]
    with HttpReceiver() as well, HttpReceiver(trouble) as troubled, HttpReceiver() as old, HttpReceiver() as table:
        everyone = (well, troubled, old, table)
        write(spool, made)
        with delivering(
            spool,
            otlp("well", well),
            otlp("troubled", troubled),
            otlp("old", old, "otel-1.36"),
            otlp("table", table, "traceloop"),
        ):
            eventually(lambda: all(len(each.spans) >= 180 for each in everyone))

        assert shown(well.spans) == shown(troubled.spans) == expected(made)
        assert shown(old.spans) == expected(made, semconv="otel-1.36")
        assert shown(table.spans) == expected(made, semconv="traceloop")


def test_what_is_left_of_a_batch_at_the_end_is_sent_by_the_next_process_and_nothing_twice(tmp_path: Path) -> None:
    made, spool = requests(3), Spool(tmp_path)
    trouble = [HttpAnswer(413), HttpAnswer(200)]  # for the first half of nine spans, which leaves a record in two parts
    with HttpReceiver([*trouble, *[HttpAnswer(503)] * 100_000]) as receiver:
        write(spool, made)
        with delivering(spool, otlp("one", receiver), limit=0.0) as pipeline:
            eventually(lambda: pipeline.status()[0].error)
        taken = len(receiver.spans)
        receiver.answers.clear()
        with delivering(spool, otlp("one", receiver)):
            eventually(lambda: len(receiver.spans) >= 9)

        assert taken == 4
        assert shown(receiver.spans) == expected(made)


def test_who_called_and_what_was_said_stay_out_where_they_are_to_also_of_ordinary_requests(tmp_path: Path) -> None:
    made, spool = requests(12), Spool(tmp_path)
    secrets = (b"CANARY", CALLER.key_hash.encode(), CALLER.key_alias.encode())
    with HttpReceiver() as whole, HttpReceiver() as silent, HttpReceiver() as anonymous:
        write(spool, made)
        with delivering(
            spool,
            otlp("whole", whole),
            otlp("silent", silent, content=False),
            otlp("anonymous", anonymous, redact_user_api_key_info=True),
        ):
            eventually(lambda: all(len(each.spans) >= 36 for each in (whole, silent, anonymous)))

        told = {each: b"".join(asked.body for asked in each.asked) for each in (whole, silent, anonymous)}
    assert [secret in told[whole] for secret in secrets] == [True, True, True]
    assert [secret in told[silent] for secret in secrets] == [False, True, True]
    assert [secret in told[anonymous] for secret in secrets] == [True, False, False]
