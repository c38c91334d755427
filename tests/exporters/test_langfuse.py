"""What LiteLLM's callers say to Langfuse in a request's metadata, and how its ingestion's answers are understood."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters.delivery import Exporter
from otelgw_exporters.dialects import langfuse
from otelgw_exporters.langfuse import LangfuseExporter, LangfuseShape
from otelgw_exporters.reading import Reading
from tests.exporters.requests_told import CALLER, TRACE, request
from tests.exporters.stand_ins import Answer, Request
from tests.exporters.stand_ins.langfuse import STAND_IN
from tests.exporters.vendor import serve

NAMED = "9f86d081884c7d659a2feaa0c55ad015"


def shaped(**metadata: Any) -> dict[str, ReadableSpan]:
    """Return the spans of a request with such metadata as Langfuse gets them, by their kinds."""
    spans = request(metadata=metadata)
    shape = LangfuseShape("langfuse")
    return {
        "server": shape(spans[0], spans[1]),
        "generation": shape(spans[1]),
        "attempt": shape(spans[3]),
    }


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def test_names_users_and_releases_are_the_callers() -> None:
    spans = shaped(
        generation_name="summary",
        trace_name="nightly",
        trace_user_id="user-id2",
        trace_release="r-2",
        version="v-3",
        prompt='{"name": "greeting", "version": 4}',
        generation_id="gen-id22",
    )

    assert spans["generation"].name == "summary"
    assert told(spans["server"])["langfuse.trace.name"] == "nightly"
    assert {told(span)["langfuse.user.id"] for span in spans.values()} == {"user-id2"}
    generation = told(spans["generation"])
    assert (generation["langfuse.release"], generation["langfuse.version"]) == ("r-2", "v-3")
    link = (generation["langfuse.observation.prompt.name"], generation["langfuse.observation.prompt.version"])
    assert link == ("greeting", 4)
    assert generation["langfuse.observation.metadata.generation_id"] == "gen-id22"
    assert "langfuse.observation.metadata.prompt" not in generation


def test_a_trace_keeps_its_generations_name_where_it_has_none_of_its_own() -> None:
    assert told(shaped(generation_name="summary")["server"])["langfuse.trace.name"] == "summary"
    assert "langfuse.trace.name" not in told(shaped()["server"])


def test_a_trace_id_of_32_hex_digits_is_taken_as_it_is_and_lets_the_callers_span_go() -> None:
    spans = shaped(trace_id=NAMED.upper())

    assert {trace_of(span) for span in spans.values()} == {NAMED}
    assert spans["server"].parent is None
    parent = spans["generation"].parent
    assert parent is not None
    assert f"{parent.trace_id:032x}" == NAMED


def test_any_other_trace_id_is_hashed_with_its_team_so_that_no_tenant_meets_anothers_trace() -> None:
    expected = hashlib.sha256(b"team-1:trace-id22").hexdigest()[:32]

    assert {trace_of(span) for span in shaped(trace_id="trace-id22").values()} == {expected}


def test_without_a_key_the_hash_is_that_of_langfuses_own_sdks() -> None:
    span = request(metadata={"trace_id": "trace-id22"})[0]
    held = {key: value for key, value in told(span).items() if not key.startswith("otelgw.team")}
    bare = ReadableSpan("x", context=span.context, attributes=held)

    assert langfuse.trace_id(Reading(bare)) == int(hashlib.sha256(b"trace-id22").hexdigest()[:32], 16)


def test_the_spans_themselves_keep_their_trace() -> None:
    spans = request(metadata={"trace_id": NAMED})
    LangfuseShape("langfuse")(spans[0], spans[1])

    assert trace_of(spans[0]) == f"{TRACE:032x}"
    assert spans[0].parent is not None


def test_a_trace_that_goes_on_keeps_its_name_and_its_root() -> None:
    spans = shaped(existing_trace_id=NAMED, trace_name="other", parent_observation_id="b7ad6b7169203332")

    assert {trace_of(span) for span in spans.values()} == {NAMED}
    server = told(spans["server"])
    assert "langfuse.trace.name" not in server
    assert "langfuse.internal.as_root" not in server
    parent = spans["server"].parent
    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (NAMED, "b7ad6b7169203332")


def test_under_a_callers_span_the_gateways_is_the_root_of_the_trace_all_the_same() -> None:
    server = shaped()["server"]

    assert server.parent is not None
    assert server.parent.span_id == CALLER
    assert told(server)["langfuse.internal.as_root"] == "true"
    assert "Rain it is." in told(server)["langfuse.observation.output"]


def test_what_a_caller_masks_is_left_out() -> None:
    spans = shaped(mask_input=True, mask_output="true")

    for span in spans.values():
        assert "Be brief" not in repr(told(span))
        assert "Rain it is." not in repr(told(span))


@given(st.text(max_size=50) | st.integers() | st.booleans() | st.none() | st.lists(st.text(max_size=3), max_size=3))
def test_whatever_is_named_as_a_trace_the_trace_is_a_valid_one_or_the_requests_own(named: Any) -> None:
    for span in shaped(trace_id=named, parent_observation_id=named).values():
        assert span.context is not None
        assert 0 < span.context.trace_id < 1 << 128


def test_no_token_is_in_two_parts_of_the_usage() -> None:
    usage = json.loads(told(shaped()["generation"])["langfuse.observation.usage_details"])

    assert usage.pop("total") == sum(usage.values()) == 28
    assert usage == {
        "input": 14,
        "input_cached_tokens": 5,
        "input_cache_creation": 2,
        "output": 4,
        "output_reasoning_tokens": 3,
    }


@pytest.mark.parametrize(("status", "state"), [(400, "dead"), (500, "retry"), (429, "retry"), (401, "retry")])
def test_of_a_207_each_span_has_the_fate_of_its_own_events(
    status: int, state: str, closing: Callable[[Exporter], Exporter]
) -> None:
    def partly(asked: Request) -> Answer:
        batch = json.loads(asked.body)["batch"]
        bad = next(event["id"] for event in batch if event["type"] == "generation-create")
        errors = [{"id": bad, "status": status, "message": "not this one"}]
        return Answer(207, {}, json.dumps({"successes": [], "errors": errors}).encode())

    with serve(STAND_IN) as vendor:
        vendor.answers(partly)
        exporter = closing(LangfuseExporter(**STAND_IN.options(vendor.origin), api="ingestion"))
        outcome = exporter.deliver(request(), time.monotonic() + 10)

    assert [verdict.state for verdict in outcome.verdicts] == ["done", state, "done", "done"]
    assert "not this one" in outcome.reason


def test_a_207_that_cannot_be_read_is_not_taken_for_a_success(closing: Callable[[Exporter], Exporter]) -> None:
    with serve(STAND_IN) as vendor:
        vendor.answers(Answer(207, {}, b'{"successes": [{"id": "'))
        exporter = closing(LangfuseExporter(**STAND_IN.options(vendor.origin), api="ingestion"))
        outcome = exporter.deliver(request(), time.monotonic() + 10)

    assert "done" not in {verdict.state for verdict in outcome.verdicts[1:2]}


def test_the_same_events_have_the_same_ids_each_time() -> None:
    from otelgw_exporters.langfuse import events

    assert events(shaped()["server"]) == events(shaped()["server"])
