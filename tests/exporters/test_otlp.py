from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.trace.export import SpanExportResult

from otelgw_exporters.delivery import Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.otlp import OtlpGrpcExporter, OtlpHttpExporter
from tests.exporters.samples import generation, span
from tests.servers.answering import HttpAnswer
from tests.servers.otlp import Certificates, Failure, GrpcReceiver, HttpReceiver, partial
from tests.servers.ports import free_port

SECRET = "sk-secret-0123456789"
UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "overloaded")


def deliver(exporter: Exporter, count: int = 1, *, seconds: float = 10.0, text: str = "hello") -> Outcome:
    spans = [generation(number, text=text) for number in range(1, count + 1)]
    return exporter.deliver(spans, time.monotonic() + seconds)


def states(outcome: Outcome) -> set[str]:
    return {verdict.state for verdict in outcome.verdicts}


@pytest.fixture
def grpc_exporter(closing: Callable[[Exporter], Exporter]) -> Callable[..., Exporter]:
    return lambda **options: closing(OtlpGrpcExporter(**options))


@pytest.fixture
def http_exporter(closing: Callable[[Exporter], Exporter]) -> Callable[..., Exporter]:
    return lambda **options: closing(OtlpHttpExporter(**options))


Build = Callable[..., Exporter]


@pytest.fixture(params=[(GrpcReceiver, "grpc_exporter"), (HttpReceiver, "http_exporter")], ids=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> tuple[Any, Build]:
    """A type of receiver, and what builds an exporter to it."""
    receiver_type, fixture = request.param
    return receiver_type, request.getfixturevalue(fixture)


@pytest.fixture
def accepting(transport: tuple[Any, Build]) -> Iterator[tuple[Any, Exporter]]:
    """A receiver that accepts everything, and an exporter to it."""
    receiver_type, build = transport
    with receiver_type() as receiver:
        yield receiver, build(endpoint=receiver.endpoint, headers={"Authorization": f"Bearer {SECRET}"})


def test_spans_arrive_with_their_content_as_json_text_and_with_the_headers(accepting: tuple[Any, Exporter]) -> None:
    receiver, exporter = accepting

    outcome = deliver(exporter, 3)

    assert states(outcome) == {"done"}
    assert [each.span_id for each in receiver.spans] == [number.to_bytes(8, "big") for number in (1, 2, 3)]
    values = {item.key: item.value for item in receiver.spans[0].attributes}
    assert json.loads(values["gen_ai.input.messages"].string_value)[0]["role"] == "user"
    assert values["gen_ai.usage.input_tokens"].int_value == 12
    assert [item.string_value for item in values["gen_ai.response.finish_reasons"].array_value.values] == ["stop"]
    assert receiver.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "otelgw" in receiver.asked[0].headers["user-agent"]


def test_no_representation_shows_a_header(accepting: tuple[Any, Exporter]) -> None:
    _, exporter = accepting

    assert SECRET not in repr(exporter)
    assert "127.0.0.1" in repr(exporter)


def test_a_shut_down_exporter_fails_without_an_exception(accepting: tuple[Any, Exporter]) -> None:
    receiver, exporter = accepting
    exporter.shutdown()

    assert exporter.export([span()]) is SpanExportResult.FAILURE
    assert states(deliver(exporter)) == {"retry"}
    assert receiver.spans == []


def test_an_empty_batch_asks_nobody(accepting: tuple[Any, Exporter]) -> None:
    receiver, exporter = accepting

    assert exporter.deliver([], time.monotonic() + 1) == Outcome(())
    assert receiver.asked == []


def test_a_span_that_cannot_be_encoded_does_not_hold_up_the_others(accepting: tuple[Any, Exporter]) -> None:
    receiver, exporter = accepting

    outcome = exporter.deliver([span(1), span(2, {"bad": object()}), span(3)], time.monotonic() + 10)

    assert [verdict.state for verdict in outcome.verdicts] == ["done", "dead", "done"]
    assert len(receiver.spans) == 2


@pytest.mark.parametrize("content_type", ["http/protobuf", "http/json"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_http_sends_either_encoding_compressed_or_not(
    http_exporter: Build, content_type: str, compression: str
) -> None:
    with HttpReceiver() as receiver:
        exporter = http_exporter(endpoint=receiver.origin, protocol=content_type, compression=compression)

        assert states(deliver(exporter, 2)) == {"done"}

        (asked,) = receiver.asked
        assert asked.path == "/v1/traces"
        assert asked.headers.get("content-encoding", "none") == compression
        if content_type == "http/json":
            request = json.loads(asked.body)
            assert len(request["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 2
        else:
            assert len(receiver.spans) == 2


def test_grpc_compresses(grpc_exporter: Build) -> None:
    with GrpcReceiver() as receiver:
        exporter = grpc_exporter(endpoint=receiver.endpoint, compression="gzip")

        assert states(deliver(exporter, 2)) == {"done"}
        assert len(receiver.spans) == 2


def test_messages_stay_structured_where_that_is_asked_for(grpc_exporter: Build) -> None:
    with GrpcReceiver() as receiver:
        deliver(grpc_exporter(endpoint=receiver.endpoint, form="structured"))

        values = {item.key: item.value for item in receiver.spans[0].attributes}
        assert values["gen_ai.input.messages"].WhichOneof("value") == "array_value"


# Refusals


@pytest.mark.parametrize(
    ("failure", "state", "after"),
    [
        (UNAVAILABLE, "retry", None),
        (Failure(grpc.StatusCode.UNAVAILABLE, "later", 7), "retry", 7.0),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", 1.5), "retry", 1.5),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"), "retry", None),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED), "retry", None),
        (Failure(grpc.StatusCode.ABORTED), "retry", None),
        (Failure(grpc.StatusCode.CANCELLED), "retry", None),
        (Failure(grpc.StatusCode.DATA_LOSS), "retry", None),
        (Failure(grpc.StatusCode.OUT_OF_RANGE), "retry", None),
        (Failure(grpc.StatusCode.UNAUTHENTICATED, "bad key"), "retry", 60.0),
        (Failure(grpc.StatusCode.PERMISSION_DENIED), "retry", 60.0),
        (Failure(grpc.StatusCode.UNIMPLEMENTED), "retry", 60.0),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad span"), "dead", None),
        (Failure(grpc.StatusCode.INTERNAL), "dead", None),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)"), "dead", None),
    ],
)
def test_a_grpc_status_decides_what_becomes_of_a_span(
    grpc_exporter: Build, failure: Failure, state: str, after: float | None
) -> None:
    with GrpcReceiver([failure]) as receiver:
        outcome = deliver(grpc_exporter(endpoint=receiver.endpoint))

    assert states(outcome) == {state}
    assert outcome.after == after
    assert failure.code.name in outcome.reason


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("answer", "state", "after"),
    [
        (HttpAnswer(429, {"Retry-After": "7"}), "retry", (7, 7)),
        (HttpAnswer(503, {"Retry-After": "soon"}), "retry", None),
        (HttpAnswer(502), "retry", None),
        (HttpAnswer(504), "retry", None),
        (HttpAnswer(408), "retry", None),
        (HttpAnswer(401), "retry", (60, 60)),
        (HttpAnswer(403), "retry", (60, 60)),
        (HttpAnswer(404), "retry", (60, 60)),
        (HttpAnswer(308, {"Location": "https://elsewhere.example/v1/traces?token=abc"}), "retry", (60, 60)),
        (HttpAnswer(400), "dead", None),
        (HttpAnswer(413), "dead", None),
        (HttpAnswer(422), "dead", None),
        (HttpAnswer(500), "dead", None),
    ],
)
def test_an_http_status_decides_what_becomes_of_a_span(
    http_exporter: Build, answer: HttpAnswer, state: str, after: tuple[float, float] | None
) -> None:
    with HttpReceiver([answer]) as receiver:
        outcome = deliver(http_exporter(endpoint=receiver.endpoint))

    assert states(outcome) == {state}
    assert str(answer.status) in outcome.reason
    assert "token" not in outcome.reason
    if after is None:
        assert outcome.after is None
    else:
        assert outcome.after is not None
        assert after[0] <= outcome.after <= after[1]


