"""What each platform is sent of a call with everything about it, and of one that failed: held in golden files."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelgw_exporters import catalog
from otelgw_exporters.delivery import Exporter
from otelgw_exporters.rows import platforms
from tests.exporters.requests_told import CALLER, FAILED, TOLD, TRACE, request
from tests.exporters.stand_ins import Answer, Request, declared
from tests.exporters.vendor import Vendor, serve
from tests.servers.otlp import spans_in

GOLDEN = Path(__file__).parents[1] / "golden" / "platforms"
ROWS = [row.name for row in platforms.ROWS]
OTLP = [row.name for row in platforms.ROWS if row.name not in {"lunary", "openmeter", "athina", "helicone"}]
Build = Callable[..., Exporter]


@pytest.fixture
def build(closing: Callable[[Exporter], Exporter]) -> Build:
    def built(row: str, vendor: Vendor, **options: Any) -> Exporter:
        given = {**vendor.stand_in.options(vendor.origin), **options}
        return closing(catalog.build(row, row, given))

    return built


def stand_in(row: str) -> Any:
    return declared(row)


def sent(exporter: Exporter, vendor: Vendor, spans: Any) -> list[Request]:
    outcome = exporter.deliver(spans, time.monotonic() + 20)
    assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome
    return [each.request for each in vendor.arrived]


def shown(request: Request) -> dict[str, Any]:
    """Return a request as a golden file has it: without what differs from run to run, or is long and another's."""
    kept = {name: value for name, value in request.headers.items() if name not in _TRANSPORT}
    return {"path": request.path, "headers": dict(sorted(kept.items())), "body": _body(request)}


_TRANSPORT = {"host", "accept", "connection", "content-length", "user-agent", "accept-encoding"}


def _body(request: Request) -> Any:
    if request.headers["content-type"] == "application/x-protobuf":
        return _sorted(json_format.MessageToDict(ExportTraceServiceRequest.FromString(request.body)))
    if request.headers["content-type"] == "application/x-sentry-envelope":
        return [json.loads(line) for line in request.body.splitlines()]
    return json.loads(request.body)


def _sorted(tree: Any) -> Any:
    """Return a tree with its attributes as plain mappings, so that a difference shows where it is."""
    if isinstance(tree, dict):
        made = {key: _sorted(value) for key, value in tree.items()}
        if isinstance(tree.get("attributes"), list):
            made["attributes"] = {each["key"]: _plain(each["value"]) for each in tree["attributes"]}
        return made
    return [_sorted(each) for each in tree] if isinstance(tree, list) else tree


