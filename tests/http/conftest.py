"""One gateway in front of one scripted upstream for all tests of a module that need no other configuration."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator

import pytest

from otelgw.tracing.record import Price
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, openai

PRICE = Price("config", input_per_token=1e-6, output_per_token=2e-6)


@pytest.fixture(scope="module")
def standing_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def standing_gateway(standing_upstream: ScriptedUpstream) -> Iterator[RunningGateway]:
    url = standing_upstream.url
    with RunningGateway([deployment(url, price=PRICE)], pass_through=("files",)) as running:
        yield running


@pytest.fixture
def upstream(standing_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The upstream, with nothing asked of it yet; what a test has it answer ends with the test."""
    standing_upstream.requests.clear()
    yield standing_upstream
    standing_upstream.answer_with(openai)


@pytest.fixture
def gateway(standing_gateway: RunningGateway) -> Iterator[RunningGateway]:
    """The gateway, with no record left over; a test must take all records that its requests left."""
    with contextlib.suppress(queue.Empty):
        while True:
            standing_gateway.spool.records.get_nowait()
    yield standing_gateway
    assert standing_gateway.spool.records.empty(), "a request left one record more"
