"""No secret of a caller, of the config or of an upstream reaches a span, a log line, an error answer or a file.

One gateway with everything on that could betray one: debug logging, content, captured headers, a destination that is
down, one that refuses and repeats what it was sent. Every request carries a marked secret in every place there is; then
every byte that left the gateway or stayed on its disk is searched for any eight characters of one.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest

from otelgw import logs
from tests.e2e.canaries import Canaries
from tests.servers import upstream as scripts
from tests.servers.answering import Asked, HttpAnswer
from tests.servers.gateway import GatewayProcess, RunningGateway, deployment
from tests.servers.otlp import Failure, GrpcReceiver, HttpReceiver
from tests.servers.upstream import Received, Script, ScriptedUpstream, refused_port

CANARIES = Canaries()
QUESTION = "what is a canary for"

CONFIG = """\
model_list:
  - model_name: plain
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: "{upstream}/v1"
      api_key: os.environ/UPSTREAM_KEY
      timeout: 5
      headers: {{x-upstream-auth: os.environ/UPSTREAM_HEADER}}
  - model_name: slow
    litellm_params: {{model: openai/slow, api_base: "{upstream}/v1", api_key: os.environ/UPSTREAM_KEY, timeout: 0.2}}
  - model_name: azure
    litellm_params: {{model: azure/d, api_base: "{upstream}", api_key: os.environ/AZURE_KEY, api_version: "2024-10-21"}}
  - model_name: nobody
    litellm_params: {{model: openai/x, api_base: "http://127.0.0.1:{refused}/v1", api_key: os.environ/UPSTREAM_KEY}}
  - model_name: nowhere
    litellm_params: {{model: openai/x, api_base: "http://upstream.invalid/v1", api_key: os.environ/UPSTREAM_KEY}}
  - model_name: proxied
    litellm_params: {{model: openai/x, api_base: "https://upstream.invalid/v1", api_key: os.environ/UPSTREAM_KEY}}
general_settings:
  master_key: os.environ/MASTER_KEY
  pass_through: [files]
otelgw:
  destinations:
    - console
    - {{name: otlp_http/sink, endpoint: "{sink}", headers: {{authorization: "Bearer os.environ/SINK_KEY"}}}}
    - {{name: otlp_http/refusing, endpoint: "{refusing}", headers: {{x-vendor-key: os.environ/REFUSING_KEY}}}}
    - {{name: otlp_grpc/refusing, endpoint: "{grpc}", headers: {{authorization: os.environ/GRPC_KEY}}}}
    - {{name: otlp_grpc/down, endpoint: "http://127.0.0.1:{refused}", headers: {{api-key: os.environ/DOWN_KEY}}}}
"""
CAPTURED = (
    "authorization,proxy-authorization,api-key,x-api-key,x-goog-api-key,x-litellm-api-key,cookie,set-cookie,x-seen"
)
# Environment variable -> secret.
FROM_ENVIRONMENT = {
    name: CANARIES[name]
    for name in (
        *("UPSTREAM_KEY", "UPSTREAM_HEADER", "AZURE_KEY", "MASTER_KEY", "SINK_KEY", "REFUSING_KEY", "GRPC_KEY"),
        *("DOWN_KEY", "PROXY_PASSWORD"),
    )
}


def _repeating(request: Received) -> Script:
    """Answer as the model's name says; faults repeat the credentials that they were sent."""
    if request.method == "CONNECT":
        given = request.header("proxy-authorization") or ""
        return scripts.answer(407, f"no: {given}".encode(), content_type=b"text/plain")
    sent = " ".join(value.decode() for name, value in request.headers if name.lower() in _KEYS)
    cookie = (b"Set-Cookie", f"session={CANARIES['set-cookie']}; Path=/".encode())
    wanted = request.header("x-fault")
    if wanted is not None and wanted.isdigit():
        told = f"Incorrect API key provided: {sent}. You can find your API key in your account."
        return scripts.error(int(wanted), told, headers=[cookie, (b"Retry-After", b"1")])
    if wanted == "text":
        return scripts.answer(500, f"<html>{sent}</html>".encode(), content_type=b"text/html", headers=[cookie])
    if wanted == "stream":
        fault = json.dumps({"error": {"message": f"Incorrect API key provided: {sent}", "type": "server_error"}})
        return scripts.sse([*scripts.chat_events("one")[:2], f"data: {fault}\n\n".encode()], done=False)
    if wanted == "stall":
        return scripts.stall_after(scripts.chat(), 0)
    if wanted == "reset":
        return scripts.reset_after(scripts.chat_stream("one two three"), 500)
    if request.method == "POST" and request.target.partition("?")[0].endswith(("/completions", "/responses")):
        script = scripts.openai(request)
        head = script.steps[0]
        assert isinstance(head, scripts.Send)
        kept = head.data[:-2] + b"set-cookie: " + cookie[1] + b"\r\n\r\n"
        return Script((scripts.Send(kept), *script.steps[1:]))
    return scripts.openai(request)


