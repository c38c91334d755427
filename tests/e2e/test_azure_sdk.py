"""A deployment of Azure OpenAI behind the gateway, asked by OpenAI's client and by Azure's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from otelgw.config.load import load
from tests.e2e.tree import Node, trees
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway
from tests.servers.upstream import ScriptedUpstream

HELLO: Any = [{"role": "user", "content": "hello"}]
CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/my-deployment
      api_base: "{url}"
      api_key: os.environ/AZURE_KEY
      api_version: "2024-10-21"
"""


@pytest.fixture(scope="module")
def azure(standing: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    path = tmp_path_factory.mktemp("azure") / "config.yaml"
    path.write_text(CONFIG.format(url=standing.url))
    with RunningGateway(load(str(path), {"AZURE_KEY": UPSTREAM_KEY}).deployments) as running:
        yield running


def assert_asked_azure(upstream: ScriptedUpstream, azure: RunningGateway, path: str) -> None:
    (asked,) = upstream.requests
    assert asked.target == f"/openai/deployments/my-deployment/{path}?api-version=2024-10-21"
    assert asked.header("api-key") == UPSTREAM_KEY
    assert asked.header("authorization") is None
    (seen,) = trees(map(Node.of_sdk, azure.spans()))
    assert seen.model.attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert seen.model.attributes["otelgw.model.alias"] == "gpt-4o"
    assert seen.model.attributes["gen_ai.request.model"] == "my-deployment"


def test_a_deployment_of_azure_answers_the_plain_client(azure: RunningGateway, upstream: ScriptedUpstream) -> None:
    with openai.OpenAI(base_url=f"{azure.url}/v1", api_key="sk-anything", max_retries=0) as client:
        made = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert made.choices[0].message.content == "echo: hello"
    assert_asked_azure(upstream, azure, "chat/completions")


def test_a_deployment_of_azure_answers_the_azure_client(azure: RunningGateway, upstream: ScriptedUpstream) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=azure.url, api_key="sk-anything", api_version="2024-06-01", max_retries=0
    ) as client:
        made = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert made.choices[0].message.content == "echo: hello"
    assert_asked_azure(upstream, azure, "chat/completions")
