from __future__ import annotations

import threading
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otelgw_exporters import http
from otelgw_exporters.delivery import Reply
from tests.servers.answering import HttpAnswer
from tests.servers.otlp import HttpReceiver


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wednesday, 21-Oct-15 07:28:10 GMT", 10.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1e9", None),
        ("99999999999999", None),
        ("soon", None),
        ("²", None),
    ],
)
def test_retry_after_has_two_forms(value: str | None, seconds: float | None) -> None:
    at_07_28 = 1_445_412_480.0

    assert http.retry_after(value, at_07_28) == seconds


@given(st.text(max_size=40))
def test_retry_after_is_a_delay_or_nothing_whatever_it_says(text: str) -> None:
    delay = http.retry_after(text)

    assert delay is None or delay >= 0


def test_what_is_shown_of_a_url_holds_no_credentials_path_or_query() -> None:
    assert http.origin("https://user:secret@c.example:4318/v1/secret?key=secret") == "https://c.example:4318"
    assert http.origin("c.example:4317") == "c.example:4317"


def test_masking_covers_the_parts_of_a_value_and_cuts_long_text() -> None:
    mask = http.Masked({"authorization": "Bearer abcdef-012345", "x": "12"})

    assert mask("token abcdef-012345 or Bearer abcdef-012345 with 12") == "token *** or *** with 12"
    assert mask("a\x1b[2J\nb") == "a [2J b"
    assert len(mask("x" * 10_000)) == 300


@given(st.text(alphabet="abc \n", max_size=50), st.text(alphabet="abc", min_size=6, max_size=12))
def test_a_secret_never_survives_masking(text: str, secret: str) -> None:
    assert secret not in http.Masked({"key": secret})(f"{text}{secret}{text}")


def test_a_body_without_end_is_read_up_to_its_limit() -> None:
    answer = HttpAnswer(400, {"content-length": str(10_000_000)}, b"x" * 1_000_000)
    with HttpReceiver([answer]) as receiver, http.client("x", headers={}) as client:
        got = http.send(client, receiver.endpoint, b"", time.monotonic() + 5, str)

    assert isinstance(got, http.Answer)
    assert len(got.body) == 64 * 1024


def test_an_answer_that_drips_is_given_up_at_the_deadline() -> None:
    """Each byte comes within the read timeout, all of them never."""
    dripping = threading.Event()

    def drip() -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as server:
            port.append(server.getsockname()[1])
            ready.set()
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not dripping.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

    port: list[int] = []
    ready = threading.Event()
    thread = threading.Thread(target=drip)
    thread.start()
    try:
        ready.wait(5)
        started = time.monotonic()
        with http.client("x", headers={}) as client:
            http.send(client, f"http://127.0.0.1:{port[0]}/", b"", started + 0.5, str)
        spent = time.monotonic() - started
    finally:
        dripping.set()
        thread.join()

    assert spent < 5


def test_a_client_that_is_closed_meanwhile_is_no_exception() -> None:
    client = http.client("x", headers={})
    client.close()

    got = http.send(client, "http://127.0.0.1:1/", b"", time.monotonic() + 1, str)

    assert isinstance(got, Reply)
    assert got.kind == "again"


def test_exports_do_not_trace_themselves_in_an_instrumented_application() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        with HttpReceiver() as receiver:
            with http.client("x", headers={}) as client:
                http.send(client, receiver.endpoint, b"", time.monotonic() + 5, str)
            assert len(receiver.asked) == 1
            assert spans.get_finished_spans() == ()
            with httpx.Client() as other:
                other.post(receiver.endpoint)
            assert len(spans.get_finished_spans()) == 1
    finally:
        instrumentor.uninstrument()
        provider.shutdown()


def test_closing_a_client_ends_the_request_that_is_waiting_for_its_answer() -> None:
    replies: list[Reply | http.Answer] = []
    with HttpReceiver([HttpAnswer(silent=60)]) as receiver:
        client = http.client("x", headers={})
        waiting = threading.Thread(
            target=lambda: replies.append(http.send(client, receiver.endpoint, b"", time.monotonic() + 60, str)),
            daemon=True,
        )
        waiting.start()
        while not receiver.asked:
            time.sleep(0.01)

        client.close()
        waiting.join(20)

        assert len(receiver.asked) == 1  # it is not tried on a new connection either
    assert isinstance(replies[0], Reply)
    assert replies[0].kind == "again"


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 520, 529, 599, 408, 425, 429])
def test_a_vendors_own_trouble_is_tried_again(status: int) -> None:
    assert http.classify(http.Answer(status, httpx.Headers(), b"")).kind == "again"
