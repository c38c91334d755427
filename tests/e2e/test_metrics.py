"""The numbers of a whole gateway, several workers and a receiver among it: right, whoever dies meanwhile."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import grpc
import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from tests.collector.receiving import request, span
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import GrpcReceiver
from tests.servers.otlp_metrics import MetricsReceiver, metrics_in
from tests.servers.ports import free_port

CONFIG = """\
model_list:
  - {{model_name: echo, litellm_params: {{model: echo/echo}}}}
otelgw:
  destinations: [{{name: otlp_grpc, endpoint: "http://127.0.0.1:{spans}"}}]
  receiver: {{grpc: "127.0.0.1:{grpc}", http: "127.0.0.1:{http}", token: secret}}
  metrics: {{otlp: {{endpoint: "{metrics}", interval: 0.5}}}}
"""
MEANT = (("authorization", "Bearer secret"),)


def ask(gateway: GatewayProcess, count: int) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    for _ in range(count):
        with httpx.Client() as caller:  # another connection, perhaps to another worker
            assert caller.post(f"{gateway.url}/v1/chat/completions", json=body).status_code == 200


def talk_nonsense(gateway: GatewayProcess, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", gateway.port), 10) as caller:
            caller.sendall(b"NONSENSE\r\n\r\n")
            assert caller.recv(65536).startswith(b"HTTP/1.1 400")


def scraped(gateway: GatewayProcess) -> dict[str, float]:
    text = httpx.get(f"{gateway.url}/metrics").text
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def total(gateway: GatewayProcess, name: str, *labels: str) -> float:
    found = scraped(gateway).items()
    return sum(value for key, value in found if re.match(rf"{name}({{|$)", key) and all(each in key for each in labels))


def pushed(requests: list[ExportMetricsServiceRequest], name: str, attribute: str) -> int:
    """Return the last value that was sent for the point whose attributes have the value ``attribute``."""
    for sent in reversed(requests):
        for point in metrics_in(sent)[name].sum.data_points if name in metrics_in(sent) else ():
            if attribute in {item.value.string_value for item in point.attributes}:
                return int(point.as_int)
    return 0


def test_the_numbers_are_those_of_all_processes_and_survive_each_of_them(tmp_path: Path) -> None:
    ports = {"grpc": free_port(), "http": free_port()}
    with GrpcReceiver() as spans, MetricsReceiver() as metrics:
        config = CONFIG.format(spans=spans.port, metrics=metrics.endpoint, **ports)
        with GatewayProcess(config, tmp_path, "--workers", "2") as gateway:
            ask(gateway, 12)
            talk_nonsense(gateway, 9)
            with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
                TraceServiceStub(channel).Export(
                    request(span(1), span(2)), timeout=20, wait_for_ready=True, metadata=MEANT
                )
            assert httpx.post(f"http://127.0.0.1:{ports['http']}/v1/traces").status_code == 401

            def are_right(refused: int) -> bool:
                return (
                    total(gateway, "gen_ai_client_operation_duration_seconds_count") == 12
                    and total(gateway, "http_server_request_duration_seconds_count", 'status_code="200"') == 12
                    and total(gateway, "otelgw_http_refusals_total", 'reason="refused"') == refused
                    and total(gateway, "otelgw_receiver_spans_total", "accepted") == 2
                    and total(gateway, "otelgw_receiver_requests_total", 'protocol="grpc"', 'answer="accepted"') == 1
                    and total(gateway, "otelgw_receiver_requests_total", 'answer="unauthorized"') == 1
                )

            gateway.wait_until(lambda: are_right(9))
            workers = gateway.children("otelgw.worker")
            for pid in (*workers[:1], *gateway.children("otelgw.receiver_main")):
                os.kill(pid, signal.SIGKILL)
            gateway.wait_until(lambda: len(gateway.children("otelgw.worker")) == 2)
            gateway.wait_until(lambda: are_right(9))
            talk_nonsense(gateway, 3)
            gateway.wait_until(lambda: are_right(12))
            gateway.wait_until(
                lambda: total(gateway, "otelgw_destination_spans_total", "delivered") == len(spans.spans) > 2 * 12, 20
            )
            delivered = len(spans.spans)
            gateway.wait_until(lambda: pushed(metrics.received, "otelgw.http.refusals", "refused") == 12)
            gateway.wait_until(
                lambda: pushed(metrics.received, "otelgw.destination.spans", "delivered") == delivered, 20
            )
            assert gateway.stop() == 0, gateway.errors.read_text()