def _plain(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items() or (("stringValue", None),)
    if kind == "arrayValue":
        return [_plain(each) for each in held.get("values", [])]
    return int(held) if kind == "intValue" else float(held) if kind == "doubleValue" else held


def held_against(name: str, told: Any) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("OTELGW_UPDATE_GOLDENS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert json.loads(path.read_text()) == json.loads(text)


@pytest.mark.parametrize("row", ROWS)
def test_a_platform_is_sent_what_its_golden_file_says(row: str, build: Build) -> None:
    with serve(stand_in(row)) as vendor:
        sent(build(row, vendor), vendor, [*TOLD, *FAILED])

    held_against(row, [shown(each) for each in vendor.requests])


def test_langfuse_before_version_4_is_sent_events(build: Build) -> None:
    with serve(stand_in("langfuse")) as vendor:
        requests = sent(build("langfuse", vendor, api="ingestion"), vendor, [*TOLD, *FAILED])

    held_against("langfuse_ingestion", [shown(each) for each in requests])


def test_langsmith_is_sent_spans_where_that_is_asked_for(build: Build) -> None:
    with serve(stand_in("langsmith")) as vendor:
        vendor.answers(lambda _: Answer(202))
        exporter = build("langsmith", vendor, api="otlp")
        exporter.deliver([*TOLD, *FAILED], time.monotonic() + 20)
        held_against("langsmith_otlp", [shown(each.request) for each in vendor.arrived])


def attributes_of(requests: list[Request]) -> list[dict[str, Any]]:
    bodies = [ExportTraceServiceRequest.FromString(each.body) for each in requests]
    return [{each.key: each.value for each in span.attributes} for span in spans_in(bodies)]


_USAGE = ("gen_ai.usage", "llm.token_count", "llm.cost", "langfuse.observation.usage", "langfuse.observation.cost")
_USAGE += ("mlflow.llm.cost", "confident.llm", "braintrust.metrics", "operation.cost", "gen_ai.cost", "llm.usage")


@pytest.mark.parametrize("row", [row for row in OTLP if row != "langsmith"])
def test_only_one_span_of_a_call_has_its_usage_so_that_none_is_counted_twice(row: str, build: Build) -> None:
    with serve(stand_in(row)) as vendor:
        spans = attributes_of(sent(build(row, vendor), vendor, TOLD))

    assert sum(any(name.startswith(_USAGE) for name in span) for span in spans) == 1


@pytest.mark.parametrize("row", [row for row in OTLP if row != "langsmith"])
def test_a_callers_span_stays_the_parent_or_is_let_go_and_told(row: str, build: Build) -> None:
    told = {}
    with serve(stand_in(row)) as vendor:
        for policy in ("keep", "detach"):
            vendor.forget()
            requests = sent(build(row, vendor, parent=policy), vendor, TOLD)
            bodies = [ExportTraceServiceRequest.FromString(each.body) for each in requests]
            told[policy] = [span for span in spans_in(bodies) if span.name == "POST /v1/chat/completions"]
    if row == "posthog":  # it is sent the generations only
        return
    ((kept,), (detached,)) = told["keep"], told["detach"]
    assert kept.parent_span_id == CALLER.to_bytes(8, "big")
    assert not detached.parent_span_id
    found = {each.key: each.value.string_value for each in detached.attributes}
    assert (found["otelgw.caller.trace_id"], found["otelgw.caller.span_id"]) == (f"{TRACE:032x}", f"{CALLER:016x}")


def test_destinations_of_one_dialect_share_what_is_encoded(build: Build) -> None:
    with serve(stand_in("phoenix")) as vendor:
        one, other = build("phoenix", vendor, project="one"), build("phoenix", vendor, project="other")

        requests = sent(one, vendor, TOLD) + sent(other, vendor, TOLD)

    assert one._encode is other._encode  # type: ignore[attr-defined]
    projects = set()
    for each in requests:
        resource = ExportTraceServiceRequest.FromString(each.body).resource_spans[0].resource
        projects |= {item.value.string_value for item in resource.attributes if item.key.endswith("project.name")}
    assert projects == {"one", "other"}


def test_a_request_to_langtrace_has_one_resource_and_one_scope(build: Build) -> None:
    with serve(stand_in("langtrace")) as vendor:
        requests = sent(build("langtrace", vendor), vendor, [*TOLD, *FAILED])

    bodies = [ExportTraceServiceRequest.FromString(each.body) for each in requests]
    assert [(len(body.resource_spans), len(body.resource_spans[0].scope_spans)) for body in bodies] == [(1, 1)]
    assert "opentelemetry" in requests[0].headers["user-agent"].lower() or "otel-otlp" in (
        requests[0].headers["user-agent"].lower()
    )
    assert "content-encoding" not in requests[0].headers


@pytest.mark.parametrize(
    ("row", "options", "url"),
    [
        ("langfuse", {"public_key": "pk", "secret_key": "sk"}, "https://cloud.langfuse.com"),
        ("langfuse", {"public_key": "pk", "secret_key": "sk", "region": "us"}, "https://us.cloud.langfuse.com"),
        ("logfire", {"token": "pylf_v1_eu_abc"}, "https://logfire-eu.pydantic.dev"),
        ("logfire", {"token": "pylf_v1_us_abc"}, "https://logfire-us.pydantic.dev"),
        ("confident", {"api_key": "confident_eu_abc"}, "https://eu.otel.confident-ai.com"),
        ("confident", {"api_key": "abc"}, "https://otel.confident-ai.com"),
        ("arize", {"api_key": "a", "space_id": "s", "region": "eu"}, "https://otlp.eu-west-1a.arize.com"),
        ("langsmith", {"api_key": "a", "region": "apac"}, "https://apac.api.smith.langchain.com"),
        ("posthog", {"api_key": "phc", "region": "eu"}, "https://eu.i.posthog.com"),
        ("lunary", {"api_key": "k", "endpoint": "https://lunary.example/base"}, "https://lunary.example"),
    ],
)
def test_the_region_is_the_one_that_is_set_or_that_the_key_names(
    row: str, options: dict[str, Any], url: str, closing: Callable[[Exporter], Exporter]
) -> None:
    assert repr(closing(catalog.build(row, row, options))).endswith(f" {url}>")


@pytest.mark.parametrize(
    ("endpoint", "path", "url"),
    [
        ("https://h", "/v1/traces", "https://h/v1/traces"),
        ("https://h/", "/v1/traces", "https://h/v1/traces"),
        ("https://h/v1", "/v1/traces", "https://h/v1/traces"),
        ("https://h/v1/traces", "/v1/traces", "https://h/v1/traces"),
        ("https://h/api/public/otel", "/api/public/otel/v1/traces", "https://h/api/public/otel/v1/traces"),
        ("https://h/langfuse", "/api/public/otel/v1/traces", "https://h/langfuse/api/public/otel/v1/traces"),
        ("https://h/v1?x=1", "/v1/traces", "https://h/v1/traces?x=1"),
    ],
)
def test_an_endpoint_may_hold_its_path_already_or_a_beginning_of_it(endpoint: str, path: str, url: str) -> None:
    from otelgw_exporters.otlp_vendor import joined

    assert joined(endpoint, path) == url


def test_what_is_compressed_is_what_was_meant(build: Build) -> None:
    with serve(stand_in("phoenix")) as vendor:
        sent(build("phoenix", vendor), vendor, request(5))
        (arrived,) = vendor.arrived

    assert gzip.decompress(arrived.wire) == arrived.request.body
