"""What goes wrong reaches the OpenAI SDK as the exception that it would be without the gateway, and is on the spans."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from otelgw.config.settings import Auth
from tests.e2e.conftest import Take
from tests.e2e.provider import provider
from tests.e2e.tree import Node, Tree, trees
from tests.servers import upstream as scripts
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import Script, ScriptedUpstream

MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "hello"}]
MASTER = "sk-master-of-the-tests"
STREAM = scripts.chat_stream("one two three four five")


def ask(client: openai.OpenAI, model: str = MODEL) -> str | None:
    return client.chat.completions.create(model=model, messages=HELLO).choices[0].message.content


def ask_streamed(client: openai.OpenAI, heard: list[str]) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    heard.extend(chunk.choices[0].delta.content or "" for chunk in stream)


def assert_failed(seen: Tree, error_type: str) -> None:
    """The generation and its last attempt failed, for this reason."""
    for span in (seen.model, seen.attempts[-1]):
        assert span.failed
        assert span.attributes["error.type"] == error_type


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_upstreams_error_is_raised_as_its_class(
    client: openai.OpenAI,
    upstream: ScriptedUpstream,
    tree: Take,
    status: int,
    raised: type[openai.APIStatusError],
    streamed: bool,
) -> None:
    told = [(b"Retry-After", b"7"), (b"x-ratelimit-remaining-requests", b"0"), (b"x-request-id", b"req_failed")]
    upstream.answer_with(scripts.error(status, "scripted fault", headers=told, kind="scripted_type"))
    with pytest.raises(raised, match="scripted fault") as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=streamed)
    error = caught.value
    assert type(error) is raised
    assert (error.status_code, error.request_id, error.type) == (status, "req_failed", "scripted_type")
    assert error.response.headers["retry-after"] == "7"
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
    seen = tree()
    assert error.response.headers["x-otelgw-trace-id"] == seen.server.trace_id
    assert_failed(seen, str(status))
    assert seen.server.attributes["http.response.status_code"] == status
    assert seen.server.failed is (status >= 500)
    assert seen.attempts[0].attributes["http.response.status_code"] == status
    assert seen.usage() == (None, None)


def test_an_error_that_is_no_json_is_passed_on_as_it_is(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    upstream.answer_with(scripts.answer(502, b"<html>bad gateway</html>", content_type=b"text/html"))
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.response.text == "<html>bad gateway</html>"
    assert_failed(tree(), "502")


def test_an_unknown_model_is_not_found_and_the_nearest_is_named(tree: Take, standing: ScriptedUpstream) -> None:
    with (
        RunningGateway([deployment(standing.url)]) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0) as client,
    ):
        with pytest.raises(openai.NotFoundError, match="Did you mean 'gpt-4o-mini'") as caught:
            ask(client, "gpt-4-mini")
        (seen,) = trees(map(Node.of_sdk, gateway.spans()))
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert (seen.generation, seen.attempts) == (None, ())
    assert seen.server.attributes["error.type"] == "model_not_found"
    assert not seen.server.failed


@pytest.fixture
def locked(standing: ScriptedUpstream) -> Iterator[RunningGateway]:
    auth = Auth(master_key_sha256=hashlib.sha256(MASTER.encode()).hexdigest())
    with RunningGateway([deployment(standing.url)], auth=auth) as running:
        yield running


def test_a_wrong_key_is_an_authentication_error_and_its_body_is_not_recorded(locked: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(client)
        payload = locked.spool.payloads[-1]
        (refused,) = trees(map(Node.of_sdk, locked.spans()))
        assert ask(client.with_options(api_key=MASTER)) == "echo: hello"
        (served,) = trees(map(Node.of_sdk, locked.spans()))
    assert caught.value.code == "unauthorized"
    assert refused.server.attributes["error.type"] == "unauthorized"
    assert (refused.generation, refused.attempts) == (None, ())
    assert b"hello" not in payload
    assert b"sk-wrong" not in payload
    assert served.server.attributes["otelgw.key.hash"] == hashlib.sha256(MASTER.encode()).hexdigest()
    assert "otelgw.key.hash" not in refused.server.attributes


def test_an_upstream_that_cannot_be_reached_is_502() -> None:
    with (
        RunningGateway([deployment(f"http://127.0.0.1:{scripts.refused_port()}")]) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
        (seen,) = trees(map(Node.of_sdk, gateway.spans()))
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_connect")
    assert_failed(seen, "upstream_connect")
    assert seen.server.failed


def test_an_upstream_that_says_nothing_is_504(client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take) -> None:
    upstream.answer_with(scripts.stall_after(scripts.chat(), 0))
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "impatient")
    seen = tree()
    assert caught.value.status_code == 504
    assert str(caught.value.code).startswith("upstream_timeout_")
    assert_failed(seen, str(caught.value.code))
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)


def test_what_the_sdk_tries_again_is_one_trace_each_time(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take
) -> None:
    upstream.answer_with([scripts.error(429, headers=[(b"Retry-After", b"0")]), scripts.chat("well")])
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=1) as client:
        assert ask(client) == "well"
    first, second = tree(), tree()
    assert_failed(first, "429")
    assert second.said() == "well"
    assert first.server.trace_id != second.server.trace_id


def test_what_the_gateway_tries_again_is_one_generation_with_an_attempt_each(upstream: ScriptedUpstream) -> None:
    upstream.answer_with([scripts.error(429, headers=[(b"Retry-After", b"0")]), scripts.error(503), scripts.chat("ok")])
    with (
        RunningGateway([deployment(upstream.url, retries=2)]) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
        (seen,) = trees(map(Node.of_sdk, gateway.spans()))
    assert raw.parse().choices[0].message.content == seen.said() == "ok"
    assert raw.headers["x-litellm-attempted-retries"] == "2"
    assert [span.attributes["http.response.status_code"] for span in seen.attempts] == [429, 503, 200]
    assert [span.attributes.get("http.request.resend_count") for span in seen.attempts] == [None, 1, 2]
    assert [span.failed for span in seen.spans] == [False, False, True, True, False]


def later(script: Script) -> Script:
    """Wait before the last step, so that a reset does not overtake what was sent before it."""
    *sent, cut = script.steps
    return Script((*sent, scripts.Pause(0.1), cut))


CUTS = {
    "reset": later(scripts.reset_after(STREAM, scripts.head_size(STREAM) + 700)),
    "closed": later(scripts.close_after(STREAM, scripts.head_size(STREAM) + 700)),
    "truncated": scripts.sse(scripts.chat_events("one two three"), done=False, ended=False),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_stream_that_is_cut_is_cut_as_it_is_without_the_gateway(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take, cut: Script
) -> None:
    upstream.answer_with(cut)
    heard: list[str] = []
    direct: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        ask_streamed(client, heard)
    with (
        openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="sk", max_retries=0) as straight,
        pytest.raises(openai.APIConnectionError),
    ):
        ask_streamed(straight, direct)
    seen = tree()
    assert heard == direct
    assert seen.model.attributes["error.type"] in {"upstream_reset", "upstream_truncated"}
    assert seen.model.failed
    assert seen.server.failed
    assert seen.model.attributes["gen_ai.response.finish_reasons"] == [
        "error" if cut is not CUTS["truncated"] else "stop"
    ]
    assert "one " in "".join(heard)
    assert seen.said().startswith("".join(heard).rstrip())


def test_an_error_inside_a_stream_is_raised_and_recorded(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    events = [
        *scripts.chat_events("one two")[:2],
        b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n',
    ]
    upstream.answer_with(scripts.sse(events, done=False))
    heard: list[str] = []
    with pytest.raises(openai.APIError, match="overloaded"):
        ask_streamed(client, heard)
    seen = tree()
    assert heard == ["", "one "]
    assert seen.model.failed
    assert seen.model.attributes["error.type"] == "server_error"


def test_an_sdk_that_times_out_ends_the_upstreams_work(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    upstream.answer_with(scripts.stall_after(scripts.chat(), 0))
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.3))
    assert_failed(tree(), "client_disconnect")
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)


def test_a_stream_that_the_sdk_closes_early_ends_upstream_too(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    upstream.answer_with(scripts.stall_after(STREAM, scripts.head_size(STREAM) + 700))
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    heard = [next(stream).choices[0].delta.content, next(stream).choices[0].delta.content]
    stream.close()
    seen = tree()
    assert heard == ["", "one "]
    assert_failed(seen, "client_disconnect")
    assert seen.model.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert seen.said().startswith("one ")
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancelled_task_ends_the_upstreams_work(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, streamed: bool
) -> None:
    said = scripts.stall_after(STREAM, scripts.head_size(STREAM) + 700) if streamed else scripts.stall_after(STREAM, 0)
    upstream.answer_with(said)

    async def cancel() -> None:
        heard = asyncio.Event()
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk", max_retries=0) as client:

            async def listen() -> None:
                async for _ in await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True):
                    heard.set()

            task = asyncio.create_task(listen())
            if streamed:
                await heard.wait()
            else:
                await upstream.eventually(lambda: upstream.requests and upstream.requests[0].complete)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert_failed(tree(), "client_disconnect")
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)


def test_after_all_that_the_gateway_answers_as_before(
    client: openai.OpenAI, upstream: ScriptedUpstream, tree: Take
) -> None:
    upstream.answer_with(provider)
    assert ask(client) == "echo: hello"
    assert tree().said() == "echo: hello"
    with httpx.Client(trust_env=False) as http:
        health = http.get(str(client.base_url).replace("/v1/", "/health/readiness")).json()
    assert health["in_flight"] == 0
