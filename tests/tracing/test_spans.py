"""Goldens are in tests/golden/spans; with OTELGW_UPDATE_GOLDENS set they are written anew, to be read before use."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, format_span_id, format_trace_id

from otelgw.tracing import spans
from otelgw.tracing.limits import AttributeLimits
from otelgw.tracing.record import Capture, Record, capture_whole, decode, encode
from otelgw_collector.trace_state import carried
from otelgw_exporters import semconv
from otelgw_exporters.layers import Layers
from tests.dialects import wire
from tests.dialects.conventions import SCHEMAS, check_attributes, check_content
from tests.tracing.records import ASKED, CHAT, MS, START, attempt, record, refused, scenarios, streamed, withheld

GOLDEN = Path(__file__).parents[1] / "golden" / "spans"
RESOURCE = Resource({"service.name": "otelgw"})
SCOPE = InstrumentationScope("otelgw", "0.1.0")
SCENARIOS = sorted(scenarios())


def build(made: Record, limits: AttributeLimits | None = None) -> list[ReadableSpan]:
    """Build after a trip through the spool's encoding, as the pipeline does."""
    read = decode(encode(made))
    return spans.build(read, RESOURCE, SCOPE, limits) if limits else spans.build(read, RESOURCE, SCOPE)


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def generation(made: Record) -> ReadableSpan:
    (found,) = [span for span in build(made) if semconv.GEN_AI_OPERATION_NAME in attributes_of(span)]
    return found


def shown(span: ReadableSpan) -> dict[str, Any]:
    """Return ``span`` as its golden has it; times in nanoseconds after the request's start."""
    context = span.context
    assert context is not None
    assert span.start_time is not None
    assert span.end_time is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "parent_id": format_span_id(span.parent.span_id) if span.parent else None,
        "parent_is_remote": span.parent.is_remote if span.parent else None,
        "flags": int(context.trace_flags),
        "trace_state": dict(context.trace_state),
        "start": span.start_time - START,
        "end": span.end_time - START,
        "status": span.status.status_code.name,
        "description": span.status.description,
        "links": [
            [format_trace_id(link.context.trace_id), format_span_id(link.context.span_id)] for link in span.links
        ],
        "attributes": attributes_of(span),
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_spans_of_a_request_are_those_of_its_golden(name: str) -> None:
    found = [shown(span) for span in build(scenarios()[name])]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(path.read_text())


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_keeps_the_rules_of_the_tree(name: str) -> None:
    made = scenarios()[name]
    found = build(made)
    server, *others = found
    assert server.kind is SpanKind.SERVER
    assert all(span.kind is SpanKind.CLIENT for span in others)
    assert sum(semconv.GEN_AI_OPERATION_NAME in attributes_of(span) for span in found) == bool(made.generation_span_id)
    for span in found:
        values = attributes_of(span)
        if semconv.GEN_AI_OPERATION_NAME not in values:
            assert not [key for key in values if key.startswith(("gen_ai.", "openai."))]
        assert values[semconv.OTELGW_CALL_ID] == made.call_id
        assert span.resource is RESOURCE
        assert span.instrumentation_scope is SCOPE
        assert span.context is not None
        assert not span.context.is_remote
        assert span.start_time is not None
        assert span.end_time is not None
        assert server.start_time is not None
        assert server.end_time is not None
        assert server.start_time <= span.start_time <= span.end_time <= server.end_time
        check_attributes(values)
        check_content({key: value for key, value in values.items() if key in SCHEMAS})


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_can_be_encoded_as_otlp(name: str) -> None:
    for form in semconv.FORMS:
        profile = semconv.profile("otel", form)
        request = encode_spans([profile(span) for span in build(scenarios()[name])])
        encoded = request.resource_spans[0].scope_spans[0].spans
        made = [attributes_of(span).keys() - semconv.BODIES for span in build(scenarios()[name])]
        assert [len(span.attributes) for span in encoded] == [len(keys) for keys in made]


def test_the_same_record_gives_the_same_spans() -> None:
    made = scenarios()["success"]
    assert [shown(span) for span in build(made)] == [shown(span) for span in build(made)]


