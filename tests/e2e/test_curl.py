"""curl against the gateway, over HTTP/1.1 and over HTTP/2 with prior knowledge."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Take
from tests.e2e.curl import Answer, curl, program
from tests.e2e.provider import form
from tests.servers import upstream as scripts
from tests.servers.gateway import RunningGateway
from tests.servers.upstream import ScriptedUpstream

Ask = Callable[..., Answer]

CHAT = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
STREAMED = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}],"stream":true}'
VERSIONS = {"1.1": "--http1.1", "2": "--http2-prior-knowledge"}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """The HTTP version that the request goes by."""
    return str(request.param)


@pytest.fixture
def ask(gateway: RunningGateway, tmp_path: Path, version: str) -> Ask:
    """Return a function: curl's arguments after a path of the gateway."""

    def run(path: str, *arguments: str, body: bytes | None = None) -> Answer:
        answer = curl(tmp_path, VERSIONS[version], *arguments, gateway.url + path, body=body)
        assert answer.version == version
        return answer

    return run


def text(answer: Answer) -> str:
    content = json.loads(answer.body)["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def test_a_body_without_a_content_type_is_a_chat(ask: Ask, tree: Take, version: str) -> None:
    answer = ask("/v1/chat/completions", "-d", CHAT)
    seen = tree()
    assert "content-type: application/x-www-form-urlencoded" in answer.log.lower()
    assert (answer.status, text(answer)) == (200, "echo: hello")
    assert answer.headers["x-otelgw-trace-id"] == seen.server.trace_id
    assert seen.server.attributes["network.protocol.version"] == version
    assert seen.server.attributes["user_agent.original"].startswith("curl/")
    assert seen.server.attributes["http.response.body.size"] == len(answer.body)
    assert seen.said() == "echo: hello"


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/embeddings"])
def test_every_model_path_exists_without_v1(ask: Ask, tree: Take, path: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a"})
    assert ask(path, "-d", body).status == 200
    assert tree().server.attributes["http.route"] == f"/v1{path}"


def test_every_answer_has_the_headers_of_the_interface(ask: Ask, tree: Take) -> None:
    headers = ask("/v1/chat/completions", "-d", CHAT).headers
    seen = tree()
    both = {name.removeprefix("x-litellm-"): value for name, value in headers.items() if name.startswith("x-litellm-")}
    assert {f"x-otelgw-{name}": value for name, value in both.items()}.items() <= headers.items()
    assert both["call-id"] == seen.server.attributes["otelgw.call_id"]
    assert (both["key-tpm-limit"], both["key-rpm-limit"]) == ("None", "None")
    assert (both["attempted-retries"], both["attempted-fallbacks"]) == ("0", "0")
    assert both["model-group"] == "gpt-4o-mini"
    assert both["model-api-base"].startswith("http://127.0.0.1:")
    assert both["model-api-base"].count("/") == 2
    assert {"version", "model-id", "response-cost", "response-duration-ms", "overhead-duration-ms"} <= both.keys()
    assert seen.server.span_id in headers["traceresponse"]
    assert headers["server-timing"] == f"trace;desc={headers['traceresponse']}"
    assert headers["content-length"]
    assert "set-cookie" not in headers


def test_a_stream_is_shown_as_it_comes_and_ends_upstream_when_curl_is_stopped(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, version: str
) -> None:
    stream = scripts.chat_stream("one two three four")
    upstream.answer_with(scripts.stall_after(stream, scripts.head_size(stream) + 700))
    command = [program(), "-q", "-sS", "-N", "--noproxy", "*", VERSIONS[version], "-d", STREAMED]
    running = subprocess.Popen([*command, f"{gateway.url}/v1/chat/completions"], stdout=subprocess.PIPE)
    assert running.stdout is not None
    heard = b""
    while b"one " not in heard:
        line = running.stdout.readline()
        assert line, heard
        heard += line
    assert not upstream.requests[0].answered_at
    running.send_signal(signal.SIGTERM)
    running.wait(10)
    running.stdout.close()
    upstream.wait_until(lambda: upstream.requests[0].aborted_at)
    assert tree().server.attributes["error.type"] == "client_disconnect"


def test_a_whole_stream_has_the_bytes_of_the_provider(
    ask: Ask, upstream: ScriptedUpstream, tree: Take, tmp_path: Path
) -> None:
    body = json.dumps(json.loads(STREAMED) | {"stream_options": {"include_usage": True}})
    through = ask("/v1/chat/completions", "-N", "-d", body)
    direct = curl(tmp_path, "-N", "-d", body, f"{upstream.url}/v1/chat/completions")
    assert through.body == direct.body
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert tree().usage() == (9, 4)
    plain = ask("/v1/chat/completions", "-N", "-d", STREAMED)
    assert plain.body == curl(tmp_path, "-N", "-d", STREAMED, f"{upstream.url}/v1/chat/completions").body
    assert tree().usage() == (9, 4)


def test_a_stream_that_is_cut_upstream_is_cut_for_curl(
    gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, version: str
) -> None:
    stream = scripts.chat_stream("one two three four")
    *sent, cut = scripts.reset_after(stream, scripts.head_size(stream) + 700).steps
    # A reset may overtake what was sent before it, and curl then shows none of that.
    upstream.answer_with(scripts.Script((*sent, scripts.Pause(0.2), cut)))
    command = [program(), "-q", "-sS", "-N", "--noproxy", "*", "--max-time", "10", VERSIONS[version], "-d", STREAMED]
    done = subprocess.run([*command, f"{gateway.url}/v1/chat/completions"], capture_output=True, check=False)
    assert done.returncode not in {0, 28}, "curl must see that the answer is not complete, and not wait for it"
    assert b"one " in done.stdout
    assert b"[DONE]" not in done.stdout
    assert tree().model.attributes["error.type"] == "upstream_reset"


def test_head_is_answered_without_a_body(
    ask: Ask, gateway: RunningGateway, upstream: ScriptedUpstream, tree: Take, version: str
) -> None:
    # curl before 8 cannot use a connection of --http2-prior-knowledge twice, whatever the server.
    again = [f"{gateway.url}/v1/models/impatient"] if version == "1.1" else []
    found = ask("/v1/models", "--head", *again)
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    assert b"{" not in found.body
    assert not again or "re-using existing" in found.log.lower(), "a body would have spoiled the connection"
    assert {tree().server.name for _ in ("", *again)} <= {"HEAD /v1/models", "HEAD /v1/models/{model}"}
    refused = ask("/v1/chat/completions", "--head")
    assert refused.status == 405
    assert b"{" not in refused.body
    assert tree().server.attributes["error.type"] == "method_not_allowed"
    assert upstream.requests == []


def test_options_is_refused_and_traced_where_no_web_page_is_allowed(ask: Ask, tree: Take) -> None:
    plain = ask("/v1/chat/completions", "-X", "OPTIONS")
    assert plain.status == 405
    assert tree().server.attributes["http.request.method"] == "OPTIONS"
    preflight = ["-H", "Origin: https://evil.example", "-H", "Access-Control-Request-Method: POST"]
    asked = ask("/v1/chat/completions", "-X", "OPTIONS", *preflight)
    assert asked.status == 403
    assert "access-control-allow-origin" not in asked.headers
    assert tree().server.attributes["error.type"] == "forbidden"


def test_a_curl_that_takes_compressed_answers_gets_a_plain_one(
    ask: Ask, upstream: ScriptedUpstream, tree: Take
) -> None:
    assert text(ask("/v1/chat/completions", "--compressed", "-d", CHAT)) == "echo: hello"
    assert upstream.requests[0].header("accept-encoding") == "identity"
    tree()


def test_an_answer_that_comes_compressed_all_the_same_is_passed_on_and_read(
    ask: Ask, upstream: ScriptedUpstream, tree: Take
) -> None:
    upstream.answer_with(scripts.answer(body=scripts.chat_body("squeezed"), encoding="gzip"))
    answer = ask("/v1/chat/completions", "--compressed", "-d", CHAT)
    assert answer.headers["content-encoding"] == "gzip"
    assert text(answer) == "squeezed"
    assert tree().said() == "squeezed"


def test_a_compressed_body_is_read_and_goes_on_plain(ask: Ask, upstream: ScriptedUpstream, tree: Take) -> None:
    packed = gzip.compress(CHAT.encode())
    answer = ask("/v1/chat/completions", "-H", "Content-Encoding: gzip", "--data-binary", "@-", body=packed)
    assert text(answer) == "echo: hello"
    assert upstream.requests[0].json() == json.loads(CHAT)
    assert upstream.requests[0].header("content-encoding") is None
    assert tree().model.attributes["gen_ai.input.messages"][0]["parts"][0]["content"] == "hello"


def test_a_large_body_waits_for_100_continue_and_arrives_whole(
    ask: Ask, upstream: ScriptedUpstream, tree: Take, version: str
) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 3_000_000}]}).encode()
    upstream.answer_with(scripts.chat("read"))
    answer = ask("/v1/chat/completions", "-H", "Expect: 100-continue", "--data-binary", "@-", body=body)
    assert text(answer) == "read"
    assert "HTTP/1.1 100" in answer.log or version == "2"
    assert upstream.requests[0].json() == json.loads(body)
    assert upstream.requests[0].header("expect") is None
    seen = tree()
    assert seen.server.attributes["http.request.body.size"] == len(body)
    assert seen.model.attributes["otelgw.request.truncated"] is True
    assert seen.said() == "read"


