"""The receiver process beside a gateway, as the master starts it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from otelgw.config.settings import Receiver, Settings, Spool
from otelgw.process import pack
from otelgw.receiver_main import GroupCommit, instance_of
from tests.collector.receiving import payloads, request, span, spans_of
from tests.servers.ports import free_port


class ReceiverProcess:
    """``python -m otelgw.receiver_main`` on ``settings``, with a master's two pipes."""

    def __init__(self, settings: Settings) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "otelgw.receiver_main", "--ready-fd", str(writer)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[writer], bufsize=0
        )
        os.close(writer)
        assert self.process.stdin is not None
        self.process.stdin.write(pack(settings))
        self.ready = os.read(reader, 16)
        os.close(reader)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the log."""
        assert self.process.stderr is not None
        log = self.process.stderr.read().decode()
        self.process.stderr.close()
        status = self.process.wait(20)
        assert self.process.stdin is not None
        self.process.stdin.close()
        return status, log


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    addresses = Receiver(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    return Settings(state_dir=str(tmp_path), receiver=addresses)


@pytest.fixture
def running(settings: Settings) -> Iterator[ReceiverProcess]:
    made = ReceiverProcess(settings)
    assert made.ready == b"ready\n"
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.end()


def send(settings: Settings, number: int, **resource: str) -> int:
    """Send a span by gRPC and one by HTTP; return how many were refused."""
    assert settings.receiver is not None
    with grpc.insecure_channel(settings.receiver.grpc) as channel:
        answer = TraceServiceStub(channel).Export(request(span(number), **resource), timeout=10)
    body = request(span(number + 1)).SerializeToString()
    url = f"http://{settings.receiver.http}/v1/traces"
    assert httpx.post(url, content=body, headers={"content-type": "application/x-protobuf"}).status_code == 200
    return int(answer.partial_success.rejected_spans)


def names(settings: Settings) -> list[str]:
    spool = Path(settings.state_dir) / "spool"
    return [each.name for payload in payloads(spool) for each in spans_of(payload)]


def test_both_ways_lead_into_the_spool_and_sigterm_exits_0(settings: Settings, running: ReceiverProcess) -> None:
    assert send(settings, 1) == 0
    running.process.send_signal(signal.SIGTERM)
    status, log = running.end()
    assert status == 0
    assert "received 2 requests with 2 spans" in log
    assert names(settings) == ["span 1", "span 2"]


def test_spans_of_the_gateway_beside_it_are_refused(settings: Settings, running: ReceiverProcess) -> None:
    assert send(settings, 1, service_instance_id=instance_of(settings)) == 1
    assert names(settings) == ["span 2"]


def test_it_ends_with_its_master(settings: Settings, running: ReceiverProcess) -> None:
    assert running.process.stdin is not None
    running.process.stdin.close()
    status, log = running.end()
    assert status == 0
    assert "the master is gone" in log


def test_what_is_acknowledged_survives_a_kill(settings: Settings, running: ReceiverProcess) -> None:
    send(settings, 1)
    running.process.kill()
    running.end()
    assert names(settings) == ["span 1", "span 2"]


def test_with_fsync_it_works_the_same(settings: Settings) -> None:
    made = ReceiverProcess(replace(settings, spool=Spool(fsync=True)))
    send(settings, 1)
    made.process.send_signal(signal.SIGTERM)
    assert made.end()[0] == 0
    assert names(settings) == ["span 1", "span 2"]


@pytest.mark.parametrize("name", ["grpc", "http"])
def test_a_busy_port_is_said_and_exits_1(
    settings: Settings, running: ReceiverProcess, tmp_path: Path, name: str
) -> None:
    assert settings.receiver is not None
    other = Receiver(**{"grpc": "", "http": "", name: getattr(settings.receiver, name)})
    (tmp_path / "other").mkdir()
    second = ReceiverProcess(replace(settings, receiver=other, state_dir=str(tmp_path / "other")))
    assert second.ready == b""
    status, log = second.end()
    assert status == 1
    assert f"choose another with otelgw.receiver.{name}" in log


def test_at_a_reload_the_next_one_waits_for_the_last(settings: Settings, running: ReceiverProcess) -> None:
    running.process.send_signal(signal.SIGTERM)
    following = ReceiverProcess(settings)
    assert following.ready == b"ready\n"
    assert running.end()[0] == 0
    assert send(settings, 1) == 0
    following.process.send_signal(signal.SIGTERM)
    assert following.end()[0] == 0


def test_an_unusable_certificate_is_said_and_exits_1(settings: Settings, tmp_path: Path) -> None:
    pem = tmp_path / "bad.pem"
    pem.write_text("nonsense")
    assert settings.receiver is not None
    bad = replace(settings.receiver, certfile=str(pem), keyfile=str(pem))
    made = ReceiverProcess(replace(settings, receiver=bad))
    status, log = made.end()
    assert status == 1
    assert "cannot be used" in log


def test_one_sync_serves_all_that_came_while_the_last_one_ran(tmp_path: Path) -> None:
    syncs = 0

    def unsynced() -> list[int]:
        nonlocal syncs
        syncs += 1
        return [os.open(tmp_path, os.O_RDONLY)]

    async def run() -> None:
        commit = GroupCommit(unsynced)
        await asyncio.gather(*(commit() for _ in range(50)))
        assert syncs == 1
        first = asyncio.ensure_future(commit())
        while syncs < 2:
            await asyncio.sleep(0)
        await asyncio.gather(first, *(commit() for _ in range(50)))

    asyncio.run(run())
    assert syncs == 3


def test_a_disk_that_refuses_to_sync_is_an_error_and_the_next_try_is_a_new_one(tmp_path: Path) -> None:
    reader, writer = os.pipe()  # what cannot be synced

    async def run() -> None:
        handles = [[writer], [os.open(tmp_path, os.O_RDONLY)]]
        commit = GroupCommit(lambda: handles.pop(0))
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            await commit()
        await commit()
        assert handles == []

    asyncio.run(run())
    os.close(reader)
