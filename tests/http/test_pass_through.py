"""Routes that are passed through: whose they are, what of them is streamed, and which are closed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from otelgw.config.settings import Limits
from otelgw.http.routes import GATED_GROUPS
from tests.http.caller import HELLO, Caller, ask, asked, tree_of
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway, deployment
from tests.servers.upstream import Received, Script, ScriptedUpstream, Stall, answer, chat_body

FORM = ("Content-Type", "multipart/form-data; boundary=BOUND")
CHUNKED = ("Transfer-Encoding", "chunked")
TRANSCRIPTIONS = "/v1/audio/transcriptions"
FILE = bytes(range(256)) * 4000


def part(name: str, value: bytes, filename: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    head = f'--BOUND\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--BOUND--\r\n"


def answered(_: Received) -> Script:
    return answer(
        body=b'{"text":"hello","usage":{"type":"tokens","input_tokens":3,"output_tokens":2,"total_tokens":5}}'
    )


@pytest.fixture
def upstream(standing_upstream: ScriptedUpstream) -> ScriptedUpstream:
    standing_upstream.requests.clear()
    standing_upstream.answer_with(answered)
    return standing_upstream


@pytest.fixture(scope="module")
def other() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(answered) as running:
        yield running


# Whose call it is


def rows(upstream: ScriptedUpstream, other: ScriptedUpstream) -> list[Any]:
    return [
        deployment(upstream.url, "mine", model="mine-upstream"),
        deployment(other.url, "theirs", model="theirs-upstream", provider="groq", otel_provider="groq"),
    ]


WHOSE: dict[str, tuple[Any, str, Sequence[tuple[str, str]], int, str]] = {
    "model in the body": ({"model": "theirs", "input": "x"}, "/v1/moderations", (), 200, "theirs-upstream"),
    "model in the query": ({"input": "x"}, "/v1/moderations?model=theirs&a=1", (), 200, ""),
    "model in the form": (form(part("model", b"theirs")), TRANSCRIPTIONS, [FORM], 200, "theirs-upstream"),
    "provider in a header": ({"input": "x"}, "/v1/moderations", [("x-otelgw-provider", "groq")], 200, ""),
    "alias in the header": ({"input": "x"}, "/v1/moderations", [("x-otelgw-provider", "theirs")], 200, ""),
    "nothing": ({"input": "x"}, "/v1/moderations", (), 400, ""),
    "nothing in a form": (form(part("file", b"x", "a")), TRANSCRIPTIONS, [FORM], 400, ""),
    "another provider": ({"input": "x"}, "/v1/moderations", [("x-otelgw-provider", "azure")], 400, ""),
    "another model": ({"model": "thairs"}, "/v1/moderations", (), 404, ""),
    "a null model": ({"model": None, "input": "x"}, "/v1/moderations", [("x-otelgw-provider", "groq")], 200, ""),
}


@pytest.mark.parametrize("name", WHOSE)
def test_a_call_goes_to_the_provider_that_it_names(
    upstream: ScriptedUpstream, other: ScriptedUpstream, name: str
) -> None:
    body, path, headers, status, model = WHOSE[name]
    other.requests.clear()
    with RunningGateway(rows(upstream, other)) as gateway:
        got, tree = asked(gateway, body, path, headers=headers)

    assert got.status == status
    assert upstream.requests == []
    if status != 200:
        assert other.requests == []
        assert ("x-otelgw-provider" in got.error["message"]) is (status == 400)
        assert ("groq, openai" in got.error["message"]) is (status == 400)
        assert ("'theirs'" in got.error["message"]) is (status == 404)
        assert tree.server.attributes["error.type"] == got.error["code"]
        return
    (received,) = other.requests
    if model:
        assert model.encode() in received.body
    assert received.header("x-otelgw-provider") is None
    assert received.target == (f"{path.partition('?')[0]}?model=theirs-upstream&a=1" if "?" in path else path)


def test_the_only_provider_needs_no_name(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, "a"), deployment(upstream.url, "b")]) as gateway:
        got, tree = asked(gateway, {"input": "x"}, "/v1/moderations")

    assert got.status == 200
    assert upstream.requests[0].json() == {"input": "x"}
    assert upstream.requests[0].header("authorization") == f"Bearer {UPSTREAM_KEY}"
    # Which model the provider took is its business: none of those in the config.
    assert got.header("x-otelgw-model-id") is None
    assert "otelgw.model.alias" not in tree.server.attributes


def test_a_generation_without_a_model_names_none(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url, "a")]) as gateway:
        _, tree = asked(gateway, {"prompt": "a cat"}, "/v1/images/generations")

    assert tree.model.name == "generate_content"
    assert "gen_ai.request.model" not in tree.model.attributes
    assert "otelgw.attempt.model" not in tree.attempts[0].attributes


def test_a_call_without_a_model_is_recorded_with_content_only_where_all_of_the_account_may_be(
    upstream: ScriptedUpstream,
) -> None:
    both = [deployment(upstream.url, "a"), deployment(upstream.url, "b", content=False)]
    with RunningGateway(both) as gateway:
        asked(gateway, {"prompt": "CANARY"}, "/v1/images/generations")

    assert b"CANARY" not in b"".join(gateway.spool.payloads)


# Bodies


@pytest.mark.parametrize("route", ["/v1/moderations", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech"])
def test_json_goes_on_with_the_upstreams_model(upstream: ScriptedUpstream, route: str) -> None:
    body = b'{ "model" : "fast", "input": [1e2, "\\u00fc"] }'
    with RunningGateway([deployment(upstream.url, "fast", model="slow")]) as gateway:
        got, tree = asked(gateway, body, route)

    assert upstream.requests[0].body == body.replace(b'"fast"', b'"slow"')
    assert upstream.requests[0].target == route
    assert (got.status, tree.server.name) == (200, f"POST {route}")
    assert (tree.generation is None) is (route in {"/v1/moderations", "/v1/rerank"})


FORMS = {
    "model first": form(part("model", b"fast"), part("prompt", b"x"), part("file", FILE, "a.wav")),
    "model last": form(part("file", FILE, "a.wav"), part("prompt", b"x"), part("model", b"fast")),
    "model in the middle": form(part("file", FILE, "a.wav"), part("model", b"fast"), part("mask", FILE, "b.png")),
    "a file that looks like a model": form(part("file", part("model", b"wrong"), "a.txt"), part("model", b"fast")),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("model", ["fast", "x", "a-much-longer-name-than-that"])
def test_a_form_goes_on_byte_for_byte_but_for_the_model(
    upstream: ScriptedUpstream, name: str, chunked: bool, model: str
) -> None:
    body = FORMS[name]
    sent = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 5000]), body[at : at + 5000]) for at in range(0, len(body), 5000)
    )
    with RunningGateway([deployment(upstream.url, "fast", model=model)]) as gateway:
        with Caller(gateway.port) as caller:
            caller.send(
                TRANSCRIPTIONS, sent + b"0\r\n\r\n" if chunked else body, [FORM, *([CHUNKED] if chunked else [])]
            )
            got = caller.answer()
        record = gateway.record()

    (received,) = upstream.requests
    expected = body.replace(part("model", b"fast"), part("model", model.encode()))
    assert got.status == 200
    assert hashlib.sha256(received.body).hexdigest() == hashlib.sha256(expected).hexdigest()
    assert received.header("content-type") == FORM[1]
    assert (record.request.size, record.request.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert (record.request.head, record.request.tail) == (b"", b"")
    assert record.target.model == model


def test_an_upload_is_not_waited_for(upstream: ScriptedUpstream) -> None:
    """The upstream has its beginning before the caller has sent its end."""
    body = form(part("model", b"fast"), part("file", FILE, "a.wav"))
    with RunningGateway([deployment(upstream.url, "fast", model="slow")]) as gateway:
        with Caller(gateway.port) as caller:
            caller.send(TRANSCRIPTIONS, body[:300_000], [FORM], length=len(body))
            upstream.wait_until(lambda: upstream.requests)
            assert not upstream.requests[0].complete
            caller.socket.sendall(body[300_000:])
            got = caller.answer()
        tree = tree_of(gateway)

    assert (got.status, upstream.requests[0].complete) == (200, True)
    assert tree.model.attributes["otelgw.request.sha256"] == hashlib.sha256(body).hexdigest()
    assert tree.server.attributes["http.request.body.size"] == len(body)


def test_a_model_behind_a_large_file_is_found(upstream: ScriptedUpstream) -> None:
    """As OpenAI's own curl examples send it: the file first."""
    body = form(part("file", b"x" * 12_000_000, "a.wav"), part("model", b"fast"))
    with RunningGateway([deployment(upstream.url, "fast", model="slow"), deployment("http://x", "b")]) as gateway:
        got = ask(gateway, body, TRANSCRIPTIONS, [FORM])

    assert got.status == 200
    assert upstream.requests[0].body.endswith(part("model", b"slow") + b"--BOUND--\r\n")