_KEYS = {b"authorization", b"api-key", b"x-upstream-auth"}


class Stage(NamedTuple):
    """What was started, and what came out of it."""

    gateway: GatewayProcess
    sink: HttpReceiver
    answers: dict[str, httpx.Response]
    written: dict[str, bytes]  # everything that must hold no secret, by where it was found


def _refusal(asked: Asked) -> HttpAnswer:
    return HttpAnswer(401, {"content-type": "text/plain"}, f"bad key {asked.headers.get('x-vendor-key')}".encode())


HEADERS = {
    "api-key": CANARIES["api-key"],
    "x-api-key": CANARIES["x-api-key"],
    "x-goog-api-key": CANARIES["x-goog-api-key"],
    "x-litellm-api-key": CANARIES["x-litellm-api-key"],
    "cookie": f"session={CANARIES['cookie']}; token={CANARIES['cookie-2']}",
    "proxy-authorization": "Basic " + base64.b64encode(f"user:{CANARIES['proxy-authorization']}".encode()).decode(),
    "x-seen": "seen",
}
QUERY = {"key": CANARIES["?key"], "api_key": CANARIES["?api_key"], "access_token": CANARIES["?access_token"]}
TOOL = {
    "type": "mcp",
    "server_label": "docs",
    "server_url": "https://mcp.example/sse",
    "authorization": CANARIES["mcp-authorization"],
    "headers": {"Authorization": f"Bearer {CANARIES['mcp-header']}", "X-Api-Key": CANARIES["mcp-key"]},
}


def body(model: str = "plain", **fields: Any) -> dict[str, Any]:
    """Return a chat's body with secrets wherever one can stand that is not what the model reads."""
    metadata = {
        "feature": "search",
        "api_key": CANARIES["metadata-key"],
        "password": CANARIES["metadata-password"],
        "nested": {"auth": {"access_token": CANARIES["metadata-token"]}, "Authorization": CANARIES["metadata-auth"]},
    }
    said = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": said, "metadata": metadata, "tools": [TOOL], **fields}


MASTER = {"authorization": f"Bearer {CANARIES['MASTER_KEY']}"}
WRONG = {"authorization": f"Bearer {CANARIES['wrong']}"}
BROKEN = f'{{"model": "plain", "api_key": "{CANARIES["broken"]}", "messages": [], }}'
CHAT = "/v1/chat/completions"

