"""What was said reaches nobody who is not to have it: every control, on every route, streamed or not, failed or not.

Each request carries a mark of its own wherever something can be said: instructions, prompt, tool definitions, arguments
and results, an image, a header, the query; its upstream repeats it in the answer, in its reasoning and tool calls, over
the deltas of a stream, and in the text of an error. Metadata carry another mark, which stays where content does not.
Then every byte that each destination got is searched, and the spool, the log and /metrics.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

from tests.servers import upstream as scripts
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import HttpReceiver
from tests.servers.upstream import Received, Script, ScriptedUpstream

KEY = "sk-master-of-the-canaries-1"
# Virtual keys, by their alias: what their policies say, and that of a team.
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "silent": {"logging_policy": {"content": False}},
    "unheard": {"logging_policy": {"enabled": False}},
    "of a team": {"team_id": "quiet", "logging_policy": {"content": True}},
    "elsewhere": {"logging_policy": {"destinations": ["otlp_http/bare", "otlp_http/redacted"]}},
    "lenient": {"logging_policy": {"content": False, "may_relax": True}},
}
KEYS = [
    {"key": f"sk-of-the-canaries-{number}", "key_alias": alias, **each}
    for number, (alias, each) in enumerate(POLICIES.items())
]
MARK = re.compile(rb"QZL(\d{3})QZR\1")
PIECE = re.compile(rb"QZ[LR](\d{3})")
LABEL = re.compile(rb"QZM(\d{3})")

MODELS = """\
model_list:
  - model_name: plain
    litellm_params: {{model: openai/plain, api_base: "{upstream}/v1", api_key: sk-of-the-upstream-1}}
  - model_name: quiet
    litellm_params: {{model: openai/quiet, api_base: "{upstream}/v1", api_key: sk-of-the-upstream-1,
      turn_off_message_logging: true}}
general_settings: {{master_key: {master}}}
litellm_settings: {settings}
otelgw:
  teams: [{{team_id: quiet, logging_policy: {{content: false}}}}]
  keys: {keys}
  destinations:
    - {{name: console, bodies: true}}
    - {{name: otlp_http/full, endpoint: "{full}", bodies: true}}
    - {{name: otlp_http/bare, endpoint: "{bare}", bodies: true, content: false}}
    - name: otlp_http/redacted
      endpoint: "{redacted}"
      bodies: true
      redact: {{patterns: ['QZ[LR]\\d+'], media: true}}
    - {{name: otlp_http/audit, endpoint: "{audit}", bodies: true, required: true}}
    - {{name: file, path: "{directory}/payloads.jsonl"}}
