from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw import pipeline_main
from otelgw.config.settings import Destination, Server, Settings, Spool, Tracing
from otelgw.pipeline_main import decoder, resource
from otelgw.process import pack
from otelgw.report import read_metrics, read_state
from otelgw.selection import Trace, selector
from otelgw.tracing import record as records
from otelgw_collector.pipeline import Batching
from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import eventually
from tests.servers.otlp import GrpcReceiver, HttpReceiver
from tests.servers.ports import free_port
from tests.tracing.records import record

SECRET = "sk-secret-0123456789"


def trace(**changes: Any) -> Trace:
    return decoder(Tracing(), "state")(records.encode(record(**changes)))


def selected(made: Trace, **policy: Any) -> Sequence[ReadableSpan]:
    return selector(Destination("console", "console", **policy))(made)


@pytest.mark.parametrize(
    ("changes", "success", "failure"),
    [
        ({}, 3, 0),
        ({"status": 429}, 0, 3),
        ({"status": 200, "error_type": "client_disconnect"}, 0, 3),
    ],
)
def test_a_destination_gets_the_outcomes_it_is_for(changes: dict[str, Any], success: int, failure: int) -> None:
    made = trace(**changes)

    assert len(selected(made)) == 3
    assert len(selected(made, on="success")) == success
    assert len(selected(made, on="failure")) == failure


def test_a_record_is_as_old_as_its_last_span_and_one_without_spans_has_no_age() -> None:
    seconds = (90, 30, 60)
    ended = [ReadableSpan("span", end_time=time.time_ns() - each * 10**9) for each in seconds]
    assert pipeline_main.age(Trace(None, ended)) == pytest.approx(30, abs=5)
    assert pipeline_main.age(Trace(None, [])) == 0.0


def test_only_sampling_by_the_parent_leaves_an_unsampled_request_out() -> None:
    assert len(selected(trace(sampled=False))) == 3
    assert len(selected(trace(sampled=False), sampling="parent")) == 0
    assert len(selected(trace(sampled=True), sampling="parent")) == 3


def everything(spans: Sequence[ReadableSpan]) -> str:
    return " ".join(span.to_json() for span in spans)


def test_a_destination_without_content_gets_none_and_the_others_still_do() -> None:
    made = trace(status=400, error_type="400", error_message="CANARY is not allowed")
    whole = everything(selected(made))

    without = selected(made, content=False)

    assert "CANARY" in whole
    assert "gen_ai.input.messages" in whole
    assert "CANARY" not in everything(without)
    assert "gen_ai.request.model" in everything(without)
    assert [span.context for span in without] == [span.context for span in made.spans]
    assert everything(selected(made)) == whole


def test_who_called_is_left_out_where_that_is_asked_for() -> None:
    made = trace()
    identity = ("ab" * 32, "search", "t-1", "blue", "u-1")

    whole, redacted = everything(selected(made)), everything(selected(made, redact_user_api_key_info=True))

    assert all(word in whole for word in identity)
    assert not any(f'"{word}"' in redacted for word in identity)
    assert "gen_ai.input.messages" in redacted


def test_the_resource_describes_this_gateway_and_the_operator_prevails(tmp_path: Path) -> None:
    tracing = Tracing(service_name="shop", resource={"deployment.environment.name": "test", "service.version": "9"})

    attributes = resource(tracing, str(tmp_path)).attributes

    assert attributes["service.name"] == "shop"
    assert attributes["service.version"] == "9"
    assert attributes["deployment.environment.name"] == "test"
    assert attributes["telemetry.sdk.language"] == "python"
    assert attributes["service.instance.id"] == resource(Tracing(), str(tmp_path)).attributes["service.instance.id"]
    assert attributes["service.instance.id"] != resource(tracing, "elsewhere").attributes["service.instance.id"]


# The process


class Process:
    """The pipeline process as the master starts it."""

    def __init__(self, state: Path, destinations: Sequence[Destination]) -> None:
        self.state = state
        (state / "spool").mkdir(parents=True, exist_ok=True, mode=0o700)
        ready, tell = os.pipe()
        settings = Settings(
            server=Server(), state_dir=str(state), destinations=tuple(destinations), spool=Spool(retention=0.0)
        )
        command = [sys.executable, "-m", "otelgw.pipeline_main", "--ready-fd", str(tell)]
        self._out, self._log = (state / "out").open("w"), (state / "log").open("w")
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._out, stderr=self._log, pass_fds=[tell]
        )
        os.close(tell)
        assert self.child.stdin is not None
        self.master = self.child.stdin
        self.master.write(pack(settings))
        self.master.flush()
        self._ready = ready

    def wait_ready(self) -> None:
        assert os.read(self._ready, 16) == b"ready\n", self.log

    @property
    def output(self) -> str:
        return (self.state / "out").read_text()

    @property
    def log(self) -> str:
        return (self.state / "log").read_text()

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self.master.close()
        for closable in (self._out, self._log):
            closable.close()
        os.close(self._ready)


@contextmanager
def process(state: Path, *destinations: Destination) -> Iterator[Process]:
    started = Process(state, destinations)
    try:
        yield started
    finally:
        started.close()


def otlp(kind: str, name: str, endpoint: str, **options: Any) -> Destination:
    return Destination(f"{kind}/{name}", kind, {"endpoint": endpoint, **options})


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SegmentWriter]:
    made = SegmentWriter(tmp_path / "spool", "w0_1_1")
    yield made
    made.close()