def test_a_large_file_of_a_files_route_is_passed_on_without_searching_it_to_the_end(upstream: ScriptedUpstream) -> None:
    body = form(part("purpose", b"batch"), part("file", b"{}\n" * 6_000_000, "a.jsonl"))
    limits = Limits(body=1_000_000)
    with RunningGateway([deployment(upstream.url)], pass_through=("files",), limits=limits) as gateway:
        got, tree = asked(gateway, body, "/v1/files", headers=[FORM])

    assert got.status == 200
    assert upstream.requests[0].body == body
    assert tree.server.name == "POST /v1/files"


def test_a_caller_that_leaves_an_upload_ends_it_upstream(upstream: ScriptedUpstream) -> None:
    body = form(part("model", b"fast"), part("file", FILE, "a.wav"))
    with RunningGateway([deployment(upstream.url, "fast")]) as gateway:
        with Caller(gateway.port) as caller:
            caller.send(TRANSCRIPTIONS, body[:100_000], [FORM], length=len(body))
            upstream.wait_until(lambda: upstream.requests)
            caller.hang_up()
        tree = tree_of(gateway)
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    assert not upstream.requests[0].complete
    assert {node.attributes["error.type"] for node in tree.spans} == {"client_disconnect"}


def test_a_caller_that_leaves_after_its_upload_cancels_the_answer(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(Script((Stall(),)))
    body = form(part("model", b"fast"), part("file", FILE, "a.wav"))
    with RunningGateway([deployment(upstream.url, "fast")]) as gateway:
        with Caller(gateway.port) as caller:
            caller.send(TRANSCRIPTIONS, body, [FORM])
            upstream.wait_until(lambda: upstream.requests and upstream.requests[0].complete)
            caller.hang_up()
        tree = tree_of(gateway)
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)

    assert {node.attributes["error.type"] for node in tree.spans} == {"client_disconnect"}


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; x=y"])
def test_a_form_without_a_boundary_is_400(upstream: ScriptedUpstream, kind: str) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        got, _ = asked(gateway, form(part("model", b"x")), TRANSCRIPTIONS, headers=[("Content-Type", kind)])

    assert (got.status, got.error["code"], upstream.requests) == (400, "invalid_request", [])