@pytest.mark.parametrize("changes", [{}, {"trace_state": ""}, {"trace_state": "", "trace_flags": 0}])
def test_contexts_are_those_that_the_sdk_makes(changes: dict[str, Any]) -> None:
    made = record(**changes)
    state = carried(made.trace_state)

    for span in build(made):
        context = span.context
        assert context is not None
        made_anew = SpanContext(context.trace_id, context.span_id, False, TraceFlags(made.trace_flags), state)
        assert tuple(context) == tuple(made_anew)
        assert isinstance(context, SpanContext)
        assert isinstance(context.trace_flags, TraceFlags)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_attribute_stands_twice_on_a_span(name: str) -> None:
    for labels in ({}, {"gen_ai.request.model": "label", "error.type": "label", "http.route": "label", "a": "b"}):
        made = scenarios()[name]
        made.labels = labels
        for span in build(made):
            layers = span._attributes
            assert isinstance(layers, Layers)
            assert len(layers) == len(attributes_of(span))


def test_a_built_span_has_all_that_one_from_the_constructor_has() -> None:
    names = vars(ReadableSpan("x")).keys()

    for span in build(record()):
        assert all(hasattr(span, name) for name in names)
        assert json.loads(span.to_json())["name"] == span.name


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"status": 200}, StatusCode.UNSET, None),
        ({"status": 400, "error_type": "invalid_json"}, StatusCode.UNSET, "invalid_json"),
        ({"status": 429, "error_type": "429"}, StatusCode.UNSET, "429"),
        ({"status": 500}, StatusCode.ERROR, "500"),
        ({"status": 502, "error_type": "upstream_dns"}, StatusCode.ERROR, "upstream_dns"),
        ({"status": 200, "error_type": "upstream_reset"}, StatusCode.ERROR, "upstream_reset"),
        ({"status": 0, "error_type": "client_disconnect"}, StatusCode.ERROR, "client_disconnect"),
        ({"status": 429, "error_type": "client_disconnect"}, StatusCode.ERROR, "client_disconnect"),
    ],
)
def test_the_server_span_is_an_error_only_where_the_gateway_did_not_deliver(
    changes: dict[str, Any], status: StatusCode, error: str | None
) -> None:
    server = build(record(**changes))[0]
    assert server.status.status_code is status
    assert attributes_of(server).get(semconv.ERROR_TYPE) == error


def test_a_refusal_says_why_although_its_status_stays_unset() -> None:
    (server,) = build(scenarios()["model_not_found"])
    assert server.status.status_code is StatusCode.UNSET
    assert attributes_of(server)[semconv.OTELGW_ERROR_MESSAGE] == "No model 'gpt-x'; nearest: gpt."


def test_a_refusal_that_may_quote_the_body_says_nothing_where_content_is_off() -> None:
    made = refused(400, "invalid_json", "Line 1, column 9: CANARY", content=False)
    assert "CANARY" not in json.dumps([shown(span) for span in build(made)])


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_client_spans_are_errors_from_400_on(status: int) -> None:
    made = record(status=status, error_type=str(status), attempts=[attempt(status=status)])
    _, chat, sent = build(made)
    for span in (chat, sent):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes_of(span)[semconv.ERROR_TYPE] == str(status)


def test_a_generation_that_reached_an_answer_is_no_error_because_its_first_attempt_failed() -> None:
    server, chat, first, second = build(scenarios()["retried_after_429"])
    assert server.status.status_code is chat.status.status_code is second.status.status_code is StatusCode.UNSET
    assert first.status.status_code is StatusCode.ERROR
    assert semconv.HTTP_REQUEST_RESEND_COUNT not in attributes_of(first)
    assert attributes_of(second)[semconv.HTTP_REQUEST_RESEND_COUNT] == 1
    assert attributes_of(chat)[semconv.OTELGW_ATTEMPTS] == 2