def test_a_retry_after_may_be_a_date(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(503, {"Retry-After": in_seconds(3600)})]) as receiver:
        outcome = deliver(http_exporter(endpoint=receiver.endpoint))

    assert states(outcome) == {"retry"}
    assert outcome.after is not None
    assert 3500 <= outcome.after <= 3600


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-protobuf", Status(code=3, message="span name is missing").SerializeToString()),
        ("application/json", b'{"code": 3, "message": "span name is missing"}'),
        ("text/plain", b"span name is missing"),
    ],
)
def test_an_http_error_is_told_in_the_receivers_own_words(http_exporter: Build, content_type: str, body: bytes) -> None:
    with HttpReceiver([HttpAnswer(400, {"content-type": content_type}, body)]) as receiver:
        outcome = deliver(http_exporter(endpoint=receiver.endpoint))

    assert outcome.reason == "HTTP 400: span name is missing"


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff", b"not json", b"[]", b'{"partialSuccess": 5}'])
@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/json", "text/html"])
def test_a_success_whose_body_makes_no_sense_is_a_success(http_exporter: Build, content_type: str, body: bytes) -> None:
    with HttpReceiver([HttpAnswer(200, {"content-type": content_type}, body)]) as receiver:
        assert states(deliver(http_exporter(endpoint=receiver.endpoint))) == {"done"}


