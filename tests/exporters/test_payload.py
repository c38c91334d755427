"""Payloads of the gateway's own requests, from records as the gateway writes them."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination
from otelgw.providers.catalog import PROVIDERS
from otelgw.selection import Trace, selector
from otelgw.tracing.record import Attempt, Caller, Capture, Record, Target, capture_whole
from otelgw_exporters import payload, semconv
from tests.dialects import wire
from tests.exporters import samples
from tests.tracing.records import MS, START, attempt, record, refused, scenarios, streamed, withheld
from tests.tracing.test_spans import build

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/payloads"
EXAMPLES = ROOT / "../shared/examples/litellm-standard-logging-payload"
SCHEMA = payload.schema()
VALIDATOR = Draft202012Validator(SCHEMA)
KEYS = set(SCHEMA["required"])
CHAT = {
    "model": "gpt",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hé"}], "name": "n", "unknown": {"a": [1]}}],
    "temperature": 0.5,
    "tools": [{"type": "file_search", "vector_store_ids": ["v"]}],
    "metadata": {"nested": {"a": 1}, "tags": ["t"], "api_key": "REDACTED"},
    "user": "u-1",
}


OWNER = Caller(True, "ab" * 32, "search", "owner", "owner@mail.example", "t-1", "blue")


def said(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def whole(call: payload.Call) -> dict[str, Any]:
    """Return the payload of ``call`` as a destination sends it."""
    found: dict[str, Any] = json.loads(payload.encoded(call))
    return found


def payload_of(made: Record) -> dict[str, Any]:
    (call,) = payload.calls(build(made))
    return whole(call)


def body(value: Any) -> Capture:
    return capture_whole(json.dumps(value).encode(), "application/json")


def sent(**changes: str) -> Attempt:
    made = attempt()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def check(found: dict[str, Any]) -> None:
    assert [f"{list(error.path)}: {error.message}" for error in VALIDATOR.iter_errors(found)] == []


def test_the_schema_is_one_and_names_its_version() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == f"urn:otelgw:standard-payload:{payload.VERSION}"
    assert len(KEYS) == 37
    assert SCHEMA["properties"].keys() == KEYS | {"otelgw"}


@pytest.mark.parametrize("name", scenarios())
def test_the_payload_of_a_request_is_that_of_its_golden(name: str) -> None:
    found = payload_of(scenarios()[name])
    check(found)
    assert found.keys() == SCHEMA["properties"].keys()
    if found["model_map_information"]["model_map_value"]:
        found["model_map_information"]["model_map_value"] = "known"  # prices change with the price list
    path = GOLDEN / f"{name}.json"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(path.read_text())


def _types(value: Any, found: dict[str, str], at: str = "") -> dict[str, str]:
    found[at] = "number" if type(value) in (int, float) else type(value).__name__
    if isinstance(value, dict):
        for key, item in value.items():
            _types(item, found, f"{at}.{key}" if at else key)
    return found


# What LiteLLM copies from its price list, an answer or a request, and keys that its own failures lack.
_FREE = ("response.", "model_parameters.", "model_map_information.model_map_value", "hidden_params.additional_headers.")
# Where a type differs on purpose: what is known in a failure, and null where nothing is.
_KNOWN_MORE = {
    *("hidden_params.model_id", "hidden_params.api_base", "hidden_params.response_cost", "hidden_params.usage_object"),
    *("hidden_params.litellm_overhead_time_ms", "hidden_params.litellm_model_name", "metadata.user_api_key_user_id"),
    *("metadata.user_api_key_alias", "metadata.user_api_key_team_id", "metadata.user_api_key_team_alias"),
    *("metadata.user_api_key_end_user_id", "cost_breakdown.input_cost", "cost_breakdown.output_cost"),
    *("metadata.usage_object.prompt_tokens_details", "metadata.usage_object.completion_tokens_details"),
}


@pytest.mark.parametrize(
    ("example", "scenario"),
    [
        ("success", "success"),
        ("stream", "stream_with_tool_calls"),
        ("embeddings", "embeddings"),
        ("failure_429", "refused_by_upstream"),
    ],
)
def test_litellms_own_payloads_satisfy_the_schema_and_have_the_same_keys_and_types(example: str, scenario: str) -> None:
    path = EXAMPLES / f"{example}.json"
    if not path.exists():
        pytest.skip("LiteLLM's payloads are not beside the repository (../shared/examples)")
    theirs = json.loads(path.read_text())
    ours = payload_of(scenarios()[scenario])
    check(theirs)
    assert ours.keys() - {"otelgw"} == theirs.keys()
    given, made = _types(theirs, {}), _types(ours, {})
    wanted = {key: kind for key, kind in given.items() if not key.startswith(_FREE)}
    lacking = {key for key in wanted.keys() - made.keys() if not key.startswith(("cost_breakdown", "metadata.usage"))}
    assert lacking == set()
    differing = {key for key in wanted.keys() & made.keys() if wanted[key] != made[key]} - _KNOWN_MORE
    # Null or an object, by whether the model has a price.
    priced = {"cost_breakdown", "model_map_information.model_map_value", "response_cost_failure_debug_info"}
    assert differing <= priced


def test_what_was_asked_and_answered_is_there_without_a_loss() -> None:
    answer = json.loads(wire.answer("chat_openai.json")) | {"provider": {"own": [None, 1.5, "é"]}}
    found = payload_of(record(request=body(CHAT), response=body(answer)))

    assert found["messages"] == CHAT["messages"]
    assert found["response"] == answer
    assert found["model_parameters"] == {"temperature": 0.5, "tools": CHAT["tools"], "user": "u-1"}
    assert found["metadata"]["requester_metadata"] == {"nested": {"a": 1}, "tags": ["t"]}
    assert found["request_tags"] == ["t"]
    assert found["standard_built_in_tools_params"]["file_search"] == {"type": "file_search", "vector_store_ids": ["v"]}


@pytest.mark.parametrize(
    ("operation", "asked", "messages", "parameters"),
    [
        ("text_completion", {"prompt": "a", "n": 2}, [said("a")], {"n": 2}),
        ("text_completion", {"prompt": ["a", "b"]}, [said("a"), said("b")], {}),
        ("text_completion", {"prompt": [1, 2]}, [said([1, 2])], {}),
        ("embeddings", {"input": ["a", [3]]}, [said("a"), said([3])], {}),
        ("chat", {"input": "a", "instructions": "b"}, [{"role": "system", "content": "b"}, said("a")], {}),
        ("chat", {"input": [{"type": "function_call_output"}]}, [{"type": "function_call_output"}], {}),
        ("generate_content", {"prompt": "a cat", "size": "1x1"}, [said("a cat")], {"size": "1x1"}),
    ],
)
def test_every_kind_of_request_has_messages_and_parameters(
    operation: str, asked: dict[str, Any], messages: list[Any], parameters: dict[str, Any]
) -> None:
    found = payload_of(record(target=Target(alias="m", operation=operation), request=body({"model": "m", **asked})))
    check(found)
    assert found["messages"] == messages
    assert found["model_parameters"] == parameters


def test_a_stream_is_the_answer_that_it_adds_up_to() -> None:
    found = payload_of(streamed("chat_tools.sse"))
    response = found["response"]
    assert response["object"] == "chat.completion"
    assert [choice["finish_reason"] for choice in response["choices"]] == ["tool_calls"]
    assert response["choices"][0]["message"]["tool_calls"]
    assert response["usage"]["prompt_tokens"] == found["prompt_tokens"]
    assert found["stream"] is True
    assert found["cache_hit"] is False


def test_the_duration_of_a_stream_is_all_of_it_and_its_first_chunk_has_a_time_of_its_own() -> None:
    found = payload_of(streamed("chat_tools.sse"))
    assert found["response_time"] == pytest.approx(0.092)
    assert found["endTime"] - found["startTime"] == pytest.approx(0.092, abs=1e-6)
    assert found["completionStartTime"] == pytest.approx(START / 1e9 + 0.022, abs=1e-6)
    assert found["otelgw"]["time_to_first_chunk"] == pytest.approx(0.021)


def test_a_stream_that_was_cut_is_a_failure_that_keeps_what_arrived() -> None:
    for name in ("cut_by_upstream", "caller_hung_up"):
        found = payload_of(scenarios()[name])
        assert found["status"] == "failure"
        assert found["response"]["choices"][0]["message"]["content"] == "Hal"
        assert found["response"]["choices"][0]["finish_reason"] is None
        assert found["error_information"]["error_class"] == "APIConnectionError"


@pytest.mark.parametrize(
    ("made", "code", "exception", "provider"),
    [
        (scenarios()["refused_by_upstream"], "429", "RateLimitError", "openai"),
        (scenarios()["unreachable_upstream"], "502", "APIConnectionError", "openai"),
        (refused(401, "unauthorized", "No such key."), "401", "AuthenticationError", ""),
        (refused(403, "forbidden", "No."), "403", "PermissionDeniedError", ""),
        (refused(404, "model_not_found", "No model 'x'."), "404", "NotFoundError", ""),
        (refused(400, "invalid_json", "Line 1."), "400", "BadRequestError", ""),
        (refused(413, "body_too_large", "Too large."), "413", "BadRequestError", ""),
        (refused(429, "budget_exceeded", "No more."), "429", "BudgetExceededError", ""),
        (refused(503, "shutdown", "Stopping."), "503", "ServiceUnavailableError", ""),
        (record(status=504, error_type="upstream_timeout_idle", response=Capture()), "504", "Timeout", "openai"),
        (record(status=422, error_type="422", response=Capture()), "422", "UnprocessableEntityError", "openai"),
        (record(status=418, error_type="418", response=Capture()), "418", "BadRequestError", "openai"),
        (
            record(status=0, error_type="worker_killed", end=0, response=Capture()),
            "worker_killed",
            "InternalServerError",
            "openai",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_says_what_is_known_of_it(made: Record, code: str, exception: str, provider: str) -> None:
    found = payload_of(made)
    check(found)
    information = found["error_information"]
    assert found["status"] == found["status_fields"]["llm_api_status"] == "failure"
    assert (information["error_code"], information["error_class"]) == (code, exception)
    assert information["llm_provider"] == provider
    assert information["traceback"] == ""
    assert found["error_str"] == (made.error_message or information["error_message"] or made.error_type)
    assert found["otelgw"]["error_type"] == made.error_type
    assert found["response_cost"] == 0.0


def test_a_refused_request_tells_what_was_asked_if_that_may_be_recorded() -> None:
    asked = capture_whole(b'{"model":"gpt-x","messages":[{"role":"user","content":"hi"}]}', "application/json")
    found = payload_of(refused(404, "model_not_found", "No model 'gpt-x'.", request=asked))
    assert found["call_type"] == "acompletion"
    assert found["model"] == found["model_group"] == "gpt-x"
    assert found["messages"] == [{"role": "user", "content": "hi"}]
    assert found["metadata"]["user_api_key_request_route"] == "/v1/chat/completions"
    assert found["api_base"] == ""

    unknown = payload_of(refused(404, "not_found", "No route.", route="", path="/v1/nothing"))
    assert unknown["call_type"] == "/v1/nothing"


def test_a_request_that_the_gateway_answers_itself_is_no_call() -> None:
    models = refused(200, "", "", route="/v1/models", method="GET")
    assert payload.calls(build(models)) == []


def test_a_call_that_is_passed_through_without_an_operation_is_one() -> None:
    asked, answer = {"model": "m", "input": "kill"}, {"id": "modr-1", "results": [{"flagged": True}]}
    changes = {"route": "/v1/moderations", "generation_span_id": "", "target": Target(alias="m", provider="openai")}
    found = payload_of(record(request=body(asked), response=body(answer), **changes))
    assert found["call_type"] == "amoderation"
    assert found["messages"] == [{"role": "user", "content": "kill"}]
    assert found["response"] == answer


def test_a_thousand_requests_with_one_call_id_stay_a_thousand_records() -> None:
    spans: list[ReadableSpan] = []
    for number in range(1000):
        spans += build(
            record(
                call_id="mine",
                span_id=f"{number + 1:016x}",
                generation_span_id=f"{number + 100_001:016x}",
                attempts=[sent(span_id=f"{number + 200_001:016x}")],
            )
        )
    found = payload.calls(spans)
    assert len(found) == 1000
    assert sorted(position for call in found for position in call.positions) == list(range(3000))
    assert len({call.identity for call in found}) == 1000
    payloads = [payload.standard_payload(call.span, call.server, call.attempts) for call in found]
    assert {each["id"] for each in payloads} == {"mine"}
    assert len({(each["otelgw"]["trace_id"], each["otelgw"]["span_id"]) for each in payloads}) == 1000
    assert [f"{each['otelgw']['trace_id']}-{each['otelgw']['span_id']}" for each in payloads] == [
        call.identity for call in found
    ]


def test_the_same_record_gives_the_same_bytes() -> None:
    for made in scenarios().values():
        (one,), (two,) = (payload.calls(build(made)) for _ in range(2))
        assert payload.encoded(one) == payload.encoded(two)


def test_a_payload_is_made_once_and_forgotten_with_its_spans() -> None:
    spans = build(refused(404, "not_found", "No."))
    before = len(payload._known)
    (call,) = payload.calls(spans)
    assert payload.encoded(call) is payload.encoded(payload.calls(spans)[0])
    assert len(payload._known) == before + 1
    del call, spans
    gc.collect()
    assert len(payload._known) == before


def test_content_that_may_not_be_recorded_is_nowhere() -> None:
    made = withheld(record(request=body(CHAT)))
    found = payload_of(made)
    check(found)
    assert "hé" not in json.dumps(found, ensure_ascii=False)
    assert found["messages"] == []
    assert found["model_parameters"]["temperature"] == 0.5
    assert found["total_tokens"] == 1163
    assert found["response"]["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": None},
        "finish_reason": "stop",
    }


def test_who_called_is_in_no_corner_of_it_where_that_is_withheld() -> None:
    names = (semconv.USER_ID, semconv.OTELGW_KEY_HASH, semconv.OTELGW_KEY_ALIAS, semconv.OTELGW_TEAM_ID)
    spans = [
        semconv.with_attributes(
            span, {key: value for key, value in (span.attributes or {}).items() if key not in names}
        )
        for span in build(record(request=body(CHAT)))
    ]
    (call,) = payload.calls(spans)
    found = whole(call)
    assert found["messages"] == CHAT["messages"]
    assert found["end_user"] == ""
    for word in ("u-1", "t-1", "search", "ab" * 32):
        assert f'"{word}"' not in json.dumps(found)


def test_the_keys_user_is_not_the_end_user() -> None:
    asked = {key: value for key, value in CHAT.items() if key != "user"}
    metadata = payload_of(record(request=body(asked), caller=OWNER))["metadata"]
    assert metadata["user_api_key_user_id"] == "owner"
    assert metadata["user_api_key_end_user_id"] is None


@pytest.mark.parametrize("user", ["owner", "u-9"])
def test_the_user_that_a_request_names_is_the_end_user_also_where_it_is_the_keys(user: str) -> None:
    found = payload_of(record(request=body(CHAT | {"user": user}), caller=OWNER))
    assert (found["end_user"], found["metadata"]["user_api_key_end_user_id"]) == (user, user)
    assert found["metadata"]["user_api_key_user_id"] == "owner"


def test_the_user_of_the_metadata_is_an_end_user_and_owns_no_key() -> None:
    asked = {key: value for key, value in CHAT.items() if key != "user"} | {"metadata": {"trace_user_id": "u-9"}}
    found = payload_of(record(request=body(asked)))
    assert found["end_user"] == "u-9"
    assert found["metadata"]["user_api_key_user_id"] is None


def test_what_a_caller_and_the_config_attach_is_where_litellm_has_it() -> None:
    asked = CHAT | {"metadata": {"tags": ["asked"], "spend_logs_metadata": {"cost-centre": "body"}, "job": {"id": 7}}}
    made = record(
        request=body(asked),
        caller=OWNER,
        metadata={"tags": ["told"], "spend_logs_metadata": {"cost-centre": "c-7", "parts": [1, {"a": None}]}},
    )
    destination = Destination(
        "file", "file", default_tags=("user_api_key_user_email", "cache_hit", "proxy_base_url"), base_url="https://p"
    )
    (call,) = payload.calls(selector(destination)(Trace(made, build(made))))
    found = whole(call)
    check(found)
    told = {key: found[key] for key in ("metadata", "request_tags", "end_user")}
    path = GOLDEN / "attached.json"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    assert told == json.loads(path.read_text())


@pytest.mark.parametrize("spent", ["text", [1], 7, None, "{", '{"a":'])
def test_what_is_no_object_is_nothing_for_the_books(spent: Any) -> None:
    found = payload_of(record(request=body(CHAT | {"metadata": {"spend_logs_metadata": spent}})))
    check(found)
    assert found["metadata"]["spend_logs_metadata"] is None


def test_a_body_that_is_not_whole_is_replaced_by_what_was_read_of_it() -> None:
    long = json.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 100}, {"role": "user", "content": "y"}]})
    cut = Capture(
        content_type="application/json", size=9999, head=long[:150].encode(), tail=b', "user": "u-1"}', sha256="ab" * 32
    )
    found = payload_of(record(request=cut))
    check(found)
    assert found["messages"][0]["role"] == "user"
    assert set(found["messages"][0]["content"]) == {"x"}
    assert found["otelgw"]["request_truncated"] is True
    assert found["otelgw"]["response_truncated"] is False


def test_a_cost_says_its_parts_where_they_are_known_and_that_it_is_not_known() -> None:
    listed = Target(alias="m", model="gpt-4o-mini", provider="openai", operation="chat", dialect="openai_chat")
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    answer = {"id": "c", "model": "gpt-4o-mini", "choices": [], "usage": usage}
    spans = build(record(target=listed, response=body(answer), cost=None))
    attributes = dict(spans[1].attributes or {})
    cost = {semconv.OTELGW_COST_AMOUNT: 0.00045, semconv.OTELGW_COST_SOURCE: "genai-prices"}

    found = payload.standard_payload(semconv.with_attributes(spans[1], attributes | cost), spans[0])
    assert found["cost_breakdown"] == {
        "input_cost": 0.00015,
        "output_cost": 0.0003,
        "total_cost": 0.00045,
        "tool_usage_cost": 0.0,
        "original_cost": 0.00045,
        "discount_percent": 0.0,
        "discount_amount": 0.0,
    }
    assert found["response_cost_failure_debug_info"] is None

    dear = payload.standard_payload(
        semconv.with_attributes(spans[1], attributes | cost | {semconv.OTELGW_COST_AMOUNT: 1.0})
    )
    assert dear["cost_breakdown"]["total_cost"] == 1.0
    assert dear["cost_breakdown"]["input_cost"] is None

    unknown = payload.standard_payload(spans[1], spans[0])
    assert unknown["response_cost"] == 0.0
    assert unknown["hidden_params"]["response_cost"] is None
    assert "no price is known" in unknown["response_cost_failure_debug_info"]["error_str"]


def test_the_model_map_is_the_price_list_that_the_gateway_prices_by() -> None:
    value = payload_of(scenarios()["success"])["model_map_information"]["model_map_value"]
    assert value["key"] == "gpt-4o"
    assert value["max_input_tokens"] == 128_000
    assert 0 < value["cache_read_input_token_cost"] < value["input_cost_per_token"] < value["output_cost_per_token"]
    assert payload_of(refused(404, "model_not_found", "No."))["model_map_information"] == {
        "model_map_key": "",
        "model_map_value": None,
    }


def test_providers_have_the_names_that_litellm_gives_them() -> None:
    for row in PROVIDERS:
        made = record(target=Target(alias="m", model="m", provider=row.provider_name, operation="chat"))
        assert payload_of(made)["custom_llm_provider"] == row.name


def test_rate_limits_and_the_callers_own_headers_are_there_where_they_are_captured() -> None:
    headers = [("x-ratelimit-remaining-requests", "9999"), ("x-ratelimit-reset-requests", "1s"), ("x-other", "1")]
    made = record(attempts=[attempt(response_headers=headers)], request_headers=[("x-team", "a"), ("accept", "b")])
    found = payload_of(made)
    assert found["hidden_params"]["additional_headers"] == {
        "x_ratelimit_remaining_requests": 9999,
        "x_ratelimit_reset_requests": "1s",
    }
    assert found["metadata"]["requester_custom_headers"] == {"x-team": "a"}


@pytest.mark.parametrize(
    ("url", "route", "base"),
    [
        ("https://api.openai.com/v1/chat/completions", "/v1/chat/completions", "https://api.openai.com/v1"),
        (
            "https://x.openai.azure.com/openai/deployments/d/embeddings?api-version=1",
            "/v1/embeddings",
            "https://x.openai.azure.com/openai/deployments/d",
        ),
        ("http://127.0.0.1:9/strange", "/v1/responses", "http://127.0.0.1:9/strange"),
    ],
)
def test_the_api_base_is_the_url_of_the_attempt_without_the_operation(url: str, route: str, base: str) -> None:
    assert payload_of(record(route=route, attempts=[sent(url=url)]))["api_base"] == base


def test_the_gateways_spans_of_a_call_are_found_in_any_order_and_among_others() -> None:
    spans = build(scenarios()["retried_after_429"])
    foreign = samples.span(77, kind=spans[0].kind)
    shuffled: Sequence[ReadableSpan] = [spans[3], foreign, spans[1], spans[2], spans[0]]
    (call,) = payload.calls(shuffled)
    assert (call.span, call.server, call.attempts) == (spans[1], spans[0], (spans[2], spans[3]))
    assert call.positions == (0, 2, 3, 4)
    assert [each["status"] for each in whole(call)["otelgw"]["attempts"]] == [429, 200]


def test_a_record_that_comes_twice_in_a_batch_gives_the_same_payload_twice() -> None:
    (once,) = payload.calls(build(record()))
    twice = payload.calls([*build(record()), *build(record())])
    assert [payload.encoded(call) for call in twice] == [payload.encoded(once)] * 2


def test_a_generation_without_its_other_spans_is_a_call_and_they_alone_are_none() -> None:
    server, chat, sent = build(record())
    assert payload.calls([server, sent]) == []
    (call,) = payload.calls([chat])
    found = whole(call)
    check(found)
    assert found["response_time"] == pytest.approx((90 - 1) * MS / 1e9)


def test_the_spans_are_not_changed() -> None:
    spans = build(scenarios()["success"])
    before = [span.to_json() for span in spans]
    payload.standard_payload(spans[1], spans[0], spans[2:])
    assert [span.to_json() for span in spans] == before


ATTRIBUTES = st.sampled_from(
    [
        *(value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str) and "." in value),
        *("openinference.span.kind", "llm.invocation_parameters", "input.value", "input.mime_type", "output.value"),
        *("output.mime_type", "gen_ai.prompt.0.content", "llm.input_messages.0.message.content", "llm.system"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
HOSTILE = st.recursive(
    SCALARS | st.sampled_from(['{"messages":1}', '{"usage":[]}', '[{"role":1,"parts":[1,{"type":2}]}]', "LLM", "chat"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(ATTRIBUTES, HOSTILE, max_size=12), st.booleans())
def test_whatever_a_span_holds_its_payload_is_valid(attributes: dict[str, Any], operation: bool) -> None:
    if operation:
        attributes[semconv.GEN_AI_OPERATION_NAME] = "chat"
    for call in payload.calls([samples.span(2, attributes)]):
        check(json.loads(payload.encoded(call)))
