"""Ordinary requests are counted without their spans: everything is held against what is counted of the spans."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from otelgw.config.settings import Tracing
from otelgw.exposition import exposition
from otelgw.metrics import Metrics
from otelgw.pipeline_main import decoder
from otelgw.selection import Trace
from otelgw.tracing import record as records
from tests.test_metrics import label, shown
from tests.tracing import drawn
from tests.tracing.records import CHAT, plain


def both(made: Sequence[records.Record]) -> tuple[str, str]:
    """Return what is counted of records where those that are ordinary are counted as such, and where none is."""
    short, long = Metrics(), Metrics()
    decode = decoder(Tracing(), "state")
    for each in made:
        found = decode(records.encode(each))
        short.observe(found)
        long.observe(Trace(found.record, found.spans))
    return exposition(short.families()), exposition(long.families())


@given(st.lists(drawn.records | drawn.streams, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # shrinking takes long
def test_ordinary_requests_are_counted_as_their_spans_would_be(made: list[records.Record]) -> None:
    short, long = both(made)
    assert short == long


def test_ordinary_requests_are_counted_as_their_spans_would_be_also_beyond_what_labels_may_be() -> None:
    body = plain().response
    made = []
    for number in range(260):
        model, failed = f"model-{number}", number % 7 == 3
        target = replace(CHAT, model=model, server_address=f"host-{number % 130}")
        told = replace(body, head=body.head.replace(b"gpt-4o-2024-08-06", f"{model}-{'x' * 250}".encode()))
        changes = {"status": 500, "error_type": f"e{number}"} if failed else {}
        made.append(plain(target=target, response=told, route=f"/v{number}", scheme=f"s{number % 3}", **changes))

    short, long = both([*made, *made[::-1]])

    assert short == long
    assert {"other"} < label(short, "gen_ai_request_model") == label(long, "gen_ai_request_model")
    assert len(label(short, "http_route")) == 101


def test_ordinary_requests_that_came_alike_are_told_apart_by_what_answered() -> None:
    body = plain().response
    models = (b'"a"', b'"b"', b'""', b"null", b'"a"', b'"c"')
    heads = [body.head.replace(b'"gpt-4o-2024-08-06"', model).replace(b"1117", b"7") for model in models]

    short, long = both([plain(response=replace(body, head=head)) for head in heads] * 2)

    assert short == long
    assert label(short, "gen_ai_response_model") == {"a", "b", "c"}


def test_counting_an_ordinary_request_makes_no_spans() -> None:
    found = decoder(Tracing(), "state")(records.encode(plain()))
    metrics = Metrics()
    metrics.observe(Trace(found.record, None, found.ordinary, lambda _: pytest.fail("spans are made")))

    assert sum(value for name, value in shown(metrics).items() if "operation_duration_seconds_count" in name) == 1