def test_records_become_traces_at_every_destination_each_with_its_own_credentials(
    tmp_path: Path, writer: SegmentWriter
) -> None:
    with GrpcReceiver() as one, GrpcReceiver() as two, HttpReceiver() as three:
        destinations = (
            otlp("otlp_grpc", "one", one.endpoint, headers={"authorization": SECRET}),
            otlp("otlp_grpc", "two", two.endpoint, headers={"authorization": "another"}),
            otlp("otlp_http", "three", three.origin, headers={"x-key": "third"}),
            Destination("console", "console", content=False),
        )
        with process(tmp_path, *destinations) as running:
            running.wait_ready()
            writer.append(records.encode(record()))
            eventually(lambda: len(one.spans) == len(two.spans) == len(three.spans) == 3)
            eventually(lambda: running.output.count('"trace_id"') >= 3)

            running.child.send_signal(signal.SIGINT)
            running.child.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            assert running.child.poll() is None
            running.child.send_signal(signal.SIGTERM)
            assert running.child.wait(20) == 0

            assert [one.asked[0].headers["authorization"], two.asked[0].headers["authorization"]] == [SECRET, "another"]
            assert three.asked[0].headers["x-key"] == "third"
            assert {span.name for span in one.spans} == {"POST /v1/chat/completions", "chat gpt-4o", "POST"}
            assert [span.span_id for span in one.spans] == [span.span_id for span in two.spans]
            assert "CANARY" not in running.output
            assert SECRET not in running.log + running.output


def test_stopping_leaves_the_undelivered_on_disk_for_the_next_start(tmp_path: Path, writer: SegmentWriter) -> None:
    port = free_port()
    destination = otlp("otlp_grpc", "one", f"http://127.0.0.1:{port}", headers={"authorization": SECRET})
    with process(tmp_path, destination) as running:
        running.wait_ready()
        for number in range(5):
            writer.append(records.encode(record(call_id=f"call-{number}")))
        eventually(lambda: "not delivering" in running.log)
        running.child.send_signal(signal.SIGTERM)
        assert running.child.wait(20) == 0
        assert SECRET not in running.log
    writer.close()

    with GrpcReceiver(port=port) as receiver, process(tmp_path, destination) as again:
        eventually(lambda: len(receiver.spans) == 15)
        eventually(lambda: not list((tmp_path / "spool").glob("*.seg")))
        again.wait_ready()


def test_without_its_master_the_process_delivers_what_is_there_and_ends(tmp_path: Path, writer: SegmentWriter) -> None:
    with GrpcReceiver() as receiver, process(tmp_path, otlp("otlp_grpc", "one", receiver.endpoint)) as running:
        running.wait_ready()
        writer.append(records.encode(record()))
        running.master.close()

        assert running.child.wait(20) == 0
        assert len(receiver.spans) == 3
        assert "the master is gone" in running.log


def test_a_second_pipeline_waits_until_the_first_is_gone(tmp_path: Path) -> None:
    console = Destination("console", "console")
    with process(tmp_path, console) as first:
        first.wait_ready()
        with process(tmp_path, console) as second:
            time.sleep(0.3)
            assert second.child.poll() is None
            first.child.kill()
            second.wait_ready()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "https://c.example:4317", "certificate": "missing.pem"}, "there is no file missing.pem"),
        ({"endpont": "http://127.0.0.1:4317"}, "did you mean 'endpoint'"),
    ],
)
def test_a_destination_that_cannot_be_built_ends_the_start_with_the_reason(
    tmp_path: Path, options: Mapping[str, Any], said: str
) -> None:
    with process(tmp_path, Destination("otlp_grpc/mine", "otlp_grpc", options)) as running:
        assert running.child.wait(20) == 2
        (line,) = [json.loads(line) for line in running.log.splitlines()]

    assert said in line["msg"]


def test_what_was_in_flight_when_a_worker_was_killed_arrives_as_a_trace(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from otelgw.spool import Spool
from otelgw.tracing import record as records
from tests.test_spool import intent
from tests.tracing.records import record
spool = Spool(Path({str(tmp_path)!r}) / "spool", "w0_1_1")
settles = spool.intend(intent(trace_id="ab" * 16, span_id="cd" * 8))
spool.intend(intent())
spool.append(records.encode(record(trace_id="ab" * 16, span_id="cd" * 8)), settles=settles)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=False)
    assert killed.returncode == -signal.SIGKILL
    with GrpcReceiver() as receiver, process(tmp_path, otlp("otlp_grpc", "one", receiver.endpoint)) as running:
        running.wait_ready()
        eventually(lambda: len(receiver.spans) == 5)
        eventually(lambda: b'outcome="delivered"} 5' in read_metrics(str(tmp_path)))

    errors = [
        {pair.key: pair.value.string_value for pair in span.attributes}.get("error.type") for span in receiver.spans
    ]
    assert errors.count("worker_killed") == 2
    state = read_state(str(tmp_path))
    assert state is not None
    assert [each["name"] for each in state["destinations"]] == ["otlp_grpc/one"]


def test_what_a_destination_says_of_its_batches_is_what_the_pipeline_does() -> None:
    options = {"queue_url": "http://127.0.0.1:9/1/q", "region": "eu-west-1", "batch_size": 7, "flush_interval": 9.0}
    credentials = {"access_key_id": "key", "secret_access_key": "secret"}
    asked = Destination("aws_sqs", "aws_sqs", {**options, **credentials})
    usual = Destination("otlp_http", "otlp_http", {"endpoint": "http://127.0.0.1:9"})

    writer = pipeline_main.writers(Tracing(), "")

    own, others = (pipeline_main._built(each, 0, None, writer).batching for each in (asked, usual))

    assert (own.records, own.linger, own.first) == (7, 9.0, 9.0)
    assert others == Batching()