def test_a_chunked_body_arrives_whole(ask: Ask, upstream: ScriptedUpstream, tree: Take, version: str) -> None:
    chunked = ["-H", "Transfer-Encoding: chunked"] if version == "1.1" else []
    assert text(ask("/v1/chat/completions", *chunked, "-d", CHAT)) == "echo: hello"
    assert upstream.requests[0].json() == json.loads(CHAT)
    tree()


def test_a_form_with_a_file_arrives_whole(ask: Ask, upstream: ScriptedUpstream, tree: Take, tmp_path: Path) -> None:
    sound = tmp_path / "a.mp3"
    sound.write_bytes(bytes(range(256)) * 8000)
    answer = ask("/v1/audio/transcriptions", "-F", f"file=@{sound}", "-F", "model=whisper-1")
    assert json.loads(answer.body)["text"] == f"{256 * 8000} bytes heard"
    assert form(upstream.requests[0])["file"] == sound.read_bytes()
    assert tree().model.attributes["gen_ai.request.model"] == "whisper-1"


@pytest.mark.parametrize(
    ("body", "line", "cause"),
    [
        ('{\n "model": "m",\n "messages": [], }', 3, "a trailing comma"),
        ('{\n "model": "m" # the model\n}', 2, "a comment"),
        ('{\n // the model\n "model": "m"\n}', 2, "a comment"),
        ("{'model': 'm'}", 1, "single quotes"),
        ('{"model": "m"', 1, ""),
        ("", 0, ""),
    ],
)
def test_what_is_no_json_is_refused_with_its_place_and_cause(
    ask: Ask, upstream: ScriptedUpstream, tree: Take, body: str, line: int, cause: str
) -> None:
    answer = ask("/v1/chat/completions", "--data-binary", body)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["type"]) == (400, "invalid_json", "invalid_request_error")
    assert f"line {line}, column" in error["message"] or not line
    assert cause in error["message"]
    assert upstream.requests == []
    seen = tree()
    assert seen.server.attributes["error.type"] == "invalid_json"
    assert seen.attempts == ()