def test_an_error_inside_a_stream_is_the_generations_and_not_the_servers() -> None:
    server, chat, sent = build(streamed("chat_error_midway.sse"))
    assert (chat.status.status_code, chat.status.description) == (StatusCode.ERROR, "Provider disconnected")
    assert attributes_of(chat)[semconv.ERROR_TYPE] == "server_error"
    assert server.status.status_code is sent.status.status_code is StatusCode.UNSET


def test_a_stream_that_ends_without_its_end_is_truncated() -> None:
    body = wire.answer("chat_azure.sse")
    chat = generation(streamed("chat_azure.sse", body.index(b'"lo"') + 2))
    assert attributes_of(chat)[semconv.ERROR_TYPE] == "upstream_truncated"
    assert attributes_of(chat)[semconv.GEN_AI_RESPONSE_FINISH_REASONS] == ["error"]


@pytest.mark.parametrize(("body", "error"), [(b"<html>", "upstream_bad_response"), (b"{}", None)])
def test_an_answer_that_says_it_is_json_and_is_none_has_failed(body: bytes, error: str | None) -> None:
    whole = capture_whole(body, "application/json")
    for made in (record(response=whole), withheld(record(response=whole))):
        assert attributes_of(generation(made)).get(semconv.ERROR_TYPE) == error


def test_a_binary_answer_that_is_not_recorded_is_no_truncated_stream() -> None:
    speech = Capture(content_type="audio/mpeg", size=9000, sha256="ef" * 32)
    values = attributes_of(generation(record(stream=True, response=speech)))
    assert semconv.ERROR_TYPE not in values
    assert values[semconv.OTELGW_RESPONSE_MEDIA_TYPE] == "audio/mpeg"
    assert values[semconv.OTELGW_RESPONSE_SHA256] == "ef" * 32
    assert semconv.OTELGW_RESPONSE_TRUNCATED not in values


def test_a_status_is_the_error_type_and_the_providers_code_is_not() -> None:
    made = scenarios()["refused_by_upstream"]
    made.error_type = ""
    assert attributes_of(generation(made))[semconv.ERROR_TYPE] == "429"


def test_a_tail_alone_still_tells_the_user() -> None:
    cut = Capture(content_type=wire.JSON, size=9_000_000, tail=ASKED[30:], sha256="ef" * 32)
    values = attributes_of(generation(record(request=cut)))
    assert values[semconv.USER_ID] == "u-1"
    assert values[semconv.OTELGW_REQUEST_TRUNCATED] is True


def test_time_to_first_chunk_counts_from_the_generations_start_and_is_for_streams_only() -> None:
    values = attributes_of(generation(streamed("chat_azure.sse", upstream_start=2 * MS, first_byte=302 * MS)))
    assert values[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] == pytest.approx(0.3)
    assert semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK not in attributes_of(generation(record()))


def test_metadata_key_and_session_stand_on_every_span() -> None:
    made = record(metadata={"session_id": "s-1", "tags": ["blue"], "cost_center": 7, "nested": {"token": "x", "a": 1}})
    for span in build(made):
        values = attributes_of(span)
        assert values[semconv.SESSION_ID] == "s-1"
        assert values[semconv.USER_ID] == "u-1"
        assert values[semconv.OTELGW_TAGS] == ["blue"]
        assert values[semconv.OTELGW_KEY_ALIAS] == "search"
        assert values[semconv.OTELGW_TEAM_ID] == "t-1"
        assert values[semconv.OTELGW_MODEL_ALIAS] == "gpt"
        assert values["otelgw.metadata.feature"] == "x"
        assert values["otelgw.metadata.cost_center"] == 7
        assert json.loads(values["otelgw.metadata.nested"]) == {"token": "REDACTED", "a": 1}


def test_baggage_never_makes_a_second_generation() -> None:
    made = record(baggage={"gen_ai.request.model": "spoofed", "tenant": "acme", "http.route": "/spoofed"})
    server, chat, sent = build(made)
    assert attributes_of(server)["tenant"] == attributes_of(chat)["tenant"] == "acme"
    assert attributes_of(server)[semconv.HTTP_ROUTE] == "/v1/chat/completions"
    assert attributes_of(chat)[semconv.GEN_AI_REQUEST_MODEL] == "gpt-4o"
    assert not [key for key in attributes_of(server) | attributes_of(sent) if key.startswith("gen_ai.")]


