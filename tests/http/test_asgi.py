"""The gateway behind any other ASGI server: no connection of ours carries the request, and nothing else differs."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from otelgw.app import build
from otelgw.config.settings import Settings
from otelgw.tracing.record import Record
from tests.servers.gateway import MemorySpool, RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, chat, chat_stream

# New with every request, or made by the server and not by the gateway.
OTHER = {"date", "server", "connection", "transfer-encoding", "x-request-id"}
VARYING = ("call-id", "trace-id", "traceresponse", "server-timing", "duration-ms")
QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def alike(headers: httpx.Headers) -> list[tuple[str, str]]:
    return sorted(
        (name, "" if any(part in name for part in VARYING) else value)
        for name, value in headers.multi_items()
        if name not in OTHER
    )


async def asked(upstream: ScriptedUpstream, question: dict[str, object]) -> tuple[httpx.Response, Record]:
    spool = MemorySpool()
    gateway = build(Settings(deployments=(deployment(upstream.url),)), spool)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://127.0.0.1") as client:
        answer = await client.post("/v1/chat/completions", json=question)
    await gateway.relay.transport("http").aclose()
    await asyncio.sleep(0.01)
    return answer, spool.records.get(timeout=5)


@pytest.mark.parametrize("stream", [False, True], ids=["held", "streamed"])
def test_another_server_gives_the_same_headers_body_and_record(upstream: ScriptedUpstream, *, stream: bool) -> None:
    question = {**QUESTION, **({"stream": True, "stream_options": {"include_usage": True}} if stream else {})}
    upstream.answer_with(chat_stream() if stream else chat("hello there"))
    with RunningGateway([deployment(upstream.url)]) as running:
        ours = httpx.post(f"{running.url}/v1/chat/completions", json=question)
        recorded = running.record()

    theirs, record = asyncio.run(asked(upstream, question))

    assert (theirs.status_code, theirs.content) == (ours.status_code, ours.content)
    assert alike(theirs.headers) == alike(ours.headers)
    assert (record.status, record.sent_bytes, record.request, record.response) == (
        recorded.status,
        recorded.sent_bytes,
        recorded.request,
        recorded.response,
    )
    assert record.first_byte > 0
    assert recorded.first_byte > 0


def test_a_refusal_looks_the_same_behind_another_server(upstream: ScriptedUpstream) -> None:
    question = {**QUESTION, "model": "nobody-knows-it"}
    with RunningGateway([deployment(upstream.url)]) as running:
        ours = httpx.post(f"{running.url}/v1/chat/completions", json=question)

    theirs, record = asyncio.run(asked(upstream, question))

    assert (theirs.status_code, theirs.json()) == (ours.status_code, ours.json())
    assert alike(theirs.headers) == alike(ours.headers)
    assert record.status == theirs.status_code
