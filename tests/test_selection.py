"""Which requests a destination gets."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from otelgw.config.settings import Destination, Redaction, Selection, Tracing
from otelgw.pipeline_main import decoder, writers
from otelgw.selection import Ready, Trace, preparer, selector
from otelgw.tracing import record as records
from otelgw.tracing.record import Audience, Caller
from otelgw_exporters import semconv
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import EncodedSpan
from otelgw_exporters.sheaf import Bundle
from tests.tracing.records import plain, record


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


# Ordinary requests

WHO = Caller(True, "ab" * 32, "search", "user-7", "ann@mail.example", "t-1", "blue")
WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "without content": {"content": False},
    "without who called": {"redact_user_api_key_info": True},
    "without either": {"content": False, "redact_user_api_key_info": True},
    "redacted": {"redaction": Redaction(presets=("email",))},
    "cut": {"redaction": Redaction(limit=5)},
    "with tags": {"default_tags": ("cache_hit", "user_api_key_alias"), "base_url": "https://gateway.example"},
    "of a model": {"selection": Selection(model=("gpt",))},
    "of another model": {"selection": Selection(model=("claude*",))},
    "of the answer's model": {"selection": Selection(model=("gpt-4o-2024-08-06",))},
    "of a tag": {"selection": Selection(tag=("a",))},
    "of a route, without content": {"selection": Selection(route=("/v1/*",)), "content": False},
    "slow ones": {"selection": Selection(ratio=0.0, slow=0.09)},
    "costly ones": {"selection": Selection(ratio=0.0, costly=0.7)},
    "failures": {"on": "failure"},
    "successes": {"on": "success"},
    "sampled ones": {"sampling": "parent"},
    "required": {"required": True},
}
AUDIENCES = [Audience(), Audience(without=("otlp_http",)), Audience(only=("otlp_http/one",)), Audience(nobody=True)]


def ordinary(**changes: Any) -> Trace:
    made = decoder(Tracing(), "state")(records.encode(plain(**{"caller": WHO, **changes})))
    assert made.ordinary is not None
    return made


def any_other(**changes: Any) -> Trace:
    """Return the same as ``ordinary`` as if it were none."""
    made = ordinary(**changes)
    return Trace(made.record, made.spans)


def encoded(spans: Sequence[ReadableSpan], vocabulary: str) -> list[EncodedSpan]:
    return [encoder(semconv.profile(vocabulary))(span) for span in spans]


@pytest.mark.parametrize("audience", AUDIENCES, ids=str)
@pytest.mark.parametrize("vocabulary", ["otel", "otel-1.36", "openinference"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_destination_sees_of_an_ordinary_request_what_it_would_of_any(
    way: dict[str, Any], vocabulary: str, audience: Audience
) -> None:
    destination = Destination("otlp_http/one", "otlp_http", **way)
    select, encode = selector(destination), encoder(semconv.profile(vocabulary))
    write = writers(Tracing(), "state")(encode)
    prepare = preparer(destination, select, encode.ready, write=write)
    for changes in ({}, {"sampled": False}, {"cost": 0.75}):
        short, long = (make(audience=audience, **changes) for make in (ordinary, any_other))
        expected = encoded(select(long), vocabulary)
        assert encoded(select(ordinary(audience=audience, **changes)), vocabulary) == expected
        if prepare is not None:
            ready, other = prepare(short), prepare(long)
            assert encoded(select(ready), vocabulary) == encoded(select(other), vocabulary) == expected
            assert ready.ended == other.ended == short.ended


def test_an_ordinary_requests_spans_are_made_for_nobody_where_all_get_all_of_it() -> None:
    encode = encoder(semconv.profile())
    write = writers(Tracing(), "state")(encode)
    made = ordinary()
    lazy = Trace(made.record, None, made.ordinary, lambda _: pytest.fail("spans are made"))
    prepared = []
    for name in ("otlp_http/one", "otlp_http/two"):
        destination = Destination(name, "otlp_http")
        prepare = preparer(destination, selector(destination), encode.ready, write=write)
        assert prepare is not None
        prepared.append(prepare(lazy))

    assert prepared[0] is prepared[1]
    assert type(prepared[0]) is Ready
    assert type(prepared[0].spans) is Bundle
    assert not lazy.failed
    assert (lazy.ended, prepared[0].ended) == (made.ended, made.ended)


def test_spans_of_an_ordinary_request_are_made_once_whoever_asks_at_the_same_time() -> None:
    made, calls, start = ordinary(), [], threading.Barrier(8)
    spans = made.spans

    def build(_: records.Record) -> Sequence[ReadableSpan]:
        calls.append(threading.get_ident())
        threading.Event().wait(0.02)
        return spans

    lazy = Trace(made.record, None, made.ordinary, build)

    def ask(_: int) -> Sequence[ReadableSpan]:
        start.wait(10)
        return lazy.spans

    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(ask, range(8))]

    assert len(calls) == 1
    assert all(each is spans for each in found)


def test_spans_that_could_not_be_made_are_tried_again_and_hold_nobody_up() -> None:
    made, fails = ordinary(), [True, False]
    spans = made.spans

    def build(_: records.Record) -> Sequence[ReadableSpan]:
        if fails.pop(0):
            raise ValueError("no spans")
        return spans

    lazy = Trace(made.record, None, made.ordinary, build)
    with pytest.raises(ValueError, match="no spans"):
        assert lazy.spans
    assert len(ordinary().spans) == 3
    assert lazy.spans is spans


def test_a_record_of_no_spans_has_none() -> None:
    assert Trace(None).spans == ()
    assert Trace(record()).spans == ()
