"""A thousand requests of every kind to every platform at once, of which three are down, two slow and one refuses some.

Every span is accounted for at every destination: it has arrived, or it is a dead letter that says why.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelgw_collector import letters
from otelgw_exporters.rows import platforms
from tests.exporters.stand_ins import Answer, Request, StandIn, declared
from tests.exporters.vendor import Fault, Vendor, serve
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import spans_in

REQUESTS = 1000
DOWN, SLOW = ("arize", "lunary", "traceloop"), ("braintrust", "langsmith")
SOME = "langfuse/legacy"  # answers 207 and refuses a tenth
SUCCESSES_ONLY, GENERATIONS_ONLY = "openmeter", "posthog"
CALLS = {"athina", "helicone", "langsmith", "lunary", "openmeter", "posthog"}  # these take calls, not spans
REFUSED = "the event is not to this server's liking"


@dataclass
class Sink:
    """One destination's vendor, and what it has taken."""

    name: str
    stand_in: StandIn
    vendor: Vendor
    taken: list[Request] = field(default_factory=list)
    up: threading.Event = field(default_factory=threading.Event)
    read: dict[tuple[str, int], list[str]] = field(default_factory=dict)  # by a request's identity: each is read once

    def answer(self, request: Request) -> Answer | Fault:
        if self.name in DOWN and not self.up.is_set():
            return Fault.RESET_BEFORE
        if self.name in SLOW:
            time.sleep(0.3)
        self.taken.append(request)
        return _some(request) if self.name == SOME else self.stand_in.accepted(request)

    def requests(self) -> list[Request]:
        """Return what was taken; a request without a generation is always answered as taken."""
        return [*self.taken, *(each for each in list(self.vendor.requests) if not self.items(each))]

    def items(self, request: Request) -> list[str]:
        return self._once("items", request, self.stand_in.items)

    def traces(self, request: Request) -> list[str]:
        return self._once("traces", request, spans_of)

    def _once(self, what: str, request: Request, read: Callable[[Request], list[str]]) -> list[str]:
        key = (what, id(request))
        if key not in self.read:
            self.read[key] = read(request)
        return self.read[key]


def is_refused(trace: str) -> bool:
    return int(trace, 16) % 10 == 0


def _some(request: Request) -> Answer:
    told: dict[str, list[dict[str, Any]]] = {"successes": [], "errors": []}
    for event in json.loads(request.body)["batch"]:
        trace = event["body"].get("traceId") or event["body"]["id"]
        if is_refused(trace):
            told["errors"].append({"id": event["id"], "status": 400, "message": REFUSED})
        else:
            told["successes"].append({"id": event["id"], "status": 201})
    return Answer(207, {"content-type": "application/json"}, json.dumps(told).encode())


@contextlib.contextmanager
def sinks() -> Iterator[dict[str, Sink]]:
    names = [*(row.name for row in platforms.ROWS), SOME]
    with contextlib.ExitStack() as stack:
        found: dict[str, Sink] = {}
        for name in names:
            stand_in = declared_of(name)
            sink = found[name] = Sink(name, stand_in, stack.enter_context(serve(stand_in)))
            sink.vendor.answers(sink.answer)
        yield found


def declared_of(name: str) -> StandIn:
    stand_in = declared(name.partition("/")[0])
    assert stand_in is not None
    return stand_in


def config(found: dict[str, Sink]) -> str:
    destinations = []
    for name, sink in found.items():
        options = sink.stand_in.options(sink.vendor.origin)
        destinations.append({"name": name, **options} | ({"api": "ingestion"} if name == SOME else {}))
    return yaml.safe_dump({"otelgw": {"destinations": destinations}})


def ask(client: httpx.Client, number: int) -> tuple[str, bool]:
    """Make the request of a number; return its trace id, and whether a model answered."""
    kind = number % 10
    body = _body(kind, f"hello {number}")
    body |= {"metadata": {"session_id": f"s-{number % 7}", "tags": [f"t-{kind}"]}, "user": f"u-{number % 5}"}
    headers = {"traceparent": f"00-{uuid.uuid4().hex}-b7ad6b7169203331-01"} if kind == 6 else {}
    answer = client.post("/v1/chat/completions", json=body, headers=headers)
    return answer.headers["x-otelgw-trace-id"], answer.status_code == 200


def _body(kind: int, text: str) -> dict[str, Any]:
    """Return a request's body: one that is streamed, refused, with tools, with an image, or plain."""
    said: list[dict[str, Any]] = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": "echo" if kind != 3 else "ecko", "messages": said}
    if kind in (1, 2):
        body["stream"] = True
    elif kind == 4:
        body["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    elif kind == 5:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        said[0]["content"] = [{"type": "text", "text": text}, image]
    return body


def spans_of(request: Request) -> list[str]:
    """Return the traces of the spans in a request, once for each span."""
    if request.headers.get("content-type") == "application/x-protobuf":
        return [span.trace_id.hex() for span in spans_in([ExportTraceServiceRequest.FromString(request.body)])]
    return []


def test_every_span_of_a_thousand_requests_is_accounted_for_at_every_platform(tmp_path: Path) -> None:
    with sinks() as found, GatewayProcess(config(found), tmp_path) as gateway:
        with httpx.Client(base_url=gateway.url, timeout=60) as client, ThreadPoolExecutor(4) as pool:
            asked = list(pool.map(lambda number: ask(client, number), range(REQUESTS)))
        for name in DOWN:
            found[name].up.set()
        answered = {trace for trace, good in asked if good}
        everything = Counter({trace: 3 if good else 1 for trace, good in asked})
        assert (len(everything), len(answered)) == (REQUESTS, REQUESTS * 9 // 10)

        def arrived(sink: Sink) -> Counter[str]:
            if sink.name in CALLS or sink.name == SOME:
                ids = [item for request in sink.requests() for item in sink.items(request)]
                return Counter(item.partition("-")[0] for item in ids)
            return Counter(trace for request in sink.requests() for trace in sink.traces(request))

        def wanted(sink: Sink) -> Counter[str]:
            return Counter(answered) if sink.name in CALLS or sink.name == SOME else everything

        gateway.wait_until(lambda: all(set(arrived(each)) >= set(wanted(each)) for each in found.values()), 150)

        for sink in found.values():
            got = arrived(sink)
            if sink.name in CALLS and sink.name not in (SUCCESSES_ONLY, GENERATIONS_ONLY):
                got = Counter({trace: count for trace, count in got.items() if trace in answered})
            assert got == wanted(sink), sink.name
        refused = {trace for trace in answered if is_refused(trace)}
        assert refused

        def dead() -> list[letters.Stored]:
            with contextlib.closing(letters.read_only(gateway.state / "pipeline.db")) as database:
                return letters.listing(database, destination=None, most=-1)

        gateway.wait_until(lambda: refused <= {letter.trace_id for letter in dead()})
        assert {letter.destination for letter in dead()} == {SOME}
        assert all(is_refused(letter.trace_id) and REFUSED in letter.reason for letter in dead())
