"""``otelgw collect`` as a user runs it: spans in by OTLP, out to a destination, through faults."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otelgw_exporters.otlp import OtlpGrpcExporter
from tests.collector.receiving import RunningReceiver, request, span, spans_of
from tests.collector.test_receiver_grpc import MoodySpool
from tests.exporters.conftest import certificates  # noqa: F401 - a fixture
from tests.servers import require
from tests.servers.collector import Collector
from tests.servers.otlp import Failure, GrpcReceiver
from tests.servers.ports import free_port

CONFIG = """\
otelgw:
  state_dir: state
  destinations: [{{name: otlp_grpc, endpoint: "http://127.0.0.1:{destination}"}}]
  receiver: {{grpc: "127.0.0.1:{grpc}", http: "127.0.0.1:{http}"{more}}}
"""
COLLECTOR = """\
receivers:
  otlp: {{protocols: {{grpc: {{}}, http: {{}}}}}}
exporters:
  otlp/collect: {{endpoint: "127.0.0.1:{grpc}", tls: {{insecure: true}}, retry_on_failure: {retry}}}
  otlphttp/protobuf: {{endpoint: "http://127.0.0.1:{http}", retry_on_failure: {retry}}}
  otlphttp/json: {{endpoint: "http://127.0.0.1:{http}", encoding: json, compression: none, retry_on_failure: {retry}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [{exporter}]}}