def test_a_secret_that_a_receiver_repeats_does_not_come_back_in_the_reason(
    http_exporter: Build, grpc_exporter: Build
) -> None:
    answer = HttpAnswer(403, {"content-type": "text/plain"}, f"key {SECRET} is \x1b[31m revoked\n".encode())
    with HttpReceiver([answer]) as receiver:
        outcome = deliver(http_exporter(endpoint=receiver.endpoint, headers={"x-api-key": SECRET}))
    with GrpcReceiver([Failure(grpc.StatusCode.UNAUTHENTICATED, f"key {SECRET} is revoked")]) as grpc_receiver:
        other = deliver(grpc_exporter(endpoint=grpc_receiver.endpoint, headers={"authorization": f"Bearer {SECRET}"}))

    assert "revoked" in outcome.reason
    assert "revoked" in other.reason
    assert SECRET not in outcome.reason + other.reason
    assert outcome.reason.isprintable()


def test_a_partial_success_is_not_sent_again_and_its_count_is_told(http_exporter: Build, grpc_exporter: Build) -> None:
    with GrpcReceiver([partial(1, "too old")]) as receiver:
        outcome = deliver(grpc_exporter(endpoint=receiver.endpoint), 3)
    body = partial(1, "too old").SerializeToString()
    with HttpReceiver([HttpAnswer(200, {"content-type": "application/x-protobuf"}, body)]) as http_receiver:
        by_http = deliver(http_exporter(endpoint=http_receiver.endpoint), 3)
    text = b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}'
    with HttpReceiver([HttpAnswer(200, {"content-type": "application/json"}, text)]) as json_receiver:
        by_json = deliver(http_exporter(endpoint=json_receiver.endpoint, protocol="http/json"), 3)

    assert states(outcome) == {"done"}
    assert (outcome.rejected, outcome.message) == (1, "too old")
    assert by_http == by_json == outcome


def test_a_request_of_which_every_span_is_rejected_names_the_dead(grpc_exporter: Build) -> None:
    with GrpcReceiver([partial(2, "too old")]) as receiver:
        outcome = deliver(grpc_exporter(endpoint=receiver.endpoint), 2)

    assert [(verdict.state, verdict.reason) for verdict in outcome.verdicts] == [("dead", "too old")] * 2
    assert outcome.rejected == 0


# Size


def test_a_batch_beyond_grpcs_4_mib_arrives_whole(grpc_exporter: Build) -> None:
    with GrpcReceiver() as receiver:
        outcome = deliver(grpc_exporter(endpoint=receiver.endpoint), 512, text="x" * 12_000)

        assert states(outcome) == {"done"}
        assert len({each.span_id for each in receiver.spans}) == 512
        assert len(receiver.asked) == 2


def test_a_server_with_a_smaller_limit_gets_smaller_requests_down_to_the_span_that_never_fits(
    grpc_exporter: Build,
) -> None:
    spans = [generation(number, text="x" * (60_000 if number == 5 else 100)) for number in range(1, 17)]
    with GrpcReceiver(max_bytes=8_000) as receiver:
        exporter = grpc_exporter(endpoint=receiver.endpoint)

        outcome = exporter.deliver(spans, time.monotonic() + 10)

        assert [index for index, verdict in enumerate(outcome.verdicts) if verdict.state == "dead"] == [4]
        assert "larger than max" in outcome.reason
        assert len(receiver.spans) == 15


