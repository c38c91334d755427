"""Which requests a destination gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from otelgw.config.settings import Destination, Redaction, Selection, Tracing
from otelgw.pipeline_main import decoder
from otelgw.selection import Trace, preparer, selector
from otelgw.tracing import record as records
from tests.tracing.records import record


def trace(**changes: Any) -> Trace:
    return decoder(Tracing(), "state")(records.encode(record(**changes)))


def sent(made: Trace, **selection: Any) -> int:
    return len(selector(Destination("console", "console", selection=Selection(**selection)))(made))


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({}, 3),
        ({"model": ("gpt",)}, 3),
        ({"model": ("gpt-4*",)}, 3),
        ({"model": ("claude*",)}, 0),
        ({"key": ("search",)}, 3),
        ({"key": ("ab" * 32,)}, 3),
        ({"key": ("other", "sea*")}, 3),
        ({"team": ("blue",), "route": ("/v1/*",)}, 3),
        ({"team": ("blue",), "route": ("/v1/embeddings",)}, 0),
        ({"team": ("t-1",)}, 3),
        ({"tag": ("b",)}, 3),
        ({"tag": ("c",)}, 0),
        ({"ratio": 0.0}, 0),
        ({"ratio": 0.0, "slow": 0.09}, 3),
        ({"ratio": 0.0, "slow": 0.1}, 0),
        ({"ratio": 0.0, "costly": 0.5}, 3),
        ({"ratio": 0.0, "costly": 0.7}, 0),
    ],
)
def test_a_destination_gets_what_it_is_for(selection: dict[str, Any], count: int) -> None:
    assert sent(trace(metadata={"tags": ["a", "b"]}, cost=0.6), **selection) == count


def test_sampling_keeps_errors() -> None:
    assert sent(trace(status=500, error_type="500"), ratio=0.0) == 3


@given(st.floats(0, 1), st.lists(st.integers(1, (1 << 128) - 1), min_size=1, max_size=20))
def test_every_destination_of_one_ratio_gets_the_same_traces_and_a_larger_ratio_gets_them_too(
    ratio: float, ids: list[int]
) -> None:
    for identity in ids:
        made = trace(trace_id=f"{identity:032x}")
        small = sent(made, ratio=ratio)
        assert small == sent(made, ratio=ratio)
        assert sent(made, ratio=(1 + ratio) / 2) >= small


def foreign(trace_id: int, *, failed: bool = False, sampled: bool = True) -> ReadableSpan:
    return ReadableSpan(
        str(trace_id),
        context=SpanContext(trace_id, trace_id, False, TraceFlags(int(sampled))),
        resource=Resource({}),
        attributes={"gen_ai.request.model": f"m{trace_id}"},
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
    )


def test_spans_from_elsewhere_are_chosen_by_trace() -> None:
    made = Trace(None, [foreign(1), foreign(2, failed=True), foreign(1), foreign(3, sampled=False)])

    def names(**policy: Any) -> list[str]:
        return [span.name for span in selector(Destination("console", "console", **policy))(made)]

    assert names() == ["1", "2", "1", "3"]
    assert names(on="success") == ["1", "1", "3"]
    assert names(on="failure") == ["2"]
    assert names(sampling="parent") == ["1", "2", "1", "3"]
    assert names(selection=Selection(model=("m1",)), content=False) == ["1", "1"]


def test_destinations_that_see_the_same_share_the_copies() -> None:
    made = trace()
    one, two, other = (
        selector(Destination(name, "console", content=False, redact_user_api_key_info=redact))(made)
        for name, redact in (("a", False), ("b", False), ("c", True))
    )

    assert all(left is right for left, right in zip(one, two, strict=True))
    assert not any(left is right for left, right in zip(one, other, strict=True))


def test_what_is_made_ready_is_made_once_for_all_destinations_that_see_the_same() -> None:
    made, calls = trace(), []

    def ahead(span: ReadableSpan) -> ReadableSpan:
        calls.append(span)
        return ReadableSpan(f"ready {span.name}")

    prepared = []
    for name, content in (("a", True), ("b", True), ("c", False)):
        destination = Destination(name, "otlp_http", content=content)
        prepare = preparer(destination, selector(destination), ahead)
        assert prepare is not None
        prepared.append(prepare(made))
        assert [span.name[:6] for span in selector(destination)(prepared[-1])] == ["ready "] * 3

    assert prepared[0] is prepared[1]
    assert len(calls) == 6


def test_a_record_that_is_made_ready_is_as_old_as_it_was_also_where_nothing_of_it_is_chosen() -> None:
    made = trace()
    for on, chosen in (("all", 3), ("failure", 0)):
        destination = Destination("a", "otlp_http", on=on)
        prepare = preparer(destination, selector(destination), lambda span: span)
        assert prepare is not None
        ready = prepare(made)
        assert len(ready.spans) == chosen
        assert ready.ended == made.ended == max(span.end_time or 0 for span in made.spans) > 0


def test_nothing_is_made_ready_where_patterns_or_a_blob_store_take_their_time() -> None:
    redacted = Destination("a", "otlp_http", redaction=Redaction(presets=("email",)))

    assert preparer(redacted, selector(redacted), lambda span: span) is None


def test_who_called_is_left_out_of_the_request_body_too() -> None:
    # The body names its user; without it no field of the body could be trusted to be anonymous.
    destination = Destination("otlp_http", "otlp_http", redact_user_api_key_info=True)
    made = records.Record(
        call_id="c",
        trace_id="a" * 32,
        span_id="b" * 16,
        generation_span_id="c" * 16,
        start=1,
        status=200,
        target=records.Target(alias="m", model="m", provider="openai", operation="chat", dialect="openai_chat"),
        request=records.Capture("application/json", size=40, head=b'{"model":"m","user":"canary-user"}'),
    )
    trace = decoder(Tracing(), "state")(records.encode(made))

    spans = selector(destination)(trace)

    assert spans
    assert not any("canary-user" in str(value) for span in spans for value in (span.attributes or {}).values())