# name -> (status expected, method, path, headers, JSON body or text)
REQUESTS: dict[str, tuple[int, str, str, dict[str, str], Any]] = {
    "success": (200, "POST", CHAT, MASTER, body(tools=[])),
    "stream": (200, "POST", CHAT, MASTER, body(tools=[], stream=True)),
    "azure": (200, "POST", CHAT, MASTER, body("azure", tools=[])),
    "responses": (200, "POST", "/v1/responses", MASTER, {"model": "plain", "input": QUESTION, "tools": [TOOL]}),
    "models": (200, "GET", "/v1/models", MASTER, None),
    "invalid json": (400, "POST", CHAT, MASTER, BROKEN),
    "redirected": (400, "POST", CHAT, MASTER, body(api_key=CANARIES["body-key"], langfuse_secret=CANARIES["body-2"])),
    "redirected by header": (
        *(400, "POST", CHAT, MASTER | {"langfuse_secret_key": CANARIES["langfuse"]}),
        body(tools=[]),
    ),
    "wrong key": (401, "POST", CHAT, WRONG, body()),
    "no bearer": (401, "POST", CHAT, {"authorization": f"Basic {CANARIES['basic']}"}, body()),
    "unknown model": (404, "POST", CHAT, MASTER, body("unknown")),
    "unknown path": (404, "POST", "/v1/nothing", MASTER, body()),
    "wrong method": (405, "DELETE", CHAT, MASTER, None),
    "upstream 400": (400, "POST", CHAT, MASTER | {"x-fault": "400"}, body()),
    "upstream 401": (401, "POST", CHAT, MASTER | {"x-fault": "401"}, body()),
    "upstream 403": (403, "POST", CHAT, MASTER | {"x-fault": "403"}, body("azure")),
    "upstream 429": (429, "POST", CHAT, MASTER | {"x-fault": "429"}, body()),
    "upstream 500": (500, "POST", CHAT, MASTER | {"x-fault": "500"}, body()),
    "upstream text": (500, "POST", CHAT, MASTER | {"x-fault": "text"}, body()),
    "upstream stream error": (200, "POST", CHAT, MASTER | {"x-fault": "stream"}, body(stream=True)),
    "streamed 401": (401, "POST", CHAT, MASTER | {"x-fault": "401"}, body(stream=True)),
    "timeout": (504, "POST", CHAT, MASTER | {"x-fault": "stall"}, body("slow")),
    "refused": (502, "POST", CHAT, MASTER, body("nobody")),
    "no such host": (502, "POST", CHAT, MASTER, body("nowhere")),
    "proxy 407": (502, "POST", CHAT, MASTER, body("proxied")),
    "files": (400, "GET", "/v1/files/a?model=plain", MASTER, None),
}
# The requests whose answer is an upstream's that repeats what it was sent, not the gateway's own.
REPEATED = ("upstream", "streamed")
# Refused by the parser, before the application: counted, not traced.
_SMUGGLED = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
UNPARSED = (
    f"GET /v1/models?key={CANARIES['raw-query']} HTTP/1.1\r\nHost: x\r\nbad header {CANARIES['raw-header']}\r\n\r\n",
    f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARIES['raw-auth']}\r\n{_SMUGGLED}",
    f"{CANARIES['raw-method']} / HTTP/9.9\r\n\r\n",
)


def _ask(client: httpx.Client, request: tuple[int, str, str, dict[str, str], Any]) -> httpx.Response:
    _, method, path, headers, content = request
    data = content if isinstance(content, str) or content is None else json.dumps(content)
    separator = "&" if "?" in path else "?"
    query = httpx.QueryParams(QUERY)
    return client.request(method, f"{path}{separator}{query}", headers=HEADERS | headers, content=data)


def _hang_up(port: int) -> None:
    """Ask for a stream that is cut by the upstream, and for one that the caller leaves."""
    for fault in ("reset", "stall"):
        content = json.dumps(body(stream=True))
        lines = [f"POST {CHAT}?key={CANARIES['?key']} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (HEADERS | MASTER | {"x-fault": fault}).items()]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n" + content).encode())
            sock.settimeout(0.5)
            try:
                while sock.recv(65536):
                    pass
            except OSError:
                continue


def _unparsed(port: int) -> bytes:
    answers = b""
    for text in UNPARSED:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(text.encode())
            sock.settimeout(2)
            try:
                while data := sock.recv(65536):
                    answers += data
            except OSError:
                pass
    return answers


