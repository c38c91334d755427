from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from otelgw_exporters.delivery import Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.generic_api import GenericApiExporter
from otelgw_exporters.options import parse_headers
from tests.exporters.test_file import request
from tests.exporters.test_payload import check
from tests.servers.answering import Asked, HttpAnswer
from tests.servers.otlp import HttpReceiver
from tests.tracing.records import refused
from tests.tracing.test_spans import build

Keep = Callable[[Exporter], Exporter]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def deliver(exporter: Exporter, spans: Sequence[ReadableSpan]) -> Outcome:
    return exporter.deliver(spans, time.monotonic() + 10)


def states(outcome: Outcome) -> list[str]:
    return [verdict.state for verdict in outcome.verdicts]


def sent(asked: Asked) -> list[dict[str, Any]]:
    """Return the payloads in a request, whatever its format."""
    body = asked.body
    if asked.headers["content-type"] == "application/x-ndjson":
        assert body.endswith(b"\n")
        return [json.loads(line) for line in body.splitlines()]
    found = json.loads(body)
    return found if isinstance(found, list) else [found]


@pytest.fixture
def calls() -> list[ReadableSpan]:
    return [*request(0), *request(1), *request(2)]


@pytest.mark.parametrize(("form", "requests"), [("json_array", 1), ("ndjson", 1), ("single", 3)])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_call_arrives_as_a_standard_payload_in_each_format(
    closing: Keep, calls: list[ReadableSpan], form: str, requests: int, compression: str
) -> None:
    with HttpReceiver() as receiver:
        made = closing(GenericApiExporter(endpoint=f"{receiver.origin}/in", format=form, compression=compression))
        outcome = deliver(made, calls)
    assert states(outcome) == ["done"] * 9
    assert len(receiver.asked) == requests
    payloads = [payload for asked in receiver.asked for payload in sent(asked)]
    assert [payload["id"] for payload in payloads] == ["call-0", "call-1", "call-2"]
    for payload in payloads:
        check(payload)
    assert {asked.path for asked in receiver.asked} == {"/in"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization=Bearer sk-1", {"authorization": "Bearer sk-1"}),
        ("Authorization=Bearer sk-1,X-Custom-Header=v", {"authorization": "Bearer sk-1", "x-custom-header": "v"}),
        ("Accept=a/b, c/d;q=1,X=1", {"accept": "a/b, c/d;q=1", "x": "1"}),
        ("X=a,b,c", {"x": "a,b,c"}),
        ("X=a%2Cb%3Dc, Y=%20d%20", {"x": "a,b=c", "y": "d"}),
        ("Authorization=Basic YWJjZA==,X=y==", {"authorization": "Basic YWJjZA==", "x": "y=="}),
    ],
)
def test_headers_are_split_at_a_comma_that_a_name_follows(
    closing: Keep, calls: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch, text: str, expected: dict[str, str]
) -> None:
    with HttpReceiver() as receiver:
        monkeypatch.setenv("GENERIC_LOGGER_ENDPOINT", receiver.origin)
        monkeypatch.setenv("GENERIC_LOGGER_HEADERS", text)
        deliver(closing(GenericApiExporter()), calls)
    assert receiver.asked[0].headers.items() >= expected.items()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), st.from_regex(r"[!-~]{1,12}", fullmatch=True)
    )
)
def test_headers_that_are_percent_encoded_come_out_as_they_were(headers: dict[str, str]) -> None:
    text = ",".join(f"{name}={quote(value, safe='')}" for name, value in headers.items())
    assert parse_headers(text, "X", loose=True) == headers