COLLECTORS_413 = HttpAnswer(400, {"content-type": "text/plain"}, b"http: request body too large")


@pytest.mark.parametrize("too_large", [HttpAnswer(413), COLLECTORS_413], ids=["413", "the Collector's 400"])
def test_a_request_that_is_too_large_is_answered_with_smaller_ones(http_exporter: Build, too_large: HttpAnswer) -> None:
    def limited(asked: Any) -> HttpAnswer:
        return too_large if len(asked.body) > 3_000 else HttpAnswer()

    with HttpReceiver([limited], repeat=True) as receiver:
        exporter = http_exporter(endpoint=receiver.endpoint)
        spans = [generation(number, text="x" * (5_000 if number == 3 else 500)) for number in range(1, 9)]

        outcome = exporter.deliver(spans, time.monotonic() + 10)

        assert [verdict.state for verdict in outcome.verdicts] == ["done", "done", "dead", *["done"] * 5]
        assert len(receiver.spans) == 7


def test_a_refused_span_does_not_take_its_batch_with_it(http_exporter: Build) -> None:
    def poisoned(asked: Any) -> HttpAnswer:
        return HttpAnswer(400 if b"poison" in asked.body else 200)

    with HttpReceiver([poisoned], repeat=True) as receiver:
        exporter = http_exporter(endpoint=receiver.endpoint)
        spans = [generation(number, text="poison" if number == 100 else "fine") for number in range(1, 257)]

        outcome = exporter.deliver(spans, time.monotonic() + 20)

        assert [number for number, verdict in enumerate(outcome.verdicts, 1) if verdict.state == "dead"] == [100]
        assert len({each.span_id for each in receiver.spans}) == 255


def test_a_receiver_that_refuses_everything_is_not_asked_for_every_span(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(400)], repeat=True) as receiver:
        outcome = deliver(http_exporter(endpoint=receiver.endpoint), 512, seconds=20)

        assert states(outcome) == {"dead"}
        assert len(receiver.asked) < 100


def test_after_a_request_for_patience_nothing_more_is_sent(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(200), HttpAnswer(429, {"Retry-After": "9"})], repeat=False) as receiver:
        exporter = http_exporter(endpoint=receiver.endpoint, max_request_bytes=2_000)

        outcome = deliver(exporter, 12, text="x" * 500)

        assert [verdict.state for verdict in outcome.verdicts] == ["done"] * 2 + ["retry"] * 10
        assert outcome.after == 9
        assert len(receiver.asked) == 2


# Time and connections


def test_a_receiver_that_says_nothing_costs_no_more_than_the_deadline(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(silent=30)], repeat=True) as receiver:
        started = time.monotonic()
        outcome = deliver(http_exporter(endpoint=receiver.endpoint), seconds=0.3)
        spent = time.monotonic() - started

    assert states(outcome) == {"retry"}
    assert "no answer in time" in outcome.reason
    assert spent < 10


def test_a_grpc_receiver_that_says_nothing_costs_no_more_than_the_deadline(grpc_exporter: Build) -> None:
    with GrpcReceiver([lambda _: time.sleep(2)]) as receiver:
        outcome = deliver(grpc_exporter(endpoint=receiver.endpoint), seconds=0.3)

    assert states(outcome) == {"retry"}
    assert "DEADLINE_EXCEEDED" in outcome.reason


def test_nobody_listening_is_a_reason_to_retry_and_the_reason_names_the_place(transport: tuple[Any, Build]) -> None:
    port, (_, build) = free_port(), transport
    outcome = deliver(build(endpoint=f"http://127.0.0.1:{port}"), seconds=5)

    assert states(outcome) == {"retry"}
    assert f"127.0.0.1:{port}" in outcome.reason


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_at_once(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(), HttpAnswer(hang_up=True)]) as receiver:
        exporter = http_exporter(endpoint=receiver.endpoint)

        assert states(deliver(exporter)) == {"done"}
        assert states(deliver(exporter)) == {"done"}
        assert len(receiver.asked) == 3


