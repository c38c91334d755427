"""The recipes run by the real Collector, against a real backend or one that shows what it was sent."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from tests.e2e.recipes import recipe, send
from tests.exporters.samples import span
from tests.servers import require
from tests.servers.otlp import GrpcReceiver, HttpReceiver
from tests.servers.seaweedfs import BUCKET, KEY_ID, SECRET, SeaweedFs

MS = 1_000_000
KEY = "backend-canary-0123456789"


def request(trace: int, **more: Any) -> list[ReadableSpan]:
    """Return the spans of one request through the gateway; see ``varied``."""
    call = {"otelgw.call_id": f"call-{trace}"}
    facts = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "echo", "gen_ai.usage.cost": 0.001}
    client = SpanKind.CLIENT
    made = [
        span(1, call, trace=trace),
        span(2, call | facts, name="chat echo", parent=1, trace=trace, kind=client),
        span(3, call, name="POST", parent=2, trace=trace, kind=client),
    ]
    return varied(made, **more)


def varied(
    made: list[ReadableSpan],
    *,
    server: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
    status: Status | None = None,
    seconds: float = 0.0,
) -> list[ReadableSpan]:
    """Give the SERVER span and the generation further attributes, and the generation a status and a duration."""
    root, model, _ = made
    for each, further in ((root, server), (model, generation)):
        each._attributes = {**(each.attributes or {}), **(further or {})}
    if status is not None:
        model._status = status
    if seconds:
        for each in (root, model):
            each._end_time = (each.start_time or 0) + int(seconds * 1000) * MS
    return made


# By HTTP: the variables that a recipe is given (the backend's address for ORIGIN), where it sends to, and the headers.
HTTP = {
    "elastic_otlp": (
        {"ELASTIC_OTLP_ENDPOINT": "ORIGIN", "ELASTIC_API_KEY": KEY},
        "/v1/traces",
        {"authorization": f"ApiKey {KEY}"},
    ),
    "langfuse": (
        {"LANGFUSE_OTLP_ENDPOINT": "ORIGIN/api/public/otel", "LANGFUSE_BASIC": base64.b64encode(b"pk:sk").decode()},
        "/api/public/otel/v1/traces",
        {"authorization": "Basic cGs6c2s=", "x-langfuse-ingestion-version": "4"},
    ),
}
GRPC = {
    "opensearch": (
        {"DATA_PREPPER_ENDPOINT": "ADDRESS", "DATA_PREPPER_BASIC": "dXNlcjpwYXNz"},
        {"authorization": "Basic dXNlcjpwYXNz"},
    ),
    "loadbalancing_tier2": ({"BACKEND_ENDPOINT": "ADDRESS"}, {}),
}


@pytest.mark.parametrize("name", HTTP)
def test_spans_reach_a_backend_by_http_with_its_credentials(name: str, tmp_path: Path) -> None:
    variables, path, headers = HTTP[name]

    with HttpReceiver() as backend:
        given = {key: value.replace("ORIGIN", backend.origin) for key, value in variables.items()}
        with recipe(name, tmp_path, given) as collector:
            send(collector, request(1))
            collector.eventually(lambda: len(backend.spans) == 3)
            assert KEY not in collector.output
        asked = backend.asked[0]
    assert asked.path == path
    assert {key: asked.headers[key] for key in headers} == headers


@pytest.mark.parametrize("name", GRPC)
def test_spans_reach_a_backend_by_grpc_with_its_headers(name: str, tmp_path: Path) -> None:
    variables, headers = GRPC[name]
    with GrpcReceiver() as backend:
        given = {key: value.replace("ADDRESS", f"127.0.0.1:{backend.port}") for key, value in variables.items()}
        with recipe(name, tmp_path, given) as collector:
            send(collector, request(1))
            collector.eventually(lambda: len(backend.spans) == 3)
        asked = backend.asked[0]
    assert {key: asked.headers[key] for key in headers} == headers


def test_s3_gets_objects_that_the_collector_can_read_back(tmp_path: Path) -> None:
    obstore = pytest.importorskip("obstore")
    from obstore.store import S3Store

    with SeaweedFs(require("seaweedfs")) as s3:

        def to_the_server(tree: dict[str, Any]) -> None:
            tree["exporters"]["awss3"]["s3uploader"] |= {"endpoint": s3.url, "s3_force_path_style": True}

        env = {"S3_BUCKET": BUCKET, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        store = S3Store(
            BUCKET,
            endpoint=s3.url,
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

        def objects() -> list[str]:
            return [each["path"] for batch in store.list() for each in batch]

        with recipe("s3", tmp_path, env, to_the_server) as collector:
            send(collector, request(1))
            collector.eventually(objects)
        (path,) = objects()
        told = json.loads(gzip.decompress(bytes(obstore.get(store, path).bytes())))
    assert path.startswith("otelgw/date=")
    scopes = told["resourceSpans"][0]["scopeSpans"]
    assert len([each for scope in scopes for each in scope["spans"]]) == 3


@pytest.fixture
def backends() -> Iterator[list[GrpcReceiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(GrpcReceiver()) for _ in range(2)]


def test_all_spans_of_a_trace_come_to_one_collector_of_tier_2(tmp_path: Path, backends: list[GrpcReceiver]) -> None:
    traces = range(1, 41)
    with ExitStack() as stack:
        tier2 = [
            stack.enter_context(
                recipe("loadbalancing_tier2", tmp_path / f"{number}", {"BACKEND_ENDPOINT": f"127.0.0.1:{backend.port}"})
            )
            for number, backend in enumerate(backends)
        ]
        hostnames = [f"127.0.0.1:{each.grpc}" for each in tier2]

        def to_tier2(tree: dict[str, Any]) -> None:
            tree["exporters"]["load_balancing"]["resolver"] = {"static": {"hostnames": hostnames}}

        tier1 = stack.enter_context(recipe("loadbalancing_tier1", tmp_path / "tier1", {}, to_tier2))
        for position in range(3):  # the spans of a trace come at different times
            send(tier1, [request(trace)[position] for trace in traces])
        tier1.eventually(lambda: sum(len(backend.spans) for backend in backends) == 3 * len(traces))

    arrived = [Counter(each.trace_id for each in backend.spans) for backend in backends]
    assert arrived[0].keys().isdisjoint(arrived[1])
    assert [set(counts.values()) for counts in arrived] == [{3}, {3}]


def test_tail_sampling_keeps_what_failed_was_slow_or_costly_and_whole(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "refused": {"server": {"error.type": "rate_limited", "http.response.status_code": 429}},
        "failed": {"status": Status(StatusCode.ERROR, "upstream")},
        "slow": {"seconds": 11.0},
        "late": {"generation": {"gen_ai.response.time_to_first_chunk": 6.5}},
        "costly": {"generation": {"gen_ai.usage.cost": 0.06}},
        "plain": {"seconds": 9.0, "generation": {"gen_ai.usage.cost": 0.04}},
    }
    counts = dict.fromkeys(kinds, 10) | {"plain": 200}
    sent: dict[str, str] = {}
    spans: list[ReadableSpan] = []
    for kind, count in counts.items():
        for _ in range(count):
            trace = (len(sent) + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)  # spread, as real ids are
            sent[f"{trace:032x}"] = kind
            spans += request(trace, **kinds[kind])

    def at_once(tree: dict[str, Any]) -> None:
        tree["processors"]["tail_sampling"]["decision_wait"] = "1s"

    with GrpcReceiver() as backend:
        env = {"BACKEND_ENDPOINT": f"127.0.0.1:{backend.port}"}
        with recipe("tail_sampling", tmp_path, env, at_once) as collector:
            send(collector, spans)
            wanted = {trace for trace, kind in sent.items() if kind != "plain"}
            collector.eventually(lambda: wanted <= {each.trace_id.hex() for each in backend.spans})
            whole = defaultdict(set)
            for each in backend.spans:
                whole[each.trace_id.hex()].add(each.name)
    kept = Counter(sent[trace] for trace in whole)
    assert {kind: kept[kind] for kind in kinds if kind != "plain"} == {kind: 10 for kind in kinds if kind != "plain"}
    assert 0 < kept["plain"] < 60  # a tenth of 200, by the traces' ids
    assert {len(names) for names in whole.values()} == {3}