def test_media_comes_back_as_it_is(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(answer(body=FILE, content_type=b"audio/mpeg", framing="chunked"))
    with RunningGateway([deployment(upstream.url, "tts")]) as gateway:
        got, tree = asked(gateway, {"model": "tts", "input": "x"}, "/v1/audio/speech")

    assert (got.header("content-type"), got.body) == ("audio/mpeg", FILE)
    assert tree.model.attributes["otelgw.response.sha256"] == hashlib.sha256(FILE).hexdigest()


# Which are open


@pytest.mark.parametrize("group", GATED_GROUPS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_account_state_is_reached_only_where_the_config_names_it(
    upstream: ScriptedUpstream, group: str, method: str
) -> None:
    body = {"a": 1} if method == "POST" else None
    with RunningGateway([deployment(upstream.url)], pass_through=(group,)) as gateway:
        got, tree = asked(gateway, body, f"/v1/{group}/x-1/content?limit=2&key=canary", method=method)
        closed, _ = asked(gateway, body, f"/v1/{'files' if group != 'files' else 'batches'}/x-1", method=method)

    assert (got.status, closed.status) == (200, 404)
    (received,) = upstream.requests
    assert (received.method, received.target) == (method, f"/v1/{group}/x-1/content?limit=2")
    assert received.body == (json.dumps(body).encode() if body else b"")
    assert tree.server.name == f"{method} /v1/{group}/{{path}}"
    assert tree.generation is None
    assert len(tree.attempts) == 1
    assert tree.attempts[0].name == method


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1"), ("POST", "/v1/responses/resp_1/cancel")],
)
def test_responses_are_fetched_and_deleted_without_a_generation(
    upstream: ScriptedUpstream, method: str, path: str
) -> None:
    with RunningGateway([deployment(upstream.url)]) as gateway:
        got, tree = asked(gateway, path=path, method=method)

    assert (got.status, upstream.requests[0].method, upstream.requests[0].target) == (200, method, path)
    assert tree.generation is None
    assert "{id}" in tree.server.name


def test_a_head_request_ends_with_its_head(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(answer(200, b"", headers=[(b"Content-Length", b"1234")], framing="none"))
    with RunningGateway([deployment(upstream.url)], pass_through=("files",)) as gateway:
        with Caller(gateway.port) as caller:
            caller.socket.sendall(b"HEAD /v1/files/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            caller.begin("HEAD")
            got = caller.answer()
            caller.send("/v1/files/x", method="HEAD")
        record = gateway.record()

    assert (got.status, got.header("content-length"), got.body) == (200, "1234", b"")
    assert (record.method, record.error_type) == ("HEAD", "")


def test_a_path_goes_on_as_it_was_encoded(upstream: ScriptedUpstream) -> None:
    with RunningGateway([deployment(upstream.url)], pass_through=("files",)) as gateway:
        got = ask(gateway, path="/v1/files/a%3Fkey=b%23c%20d/%252e%252e", method="GET")

    assert got.status == 200
    assert upstream.requests[0].target == "/v1/files/a%3Fkey=b%23c%20d/%252e%252e"


def test_a_streamed_transcription_is_a_stream(upstream: ScriptedUpstream) -> None:
    events = (
        b'data: {"type":"transcript.text.delta","delta":"hi"}\n\ndata: {"type":"transcript.text.done","text":"hi"}\n\n'
    )
    upstream.answer_with(answer(body=events, content_type=b"text/event-stream", framing="chunked"))
    body = form(part("model", b"fast"), part("stream", b"true"), part("file", FILE, "a.wav"))
    with RunningGateway([deployment(upstream.url, "fast")]) as gateway:
        got, tree = asked(gateway, body, TRANSCRIPTIONS, headers=[FORM])

    assert got.body == events
    assert tree.model.attributes["gen_ai.request.stream"] is True
    assert tree.said() == "hi"


def test_the_responses_api_streams_untouched(upstream: ScriptedUpstream) -> None:
    events = b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","usage":null}}\n\n'
    upstream.answer_with(answer(body=events, content_type=b"text/event-stream", framing="chunked"))
    body = {"model": "gpt-4o-mini", "input": "x", "stream": True}
    with RunningGateway([deployment(upstream.url)]) as gateway:
        got, _ = asked(gateway, body, "/v1/responses")

    assert got.body == events
    assert upstream.requests[0].json() == body


def test_a_chat_may_not_be_passed_through_to_a_provider_without_a_model(upstream: ScriptedUpstream) -> None:
    upstream.answer_with(answer(body=chat_body()))
    with RunningGateway([deployment(upstream.url)]) as gateway:
        body = {"messages": HELLO["messages"]}
        got, _ = asked(gateway, body, "/v1/chat/completions", headers=[("x-otelgw-provider", "openai")])

    assert (got.status, upstream.requests) == (400, [])
