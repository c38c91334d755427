"""The whole gateway as a user runs it: master, workers, pipeline; what signals, kills and reloads do to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from otelgw.config.settings import Server, Settings
from otelgw.errors import StartError
from otelgw.supervisor import bind, lock_state
from tests.servers.gateway import GatewayProcess
from tests.servers.upstream import ScriptedUpstream, chat_stream, head_size, openai, split_every, stall_after

WORKER, PIPELINE = "otelgw.worker", "otelgw.pipeline_main"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
KINDS = ["hypercorn", "uvicorn"]


def config(upstream: str, *models: str, server: str = "", destination: str = "console") -> str:
    rows = "".join(
        f"  - model_name: {model}\n"
        f'    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: k}}\n'
        for model in models or ("m",)
    )
    return f"model_list:\n{rows}otelgw:\n  destinations: [{destination}]\n  server: {{{server}}}\n"


def spans(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """Return the spans that the console destination has written: JSON objects one after the other."""
    text, found = gateway.output.read_text(), []
    decoder, at = json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        try:
            span, at = decoder.raw_decode(text, at)
        except ValueError:
            break
        found.append(span)
    return found


def traces(gateway: GatewayProcess) -> set[str]:
    return {span["context"]["trace_id"].removeprefix("0x") for span in spans(gateway)}


def errors_of(gateway: GatewayProcess) -> set[str]:
    return {str(span["attributes"]["error.type"]) for span in spans(gateway) if "error.type" in span["attributes"]}


def call(gateway: GatewayProcess, client: httpx.Client | None = None, **fields: Any) -> httpx.Response:
    post = client.post if client is not None else httpx.post
    return post(f"{gateway.url}/v1/chat/completions", json=CHAT | fields, timeout=20)


def answers(gateway: GatewayProcess) -> bool:
    try:
        return call(gateway).status_code == 200
    except httpx.TransportError:
        return False


def log(gateway: GatewayProcess) -> str:
    return gateway.errors.read_text()


class Stream:
    """A streamed answer that goes on in a thread until its upstream is told to finish."""

    def __init__(self, gateway: GatewayProcess, model: str = "m") -> None:
        self.begun = threading.Event()
        self.body = b""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(gateway.url, model), daemon=True)
        self._thread.start()
        assert self.begun.wait(15)

    def _run(self, url: str, model: str) -> None:
        try:
            body = CHAT | {"model": model, "stream": True}
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as reply:
                for part in reply.iter_raw():
                    self.body += part
                    self.begun.set()
        except httpx.HTTPError as error:
            self.error = error
        finally:
            self.begun.set()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def whole(self) -> bool:
        return self.error is None and self.body.endswith(b"data: [DONE]\n\n")


def slow_stream(seconds: float) -> Any:
    """Return a script for a stream that takes about ``seconds``."""
    script = chat_stream("one two three four five six seven eight")
    return split_every(script, 200, seconds / (len(b"".join(getattr(s, "data", b"") for s in script.steps)) / 200))


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(openai) as running:
        yield running


Start = Callable[..., GatewayProcess]


@pytest.fixture
def start(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[Start]:
    running: list[GatewayProcess] = []

    def begin(*models: str, server: str = "drain: 10", arguments: tuple[str, ...] = ()) -> GatewayProcess:
        gateway = GatewayProcess(config(upstream.url, *models, server=server), tmp_path, *arguments)
        running.append(gateway)
        return gateway.__enter__()

    yield begin
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.process.kill()
            gateway.process.wait(5)


# Starting


def test_what_it_prints_at_start_can_be_pasted(tmp_path: Path) -> None:
    with GatewayProcess(None, tmp_path) as gateway:
        first, *_, last = log(gateway).splitlines()
        assert re.match(r"otelgw \S+  http://127\.0\.0\.1:\d+  models: .*echo.*  destinations: console", first)
        line = re.fullmatch(r"try:  (curl .*)", last)
        assert line is not None
        bash = shutil.which("bash")
        if bash is None or shutil.which("curl") is None:
            pytest.skip("no bash and curl to paste it into")
        done = subprocess.run([bash, "-c", line[1]], capture_output=True, text=True, timeout=20, check=True)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]
        assert gateway.stop() == 0
        assert gateway.output.read_text().count('"name": "chat echo"') == 1


def test_a_busy_port_is_named(start: Start, tmp_path: Path) -> None:
    gateway = start()
    second = tmp_path / "second"
    second.mkdir()
    other = GatewayProcess(None, second, "--port", str(gateway.port))
    assert other.process.wait(20) == 1
    assert f"127.0.0.1:{gateway.port}" in log(other)
    assert "Traceback" not in log(other)


def test_a_second_instance_on_the_same_state_is_refused_with_the_holders_pid(start: Start, tmp_path: Path) -> None:
    gateway = start()
    second = tmp_path / "second"
    second.mkdir()
    other = GatewayProcess(None, second, env={"OTELGW_STATE_DIR": str(gateway.state)})
    assert other.process.wait(20) == 1
    assert f"pid {gateway.process.pid}." in log(other)
    assert str(gateway.state) in log(other)


def test_a_certificate_that_cannot_be_used_fails_the_start(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    server = "ssl_certfile: cert.pem, ssl_keyfile: key.pem"
    gateway = GatewayProcess(config(upstream.url, server=server), tmp_path)
    assert gateway.process.wait(20) in {1, 2}
    assert "cert.pem" in log(gateway)
    assert "Traceback" not in log(gateway)


def test_what_it_writes_is_for_its_user_only(start: Start) -> None:
    gateway = start()
    assert answers(gateway)
    gateway.wait_until(lambda: traces(gateway))
    assert (gateway.state.stat().st_mode & 0o777) == 0o700
    found = list(gateway.state.rglob("*"))
    assert {path.name for path in found} >= {"spool", "otelgw.lock", "pipeline.db"}
    for path in found:
        assert (path.stat().st_mode & 0o777) == (0o700 if path.is_dir() else 0o600), path
    assert gateway.stop() == 0


def test_the_masters_children_are_in_its_group_and_as_many_as_asked_for(start: Start) -> None:
    gateway = start(arguments=("--workers", "2"))
    children = gateway.children(WORKER) + gateway.children(PIPELINE)
    assert len(children) == 3
    assert {os.getpgid(pid) for pid in children} == {os.getpgid(gateway.process.pid)}
    assert all(answers(gateway) for _ in range(10))
    assert gateway.stop() == 0


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:4000"):
        bind(Settings(server=Server(host="192.0.2.1", port=4000)))


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="file/state cannot be used"):
        lock_state(tmp_path / "file" / "state")


# Dying


def test_a_killed_worker_is_started_again_and_service_goes_on(start: Start) -> None:
    gateway = start(arguments=("--workers", "2"))
    victim, other = gateway.children(WORKER)
    os.kill(victim, signal.SIGKILL)
    gateway.wait_until(lambda: len(set(gateway.children(WORKER)) - {victim}) == 2)
    assert other in gateway.children(WORKER)
    assert "ended with status -9; starting it again in 0.1 s" in log(gateway)
    gateway.wait_until(lambda: answers(gateway))
    assert gateway.stop() == 0


def test_a_worker_that_dies_again_and_again_is_started_ever_more_rarely(start: Start) -> None:
    gateway = start()
    for wait in ("0.1", "0.2", "0.4"):
        (victim,) = gateway.children(WORKER)
        os.kill(victim, signal.SIGKILL)
        gateway.wait_until(lambda wait=wait: f"starting it again in {wait} s" in log(gateway))  # type: ignore[misc]
        gateway.wait_until(lambda victim=victim: set(gateway.children(WORKER)) - {victim})  # type: ignore[misc]
    gateway.wait_until(lambda: answers(gateway))
    assert gateway.stop() == 0


def test_a_killed_pipeline_is_started_again_and_every_record_arrives(start: Start) -> None:
    gateway = start()
    sent = {call(gateway).headers["x-otelgw-trace-id"]}
    (victim,) = gateway.children(PIPELINE)
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):
        reply = call(gateway)
        assert reply.status_code == 200
        sent.add(reply.headers["x-otelgw-trace-id"])
    gateway.wait_until(lambda: sent <= traces(gateway))
    assert gateway.stop() == 0


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that nobody waits for has ended all the same.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_children_end_by_themselves_when_the_master_is_killed(start: Start, upstream: ScriptedUpstream) -> None:
    gateway = start()
    upstream.answer_with(slow_stream(1))
    children = gateway.children(WORKER) + gateway.children(PIPELINE)
    running = Stream(gateway)
    gateway.process.kill()
    gateway.process.wait(5)

    def is_free() -> bool:
        try:
            bind(Settings(server=Server(port=gateway.port))).close()
        except StartError:
            return False
        return True

    gateway.wait_until(is_free)
    running.join()
    assert running.whole
    gateway.wait_until(lambda: not any(_is_running(pid) for pid in children))


# Stopping


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_lets_a_stream_finish_refuses_what_is_new_and_loses_nothing(
    start: Start, upstream: ScriptedUpstream, kind: str
) -> None:
    gateway = start(server=f"drain: 15, kind: {kind}")
    sent = {call(gateway).headers["x-otelgw-trace-id"]}
    upstream.answer_with(slow_stream(1.2))
    running = Stream(gateway)
    with httpx.Client() as kept:
        sent.add(kept.get(f"{gateway.url}/v1/models").headers["x-otelgw-trace-id"])
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait_until(lambda: httpx.get(f"{gateway.url}/health/readiness").status_code == 503)
        for client in (kept, None):
            refused = call(gateway, client)
            assert refused.status_code == 503
            assert refused.headers["retry-after"].isdigit()
            assert refused.json()["error"]["code"] == "draining"
            sent.add(refused.headers["x-otelgw-trace-id"])
    running.join()
    assert running.whole
    assert gateway.process.wait(20) == 0
    assert sent <= traces(gateway)
    assert len(traces(gateway)) == len(sent) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_beyond_the_drain_limit_is_cut_and_recorded(
    start: Start, upstream: ScriptedUpstream, kind: str
) -> None:
    gateway = start(server=f"drain: 0.3, kind: {kind}")
    script = chat_stream("hello")
    upstream.answer_with(stall_after(script, head_size(script) + 300))
    running = Stream(gateway)
    assert gateway.stop() == 0
    running.join()
    assert running.error is not None
    assert errors_of(gateway) == {"shutdown"}


def test_a_second_signal_ends_it_at_once(start: Start, upstream: ScriptedUpstream) -> None:
    gateway = start(server="drain: 600")
    script = chat_stream("hello")
    upstream.answer_with(stall_after(script, head_size(script) + 300))
    children = gateway.children(WORKER) + gateway.children(PIPELINE)
    running = Stream(gateway)
    gateway.process.send_signal(signal.SIGTERM)
    gateway.wait_until(lambda: httpx.get(f"{gateway.url}/health/readiness").status_code == 503)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(10) == 1
    running.join()
    assert not any(_is_running(pid) for pid in children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "service-manager"])
def test_a_signal_to_every_process_drains_as_one_to_the_master_does(
    tmp_path: Path, upstream: ScriptedUpstream, number: signal.Signals
) -> None:
    """A terminal sends ^C to its whole group; systemd sends SIGTERM to every process of a service."""
    upstream.answer_with(slow_stream(1))
    gateway = GatewayProcess(config(upstream.url, server="drain: 15"), tmp_path, group=True)
    with gateway:
        running = Stream(gateway)
        os.killpg(gateway.process.pid, number)
        running.join()
        assert running.whole
        assert gateway.process.wait(20) == 0
        assert len(traces(gateway)) == 1
        assert errors_of(gateway) == set()


def test_a_signal_while_starting_ends_it_with_0(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gateway = GatewayProcess(config(upstream.url), tmp_path)
    gateway.wait_until(lambda: gateway.children(WORKER))
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(20) == 0
    assert "Traceback" not in log(gateway)


# Reloading


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_brings_new_models_and_breaks_nothing(start: Start, upstream: ScriptedUpstream, kind: str) -> None:
    gateway = start(server=f"drain: 15, kind: {kind}")
    assert call(gateway, model="new").status_code == 404
    upstream.answer_with(slow_stream(1.8))
    running = Stream(gateway)
    upstream.answer_with(openai)
    failures: list[Any] = []
    done = threading.Event()

    def load() -> None:
        with httpx.Client() as client:
            while not done.is_set():
                try:
                    reply = call(gateway, client)
                except httpx.HTTPError as error:
                    failures.append(error)
                else:
                    if reply.status_code != 200:
                        failures.append(reply.text)

    callers = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    for caller in callers:
        caller.start()
    old = gateway.children(WORKER)
    gateway.config.write_text(config(upstream.url, "m", "new", server=f"drain: 15, kind: {kind}"))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_until(lambda: "configuration reloaded" in log(gateway))
    gateway.wait_until(lambda: call(gateway, model="new").status_code == 200)
    running.join()
    gateway.wait_until(lambda: not set(old) & set(gateway.children(WORKER)))
    done.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert running.whole
    assert gateway.stop() == 0


def test_a_config_with_errors_changes_nothing_and_every_problem_is_logged(start: Start) -> None:
    gateway = start()
    children = gateway.children(WORKER) + gateway.children(PIPELINE)
    gateway.config.write_text("model_list: []\notelgw:\n  server: {drane: 1}\n  trust: maybe\n")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_until(lambda: "the old configuration stays" in log(gateway))
    assert "the old configuration stays: 2 problems" in log(gateway)
    assert "drane" in log(gateway)
    assert "otelgw.trust" in log(gateway)
    assert answers(gateway)
    assert gateway.children(WORKER) + gateway.children(PIPELINE) == children
    assert gateway.stop() == 0


def test_new_workers_that_cannot_serve_leave_the_old_ones_at_work(
    start: Start, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gateway = start()
    workers = gateway.children(WORKER)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    gateway.config.write_text(config(upstream.url, server="ssl_certfile: cert.pem, ssl_keyfile: key.pem"))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_until(lambda: "the old configuration stays" in log(gateway))
    assert gateway.children(WORKER) == workers
    assert answers(gateway)
    assert gateway.stop() == 0


def test_a_reload_can_change_the_destinations_and_the_number_of_workers(
    start: Start, upstream: ScriptedUpstream
) -> None:
    gateway = start()
    before = call(gateway).headers["x-otelgw-trace-id"]
    gateway.wait_until(lambda: before in traces(gateway))
    gateway.config.write_text(config(upstream.url, server="workers: 2", destination="{name: console, on: failure}"))
    old = gateway.children(PIPELINE)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_until(lambda: "configuration reloaded" in log(gateway))
    gateway.wait_until(lambda: not set(old) & set(gateway.children(PIPELINE)))
    gateway.wait_until(lambda: len(gateway.children(WORKER)) == 2)
    ok, failed = call(gateway), call(gateway, model="nowhere")
    gateway.wait_until(lambda: failed.headers["x-otelgw-trace-id"] in traces(gateway))
    assert ok.headers["x-otelgw-trace-id"] not in traces(gateway)
    assert gateway.stop() == 0


def test_a_reload_with_a_destination_that_cannot_be_made_changes_nothing(
    start: Start, upstream: ScriptedUpstream
) -> None:
    gateway = start()
    pipelines = gateway.children(PIPELINE)
    broken = "{name: s3, bucket: b, region: eu-west-1, access_key_id: half-of-an-identity}"
    gateway.config.write_text(config(upstream.url, destination=broken))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_until(lambda: "the old configuration stays" in log(gateway))
    arrived = call(gateway).headers["x-otelgw-trace-id"]
    gateway.wait_until(lambda: arrived in traces(gateway))
    assert gateway.children(PIPELINE) == pipelines
    assert gateway.stop() == 0


def test_a_stop_soon_after_a_reload_still_lets_streams_of_both_finish(start: Start, upstream: ScriptedUpstream) -> None:
    gateway = start(server="drain: 15")
    upstream.answer_with(slow_stream(2.5))
    old = Stream(gateway)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_until(lambda: "configuration reloaded" in log(gateway))
    time.sleep(0.1)  # for the old worker to have stopped accepting
    new = Stream(gateway)
    assert gateway.stop(25) == 0
    old.join()
    new.join()
    assert old.whole
    assert new.whole
    assert len(traces(gateway)) == 2
