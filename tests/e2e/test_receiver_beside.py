"""The receiver beside a gateway, started and stopped by its master."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from tests.collector.receiving import request, span
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import GrpcReceiver
from tests.servers.ports import free_port

CONFIG = """\
otelgw:
  destinations: [{{name: otlp_grpc, endpoint: "http://127.0.0.1:{destination}"}}]
  receiver: {{grpc: "127.0.0.1:{grpc}", http: off{more}}}
"""


def send(port: int, number: int, **options: object) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked = request(span(number), service_name="app")
        TraceServiceStub(channel).Export(asked, timeout=20, wait_for_ready=True, **options)


def test_spans_of_others_take_the_gateways_way_through_reloads_and_kills(tmp_path: Path) -> None:
    port = free_port()
    with GrpcReceiver() as destination:
        config = CONFIG.format(destination=destination.port, grpc=port, more="")
        with GatewayProcess(config, tmp_path) as gateway:

            def arrived(number: int) -> None:
                gateway.wait_until(lambda: f"span {number}" in {each.name for each in destination.spans})

            send(port, 1)
            arrived(1)
            (pid,) = gateway.children("otelgw.receiver_main")
            os.kill(pid, signal.SIGKILL)
            gateway.wait_until(lambda: gateway.children("otelgw.receiver_main") not in ([], [pid]))
            send(port, 2)
            arrived(2)
            gateway.config.write_text(CONFIG.format(destination=destination.port, grpc=port, more=", token: secret"))
            gateway.process.send_signal(signal.SIGHUP)
            gateway.wait_until(lambda: "configuration reloaded" in gateway.errors.read_text())
            gateway.wait_until(lambda: len(gateway.children("otelgw.receiver_main")) == 1)
            send(port, 3, metadata=(("authorization", "Bearer secret"),))
            arrived(3)
            assert gateway.stop() == 0, gateway.errors.read_text()