def test_an_unknown_method_does_not_become_a_span_name() -> None:
    server = build(refused(405, "method_not_allowed", "", method="PROPFIND", route=""))[0]
    assert server.name == "HTTP"
    assert attributes_of(server)[semconv.HTTP_REQUEST_METHOD] == "_OTHER"
    assert attributes_of(server)[semconv.HTTP_REQUEST_METHOD_ORIGINAL] == "PROPFIND"


def test_a_tracestate_with_level_two_keys_is_carried_as_it_is() -> None:
    context = build(record(trace_state="a@b@c=1,0x=2 ,z=3"))[0].context
    assert context is not None
    assert context.trace_state.to_header() == "a@b@c=1,0x=2,z=3"


def test_a_record_that_nobody_finished_ends_at_its_last_known_moment() -> None:
    made = streamed("chat_azure.sse", 700, error_type="worker_killed", end=0, generation_end=0)
    made.attempts[0].end = 0
    for span in build(made):
        assert span.end_time == START + 23 * MS


def test_no_canary_leaves_where_content_is_off() -> None:
    request = capture_whole(wire.request("chat_tools.json").replace(b"Answer with", b"CANARY"), wire.JSON)
    answers = [
        (200, wire.JSON, wire.answer("chat_openai.json").replace(b"Hello!", b"CANARY")),
        (200, wire.SSE, wire.answer("chat_tools.sse").replace(b"Paris", b"CANARY")),
        (400, wire.JSON, b'{"error":{"message":"bad: CANARY","code":"bad_request"}}'),
        (502, "text/html", b"<p>CANARY</p>"),
    ]
    for status, content_type, body in answers:
        made = record(
            request=request,
            response=capture_whole(body, content_type),
            stream=content_type == wire.SSE,
            status=status,
            error_type=str(status) if status >= 400 else "",
        )
        found = build(withheld(made))
        assert "CANARY" not in json.dumps([shown(span) for span in found])
        chat = attributes_of(found[1])
        assert not semconv.CONTENT & chat.keys()
        assert chat[semconv.GEN_AI_REQUEST_TEMPERATURE] == 0.0
        assert chat[semconv.USER_ID] == "end-user-1"
        if status == 200:
            assert chat[semconv.OTELGW_USAGE_SOURCE] == "provider"
            assert chat[semconv.GEN_AI_RESPONSE_FINISH_REASONS]


def test_attributes_without_content_are_those_with_content_less_the_content() -> None:
    for name in ("success", "stream_with_tool_calls", "embeddings", "refused_by_upstream"):
        whole = [shown(span) for span in build(scenarios()[name])]
        bare = [shown(span) for span in build(withheld(scenarios()[name]))]
        for with_content, without in zip(whole, bare, strict=True):
            for key in semconv.CONTENT:
                with_content["attributes"].pop(key, None)
            with_content["description"] = without["description"]
            assert with_content == without


@pytest.mark.parametrize("status", [401, 403])
def test_a_provider_that_repeats_the_key_does_not_get_it_into_the_span(status: int) -> None:
    body = b'{"error":{"message":"Incorrect API key: hunter2-hunter2","code":"invalid_api_key"}}'
    made = record(status=status, error_type=str(status), response=capture_whole(body, wire.JSON))
    found = [shown(span) for span in build(made)]
    assert "hunter2" not in json.dumps(found)
    assert found[1]["description"] == "invalid_api_key"


def test_a_cut_body_is_marked_with_the_hash_of_the_whole() -> None:
    body = wire.answer("chat_openai.json")
    cut = Capture(content_type=wire.JSON, size=10_000_000, head=body[:300], tail=body[-460:], sha256="ef" * 32)
    values = attributes_of(generation(record(response=cut)))
    assert values[semconv.OTELGW_RESPONSE_TRUNCATED] is True
    assert values[semconv.OTELGW_RESPONSE_SHA256] == "ef" * 32
    assert values[semconv.GEN_AI_RESPONSE_FINISH_REASONS] == ["stop"]
    assert values[semconv.GEN_AI_USAGE_INPUT_TOKENS] == 1117
    assert semconv.OTELGW_REQUEST_TRUNCATED not in values


