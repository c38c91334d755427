"""One gateway in front of one scripted provider for the tests of a module, configured from a file as a user does it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from otelgw.config.load import load
from tests.e2e.provider import provider
from tests.e2e.tree import Node, Tree, trees
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway
from tests.servers.upstream import ScriptedUpstream

Take = Callable[[], Tree]

CONFIG = """\
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "{url}/v1", api_key: os.environ/PROVIDER_KEY}}
  - model_name: impatient
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{url}/v1", api_key: os.environ/PROVIDER_KEY, timeout: 0.3}}
general_settings:
  pass_through: [files]
"""


@pytest.fixture(scope="module")
def standing() -> Iterator[ScriptedUpstream]:
    """The provider that stands for a whole module; tests use ``upstream``."""
    with ScriptedUpstream(provider) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(standing: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    path: Path = tmp_path_factory.mktemp("gateway") / "config.yaml"
    path.write_text(CONFIG.format(url=standing.url))
    settings = load(str(path), {"PROVIDER_KEY": UPSTREAM_KEY})
    with RunningGateway(settings.deployments, pass_through=settings.pass_through) as running:
        yield running


@pytest.fixture
def upstream(standing: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The provider, with nothing asked of it yet; what a test has it answer ends with the test."""
    standing.requests.clear()
    yield standing
    standing.answer_with(provider)


@pytest.fixture
def tree(gateway: RunningGateway) -> Iterator[Take]:
    """Return a function that returns the tree of the next request; a test must take all that its requests left."""
    with contextlib.suppress(queue.Empty):
        while True:
            gateway.spool.records.get_nowait()

    def take() -> Tree:
        (found,) = trees(map(Node.of_sdk, gateway.spans()))
        return found

    yield take
    assert gateway.spool.records.empty(), "a request left one trace more"


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-anything", max_retries=0) as made:
        yield made