def test_the_environments_headers_do_not_go_to_an_endpoint_of_its_own(
    closing: Keep, calls: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENERIC_LOGGER_HEADERS", "Authorization=Bearer CANARY-of-another")
    with HttpReceiver() as receiver:
        deliver(closing(GenericApiExporter(endpoint=receiver.origin, headers={"X-Mine": "1"})), calls)
    assert "authorization" not in receiver.asked[0].headers
    assert receiver.asked[0].headers["x-mine"] == "1"


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_signed_request_is_verified_by_the_standards_own_library(
    closing: Keep, calls: list[ReadableSpan], compression: str
) -> None:
    with HttpReceiver() as receiver:
        made = GenericApiExporter(
            endpoint=receiver.origin, signing_secret=SECRET, compression=compression, format="single"
        )
        deliver(closing(made), calls)
    for asked in receiver.asked:
        headers = {name: value for name, value in asked.headers.items() if name.startswith("webhook-")}
        assert headers["webhook-id"] == asked.headers["idempotency-key"]
        Webhook(SECRET).verify(asked.body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(asked.body + b" ", headers, json_parse=False)


def test_the_same_calls_have_the_same_idempotency_key_on_every_try_and_others_another(
    closing: Keep, calls: list[ReadableSpan]
) -> None:
    with HttpReceiver([HttpAnswer(503), HttpAnswer(200), HttpAnswer(200)]) as receiver:
        made = closing(GenericApiExporter(endpoint=receiver.origin))
        assert states(deliver(made, calls)) == ["retry"] * 9
        assert states(deliver(made, calls)) == ["done"] * 9
        deliver(made, request(7))
    first, second, other = (asked.headers["idempotency-key"] for asked in receiver.asked)
    assert first == second != other
    assert receiver.asked[0].body == receiver.asked[1].body


def test_only_the_events_that_are_wanted_are_sent(closing: Keep) -> None:
    failed = request(5, status=429, error_type="429")
    with HttpReceiver() as receiver:
        ok = closing(GenericApiExporter(endpoint=f"{receiver.origin}/ok", event_types=["llm_api_success"]))
        bad = closing(GenericApiExporter(endpoint=f"{receiver.origin}/bad", event_types="llm_api_failure"))
        for made in (ok, bad):
            assert states(deliver(made, [*request(1), *failed])) == ["done"] * 6
    assert [(asked.path, [payload["status"] for payload in sent(asked)]) for asked in receiver.asked] == [
        ("/ok", ["success"]),
        ("/bad", ["failure"]),
    ]


def test_one_call_that_is_refused_does_not_keep_the_others(closing: Keep, calls: list[ReadableSpan]) -> None:
    def answer(asked: Asked) -> HttpAnswer:
        found = [payload["id"] for payload in sent(asked)]
        return (
            HttpAnswer(422, body=b'{"errors":[{"message":"no such field"}]}') if "call-1" in found else HttpAnswer(200)
        )

    with HttpReceiver([answer] * 9) as receiver:
        outcome = deliver(closing(GenericApiExporter(endpoint=receiver.origin)), calls)
    assert states(outcome) == ["done"] * 3 + ["dead"] * 3 + ["done"] * 3
    assert outcome.reason == "HTTP 422: no such field"


def test_no_request_is_larger_than_is_asked_for(closing: Keep, calls: list[ReadableSpan]) -> None:
    with HttpReceiver() as receiver:
        deliver(closing(GenericApiExporter(endpoint=receiver.origin, max_request_bytes=12_000)), calls)
        size = max(len(asked.body) for asked in receiver.asked)
        many = len(receiver.asked)
        deliver(closing(GenericApiExporter(endpoint=receiver.origin, max_calls=2)), calls)
    assert 1 < many <= 3
    assert size <= 12_000
    assert [len(sent(asked)) for asked in receiver.asked[many:]] == [2, 1]


def test_without_an_endpoint_it_says_how_to_give_one() -> None:
    with pytest.raises(DestinationConfigError, match="endpoint is missing; set it, or the variable GENERIC_LOGGER_EN"):
        GenericApiExporter()
    with pytest.raises(DestinationConfigError, match="'success' is not one of llm_api_success"):
        GenericApiExporter(endpoint="http://127.0.0.1:1", event_types="success")
    with pytest.raises(DestinationConfigError, match="whsec_ is no base64"):
        GenericApiExporter(endpoint="http://127.0.0.1:1", signing_secret="whsec_ä")


def test_no_secret_of_it_is_shown(closing: Keep, calls: list[ReadableSpan], caplog: pytest.LogCaptureFixture) -> None:
    words = {"user": "CANARY-user", "query": "CANARY-query", "header": "CANARY-header", "sign": "CANARY-signing"}

    def echo(asked: Asked) -> HttpAnswer:
        return HttpAnswer(403, body=f"no {' '.join(words.values())} {asked.headers['authorization']}".encode())

    with HttpReceiver([echo]) as receiver:
        endpoint = f"{receiver.origin.replace('//', '//u:CANARY-user@')}/x?k={words['query']}"
        made = closing(
            GenericApiExporter(endpoint=endpoint, headers={"x": words["header"]}, signing_secret=words["sign"])
        )
        outcome = deliver(made, calls)
    assert receiver.asked[0].headers["authorization"].startswith("Basic ")
    assert "CANARY" not in repr(made) + str(outcome) + caplog.text
    assert receiver.asked[0].headers["authorization"].split()[1] not in str(outcome)


def test_a_request_that_the_gateway_refused_itself_is_sent_as_a_failure(closing: Keep) -> None:
    with HttpReceiver() as receiver:
        made = closing(GenericApiExporter(endpoint=receiver.origin))
        refusal = build(refused(401, "unauthorized", "no key"))
        deliver(made, refusal)
        assert [sent(asked)[0]["status"] for asked in receiver.asked] == ["failure"]