def test_a_long_chat_with_much_metadata_keeps_what_matters() -> None:
    messages = [{"role": "user", "content": f"m{i}"} for i in range(500)]
    body = json.dumps({"model": "gpt", "messages": messages, "metadata": {f"k{i}": i for i in range(300)}}).encode()
    for span in build(record(request=capture_whole(body, wire.JSON))):
        values = attributes_of(span)
        assert len(values) == 128
        assert span.dropped_attributes == 300 - sum(key.startswith("otelgw.metadata.") for key in values)
        assert values[semconv.OTELGW_CALL_ID] == "call-1"
    values = attributes_of(generation(record(request=capture_whole(body, wire.JSON))))
    assert values[semconv.GEN_AI_REQUEST_MODEL] == "gpt-4o"
    assert len(values[semconv.GEN_AI_INPUT_MESSAGES]) == 500


def test_a_length_limit_cuts_strings_inside_messages_and_leaves_them_messages() -> None:
    _, chat, _ = build(record(), AttributeLimits(128, 8))
    values = attributes_of(chat)
    check_content({key: values[key] for key in SCHEMAS.keys() & values.keys()})
    assert values[semconv.GEN_AI_INPUT_MESSAGES][0]["parts"][0]["content"] == "CANARY s"
    text = attributes_of(semconv.json_string(chat))[semconv.GEN_AI_INPUT_MESSAGES]
    assert json.loads(text)[0]["role"] == "user"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (1117 * 0.000001 + 46 * 0.000002, "config")),
        ({"cost": 0.5}, (0.5, "config")),
        ({"response": capture_whole(wire.answer("chat_openrouter.json"), wire.JSON)}, (0.000111, "provider")),
        (
            {"response": capture_whole(wire.answer("chat_openrouter.json"), wire.JSON), "cost": 0.000111},
            (0.000111, "provider"),
        ),
    ],
)
def test_cost_comes_from_the_gateway_then_the_provider_then_the_price(
    changes: Any, expected: tuple[float, str]
) -> None:
    values = attributes_of(generation(record(**changes)))
    assert values[semconv.OTELGW_COST_AMOUNT] == values[semconv.GEN_AI_USAGE_COST] == pytest.approx(expected[0])
    assert values[semconv.OTELGW_COST_SOURCE] == expected[1]
    assert values[semconv.OTELGW_COST_CURRENCY] == "USD"


def test_an_unknown_cost_and_unknown_usage_are_absent_not_zero() -> None:
    made = record(target=scenarios()["route_without_operation"].target)
    made.target = type(CHAT)(operation="chat", dialect="openai_chat", model="m")
    values = attributes_of(generation(made))
    assert not [key for key in values if "cost" in key]
    made.response = capture_whole(
        b'{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}', wire.JSON
    )
    values = attributes_of(generation(made))
    assert values[semconv.OTELGW_USAGE_SOURCE] == "none"
    assert not [key for key in values if key.startswith("gen_ai.usage.")]


def test_every_attribute_name_stands_in_semconv_and_nowhere_else() -> None:
    literal = re.compile(
        r"""["'](?:gen_ai|openai|http|otelgw|url|server|client|network|session|user)\.[a-z_]+[a-z_.0-9]*["']"""
    )
    root = Path(__file__).parents[2] / "otelgw"
    sources = [*(root / "dialects").glob("*.py"), *(root / "tracing").glob("*.py")]
    for path in sources:
        code = [line for line in path.read_text().splitlines() if not line.strip().startswith(("from ", "import "))]
        assert not literal.findall("\n".join(code)), path.name


def test_every_gen_ai_name_is_one_of_the_conventions() -> None:
    from tests.dialects.conventions import registry

    names = {value for key, value in vars(semconv).items() if key.startswith(("GEN_AI_", "OPENAI_"))}
    assert names <= registry().keys()