"""
RETRY = "{initial_interval: 100ms, max_interval: 500ms, max_elapsed_time: 60s}"


class CollectProcess:
    """``python -m otelgw.cli collect`` in ``directory``, delivering to the port ``destination``."""

    def __init__(self, directory: Path, destination: int, *, more: str = "") -> None:
        self.grpc, self.http = free_port(), free_port()
        self.directory = directory
        self.errors = directory / "errors.txt"
        self._destination = destination
        self.write(more)
        self.process: subprocess.Popen[bytes]

    def write(self, more: str = "") -> None:
        text = CONFIG.format(destination=self._destination, grpc=self.grpc, http=self.http, more=more)
        (self.directory / "config.yaml").write_text(text)

    def start(self) -> None:
        command = [sys.executable, "-m", "otelgw.cli", "collect", "--config", "config.yaml"]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=kept, stderr=errors, start_new_session=True
            )
        started = self.log().count(" collect  ")
        eventually(lambda: self.log().count(" collect  ") > started or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    def kill(self) -> None:
        """Kill the whole of it, pipeline included, without a word."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def log(self) -> str:
        return self.errors.read_text(errors="replace") if self.errors.exists() else ""

    def send(self, *numbers: int, **options: Any) -> Any:
        """Send spans by gRPC; return the answer."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc}") as channel:
            asked = request(*(span(number) for number in numbers), service_name="app")
            return TraceServiceStub(channel).Export(asked, timeout=10, **options)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


def names(destination: GrpcReceiver) -> set[str]:
    return {each.name for each in destination.spans}


@pytest.fixture
def destination() -> Iterator[GrpcReceiver]:
    with GrpcReceiver() as running:
        yield running


def test_spans_of_an_application_reach_the_destination_and_sigterm_exits_0(
    tmp_path: Path, destination: GrpcReceiver
) -> None:
    with CollectProcess(tmp_path, destination.port) as collect:
        provider = TracerProvider(resource=Resource({"service.name": "app"}))
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{collect.grpc}", insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        for number in range(600):
            with provider.get_tracer("scope", "1").start_as_current_span(f"s{number}", attributes={"n": number}):
                pass
        provider.shutdown()
        eventually(lambda: len(names(destination)) == 600)
        assert collect.stop() == 0, collect.log()
    groups = [group for asked in destination.received for group in asked.resource_spans]
    for group in groups:
        attributes = {pair.key: pair.value for pair in group.resource.attributes}
        assert attributes["service.name"].string_value == "app"
        assert len(attributes["otelgw.via"].array_value.values) == 1
        assert group.scope_spans[0].scope.name == "scope"
    assert "received" in collect.log()


@pytest.mark.parametrize("exporter", ["otlp/collect", "otlphttp/protobuf", "otlphttp/json"])
def test_a_real_collector_loses_nothing_while_the_receiver_is_killed_and_comes_back(
    tmp_path: Path, destination: GrpcReceiver, exporter: str
) -> None:
    program = require("collector")
    collect = CollectProcess(tmp_path, destination.port)
    config = tmp_path / "collector.yaml"
    config.write_text(COLLECTOR.format(grpc=collect.grpc, http=collect.http, exporter=exporter, retry=RETRY))
    with collect, Collector(program, config) as running:
        to_it = OTLPSpanExporter(f"http://127.0.0.1:{running.grpc}", insecure=True)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(to_it, schedule_delay_millis=50, max_export_batch_size=16))
        for number in range(300):
            if number == 100:
                collect.kill()
            if number == 200:
                collect.start()
            with provider.get_tracer("t").start_as_current_span(f"s{number}"):
                time.sleep(0.002)
        provider.shutdown()
        eventually(lambda: len(names(destination)) == 300)


def test_what_was_acknowledged_arrives_also_when_everything_is_killed(tmp_path: Path) -> None:
    port = free_port()
    collect = CollectProcess(tmp_path, port)
    acknowledged: set[str] = set()
    with collect:
        stopped = threading.Event()

        def send() -> None:
            number = 1
            while not stopped.is_set():
                with contextlib.suppress(grpc.RpcError):
                    collect.send(number)
                    acknowledged.add(f"span {number}")
                number += 1

        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: len(acknowledged) >= 50)
        collect.kill()
        stopped.set()
        sender.join(20)
        with GrpcReceiver(port=port) as destination:
            collect.start()
            eventually(lambda: acknowledged <= names(destination))


def test_a_destination_that_is_down_delays_no_sender(tmp_path: Path) -> None:
    failing = Failure(grpc.StatusCode.UNAVAILABLE)
    with GrpcReceiver([failing], repeat=True) as destination, CollectProcess(tmp_path, destination.port) as collect:
        for number in range(1, 50):
            assert not collect.send(number).partial_success.rejected_spans
        destination.answers.clear()
        eventually(lambda: len(names(destination)) == 49)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")
def test_a_full_disk_asks_senders_to_come_again_and_loses_nothing_acknowledged(
    tmp_path: Path, destination: GrpcReceiver
) -> None:
    acknowledged: set[str] = set()
    with CollectProcess(tmp_path, destination.port) as collect:
        resource.prlimit(collect.process.pid, resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))
        with grpc.insecure_channel(f"127.0.0.1:{collect.grpc}") as channel, pytest.raises(grpc.RpcError) as caught:
            for number in range(1, 200):
                made = span(number, attributes=[{"key": "k", "value": {"string_value": "x" * 10_000}}])
                TraceServiceStub(channel).Export(request(made), timeout=10)
                acknowledged.add(f"span {number}")
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "grpc-status-details-bin" in dict(error.trailing_metadata())
        body = request(span(500, name="x" * 20_000)).SerializeToString()
        headers = {"content-type": "application/x-protobuf"}
        answer = httpx.post(f"http://127.0.0.1:{collect.http}/v1/traces", content=body, headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        eventually(lambda: acknowledged <= names(destination))
        assert len(acknowledged) > 10
        assert collect.log().count("the spool takes nothing") == 1


def test_spans_do_not_go_round_in_circles(tmp_path: Path, destination: GrpcReceiver) -> None:
    with CollectProcess(tmp_path, destination.port) as collect:
        collect.send(1, 2)
        eventually(lambda: len(names(destination)) == 2)
        with grpc.insecure_channel(f"127.0.0.1:{collect.grpc}") as channel:
            for asked in list(destination.received):
                answer = TraceServiceStub(channel).Export(asked, timeout=10)
                assert answer.partial_success.rejected_spans == sum(
                    len(scope.spans) for group in asked.resource_spans for scope in group.scope_spans
                )
        collect.send(3)
        eventually(lambda: "span 3" in names(destination))
        assert len(destination.spans) == 3


def test_a_token_and_tls_are_asked_for(tmp_path: Path, destination: GrpcReceiver, certificates: Any) -> None:  # noqa: F811 - the fixture
    pem = f'ssl_certfile: "{certificates.server_certificate}", ssl_keyfile: "{certificates.server_key}"'
    with CollectProcess(tmp_path, destination.port, more=f", token: secret, {pem}") as collect:
        url = f"https://localhost:{collect.http}/v1/traces"
        body, kind = request(span(1)).SerializeToString(), {"content-type": "application/x-protobuf"}
        with httpx.Client(verify=_trusting(certificates.authority)) as client:
            assert client.post(url, content=body, headers=kind).status_code == 401
            allowed = {**kind, "authorization": "Bearer secret"}
            assert client.post(url, content=body, headers=allowed).status_code == 200
        provider = TracerProvider()
        exporter = OtlpGrpcExporter(
            endpoint=f"https://localhost:{collect.grpc}",
            certificate=str(certificates.authority),
            headers={"authorization": "Bearer secret"},
        )
        with provider.get_tracer("t").start_as_current_span("by grpc") as made:
            pass
        exporter.export([made])  # type: ignore[list-item]
        exporter.shutdown()
        eventually(lambda: names(destination) == {"span 1", "by grpc"})
        assert "secret" not in collect.log()


def _trusting(authority: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(authority))


def test_a_reload_takes_effect_and_one_with_errors_changes_nothing(tmp_path: Path, destination: GrpcReceiver) -> None:
    with CollectProcess(tmp_path, destination.port) as collect:
        collect.send(1)
        (tmp_path / "config.yaml").write_text("otelgw: {receiver: {tokn: x}}")
        collect.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reload refused" in collect.log())
        collect.send(2)
        collect.write(", token: secret")
        collect.process.send_signal(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in collect.log())
        with pytest.raises(grpc.RpcError):
            collect.send(3)
        collect.send(4, metadata=(("authorization", "Bearer secret"),))
        eventually(lambda: names(destination) == {"span 1", "span 2", "span 4"})
        assert collect.stop() == 0


def test_a_pipeline_that_is_killed_is_started_again(tmp_path: Path, destination: GrpcReceiver) -> None:
    with CollectProcess(tmp_path, destination.port) as collect:
        collect.send(1)
        eventually(lambda: names(destination) == {"span 1"})
        listed = subprocess.run(
            ["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        (pid,) = (int(pid) for pid, parent, args in rows if int(parent) == collect.process.pid and "pipeline" in args)
        os.kill(pid, signal.SIGKILL)
        collect.send(2)
        eventually(lambda: "span 2" in names(destination))


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("otelgw: {destinations: [otlp_grpc]}", 2, "leads back to the receiver's own grpc address"),
        ("otelgw: {state_dir: state}", 2, "there is nothing to collect for"),
        ("otelgw: {state_dir: s, destinations: [console], receiver: {grpc: '127.0.0.1:%d'}}", 1, "cannot listen on"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, text: str, status: int, message: str) -> None:
    with GrpcReceiver() as busy:
        (tmp_path / "config.yaml").write_text(text.replace("%d", str(busy.port)))
        command = [sys.executable, "-m", "otelgw.cli", "collect", "-c", "config.yaml"]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("exporter", ["otlp/collect", "otlphttp/protobuf", "otlphttp/json"])
def test_a_real_collector_comes_again_when_the_disk_was_full(tmp_path: Path, exporter: str) -> None:
    program = require("collector")
    spool = MoodySpool(1)
    config = tmp_path / "collector.yaml"
    with RunningReceiver(tmp_path / "spool", spool=spool) as receiver:
        config.write_text(COLLECTOR.format(grpc=receiver.grpc, http=receiver.http, exporter=exporter, retry=RETRY))
        with Collector(program, config) as running:
            with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
                TraceServiceStub(channel).Export(request(span(1), span(2, trace_id=b"2" * 16)), timeout=10)
            eventually(lambda: spool.taken)
            assert "Exporting failed. Dropping data" not in running.output
    assert [each.name for each in spans_of(spool.taken[0])] == ["span 1", "span 2"]
    assert receiver.intake.counters.unavailable == 1
