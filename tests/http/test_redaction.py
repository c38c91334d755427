"""The gateway's own credentials are taken out of what an upstream says back."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.http.redaction import mask, mask_capture, values_of
from otelgw.tracing.record import Capture
from tests.servers.gateway import UPSTREAM_KEY, RunningGateway, deployment
from tests.servers.upstream import ScriptedUpstream, answer, error

KEY = b"sk-canary/+1="


def test_the_secrets_of_headers_are_the_keys_in_them() -> None:
    headers = [
        (b"authorization", b"Bearer sk-canary/1"),
        (b"api-key", b"abcdefgh"),
        (b"x-custom-token", b"tokentoken"),
        (b"openai-organization", b"org-not-a-secret"),
        (b"x-api-key", b"short"),
    ]

    assert set(values_of(headers)) == {b"sk-canary/1", b"sk-canary\\/1", b"abcdefgh", b"tokentoken"}


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_masked_text_has_its_length_and_no_secret(before: bytes, after: bytes) -> None:
    data = before + KEY + after
    masked = mask(data, (KEY,))

    assert len(masked) == len(data)
    assert KEY not in masked


def test_what_holds_no_secret_is_the_same_object() -> None:
    capture = Capture(head=b"hello", size=5)

    assert mask_capture(capture, (KEY,)) is capture
    assert mask_capture(Capture(head=KEY, tail=KEY, size=99), (KEY,)) == Capture(
        head=b"*" * len(KEY), tail=b"*" * len(KEY), size=99
    )


@pytest.mark.parametrize("status", [400, 401, 429, 500, 200])
def test_neither_caller_nor_record_gets_the_key_that_an_upstream_repeats(status: int) -> None:
    said = f"Incorrect API key provided: {UPSTREAM_KEY}."
    script = error(status, said) if status != 200 else answer(200, json.dumps({"said": said}).encode())
    with ScriptedUpstream(script) as upstream, RunningGateway([deployment(upstream.url)]) as gateway:
        got = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": []})
        gateway.record()

    assert got.status_code == status
    assert UPSTREAM_KEY not in got.text
    assert "*" * len(UPSTREAM_KEY) in got.text
    assert got.json()
    assert not any(UPSTREAM_KEY.encode() in payload for payload in gateway.spool.payloads)
