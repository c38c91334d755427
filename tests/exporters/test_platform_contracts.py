"""What platforms are sent, held against what their vendors publish: schemas, and requests of their own SDKs."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, prices, semconv
from otelgw_exporters.delivery import Exporter
from tests.exporters.requests_told import FAILED, TOLD, request
from tests.exporters.stand_ins import Request, declared
from tests.exporters.vendor import serve
from tests.servers import require
from tests.servers.otlp import spans_in

CONTRACTS = Path(__file__).parents[3] / "shared" / "contracts"
CAPTURES = Path(__file__).parent / "captures"
Send = Callable[..., list[Request]]


@pytest.fixture
def send(closing: Callable[[Exporter], Exporter]) -> Send:
    """Sends spans to a row's stand-in and returns the requests that it got."""

    def sent(row: str, spans: Any, **options: Any) -> list[Request]:
        stand_in = declared(row)
        assert stand_in is not None
        with serve(stand_in) as vendor:
            exporter = closing(catalog.build(row, row, {**stand_in.options(vendor.origin), **options}))
            outcome = exporter.deliver(spans, time.monotonic() + 20)
            assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
            return vendor.requests

    return sent


def contract(path: str) -> Any:
    file = CONTRACTS / path
    if not file.is_file():
        pytest.skip(f"the contract {path} is not beside this repository")
    return json.loads(file.read_text())


def capture(name: str) -> dict[str, Any]:
    """Return the last request that a vendor's SDK sent."""
    found: dict[str, Any] = json.loads((CAPTURES / f"{name}.json").read_text())["requests"][-1]
    return found


def valid(tree: Any, schema: Any, whole: Any) -> None:
    """Hold a tree against a schema of an OpenAPI document, whose references lead into the document."""
    jsonschema.Draft202012Validator({**schema, "components": whole.get("components", {})}).validate(tree)


def names(headers: dict[str, str]) -> set[str]:
    transport = {"accept", "accept-encoding", "connection", "content-length", "host", "user-agent"}
    return {name.lower() for name in headers} - transport


def test_openmeter_gets_events_of_both_versions_of_its_schema(send: Send) -> None:
    (asked,) = send("openmeter", [*TOLD, *FAILED])
    for version, path in (("v1", "/api/v1/events"), ("v3", "/openmeter/events")):
        whole = contract(f"openmeter/events.{version}.openapi.json")
        body = next(value for key, value in whole["paths"].items() if key == path)["post"]["requestBody"]
        valid(json.loads(asked.body), body["content"]["application/cloudevents-batch+json"]["schema"], whole)

    assert len(json.loads(asked.body)) == 1  # of the failed call nothing