def _files(directory: Path, when: str) -> dict[str, bytes]:
    found = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # what is delivered goes at any time
            found[f"{when}/{path.relative_to(directory)}"] = path.read_bytes()
    return found


def _command_lines(process: GatewayProcess) -> bytes:
    pids = [process.process.pid, *process.children("otelgw.")]
    listed = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", ",".join(map(str, pids))], capture_output=True, check=False
    )
    return listed.stdout


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("canary")
    with (
        ScriptedUpstream(_repeating) as upstream,
        HttpReceiver() as sink,
        HttpReceiver([_refusal], repeat=True) as refusing,
        GrpcReceiver([_unauthenticated()], repeat=True) as grpc_refusing,
    ):
        config = CONFIG.format(
            upstream=upstream.url,
            refused=refused_port(),
            sink=sink.endpoint,
            refusing=refusing.endpoint,
            grpc=grpc_refusing.endpoint,
        )
        proxy = f"http://proxyuser:{httpx.QueryParams({'p': CANARIES['PROXY_PASSWORD']})!s}".replace("p=", "", 1)
        environment = {
            **FROM_ENVIRONMENT,
            "HTTPS_PROXY": f"{proxy}@127.0.0.1:{upstream.port}",
            **{f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{side}": CAPTURED for side in SIDES},
        }
        with GatewayProcess(config, directory, "--detailed_debug", env=environment) as gateway:
            written: dict[str, bytes] = {}
            with httpx.Client(base_url=gateway.url, timeout=20, trust_env=False) as client:
                answers = {name: _ask(client, request) for name, request in REQUESTS.items()}
                for path in LOCAL:
                    written[path] = client.get(path, headers=HEADERS | MASTER, params=QUERY).content
            _hang_up(gateway.port)
            written["answers of the parser"] = _unparsed(gateway.port)
            written["command lines"] = _command_lines(gateway)
            gateway.wait_until(lambda: _served(sink) >= len(REQUESTS) + 2)
            gateway.process.send_signal(signal.SIGHUP)
            gateway.wait_until(lambda: "configuration reloaded" in gateway.errors.read_text())
            written |= _files(gateway.state, "while running")
            gateway.stop()
        written["spans"] = b"".join(asked.body for asked in sink.asked)
        written["console"] = gateway.output.read_bytes()
        written["log"] = gateway.errors.read_bytes()
        written |= _files(gateway.state, "stopped")
        written |= _commands(directory, gateway.config, environment)
        for name, answer in answers.items():
            written[f"answer {name}"] = repr(answer.headers.raw).encode() + b"\n" + answer.content
        yield Stage(gateway, sink, answers, written)


LOCAL = ("/health", "/health/readiness", "/openapi.json", "/health?probe=1")
PRINTED = ("check", "models", "check of a broken config", "serve of a broken config", "command lines")
SIDES = ("SERVER_REQUEST", "SERVER_RESPONSE", "CLIENT_REQUEST", "CLIENT_RESPONSE")


def _unauthenticated() -> Failure:
    return Failure(grpc.StatusCode.UNAUTHENTICATED, f"bad key {CANARIES['GRPC_KEY']}")


def _served(sink: HttpReceiver) -> int:
    return sum(span.parent_span_id == b"" for span in sink.spans)


def _commands(directory: Path, config: Path, environment: dict[str, str]) -> dict[str, bytes]:
    """Return what the commands print that read the config, also one with keys where none can be."""
    broken = directory / "broken.yaml"
    secret = CANARIES["in a broken config"]
    broken.write_text(
        f'model_list:\n  - model_name: m\n    litellm_params: {{model: openai/m, api_key: ["{secret}"]}}\n'
        f'  - model_name: u\n    litellm_params: {{model: openai/m, api_base: "http://user:{secret}@host/v1"}}\n'
        f'general_settings: {{master_key: {{a: "{secret}"}}, unknown_key: "{secret}"}}\n'
        f'otelgw: {{destinations: [{{name: otlp_grpc, endpoint: "http://u:{secret}@x y", headers: "{secret}"}}]}}\n'
    )
    return {
        "check": _printed(["check", "-c", str(config)], environment),
        "models": _printed(["models", "-c", str(config)], environment),
        "check of a broken config": _printed(["check", "-c", str(broken)], environment),
        "serve of a broken config": _printed(["serve", "-c", str(broken)], environment),
    }


def _printed(arguments: list[str], environment: dict[str, str]) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "otelgw.cli", *arguments], env=environment, capture_output=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", REQUESTS)
def test_the_request_went_as_it_was_meant_to(stage: Stage, name: str) -> None:
    assert stage.answers[name].status_code == REQUESTS[name][0], stage.answers[name].text