"""


class Control(NamedTuple):
    """How a request asks, and what comes of it: ``content`` and ``record`` for destinations with no word of their own.

    ``settings``: LiteLLM's of the gateway that is asked. ``spool``: the spool may hold what was said. ``key``: the
    alias of the one that asks; the master key without one.
    """

    settings: str = "{}"
    model: str = "plain"
    headers: Mapping[str, str] = MappingProxyType({})
    fields: Mapping[str, Any] = MappingProxyType({})
    record: bool = True
    content: bool = True
    spool: bool = True
    without: Sequence[str] = ()
    key: str = ""


OFF = "{turn_off_message_logging: true}"
DISABLED = {"x-litellm-disable-callbacks": "otlp_http/full"}
CONTROLS: dict[str, Control] = {
    "nothing": Control(),
    "body": Control(fields={"turn_off_message_logging": True}, content=False, spool=False),
    "header": Control(headers={"x-litellm-enable-message-redaction": "true"}, content=False, spool=False),
    "model": Control(model="quiet", content=False, spool=False),
    "no-log": Control(fields={"no-log": True}, record=False, content=False, spool=False),
    "disabled": Control(headers=DISABLED, without=("otlp_http/full",)),
    "all disabled": Control(
        headers={"x-litellm-disable-callbacks": "console, otlp_http,file"}, record=False, content=False, spool=False
    ),
    "global": Control(OFF, content=False, spool=False),
    "relaxed": Control(OFF, headers={"LiteLLM-Disable-Message-Redaction": "true"}),
    "relaxed model": Control(model="quiet", headers={"LiteLLM-Disable-Message-Redaction": "true"}),
    "key": Control(key="silent", content=False, spool=False),
    "key that would rather": Control(
        key="silent", headers={"LiteLLM-Disable-Message-Redaction": "true"}, content=False, spool=False
    ),
    "key without a record": Control(key="unheard", record=False, content=False, spool=False),
    "team": Control(key="of a team", content=False, spool=False),
    "key of others": Control(key="elsewhere", without=("console", "otlp_http/full", "file")),
    "key that may": Control(key="lenient", headers={"LiteLLM-Disable-Message-Redaction": "true"}),
}
DESTINATIONS = ("console", "otlp_http/full", "otlp_http/bare", "otlp_http/redacted", "otlp_http/audit", "file")
NO_CONTENT = ("otlp_http/bare", "otlp_http/redacted", "otlp_http/audit")
ROUTES = {
    "chat": ("/v1/chat/completions", True),
    "completions": ("/v1/completions", True),
    "responses": ("/v1/responses", True),
    "embeddings": ("/v1/embeddings", False),
    "images": ("/v1/images/generations", False),
}


class Case(NamedTuple):
    number: int
    control: str
    route: str
    stream: bool
    failed: bool

    @property
    def mark(self) -> str:
        return f"QZL{self.number:03}QZR{self.number:03}"


CASES = [
    Case(number, *values)
    for number, values in enumerate(
        (control, route, stream, failed)
        for control, (route, (_, streams)), stream, failed in itertools.product(
            CONTROLS, ROUTES.items(), (False, True), (False, True)
        )
        if streams or not stream
    )
]


def image(mark: str) -> str:
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + f"{mark:>60}".encode()).decode()


def body(case: Case) -> dict[str, Any]:
    """Return a request that says its mark wherever its route has a place for it."""
    mark = case.mark
    function = {"name": "f", "description": mark, "parameters": {"type": "object", "title": mark}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": mark})}}
    content = {
        "chat": {
            "messages": [
                {"role": "system", "content": mark},
                {"role": "user", "content": [{"type": "text", "text": mark}, {"type": "image_url", "image_url": {
                    "url": image(mark)}}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": json.dumps({"result": mark})},
            ],
            "tools": [{"type": "function", "function": function}],
        },
        "completions": {"prompt": mark, "suffix": mark},
        "responses": {"input": mark, "instructions": mark, "tools": [{"type": "function", **function}]},
        "embeddings": {"input": [mark, mark]},
        "images": {"prompt": mark},
    }[case.route]  # fmt: skip
    control = CONTROLS[case.control]
    metadata = {"label": f"QZM{case.number:03}", "tags": [f"QZM{case.number:03}"], "log_raw_request": True}
    stream = {"stream": True} if case.stream else {}
    return {"model": control.model, **content, **stream, "metadata": metadata, **control.fields}


def provider(request: Received) -> Script:
    """Answer with the mark that was sent, everywhere an answer can say something."""
    found = MARK.search(request.body)
    assert found is not None
    mark = found[0].decode()
    asked = request.json()
    if request.header("x-fault"):
        return scripts.error(400, f"I cannot do {mark}")
    if request.target.partition("?")[0].endswith("/chat/completions"):
        calls = [("f", json.dumps({"a": mark}))]
        if not asked.get("stream"):
            answer = json.loads(scripts.chat_body(mark, tool_calls=calls))
            answer["choices"][0]["message"] |= {"reasoning_content": mark, "refusal": mark}
            return scripts.answer(body=json.dumps(answer).encode())
        deltas = [{"content": mark[:7]}, {"reasoning_content": mark[:5]}, {"reasoning_content": mark[5:]}]
        deltas += [{"content": mark[7:]}]
        events = [_event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas]
        return scripts.sse([*events, *scripts.chat_events(mark, tool_calls=calls, include_usage=True)])
    if request.target.partition("?")[0].endswith("/images/generations"):
        made = {"created": 1, "data": [{"b64_json": image(mark).partition(",")[2], "revised_prompt": mark}]}
        return scripts.answer(body=json.dumps(made).encode())
    return scripts.openai(request)


def _event(chunk: dict[str, Any]) -> bytes:
    whole = {"id": "chatcmpl-q", "object": "chat.completion.chunk", "created": 1, "model": "m"} | chunk
    return f"data: {json.dumps(whole)}\n\n".encode()


class Stage(NamedTuple):
    """What was found, by the gateway's settings: the bytes of each destination, of the spool, the log and /metrics."""

    written: dict[str, dict[str, bytes]]
    statuses: dict[int, int]
    replayed: dict[str, bytes]


def _ask(client: httpx.Client, case: Case) -> int:
    control = CONTROLS[case.control]
    key = next((each["key"] for each in KEYS if each["key_alias"] == control.key), KEY)
    headers = {"authorization": f"Bearer {key}", "x-said": case.mark, **control.headers}
    if case.failed:
        headers["x-fault"] = "yes"
    return client.post(f"{ROUTES[case.route][0]}?q={case.mark}", headers=headers, json=body(case)).status_code


def _roots(sink: HttpReceiver) -> int:
    return sum(span.parent_span_id == b"" for span in sink.spans)


