"""Long content beside the spans, with the whole gateway: what is there is found by its reference, what nobody may have
is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import upstream as scripts
from tests.servers.gateway import GatewayProcess
from tests.servers.otlp import HttpReceiver
from tests.servers.upstream import ScriptedUpstream

CONFIG = """\
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "{upstream}/v1", api_key: sk-of-the-upstream-1}}
otelgw:
  blob_store: {{path: said, prefix: by/hash, above: 2000}}
  destinations:
    - {{name: otlp_http/full, endpoint: "{full}", bodies: true}}
    - {{name: otlp_http/whole, endpoint: "{whole}", bodies: true, blob_store: false}}
    - {{name: otlp_http/bare, endpoint: "{bare}", bodies: true, content: false}}
    - {{name: otlp_http/redacted, endpoint: "{redacted}", bodies: true, redact: {{presets: [email]}}}}
    - {{name: file, path: "{directory}/payloads.jsonl"}}
"""
SINKS = ("full", "whole", "bare", "redacted")
ONE, TWO, THREE = (f"canary-{name}@mail.example" for name in ("one", "two", "three"))
FILL = "word " * 1000
WANTED_BY_FEW = {"x-litellm-disable-callbacks": "otlp_http/full, otlp_http/whole, file"}


class Stage(NamedTuple):
    directory: Path
    objects: dict[str, bytes]
    replayed: dict[str, bytes]
    spans: dict[str, list[Span]]
    bytes: dict[str, bytes]
    payloads: list[dict[str, Any]]
    metrics: str


def _objects(directory: Path) -> dict[str, bytes]:
    return {path.as_uri(): path.read_bytes() for path in (directory / "said").rglob("*") if path.is_file()}


def _lines(directory: Path) -> int:
    path = directory / "payloads.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("blobs")
    with (
        ScriptedUpstream(scripts.openai) as upstream,
        HttpReceiver() as full,
        HttpReceiver() as whole,
        HttpReceiver() as bare,
        HttpReceiver() as redacted,
    ):
        sinks = dict(zip(SINKS, (full, whole, bare, redacted), strict=True))
        text = CONFIG.format(
            upstream=upstream.url, directory=directory, **{name: sink.endpoint for name, sink in sinks.items()}
        )
        with GatewayProcess(text, directory) as gateway:
            with httpx.Client(base_url=gateway.url, timeout=20, trust_env=False) as client:
                for mark, headers, fields in (
                    (ONE, {}, {}),
                    (TWO, WANTED_BY_FEW, {}),
                    (THREE, {}, {"turn_off_message_logging": True}),
                ):
                    said = [{"role": "user", "content": f"{mark} {FILL}"}]
                    body = {"model": "m", "messages": said, **fields}
                    assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
                gateway.wait_until(lambda: [len(sink.spans) for sink in sinks.values()] == [6, 6, 9, 9])
                gateway.wait_until(lambda: _lines(directory) == 2)
                objects, spans = _objects(directory), {name: list(sink.spans) for name, sink in sinks.items()}
                payloads = [json.loads(line) for line in (directory / "payloads.jsonl").read_text().splitlines()]
                for destination in ("otlp_http/full", "otlp_http/redacted"):
                    command = ["spool", "replay", "--destination", destination, "--from", "1h", "--to", "now"]
                    options = ["-c", str(gateway.config), "--port", str(gateway.port)]
                    subprocess.run(
                        [sys.executable, "-m", "otelgw.cli", *command, *options],
                        check=True,
                        env={"OTELGW_STATE_DIR": str(gateway.state)},
                        capture_output=True,
                    )
                gateway.wait_until(lambda: (len(full.spans), len(redacted.spans)) == (12, 18))
                gateway.wait_until(lambda: 'outcome="known"} 0' not in client.get("/metrics").text)
                metrics = client.get("/metrics").text
            gateway.stop()
            seen = {name: b"".join(asked.body for asked in sink.asked) for name, sink in sinks.items()}
            seen |= {"log": gateway.errors.read_bytes(), "console": gateway.output.read_bytes()}
        yield Stage(directory, objects, _objects(directory), spans, seen, payloads, metrics)


def _refs(spans: list[Span]) -> dict[str, str]:
    return {
        pair.key: pair.value.string_value
        for span in spans
        for pair in span.attributes
        if pair.key.endswith("_ref") and pair.value.string_value
    }


def test_what_was_said_is_found_by_the_reference_on_the_span(stage: Stage) -> None:
    refs = _refs(stage.spans["full"])
    assert set(refs) == {
        *("gen_ai.input.messages_ref", "gen_ai.output.messages_ref"),
        *("otelgw.request.body_ref", "otelgw.response.body_ref"),
    }
    for uri in refs.values():
        assert "/said/by/hash/" in uri
        assert ONE in Path(unquote(urlsplit(uri).path)).read_text()
    assert ONE.encode() not in stage.bytes["full"]


def test_a_payload_says_where_it_is(stage: Stage) -> None:
    (told,) = (each for each in stage.payloads if "content_refs" in each["otelgw"])
    assert set(told["otelgw"]["content_refs"].values()) <= set(stage.objects)


def test_a_destination_that_wants_none_of_it_gets_it_whole(stage: Stage) -> None:
    assert _refs(stage.spans["whole"]) == {}
    assert stage.bytes["whole"].count(f"{ONE} {FILL}".encode()) >= 2


def test_content_that_a_destination_may_not_see_is_not_reachable_through_the_store(stage: Stage) -> None:
    held = b"".join(stage.objects.values())
    assert ONE.encode() in held, "the search finds what is there"
    for mark in (TWO, THREE):
        assert mark.encode() not in held
    assert _refs(stage.spans["bare"]) == {}
    reachable = b"".join(stage.objects[uri] for uri in _refs(stage.spans["redacted"]).values())
    assert b"[REDACTED:email]" in reachable
    assert b"canary" not in reachable


def test_no_mark_is_in_the_log_or_at_those_who_may_not_have_it(stage: Stage) -> None:
    for place in ("bare", "redacted", "log", "console"):
        for mark in (ONE, TWO, THREE):
            assert mark.encode() not in stage.bytes[place], place


def test_a_replay_writes_the_same_objects_and_no_others(stage: Stage) -> None:
    assert stage.replayed == stage.objects


def test_what_was_stored_is_counted(stage: Stage) -> None:
    stored = f'otelgw_content_uploads_total{{outcome="stored"}} {len(stage.objects)}'
    assert stored in stage.metrics
    assert 'otelgw_content_uploads_total{outcome="failed"} 0' in stage.metrics