def test_a_grpc_receiver_that_comes_back_gets_spans_again(grpc_exporter: Build) -> None:
    port = free_port()
    exporter = grpc_exporter(endpoint=f"http://127.0.0.1:{port}")
    assert states(deliver(exporter)) == {"retry"}

    with GrpcReceiver(port=port) as receiver:
        deadline = time.monotonic() + 20
        while states(deliver(exporter)) == {"retry"}:
            assert time.monotonic() < deadline
            time.sleep(0.1)

        assert len(receiver.spans) == 1


def test_export_retries_by_itself_within_its_timeout(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(503), HttpAnswer(200)]) as receiver:
        assert http_exporter(endpoint=receiver.endpoint).export([span()]) is SpanExportResult.SUCCESS
        assert len(receiver.asked) == 2


def test_export_gives_up_when_waiting_would_outlast_its_timeout(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(503, {"Retry-After": "60"})], repeat=True) as receiver:
        assert http_exporter(endpoint=receiver.endpoint).export([span()]) is SpanExportResult.FAILURE
        assert len(receiver.asked) == 1


def test_export_fails_when_a_span_is_dead(http_exporter: Build) -> None:
    with HttpReceiver([HttpAnswer(400)]) as receiver:
        assert http_exporter(endpoint=receiver.endpoint).export([span()]) is SpanExportResult.FAILURE


# TLS


@pytest.fixture
def tls_options(certificates: Certificates) -> dict[str, str]:
    return {
        "certificate": str(certificates.authority),
        "client_key": str(certificates.client_key),
        "client_certificate": str(certificates.client_certificate),
    }


def test_mutual_tls_with_headers(
    transport: tuple[Any, Build], certificates: Certificates, tls_options: dict[str, str]
) -> None:
    receiver_type, build = transport
    with receiver_type(tls=certificates) as receiver:
        exporter = build(endpoint=receiver.endpoint, headers={"x-api-key": SECRET}, **tls_options)

        assert states(deliver(exporter)) == {"done"}
        assert receiver.asked[0].headers["x-api-key"] == SECRET


def test_a_server_with_another_authority_gets_nothing(transport: tuple[Any, Build], certificates: Certificates) -> None:
    receiver_type, build = transport
    with receiver_type(tls=certificates) as receiver:
        outcome = deliver(build(endpoint=receiver.endpoint), seconds=5)

        assert states(outcome) == {"retry"}
        assert receiver.asked == []


def test_the_usual_mistakes_are_named(grpc_exporter: Build, certificates: Certificates) -> None:
    with GrpcReceiver() as receiver, HttpReceiver() as http_receiver, GrpcReceiver(tls=certificates) as secure:
        no_tls = deliver(grpc_exporter(endpoint=f"localhost:{receiver.port}"))
        by_http = deliver(grpc_exporter(endpoint=http_receiver.origin))
        untrusted = deliver(grpc_exporter(endpoint=secure.endpoint))

    assert "no TLS is spoken there" in no_tls.reason
    assert "use the destination otlp_http" in by_http.reason
    assert "certificate is not trusted" in untrusted.reason


def test_an_endpoint_without_a_scheme_is_tls_unless_insecure_says_otherwise(
    grpc_exporter: Build, certificates: Certificates, tls_options: dict[str, str]
) -> None:
    with GrpcReceiver(tls=certificates) as receiver:
        assert states(deliver(grpc_exporter(endpoint=f"localhost:{receiver.port}", **tls_options))) == {"done"}
    with GrpcReceiver() as receiver:
        assert states(deliver(grpc_exporter(endpoint=f"127.0.0.1:{receiver.port}", insecure=True))) == {"done"}


def test_a_certificate_that_is_not_there_is_a_config_error(transport: tuple[Any, Build]) -> None:
    with pytest.raises(DestinationConfigError, match=r"destination mine: certificate: there is no file .*missing\.pem"):
        transport[1](name="mine", endpoint="https://collector.example:4317", certificate="missing.pem")


def test_a_client_key_without_its_certificate_is_a_config_error(
    transport: tuple[Any, Build], certificates: Certificates
) -> None:
    with pytest.raises(DestinationConfigError, match="go together"):
        transport[1](endpoint="https://collector.example:4317", client_key=str(certificates.client_key))
