"""The gateway's own fields in a multipart form."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.http import form
from tests.e2e.tree import Node, Tree, trees
from tests.servers import upstream as scripts
from tests.servers.gateway import RunningGateway, deployment
from tests.servers.upstream import Received, Script, ScriptedUpstream

SPOKEN = "CANARYspoken"


def transcript(request: Received) -> Script:
    return scripts.answer(body=json.dumps({"text": SPOKEN}).encode())


@pytest.fixture(scope="module")
def upstream() -> Any:
    with ScriptedUpstream(transcript) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Any:
    with RunningGateway([deployment(upstream.url, alias="whisper", model="whisper-1")]) as running:
        yield running


def post(gateway: RunningGateway, fields: dict[str, Any], size: int = 3000) -> httpx.Response:
    url = f"{gateway.url}/v1/audio/transcriptions"
    files = {"file": ("a.wav", b"RIFF" + b"x" * size)}
    return httpx.post(url, data={"model": "whisper", **fields}, files=files, trust_env=False, timeout=20)


def tree_of(gateway: RunningGateway) -> Tree:
    (found,) = trees(map(Node.of_sdk, gateway.spans()))
    return found


@pytest.mark.parametrize("size", [3000, 2_000_000])
def test_labels_of_a_form_stand_on_every_span_and_do_not_go_upstream(
    gateway: RunningGateway, upstream: ScriptedUpstream, size: int
) -> None:
    upstream.requests.clear()
    fields = {
        "language": "en",
        "metadata[generation_name]": "g",
        "metadata[tags][]": ["a", "b"],
        "metadata[session_id]": "s-1",
        "litellm_metadata": '{"feature": "x", "tags": ["c"]}',
        "user": "u-1",
    }
    assert post(gateway, fields, size).json() == {"text": SPOKEN}
    for node in tree_of(gateway).spans:
        assert node.attributes["otelgw.metadata.generation_name"] == "g"
        assert node.attributes["otelgw.metadata.feature"] == "x"
        assert node.attributes["session.id"] == "s-1"
        assert node.attributes["user.id"] == "u-1"
        assert set(node.attributes["otelgw.tags"]) == {"a", "b", "c"}
    sent = upstream.requests[0]
    assert sent.complete
    assert b"metadata" not in sent.body
    assert b'name="language"\r\n\r\nen\r\n' in sent.body
    assert b'name="user"\r\n\r\nu-1\r\n' in sent.body
    assert b'name="model"\r\n\r\nwhisper-1\r\n' in sent.body
    assert sent.body.count(b"x" * size) == 1
    assert sent.header("content-length") == str(len(sent.body))


def test_a_form_may_ask_for_less(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    assert post(gateway, {"turn_off_message_logging": "true"}).json() == {"text": SPOKEN}
    assert tree_of(gateway).model.attributes["otelgw.model.alias"] == "whisper"
    assert SPOKEN.encode() not in gateway.spool.payloads[-1]
    upstream.requests.clear()
    assert post(gateway, {"no-log": "True"}).json() == {"text": SPOKEN}
    assert gateway.no_record(0.05)
    assert b"no-log" not in upstream.requests[0].body
    assert post(gateway, {"no-log": "perhaps"}).status_code == 400
    assert tree_of(gateway).server.attributes["error.type"] == "invalid_request"
    assert post(gateway, {}).json() == {"text": SPOKEN}
    assert SPOKEN in str(tree_of(gateway).model.attributes)


@given(st.binary(max_size=300) | st.lists(st.sampled_from(
    [b"--B", b"\r\n", b"\r\n\r\n", b'Content-Disposition: form-data; name="no-log"', b"true", b"--", b'; filename="a"']
)).map(b"".join))  # fmt: skip
def test_no_form_breaks_it(body: bytes) -> None:
    found = form.read(body, b"B", keep_metadata=False)
    assert len(found.body) <= len(body)
    assert form.read(found.body, b"B", keep_metadata=False).fields.keys() <= found.fields.keys()
