"""Elasticsearch's bulk interface as its answers are documented; tests/e2e/test_elastic.py has the real nodes."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otelgw_exporters.calls import identity
from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter, Outcome
from otelgw_exporters.elasticsearch import ElasticsearchExporter, document_of
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.samples import START, context, generation, span
from tests.servers.answering import Asked, HttpAnswer
from tests.servers.otlp import HttpReceiver

Keep = Callable[[Exporter], Exporter]
Script = Callable[[Asked], HttpAnswer]
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/elasticsearch/bulk.ndjson"
EXAMPLE = ROOT.parent / "shared/examples/elasticsearch_bulk_otel.ndjson"
KEY = "CANARY-elastic-key-0123456789"
GENUINE = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}
OPEN = {"content-type": "application/json"}


def lines(asked: Asked) -> list[dict[str, Any]]:
    return [json.loads(line) for line in asked.body.splitlines()]


def answer(document: object, status: int = 200, headers: dict[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(status, headers or GENUINE, json.dumps(document).encode())


def error(status: int, kind: str, reason: str = "", headers: dict[str, str] | None = None) -> HttpAnswer:
    return answer({"error": {"type": kind, "reason": reason}, "status": status}, status, headers)


def is_template(asked: Asked) -> bool:
    return asked.path.startswith("/_index_template/")


def stored(asked: Asked, items: Sequence[dict[str, Any]] | None = None) -> HttpAnswer:
    """Return the answer to a bulk request, by default that everything is created; to a template, that it is there."""
    if is_template(asked):
        return answer({"acknowledged": True})
    told = [{"create": item} for item in items or [{"status": 201}] * (len(lines(asked)) // 2)]
    return answer({"errors": any("error" in each["create"] for each in told), "items": told})


def deliver(exporter: Exporter, spans: Sequence[ReadableSpan]) -> Outcome:
    return exporter.deliver(spans, time.monotonic() + 10)


def states(outcome: Outcome) -> list[str]:
    return [verdict.state for verdict in outcome.verdicts]


def bulks(server: HttpReceiver) -> list[Asked]:
    return [asked for asked in server.asked if not is_template(asked)]


def test_a_bulk_request_is_that_of_its_golden(closing: Keep) -> None:
    spans = [
        span(1, status=Status(StatusCode.ERROR, "upstream"), events=[Event("retry", {"n": 1}, START)]),
        generation(2),
        span(3, parent=2, kind=SpanKind.CLIENT, links=[Link(context(9, trace=0xFEED), {"why": "caller"})]),
    ]
    with HttpReceiver([stored], repeat=True) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin, namespace="prod")), spans)
    (bulk,) = bulks(server)
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_bytes(bulk.body)
    assert states(outcome) == ["done"] * 3
    assert bulk.body == GOLDEN.read_bytes()
    assert bulk.path.startswith("/traces-llm_gateway.otel-prod/_bulk?")
    assert bulk.headers["content-type"] == "application/x-ndjson"
    assert bulk.headers["content-encoding"] == "gzip"


def test_a_document_has_the_fields_of_the_collectors_exporter() -> None:
    if not EXAMPLE.is_file():
        pytest.skip("shared/examples is not beside the repository")
    _, example = map(json.loads, EXAMPLE.read_text().splitlines())
    own = document_of(generation(2), {}, {"type": "traces", "dataset": "llm_gateway.otel", "namespace": "default"})
    assert own.keys() - {"trace_state"} == example.keys()
    assert own["data_stream"] == example["data_stream"]
    assert own["@timestamp"][-1] == example["@timestamp"][-1]
    assert len(own["@timestamp"]) == len(example["@timestamp"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"api_key": KEY}, f"ApiKey {KEY}"),
        ({"api_key": f"id:{KEY}"}, f"ApiKey {base64.b64encode(f'id:{KEY}'.encode()).decode()}"),
        ({"username": "u", "password": KEY}, f"Basic {base64.b64encode(f'u:{KEY}'.encode()).decode()}"),
        ({}, None),
    ],
    ids=["encoded key", "id and key", "user", "nobody"],
)
def test_credentials_go_in_the_scheme_that_is_theirs(closing: Keep, options: Any, expected: str | None) -> None:
    with HttpReceiver([stored], repeat=True) as server:
        exporter = closing(ElasticsearchExporter(endpoint=server.origin, **options))
        deliver(exporter, [span(1)])
    assert {asked.headers.get("authorization") for asked in server.asked} == {expected}
    assert KEY not in repr(exporter)


def test_what_is_there_already_counts_as_stored(closing: Keep) -> None:
    conflict = {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "exists"}}
    with HttpReceiver([stored, lambda asked: stored(asked, [conflict, {"status": 201}])]) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1), span(2)])
    assert states(outcome) == ["done", "done"]


def test_only_what_was_refused_for_now_is_sent_again_and_nothing_more_meanwhile(closing: Keep) -> None:
    full = {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}
    spans = [span(number) for number in range(1, 302)]  # two requests of at most 200

    def half(asked: Asked) -> HttpAnswer:
        count = len(lines(asked)) // 2
        return stored(asked, [{"status": 201} if at % 2 else full for at in range(count)])

    with HttpReceiver([stored, half]) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), spans)
    assert len(bulks(server)) == 1
    assert states(outcome) == ["retry" if at % 2 == 0 or at >= 200 else "done" for at in range(len(spans))]
    assert "es_rejected_execution_exception" in outcome.reason


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_cluster_that_asks_for_patience_gets_it(closing: Keep, status: int) -> None:
    busy = HttpAnswer(status, {**GENUINE, "retry-after": "7"}, b"{}")
    with HttpReceiver([stored, busy]) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1), span(2)])
    assert (states(outcome), outcome.after) == (["retry", "retry"], 7.0)


def test_a_request_that_is_too_large_is_halved_until_it_fits(closing: Keep) -> None:
    def small_only(asked: Asked) -> HttpAnswer:
        too_large = not is_template(asked) and len(lines(asked)) > 4
        return HttpAnswer(413, GENUINE, b"") if too_large else stored(asked)

    spans = [span(number) for number in range(1, 9)]
    with HttpReceiver([small_only], repeat=True) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), spans)
        arrived = [
            action["create"]["_id"] for asked in bulks(server) if len(lines(asked)) <= 4 for action in lines(asked)[::2]
        ]
    assert states(outcome) == ["done"] * 8
    assert sorted(arrived) == sorted(map(identity, spans))


def test_an_answer_too_long_to_be_read_whole_makes_smaller_requests(closing: Keep) -> None:
    long = {"status": 400, "error": {"type": "document_parsing_exception", "reason": "x" * 1000}}
    spans = [span(number) for number in range(1, 101)]
    with HttpReceiver(
        [lambda asked: stored(asked, None if is_template(asked) else [long] * (len(lines(asked)) // 2))], repeat=True
    ) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), spans)
    assert set(states(outcome)) == {"dead"}
    assert len(bulks(server)) > 1


def test_a_reason_names_the_field_and_not_what_was_in_it(closing: Keep) -> None:
    refused = {
        "status": 400,
        "error": {
            "type": "document_parsing_exception",
            "reason": "[1:402] failed to parse field [attributes.n] of type [long] in document with id 'x'. Preview of "
            f"field's value: '{KEY}'",
        },
    }
    with HttpReceiver([stored, lambda asked: stored(asked, [refused, {"status": 201}])]) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1), span(2)])
    assert states(outcome) == ["dead", "done"]
    assert outcome.reason == "HTTP 400: document_parsing_exception: field attributes.n"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_only_the_operator_can_mend_is_tried_again_slowly(closing: Keep, status: int) -> None:
    item = {"status": status, "error": {"type": "refused", "reason": "no"}}
    for said in (error(status, "security_exception"), lambda asked: stored(asked, [item])):
        with HttpReceiver([stored, said]) as server:
            outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1)])
        assert states(outcome) == ["retry"]
        assert (outcome.after or 0) >= OPERATOR_DELAY
        assert "mend" in outcome.reason


def test_the_template_is_put_once_before_the_first_document(closing: Keep) -> None:
    with HttpReceiver([stored], repeat=True) as server:
        exporter = closing(ElasticsearchExporter(endpoint=server.origin, dataset="team_a"))
        for number in (1, 2):
            deliver(exporter, [span(number)])
    assert [is_template(asked) for asked in server.asked] == [True, False, False]
    (put,) = lines(server.asked[0])
    assert put["index_patterns"] == ["traces-team_a.otel-*"]
    assert put["data_stream"] == {}
    assert all("require_data_stream=true" in asked.path for asked in bulks(server))


def test_no_template_is_put_where_none_is_wanted(closing: Keep) -> None:
    with HttpReceiver([stored], repeat=True) as server:
        deliver(closing(ElasticsearchExporter(endpoint=server.origin, template=False)), [span(1)])
    assert [is_template(asked) for asked in server.asked] == [False]


def test_opensearch_gets_a_template_that_it_knows(closing: Keep) -> None:
    unknown = error(400, "mapper_parsing_exception", "No handler for type [passthrough]", OPEN)
    accepted = answer({"acknowledged": True}, headers=OPEN)
    with HttpReceiver([unknown, accepted, stored]) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1)])
    assert states(outcome) == ["done"]
    first, second = (asked.body.decode() for asked in server.asked if is_template(asked))
    assert ("passthrough" in first, "passthrough" in second) == (True, False)
    assert "require_data_stream" not in bulks(server)[0].path  # a parameter of Elasticsearch's


def test_a_key_for_documents_only_writes_them(closing: Keep) -> None:
    said = "action [indices:admin/index_template/put] is unauthorized for user [w] with effective roles [adder]"
    denied = error(403, "security_exception", said, OPEN)  # as a real node says it, without its usual header
    with HttpReceiver([denied, stored]) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1)])
    assert states(outcome) == ["done"]
    assert "require_data_stream=true" in bulks(server)[0].path


def test_opensearch_without_a_template_is_sent_nothing(closing: Keep) -> None:
    """It would make a plain index under the data stream's name."""
    denied = error(403, "security_exception", "no permissions", OPEN)
    with HttpReceiver([denied], repeat=True) as server:
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1)])
    assert states(outcome) == ["retry"]
    assert "template: false" in outcome.reason
    assert bulks(server) == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"items": 7}', b'{"errors": true, "items": [{}, {}]}'])
