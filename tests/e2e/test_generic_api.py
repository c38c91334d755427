"""LiteLLM's configs for endpoints of one's own, run as they are: each gets the calls that are for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.exporters.stand_ins import StandIn, declared
from tests.exporters.test_payload import check
from tests.exporters.vendor import Vendor, serve
from tests.servers.gateway import GatewayProcess

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_key: sk-not-used, mock_response: I am a mock}}
litellm_settings:
  success_callback: ["generic_api", "my_logs"]
  failure_callback: ["datadog"]
callback_settings:
  my_logs:
    callback_type: generic_api
    endpoint: {mine}/mine
    headers: {{Authorization: Bearer os.environ/MY_TOKEN}}
    log_format: ndjson
"""
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "what llm are you"}]}


def stand_in(name: str) -> StandIn:
    found = declared(name)
    assert found is not None
    return found


def ndjson() -> StandIn:
    """An endpoint that is sent a payload a line."""
    return StandIn(items=lambda request: [json.loads(line)["id"] for line in request.body.splitlines()])


def payloads(vendor: Vendor) -> list[dict[str, Any]]:
    found = [payload for arrived in vendor.arrived for payload in json.loads(arrived.request.body)]
    for payload in found:
        check(payload)
    return found


def test_endpoints_by_variables_and_by_names_get_successes_and_datadog_the_failures(tmp_path: Path) -> None:
    with serve(stand_in("generic_api")) as given, serve(ndjson()) as mine, serve(stand_in("datadog")) as datadog:
        env = {
            "GENERIC_LOGGER_ENDPOINT": f"{given.origin}/30343bc33591bc5e6dc44217ceae3e0a",
            "GENERIC_LOGGER_HEADERS": "Authorization=Bearer given-token,X-Custom-Header=custom-header-value",
            "MY_TOKEN": "my-token-0123456789",
            "DD_BASE_URL": datadog.origin,
            "DD_API_KEY": "datadog-key-0123456789abcdef",
        }
        without = {"x-litellm-disable-callbacks": "my_logs", "x-litellm-call-id": "without"}
        with (
            GatewayProcess(CONFIG.format(mine=mine.origin), tmp_path, env=env) as gateway,
            httpx.Client(base_url=gateway.url, trust_env=False, timeout=20) as client,
        ):
            assert client.post("/chat/completions", json=ASKED, headers={"x-litellm-call-id": "both"}).is_success
            assert client.post("/chat/completions", json=ASKED, headers=without).is_success
            refused = client.post("/chat/completions", json=ASKED | {"model": "nobody"})
            assert refused.status_code == 404
            gateway.wait_until(lambda: len(given.items()) == 2 and mine.items() and datadog.items())
            gateway.stop()

    assert {each["id"] for each in payloads(given)} == {"both", "without"}
    assert payloads(given)[0]["response"]["choices"][0]["message"]["content"] == "I am a mock"
    request = given.arrived[0].request
    assert request.path == "/30343bc33591bc5e6dc44217ceae3e0a"
    assert request.headers["authorization"] == "Bearer given-token"
    assert request.headers["x-custom-header"] == "custom-header-value"
    assert mine.items() == ["both"]
    assert mine.arrived[0].request.headers["authorization"] == "Bearer my-token-0123456789"
    assert mine.arrived[0].request.headers["content-type"] == "application/x-ndjson"
    (log,) = [log for arrived in datadog.arrived for log in json.loads(arrived.request.body)]
    assert json.loads(log["message"])["otelgw"]["error_type"] == "model_not_found"
    assert log["status"] == "error"
    told = gateway.errors.read_text() + gateway.output.read_text()
    assert not [secret for secret in env.values() if "://" not in secret and secret in told]