def test_lunary_gets_events_of_its_schema(send: Send) -> None:
    whole = contract("lunary/ingest.openapi.json")
    (asked,) = send("lunary", [*TOLD, *FAILED])
    tree = json.loads(asked.body)
    for event in tree["events"]:
        event.pop("input", None)  # declared an object, though the vendor's own example is an array

    schema = whole["paths"]["/v1/runs/ingest"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    valid(tree, schema, whole)
    assert [event["event"] for event in tree["events"]] == ["start", "end", "start", "error"]


def test_langfuses_ingestion_gets_events_of_its_schema(send: Send) -> None:
    whole = contract("langfuse/ingestion.openapi.json")
    (asked,) = send("langfuse", [*TOLD, *FAILED], api="ingestion")

    schema = whole["paths"]["/api/public/ingestion"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    valid(json.loads(asked.body), schema, whole)
    types = [event["type"] for event in json.loads(asked.body)["batch"]]
    assert types.count("generation-create") == types.count("trace-create") == 2


def test_langfuse_gets_what_its_sdk_sends(send: Send) -> None:
    theirs = capture("langfuse")
    (asked,) = send("langfuse", TOLD, release="r-1", environment="testing")
    (mine,) = (span for span in attributes(asked.body) if "langfuse.observation.model.name" in span)
    bodies = attributes(base64.b64decode(theirs["body"]["base64"]))
    (known,) = (span for span in bodies if "langfuse.observation.model.name" in span)

    assert asked.path == theirs["path"]
    assert names(theirs["headers"]) - {"x-langfuse-sdk-name", "x-langfuse-sdk-version"} <= names(dict(asked.headers))
    # The call that the capture is of was failed, named and versioned; this one was not.
    own = {name for name in known if "metadata" not in name} - {"langfuse.trace.name", "langfuse.version"}
    assert own - {"langfuse.observation.level", "langfuse.observation.status_message"} <= mine.keys()
    assert {kind(known[name]) for name in own & mine.keys()} == {kind(mine[name]) for name in own & mine.keys()}


def attributes(body: bytes) -> list[dict[str, Any]]:
    spans = spans_in([ExportTraceServiceRequest.FromString(body)])
    return [{each.key: each.value for each in span.attributes} for span in spans]


def kind(value: Any) -> str:
    return str(value.WhichOneof("value"))


def test_langsmith_gets_what_its_sdk_sends(send: Send) -> None:
    theirs = capture("langsmith")
    (asked,) = send("langsmith", [*TOLD, *FAILED])
    good, bad = json.loads(asked.body)["post"]
    (known,) = theirs["body"]["post"]

    assert asked.path == theirs["path"]
    assert "x-api-key" in names(dict(asked.headers)) & names(theirs["headers"])
    assert good.keys() | bad.keys() <= known.keys()
    assert good["id"] == good["trace_id"]
    assert len(good["dotted_order"]) == len(known["dotted_order"])
    assert "error" not in good
    assert bad["error"] == "the model is not amused"
    assert good["outputs"]["usage_metadata"]["total_cost"] == 0.00012


def test_athina_gets_what_its_sdk_sends(send: Send) -> None:
    theirs = capture("athina")
    asked, _ = send("athina", [*TOLD, *FAILED])
    mine = json.loads(asked.body)

    assert asked.path == theirs["path"]
    assert names(theirs["headers"]) <= names(dict(asked.headers))
    assert mine.keys() <= theirs["body"].keys() | {"tool_calls"}
    assert {name: type(value) for name, value in mine.items() if name in theirs["body"]}.items() <= {
        name: type(value) for name, value in theirs["body"].items()
    }.items()


SDKS: dict[str, dict[str, Any]] = {
    "arize": {"api_key": "key-1", "space_id": "space-1", "project": "p-1"},
    "braintrust": {"api_key": "key-1", "project": "project_name:p-1"},
    "confident": {"api_key": "confident_us_1", "environment": "testing"},
    "galileo": {"api_key": "key-1", "project": "p-1", "log_stream": "l-1"},
    "langtrace": {"api_key": "key-1"},
    "logfire": {"token": "pylf_v1_us_1"},
    "posthog": {"api_key": "phc_1", "distinct_id": "u-1"},
    "traceloop": {"api_key": "key-1"},
}
"""The options of each that mean what its SDK was given when it was captured."""
OF_THE_SDK = {"language-version", "sdk-language", "sdk-package-name", "sdk-version", "content-encoding"}


@pytest.mark.parametrize("row", SDKS)
def test_a_platform_is_sent_to_where_and_as_whom_its_sdk_sends(row: str, send: Send) -> None:
    theirs = capture(row)
    (asked,) = send(row, TOLD, **SDKS[row])
    headers = {name.lower(): value for name, value in theirs["headers"].items()}
    told = {name: headers[name] for name in names(theirs["headers"]) - OF_THE_SDK}

    assert asked.path == theirs["path"]
    assert told.items() <= {name.lower(): value for name, value in asked.headers.items()}.items()
    own = resource(base64.b64decode(theirs["body"]["base64"]))
    wanted = {name: value for name, value in own.items() if not name.startswith(("service.", "telemetry.", "logfire."))}
    assert wanted.items() <= resource(asked.body).items()


def priced(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    """Return a request whose cost is that of the price list, so that its parts are known."""
    found = []
    for span in spans:
        held = dict(span.attributes or {})
        if semconv.GEN_AI_USAGE_COST in held:
            models = (str(held[semconv.GEN_AI_REQUEST_MODEL]), str(held[semconv.GEN_AI_RESPONSE_MODEL]))
            listed = prices.cost("openai", models, held, time_ns=span.start_time or 0)
            assert listed is not None
            held |= {semconv.GEN_AI_USAGE_COST: listed.total, semconv.OTELGW_COST_AMOUNT: listed.total}
        found.append(semconv.with_attributes(span, held))
    return found


def resource(body: bytes) -> dict[str, str]:
    (spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return {each.key: each.value.string_value for each in spans.resource.attributes}


@pytest.mark.parametrize(
    ("row", "call", "theirs_only"),
    [
        ("arize", "llm.model_name", set()),
        (
            "confident",
            "confident.span.type",
            # New names beside the older ones, which are sent; and a name that the caller gave the trace.
            {"confident.trace.user.id", "confident.trace.thread.id", "gen_ai.conversation.id", "confident.trace.name"},
        ),
        (
            "logfire",
            "gen_ai.request.model",
            {
                *("async", "code.filepath", "code.function", "code.lineno", "request_data", "gen_ai.usage.raw"),
                *("logfire.msg_template", "logfire.span_type", "gen_ai.system"),
            },
        ),
        ("traceloop", "gen_ai.request.model", {"gen_ai.openai.api_base"}),
        (
            "langtrace",
            "langtrace.service.type",
            {"langtrace.sdk.name", "langtrace.service.version", "langtrace.version", "url.full", "url.path"},
        ),
    ],
)
def test_a_call_is_told_by_the_names_that_the_sdk_has_for_it(
    row: str, call: str, theirs_only: set[str], send: Send
) -> None:
    (known,) = (span for span in attributes(base64.b64decode(capture(row)["body"]["base64"])) if call in span)
    (asked,) = send(row, priced(TOLD), **SDKS[row])
    (mine,) = (span for span in attributes(asked.body) if call in span and "gen_ai.operation.name" in span)

    assert known.keys() - mine.keys() == theirs_only
    # Logfire's SDK has its lists as JSON; there lists are taken, too.
    alike = known.keys() & mine.keys() - {"gen_ai.response.finish_reasons"}
    assert {name: kind(mine[name]) for name in alike} == {name: kind(known[name]) for name in alike}


RELAY = """\
import json, sys
from sentry_relay.processing import StoreNormalizer
events = json.load(sys.stdin)
print(json.dumps([StoreNormalizer(project_id=1).normalize_event(event) for event in events]))
"""


def test_sentrys_relay_takes_the_event_of_a_failed_call_as_it_is(send: Send) -> None:
    python = require("sentry_relay")
    spans = request(9, error="the model is not amused")
    envelope = next(each for each in send("sentry", spans) if each.path.endswith("/envelope/"))
    header, item, data = (json.loads(line) for line in envelope.body.splitlines())

    told = subprocess.run([python, "-c", RELAY], input=json.dumps([data]), capture_output=True, text=True, check=True)

    (normal,) = json.loads(told.stdout)
    assert not normal.get("errors")
    assert normal["event_id"] == data["event_id"] == header["event_id"]
    assert normal["exception"]["values"][0]["value"] == "the model is not amused"
    assert normal["contexts"]["trace"]["trace_id"] == data["contexts"]["trace"]["trace_id"]
    assert normal["user"]["id"] == "u-1"
    assert item["length"] == len(envelope.body.splitlines()[2])


def test_sentrys_event_is_of_its_schema(send: Send) -> None:
    schema = contract("sentry/event.schema.json")
    envelope = next(each for each in send("sentry", FAILED) if each.path.endswith("/envelope/"))

    jsonschema.validate(json.loads(envelope.body.splitlines()[2]), schema)
