"""LiteLLM's configs for buckets, queues and tables, run as they are: what is asked of the gateway arrives there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import S3Store

from tests.exporters.objects import found
from tests.exporters.test_payload import check
from tests.servers import require
from tests.servers.amazon import client, table
from tests.servers.gateway import GatewayProcess
from tests.servers.moto import Moto
from tests.servers.seaweedfs import BUCKET, KEY_ID, SECRET, SeaweedFs

ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "what llm are you"}]}
MODELS = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: sk-not-used
      mock_response: I am a mock
"""
S3 = """
litellm_settings:
  success_callback: ["s3_v2"]
  enable_preview_features: true
  s3_callback_params:
    s3_bucket_name: logs
    s3_region_name: us-west-2
    s3_aws_access_key_id: os.environ/AWS_ACCESS_KEY_ID
    s3_aws_secret_access_key: os.environ/AWS_SECRET_ACCESS_KEY
    s3_path: my-test-path
    s3_endpoint_url: {url}
    s3_use_team_prefix: true
    s3_flush_interval: 1
"""
SQS = """
litellm_settings:
  callbacks: ["aws_sqs", "dynamodb"]
  dynamodb_table_name: calls
  aws_sqs_callback_params:
    sqs_queue_url: {queue}
    sqs_region_name: us-west-2
    sqs_aws_access_key_id: os.environ/AWS_ACCESS_KEY_ID
    sqs_aws_secret_access_key: os.environ/AWS_SECRET_ACCESS_KEY
    sqs_batch_size: 10
    sqs_flush_interval: 1
"""


def ask(gateway: GatewayProcess) -> str:
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=ASKED, timeout=20)
    assert answer.status_code == 200
    return answer.headers["x-litellm-call-id"]


def test_the_seeds_bucket_gets_what_was_asked(tmp_path: Path) -> None:
    with SeaweedFs(require("seaweedfs")) as server:
        given: Any = {
            "endpoint": server.url,
            "region": "us-west-2",
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
        }
        store = S3Store(BUCKET, client_options={"allow_http": True}, **given)
        env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        with GatewayProcess(MODELS + S3.format(url=server.url), tmp_path, env=env) as gateway:
            calls = {ask(gateway) for _ in range(3)}
            gateway.wait_until(lambda: sum(map(len, found(store).values())) >= 3, 30)
        objects = found(store)
    assert all(key.startswith("my-test-path/date=") for key in objects)  # no team, no prefix
    lines = [line for lines in objects.values() for line in lines]
    assert {line["id"] for line in lines} == calls
    for line in lines:
        check(line)
        assert line["messages"] == ASKED["messages"]
    for path in (gateway.output, gateway.errors):
        assert SECRET not in path.read_text()


def test_the_seeds_queue_and_a_table_get_what_was_asked(tmp_path: Path) -> None:
    with Moto(require("moto")) as server:
        sqs, tables = (client(name, server.url, "us-west-2") for name in ("sqs", "dynamodb"))
        queue = sqs.create_queue(QueueName="my-queue")["QueueUrl"]
        table(tables, "calls")
        env = {"AWS_ACCESS_KEY_ID": "AKIAE2E", "AWS_SECRET_ACCESS_KEY": "e2e-secret-canary"}
        env |= {"AWS_REGION_NAME": "us-west-2", "AWS_ENDPOINT_URL_DYNAMODB": server.url}
        with GatewayProcess(MODELS + SQS.format(queue=queue), tmp_path, env=env) as gateway:
            calls = {ask(gateway) for _ in range(3)}
            gateway.wait_until(lambda: tables.scan(TableName="calls")["Count"] == 3)
            received: list[dict[str, Any]] = []

            def arrived() -> bool:
                got = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
                received.extend(json.loads(message["Body"]) for message in got)
                return len(received) == 3

            gateway.wait_until(arrived)
        items = tables.scan(TableName="calls")["Items"]
    assert {payload["id"] for payload in received} == calls
    assert {item["call_id"]["S"] for item in items} == calls
    for path in (gateway.output, gateway.errors):
        assert "canary" not in path.read_text()


@pytest.mark.parametrize("extra", ["", "    s3_strip_base64_files: true\n"])
def test_check_is_content_with_the_seeds_config(tmp_path: Path, extra: str) -> None:
    import subprocess
    import sys

    path = tmp_path / "config.yaml"
    path.write_text(MODELS + S3.format(url="https://s3.amazonaws.com") + extra)
    (tmp_path / ".env").write_text('AWS_ACCESS_KEY_ID = "AKIA"\nAWS_SECRET_ACCESS_KEY = "dot-secret-canary"\n')
    command = [sys.executable, "-m", "otelgw.cli", "check", "--strict", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