def test_an_answer_of_something_else_loses_nothing(closing: Keep, body: bytes) -> None:
    with HttpReceiver([stored, HttpAnswer(200, GENUINE, body)], repeat=False) as server:
        server.answers += [HttpAnswer(200, GENUINE, body)] * 9
        outcome = deliver(closing(ElasticsearchExporter(endpoint=server.origin)), [span(1), span(2)])
    assert states(outcome) == ["retry", "retry"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"username": "u"}, "password"),
        ({"password": KEY}, "username"),
        ({"dataset": "Team-A"}, "dataset"),
        ({"namespace": "a-b"}, "namespace"),
        ({"dataset": "../x"}, "dataset"),
        ({"endpoint": "cluster"}, "endpoint"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(DestinationConfigError, match=named) as caught:
        ElasticsearchExporter(name="elasticsearch/mine", **options)
    assert "elasticsearch/mine" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.fixture(scope="module")
def unused() -> Iterator[ElasticsearchExporter]:
    exporter = ElasticsearchExporter(endpoint="http://127.0.0.1:1")
    yield exporter
    exporter.shutdown()


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.text(), st.floats(), st.integers(), st.lists(st.text()))))
def test_any_attribute_makes_one_line_of_json(unused: ElasticsearchExporter, attributes: dict[str, Any]) -> None:
    action, document = unused._lines(span(1, {"a": 1, **attributes})).splitlines()
    assert json.loads(action) == {"create": {"_id": identity(span(1))}}
    assert json.loads(document)["attributes"].keys() >= {"a"}