@pytest.mark.parametrize(
    "path",
    ["/v1/../v1/models", "/v1/%2e%2e/models", "/v1/files/..%2fmodels", "/v1/files/a%5Cb", "/v1//models"],
)
def test_a_path_that_means_something_else_upstream_is_refused(
    ask: Ask, upstream: ScriptedUpstream, tree: Take, path: str
) -> None:
    answer = ask(path, "--path-as-is")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_request")
    assert upstream.requests == []
    assert tree().server.attributes["error.type"] == "invalid_request"


def test_an_organization_is_never_reached(ask: Ask, upstream: ScriptedUpstream, tree: Take) -> None:
    assert ask("/v1/organization/users").status == 404
    assert upstream.requests == []
    assert tree().server.attributes["error.type"] == "not_found"


def test_health_and_the_description_leave_no_trace(ask: Ask, upstream: ScriptedUpstream, tree: Take) -> None:
    for path in ("/health", "/health/liveliness", "/health/liveness", "/health/readiness", "/openapi.json"):
        assert ask(path).status == 200, path
    assert upstream.requests == []


@pytest.mark.parametrize("header", ["Host: evil.example", "Origin: https://evil.example"])
def test_a_foreign_page_is_refused_where_no_key_is_asked_for(
    ask: Ask, upstream: ScriptedUpstream, tree: Take, header: str
) -> None:
    answer = ask("/v1/chat/completions", "-H", header, "-d", CHAT)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, "forbidden")
    assert upstream.requests == []
    assert tree().server.attributes["error.type"] == "forbidden"
