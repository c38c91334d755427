"""The short way to a server and the general one, held against each other over a server that answers with raw bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import pytest

from otelgw_exporters import http
from otelgw_exporters.confinement import Bounds, confined
from otelgw_exporters.delivery import Reply
from otelgw_exporters.direct import Direct, direct
from tests.servers.answering import HttpAnswer
from tests.servers.otlp import Certificates, HttpReceiver

SECRET = "sk-secret-0123456789"
HEADERS = {"user-agent": "test", "x-key": SECRET, "content-type": "application/x-protobuf"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Raw:
    """A server that answers each request, whole or not, with the next of ``answers``; an empty one hangs up."""

    def __init__(self, answers: Sequence[bytes], *, close: bool = False) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._close = close
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/v1/traces?x=a%20b"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while self._answers and self._asked(connection):
                    answer = self._answers.pop(0)
                    connection.sendall(answer)
                    if self._close or not answer:
                        break

    def _asked(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l"))
        while len(body) < length:
            body += connection.recv(1 << 20)
        self.heads.append(head)
        self.bodies.append(body)
        return True


@contextmanager
def both(url: str, **headers: str) -> Iterator[tuple[http.Client, Direct]]:
    with http.client("x", headers=HEADERS | headers) as client:
        short = direct(client, url, http.NO_TLS, "x")
        assert short is not None
        try:
            yield client, short
        finally:
            short.close()


def told(answer: http.Answer | Reply) -> tuple[object, ...]:
    if isinstance(answer, Reply):
        return (answer.kind,)
    return answer.status, sorted(answer.headers.multi_items()), answer.body


def soon() -> float:
    return time.monotonic() + 5


@pytest.mark.parametrize(
    ("answers", "close"),
    [
        ([OK], False),
        ([b"HTTP/1.1 204 No Content\r\nX-Odd: caf\xe9\r\n\r\n"], False),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"], False),
        ([b"HTTP/1.1 200 OK\r\n\r\nto the end"], True),
        ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"], True),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK], False),
        ([b"HTTP/1.1 307 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"], False),
        ([b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nA: 1\r\nA: 2\r\nContent-Length: 4\r\n\r\nslow"], False),
        ([b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000], False),
        ([b"", OK], False),  # broken, and tried once more
        ([b"", b"", OK], False),
        ([b"garbage\r\n\r\n", b"garbage\r\n\r\n"], True),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"] * 2, True),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncut"] * 2, True),
        ([b"HTTP/1.1 200 OK\r\nContent-Le"] * 2, True),
    ],
)
def test_the_short_way_comes_out_as_the_general_one_does(answers: list[bytes], close: bool) -> None:
    found = []
    for short in (False, True):
        with Raw(answers, close=close) as server, both(server.url) as (client, way):
            answer = (
                way.post([b"a", b"bc"], soon(), str) if short else http.send(client, server.url, b"abc", soon(), str)
            )
            found.append((told(answer), server.bodies, [sorted(head.lower().split(b"\r\n")) for head in server.heads]))

    general, ours = found
    assert ours[0] == general[0]
    assert ours[1] == general[1]
    assert [[line for line in head if b"host:" not in line] for head in ours[2]] == [
        [line for line in head if b"host:" not in line] for head in general[2]
    ]


def test_a_connection_is_kept_for_the_next_request_and_one_that_ended_meanwhile_is_not_used() -> None:
    with Raw([OK] * 3) as server, both(server.url) as (_, way):
        for _ in range(3):
            answer = way.post([b"x"], soon(), str)
            assert isinstance(answer, http.Answer)
        assert server.connections == 1
    with Raw([OK, OK], close=True) as server, both(server.url) as (_, way):
        for _ in range(2):
            assert isinstance(way.post([b"x"], soon(), str), http.Answer)
            time.sleep(0.05)
        assert (server.connections, len(server.bodies)) == (2, 2)


def test_a_request_in_more_pieces_and_larger_than_a_socket_takes_at_once_arrives_whole() -> None:
    pieces = [bytes([number % 251]) * (number % 7 * 2000) for number in range(3000)]
    with Raw([OK]) as server, both(server.url) as (_, way):
        assert isinstance(way.post(pieces, time.monotonic() + 20, str), http.Answer)

    assert server.bodies == [b"".join(pieces)]


def test_an_answer_that_comes_before_all_was_sent_is_understood() -> None:
    def refuse() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse)
        thread.start()
        with both(f"http://127.0.0.1:{server.getsockname()[1]}/") as (_, way):
            answer = way.post([b"x" * 10_000_000], soon(), str)
        thread.join(20)

    assert isinstance(answer, http.Answer)
    assert answer.status == 413


def test_an_answer_that_drips_is_given_up_at_the_deadline() -> None:
    over = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            while not over.wait(0.05):
                try:
                    connection.sendall(b"H")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with both(f"http://127.0.0.1:{server.getsockname()[1]}/") as (_, way):
                answer = way.post([b"x"], time.monotonic() + 0.3, str)
        finally:
            over.set()
            thread.join(20)

    assert isinstance(answer, Reply)
    assert (answer.kind, "no answer in time" in answer.reason) == ("again", True)


def test_closing_ends_the_request_that_is_waiting_for_its_answer_and_it_is_not_tried_again() -> None:
    replies: list[Reply | http.Answer] = []
    with HttpReceiver([HttpAnswer(silent=60)]) as receiver, both(receiver.endpoint) as (_, way):
        waiting = threading.Thread(
            target=lambda: replies.append(way.post([b"x"], time.monotonic() + 60, str)), daemon=True
        )
        waiting.start()
        while not receiver.asked:
            time.sleep(0.01)

        way.close()
        waiting.join(20)

        assert len(receiver.asked) == 1
    assert isinstance(replies[0], Reply)
    assert replies[0].kind == "again"


def test_nobody_there_is_said_without_a_secret() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with both(f"http://127.0.0.1:{port}/{SECRET}") as (_, way):
        answer = way.post([b"x"], soon(), http.Masked({"x-key": SECRET}))

    assert isinstance(answer, Reply)
    assert f"127.0.0.1:{port}" in answer.reason
    assert SECRET not in answer.reason


def test_tls_is_spoken_with_the_files_of_the_destination(certificates: Certificates) -> None:
    files = http.Tls(str(certificates.authority), str(certificates.client_key), str(certificates.client_certificate))
    with HttpReceiver(tls=certificates) as receiver, http.client("x", headers=HEADERS, tls=files) as client:
        way = direct(client, receiver.endpoint, files, "x")
        assert way is not None
        for _ in range(2):
            answer = way.post([b"ab" * 100_000, b"c"], soon(), str)
            assert isinstance(answer, http.Answer), answer
        way.close()
        assert receiver.asked[1].headers["x-key"] == SECRET
        unknown = direct(client, receiver.endpoint, http.NO_TLS, "x")
        assert unknown is not None
        refused = unknown.post([b"x"], soon(), str)
    assert isinstance(refused, Reply)
    assert "CERTIFICATE_VERIFY_FAILED" in refused.reason


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://user:secret@127.0.0.1:1/", {}),
        ("http://127.0.0.1:1/", {"transfer-encoding": "chunked"}),
        ("http://127.0.0.1:1/", {"x-key": " spaces "}),
        ("ftp://127.0.0.1/", {}),
        ("nonsense", {}),
    ],
)
def test_what_takes_more_than_a_connection_is_left_to_the_general_way(url: str, headers: dict[str, str]) -> None:
    with http.client("x", headers=HEADERS | headers) as client:
        assert direct(client, url, http.NO_TLS, "x") is None


def test_a_proxy_or_confinement_is_left_to_the_general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://collector.example:4318/v1/traces"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "direct.example")
    with http.client("x", headers=HEADERS) as client:
        assert direct(client, url, http.NO_TLS, "x") is None
        assert direct(client, "http://direct.example/", http.NO_TLS, "x") is not None
        with confined(Bounds()):
            assert direct(client, "http://direct.example/", http.NO_TLS, "x") is None