def test_every_request_was_recorded_and_the_search_sees_what_is_there(stage: Stage) -> None:
    assert _served(stage.sink) == len(REQUESTS) + 2
    for place in ("spans", "console"):
        assert QUESTION.encode() in stage.written[place]
        assert b"otelgw.metadata.feature" in stage.written[place]
    assert b"REDACTED" in stage.written["spans"]
    assert any(name.endswith(".seg") and QUESTION.encode() in data for name, data in stage.written.items())
    for destination in ("otlp_http/refusing", "otlp_grpc/refusing", "otlp_grpc/down"):
        assert f"destination {destination}: not delivering".encode() in stage.written["log"]
    assert stage.written["log"].count(b"bad key ***") == 2, "what a refusing destination repeats is masked"
    assert CANARIES.found(CANARIES["caller"].encode())
    assert CANARIES.found(base64.b64encode(f"user:{CANARIES['caller']}".encode()))


def _leaks(stage: Stage, *places: str) -> dict[str, list[str]]:
    wanted = {name: data for name, data in stage.written.items() if name in places or name.partition("/")[0] in places}
    assert {name.partition("/")[0] if name not in places else name for name in wanted} == set(places)
    return {name: hits for name, data in wanted.items() if (hits := CANARIES.found(data))}


def test_no_span_holds_a_secret(stage: Stage) -> None:
    assert _leaks(stage, "spans", "console") == {}


def test_no_log_line_holds_a_secret(stage: Stage) -> None:
    assert _leaks(stage, "log", *PRINTED) == {}


def test_no_file_of_the_state_directory_holds_a_secret(stage: Stage) -> None:
    assert _leaks(stage, "while running", "stopped") == {}


def test_no_answer_of_the_gateway_holds_a_secret(stage: Stage) -> None:
    own = [f"answer {name}" for name in REQUESTS if not name.startswith(REPEATED)]
    assert _leaks(stage, *LOCAL, "answers of the parser", *own) == {}


def test_an_upstream_that_repeats_the_gateways_key_does_not_tell_the_caller(stage: Stage) -> None:
    assert _leaks(stage, *(f"answer {name}" for name in REQUESTS if name.startswith(REPEATED))) == {}


class _Crashing(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise RuntimeError(f"cannot send {request.headers!r} {request.headers['authorization']} to {request.url}")


def test_a_handler_that_crashes_tells_nothing_of_what_it_had_in_hand() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", stream=stream)
    secret = CANARIES["crash"]
    row = deployment("http://127.0.0.1:9", auth=((b"authorization", f"Bearer {secret}".encode()),))
    try:
        with RunningGateway([row], transports={"http": _Crashing()}) as gateway:
            answer = httpx.post(
                f"{gateway.url}{CHAT}?key={secret}",
                json=body("gpt-4o-mini"),
                headers=HEADERS | {"authorization": f"Bearer {secret}"},
                trust_env=False,
            )
            payload = gateway.spool.payloads
            record = gateway.record()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == record.error_type == "internal"
    assert "RuntimeError" in stream.getvalue()
    for data in (answer.content, stream.getvalue().encode(), *payload, repr(record).encode()):
        assert CANARIES.found(data) == []