def _run(settings: str, directory: Path, statuses: dict[int, int]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    cases = [case for case in CASES if CONTROLS[case.control].settings == settings]
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream(provider))
        sinks = {name: stack.enter_context(HttpReceiver()) for name in ("full", "bare", "redacted", "audit")}
        text = MODELS.format(
            upstream=upstream.url,
            settings=settings,
            master=KEY,
            keys=json.dumps(KEYS),
            directory=directory,
            **{name: sink.endpoint for name, sink in sinks.items()},
        )
        gateway = stack.enter_context(GatewayProcess(text, directory, "--detailed_debug"))
        with httpx.Client(base_url=gateway.url, timeout=20, trust_env=False) as client:
            for case in cases:
                statuses[case.number] = _ask(client, case)
            full = sum(expected(case, "otlp_http/full") != "nothing" for case in cases)
            gateway.wait_until(lambda: _roots(sinks["audit"]) >= len(cases) and _roots(sinks["full"]) >= full)
            command = ["spool", "replay", "--destination", "otlp_http/full", "--from", "1h", "--to", "now"]
            options = ["-c", str(gateway.config), "--port", str(gateway.port)]
            before = len(sinks["full"].asked)
            environment = {"OTELGW_STATE_DIR": str(gateway.state)}
            subprocess.run(
                [sys.executable, "-m", "otelgw.cli", *command, *options],
                check=True,
                env=environment,
                capture_output=True,
            )
            gateway.wait_until(lambda: _roots(sinks["full"]) >= 2 * full)
            metrics = client.get("/metrics", headers={"authorization": f"Bearer {KEY}"}).content
        gateway.stop()
        written = {f"otlp_http/{name}": b"".join(asked.body for asked in sink.asked) for name, sink in sinks.items()}
        written |= {"console": gateway.output.read_bytes(), "file": (directory / "payloads.jsonl").read_bytes()}
        spool = b"".join(path.read_bytes() for path in sorted(gateway.state.rglob("*")) if path.is_file())
        written |= {"spool": spool, "log": gateway.errors.read_bytes(), "metrics": metrics}
        return written, {settings: b"".join(asked.body for asked in sinks["full"].asked[before:])}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    statuses: dict[int, int] = {}
    written, replayed = {}, {}
    for settings in dict.fromkeys(control.settings for control in CONTROLS.values()):
        written[settings], again = _run(settings, tmp_path_factory.mktemp("content"), statuses)
        replayed |= again
    return Stage(written, statuses, replayed)


def expected(case: Case, destination: str) -> str:
    """Return what a destination is to have of a case: "nothing", "metadata" or "content"."""
    control = CONTROLS[case.control]
    if destination == "otlp_http/audit":
        return "metadata"
    if not control.record or destination in control.without:
        return "nothing"
    return "content" if control.content and destination not in NO_CONTENT else "metadata"


def _found(pattern: re.Pattern[bytes], data: bytes) -> set[int]:
    """Return the numbers of the marks in ``data``, also of those in base64."""
    found = {int(number) for number in pattern.findall(data)}
    for encoded in re.findall(rb"[A-Za-z0-9+/]{60,}", data):
        for at in range(4):
            part = encoded[at : len(encoded) - (len(encoded) - at) % 4]
            found |= {int(number) for number in pattern.findall(base64.b64decode(part))}
    return found


def test_every_request_was_answered(stage: Stage) -> None:
    assert stage.statuses == {case.number: 400 if case.failed else 200 for case in CASES}


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_every_destination_has_what_it_is_to_have_and_no_more(stage: Stage, destination: str) -> None:
    said: set[int] = set()
    labelled: set[int] = set()
    for written in stage.written.values():
        said |= _found(PIECE, written[destination])
        labelled |= _found(LABEL, written[destination])
    wanted = {case.number: expected(case, destination) for case in CASES}
    assert [CASES[n] for n in sorted(said) if wanted[n] != "content"] == [], "said where it must not be"
    assert [CASES[n] for n in wanted if wanted[n] == "content" and n not in said] == [], (
        "the search finds what is there"
    )
    assert labelled == {n for n in wanted if wanted[n] != "nothing"}


def test_the_spool_holds_nothing_that_nobody_is_to_have(stage: Stage) -> None:
    said = set().union(*(_found(PIECE, written["spool"]) for written in stage.written.values()))
    assert [CASES[n] for n in sorted(said) if not CONTROLS[CASES[n].control].spool] == []
    assert said == {case.number for case in CASES if CONTROLS[case.control].spool}


def test_nothing_is_said_in_the_log_or_in_the_metrics(stage: Stage) -> None:
    for written in stage.written.values():
        assert b"otelgw_" in written["metrics"]
        for place in ("log", "metrics"):
            assert _found(PIECE, written[place]) | _found(LABEL, written[place]) == set()
    assert b"no-log request, skipping logging" in stage.written["{}"]["log"]


def test_a_replay_obeys_what_the_requests_said(stage: Stage) -> None:
    for settings, data in stage.replayed.items():
        wanted = {case for case in CASES if CONTROLS[case.control].settings == settings}
        assert _found(LABEL, data) == {c.number for c in wanted if expected(c, "otlp_http/full") != "nothing"}
        assert _found(PIECE, data) == {c.number for c in wanted if expected(c, "otlp_http/full") == "content"}


def test_what_was_redacted_says_so(stage: Stage) -> None:
    data = stage.written["{}"]["otlp_http/redacted"]
    assert b"[REDACTED:pattern]" in data
    assert b"[image/png, 68 bytes, sha256 " in data
    assert b"otelgw.redaction.failed" not in data
