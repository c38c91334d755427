"""One upstream connection: framing, back-pressure and deadlines, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otelgw.errors import StaleConnection, UpstreamError
from otelgw.http.connection import Connection, Origin, Patience
from otelgw.http.roundtrip import BUFFER, RoundTrip
from tests.servers.upstream import (
    Close,
    Script,
    Send,
    answer,
    chat,
    chat_stream,
    close_after,
    payload,
    preceded_by,
)

LIMIT = 4096
ORIGIN = Origin("http", "model.test", 80)


class Socket(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.open = True
        self.reading = True
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return not self.open

    def abort(self) -> None:
        self.open = False

    def close(self) -> None:
        self.open = False

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Lender:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def release(self, connection: Connection) -> None:
        assert connection.usable
        self.events.append("released")

    def discard(self, connection: Connection) -> None:
        assert not connection.usable
        self.events.append("discarded")


def connected(head_limit: int = LIMIT) -> tuple[Connection, Socket, Lender]:
    connection = Connection(asyncio.get_running_loop(), ORIGIN, head_limit)
    sock, lender = Socket(), Lender()
    connection.connection_made(sock)
    connection.owner = lender
    return connection, sock, lender


def ask(connection: Connection, patience: Patience | None = None, *, without_body: bool = False) -> RoundTrip:
    started = connection.loop.time()
    return connection.send(b"HEAD", b"BODY", patience or Patience(), started=started, without_body=without_body)


class Outcome(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    error: str
    closed: bool


async def read(trip: RoundTrip) -> tuple[bytes, str]:
    body, error = b"", ""
    try:
        await trip.answered()
        async for chunk in trip:
            assert chunk
            body += chunk
    except UpstreamError as caught:
        error = caught.error_type
    return body, error


async def outcome(pieces: list[bytes], *, ended: bool, without_body: bool = False) -> Outcome:
    """Feed an answer piece by piece, then FIN if ``ended``, and say what the caller saw."""
    connection, _, lender = connected()
    trip = ask(connection, without_body=without_body)
    for piece in pieces:
        connection.data_received(piece)
    if ended and not connection.closed:
        connection.eof_received()
        connection.connection_lost(None)
    elif not trip.ended:
        connection.abort()
    body, error = await read(trip)
    assert lender.events.count("discarded") == connection.closed
    return Outcome(trip.status, trip.headers, body, error, connection.closed)


def wire(script: Script) -> bytes:
    return payload(script)


WHOLE = {
    "length": wire(chat("one two")),
    "no body": wire(answer(body=b"")),
    "chunked": wire(chat_stream("one two three")),
    "tiny chunks": wire(answer(body=b"abcdefgh", framing="chunked", chunk=1)),
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
    "chunk extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0;c\r\n\r\n",
    "1xx first": wire(preceded_by(chat("x"), 100, 103)),
    "204": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
}
ENDING = {
    "until close": b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\nsome text",
    "length, cut": wire(close_after(chat("one two"), 250)),
    "chunked, cut": wire(chat_stream("one two three"))[:-5],
    "chunk size, cut": wire(chat_stream("one two three"))[:-4],
    "head, cut": wire(chat())[:40],
}
BROKEN = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two after another": wire(chat("one")) + wire(chat("two")),
    "bytes after": wire(chat("one")) + b"x",
    "bytes after a close": wire(answer(body=b"x", headers=[(b"Connection", b"close")])) + b"x",
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
}
ANSWERS = [
    *((data, False) for data in (*WHOLE.values(), *BROKEN.values())),
    *((data, True) for data in ENDING.values()),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 700), max_size=30), st.booleans())
@example((WHOLE["chunked"], False), list(range(700)), False)
@example((WHOLE["1xx first"], False), list(range(700)), False)
@example((BROKEN["two after another"], False), list(range(700)), False)
@example((ENDING["chunked, cut"], True), list(range(700)), False)
def test_how_an_answer_is_split_into_reads_changes_nothing(
    case: tuple[bytes, bool], cuts: list[int], without_body: bool
) -> None:
    data, ended = case
    at = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    pieces = [data[start:stop] for start, stop in pairwise(at)]

    async def both() -> tuple[Outcome, Outcome]:
        return (
            await outcome([data], ended=ended, without_body=without_body),
            await outcome(pieces, ended=ended, without_body=without_body),
        )

    whole, split = asyncio.run(both())
    assert split == whole


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_answer_frees_the_connection_for_the_next(case: str) -> None:
    async def main() -> None:
        connection, _, lender = connected()
        for _ in range(3):
            trip = ask(connection)
            connection.data_received(WHOLE[case])
            assert (await read(trip))[1] == ""
        assert lender.events == ["released"] * 3

    asyncio.run(main())


@pytest.mark.parametrize("case", [*ENDING, *BROKEN])
def test_any_other_answer_closes_it(case: str) -> None:
    async def main() -> None:
        seen = await outcome([(ENDING | BROKEN)[case]], ended=True)
        assert seen.closed

    asyncio.run(main())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", WHOLE["chunked"][:120], WHOLE["length"]]))
def test_no_bytes_whatsoever_do_more_than_fail_the_call(noise: bytes, before: bytes) -> None:
    seen = asyncio.run(outcome([before, noise], ended=True))
    assert seen.error in {"", "upstream_reset", "upstream_truncated", "upstream_bad_response"}


def test_trailers_do_not_become_headers() -> None:
    seen = asyncio.run(outcome([WHOLE["trailers"]], ended=False))
    assert seen.headers == [(b"Transfer-Encoding", b"chunked")]
    assert seen.body == b"hi"


@pytest.mark.parametrize(("over", "error"), [(0, ""), (1, "upstream_bad_response")])
def test_the_head_limit_is_exact_and_counts_no_body(over: int, error: str) -> None:
    rest = [(b"Content-Length", b"9000")]
    size = LIMIT + over - sum(len(name) + len(value) + 4 for name, value in rest) - 5
    head = b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 9000\r\n\r\n" % (b"x" * size)

    async def main() -> None:
        for pieces in ([head + b"b" * 9000], [head, b"b" * 9000], [head[:-3], head[-3:], b"b" * 9000]):
            seen = await outcome(pieces, ended=False)
            assert (seen.error, seen.closed) == (error, bool(error))

    asyncio.run(main())


@pytest.mark.parametrize("flood", ["head", "trailers", "interim", "chunk extension"])
def test_framing_without_end_is_cut_off(flood: str) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    start, more = {
        "head": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        "trailers": (chunked + b"0\r\n", b"X: y\r\n"),
        "interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        "chunk extension": (chunked + b"2;", b"xxxxxx"),
    }[flood]

    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(start)
        for _ in range(LIMIT):
            connection.data_received(more)
            if connection.closed:
                break
        assert (await read(trip))[1] == "upstream_bad_response"

    asyncio.run(main())


def test_a_long_stream_of_tiny_chunks_is_not_taken_for_a_flood() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LIMIT):
            for piece in (b"1\r\n", b"x", b"\r\n"):
                connection.data_received(piece)
            assert await anext(trip) == b"x"
        await trip.aclose()

    asyncio.run(main())


def test_reading_stops_at_the_buffer_and_goes_on_when_half_is_taken() -> None:
    async def main() -> None:
        connection, sock, _ = connected()
        trip = ask(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
        while sock.reading:
            connection.data_received(b"x" * 1024)
        assert trip.buffered == BUFFER + 1024
        while not sock.reading:
            await anext(trip)
        assert trip.buffered == BUFFER // 2
        await trip.aclose()

    asyncio.run(main())


def test_a_connection_freed_with_unread_chunks_reads_again() -> None:
    async def main() -> None:
        connection, sock, lender = connected()
        trip = ask(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BUFFER + 10))
        connection.data_received(b"x" * (BUFFER + 5))
        connection.data_received(b"x" * 5)  # a read that was under way when reading was paused
        assert lender.events == ["released"]
        assert sock.reading
        assert len((await read(trip))[0]) == BUFFER + 10

    asyncio.run(main())


def test_an_answer_before_the_request_has_left_closes_the_connection() -> None:
    async def main() -> None:
        connection, sock, lender = connected()
        sock.unsent = 1
        trip = ask(connection)
        connection.data_received(WHOLE["length"])
        assert lender.events == ["discarded"]
        assert (await read(trip))[1] == ""

    asyncio.run(main())


def test_an_answer_before_the_body_was_sent_closes_the_connection() -> None:
    async def main() -> None:
        connection, _, lender = connected()
        trip = connection.send(b"HEAD", None, Patience(), started=0.0)
        connection.data_received(WHOLE["length"])
        assert lender.events == ["discarded"]
        assert (await read(trip))[1] == ""

    asyncio.run(main())


def test_the_readers_pause_is_not_counted_as_silence() -> None:
    async def main() -> None:
        connection, sock, _ = connected()
        trip = ask(connection, Patience(first_byte=60, idle=0.05, total=60))
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + b"x" * (BUFFER + 1))
        assert not sock.reading
        await asyncio.sleep(0.12)
        await anext(trip)
        assert sock.reading
        connection._tick()
        assert not trip.ended
        async with asyncio.timeout(5):
            assert (await read(trip))[1] == "upstream_timeout_idle"

    asyncio.run(main())


def test_silence_after_a_late_head_is_not_noticed_late() -> None:
    async def main() -> None:
        for late in (0.0, 0.08):  # before and after the timer has looked for the first time
            connection, _, _ = connected()
            trip = ask(connection, Patience(first_byte=60, idle=0.05, total=60))
            await asyncio.sleep(late)
            connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            async with asyncio.timeout(5):
                assert (await read(trip))[1] == "upstream_timeout_idle"

    asyncio.run(main())


def test_a_small_request_is_one_write_and_a_large_one_is_not_copied() -> None:
    async def main() -> None:
        connection, sock, _ = connected()
        lists: list[list[bytes]] = []
        sock.writelines = lists.append  # type: ignore[method-assign,assignment]
        connection.send(b"head", b"x" * BUFFER, Patience(), started=0.0)
        assert sock.written == b"head" + b"x" * BUFFER
        connection.abort()
        connection, sock, _ = connected()
        sock.writelines = lists.append  # type: ignore[method-assign,assignment]
        body = b"x" * (BUFFER + 1)
        connection.send(b"head", body, Patience(), started=0.0)
        assert [list(parts) for parts in lists] == [[b"head", body]]
        assert lists[0][1] is body
        connection.abort()

    asyncio.run(main())


def test_requests_and_chunks_move_deadlines_without_new_timers() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        patience = Patience(first_byte=60, idle=30, total=600)
        timers = set()
        for _ in range(50):
            trip = ask(connection, patience)
            for piece in (WHOLE["chunked"][:200], WHOLE["chunked"][200:]):
                connection.data_received(piece)
                timers.add(id(connection._timer))
            await read(trip)
        assert len(timers) == 1
        connection.abort()
        assert connection._timer is not None
        assert connection._timer.cancelled()

    asyncio.run(main())


def test_a_shorter_timeout_on_the_same_connection_is_not_late() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection, Patience(first_byte=60, idle=60, total=60))
        connection.data_received(WHOLE["length"])
        await read(trip)
        trip = ask(connection, Patience(first_byte=0.02))
        async with asyncio.timeout(2):
            assert (await read(trip))[1] == "upstream_timeout_first_byte"

    asyncio.run(main())


def test_an_idle_connection_has_no_deadline() -> None:
    async def main() -> None:
        connection, _, lender = connected()
        trip = ask(connection, Patience(first_byte=0.01, idle=0.01, total=0.01))
        connection.data_received(WHOLE["length"])
        await read(trip)
        await asyncio.sleep(0.05)
        assert lender.events == ["released"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("served", "data", "kind"),
    [
        (0, b"", UpstreamError),
        (1, b"", StaleConnection),
        (1, b"H", UpstreamError),
    ],
)
def test_only_a_reused_connection_without_a_byte_is_stale(served: int, data: bytes, kind: type[UpstreamError]) -> None:
    async def main() -> None:
        for lost in (None, ConnectionResetError()):
            connection, _, _ = connected()
            for _ in range(served):
                ask(connection)
                connection.data_received(WHOLE["length"])
            trip = ask(connection)
            if data:
                connection.data_received(data)
            connection.connection_lost(lost)
            with pytest.raises(UpstreamError) as caught:
                await trip.answered()
            assert type(caught.value) is kind
            assert caught.value.error_type == "upstream_reset"

    asyncio.run(main())


def test_the_keep_alive_time_of_the_upstream_is_noted() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        ask(connection)
        connection.data_received(wire(answer(headers=[(b"keep-ALIVE", b"max=100, Timeout = 17")])))
        assert connection.keep_alive == 17
        connection.abort()

    asyncio.run(main())


def test_closing_twice_tells_the_owner_once() -> None:
    async def main() -> None:
        connection, _, lender = connected()
        trip = ask(connection)
        await trip.aclose()
        await trip.aclose()
        connection.abort()
        connection.eof_received()
        connection.connection_lost(None)
        connection.data_received(b"late")
        assert lender.events == ["discarded"]
        with pytest.raises(UpstreamError):
            await anext(trip)

    asyncio.run(main())


def test_closing_an_old_round_trip_does_not_touch_the_next_one() -> None:
    async def main() -> None:
        connection, _, lender = connected()
        first = ask(connection)
        connection.data_received(WHOLE["length"])
        second = ask(connection)
        await first.aclose()
        connection.data_received(WHOLE["chunked"])
        assert (await read(second))[1] == ""
        assert lender.events == ["released", "released"]

    asyncio.run(main())


def test_a_cancelled_reader_closes_the_socket() -> None:
    async def main() -> None:
        for data in (b"", WHOLE["chunked"][:200]):
            connection, sock, _ = connected()
            trip = ask(connection)
            if data:
                connection.data_received(data)
            reader: asyncio.Task[Any] = asyncio.create_task(read(trip))
            await asyncio.sleep(0)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            assert not sock.open

    asyncio.run(main())


@pytest.mark.parametrize("script", [Script((Send(b"x"), Close()))])
def test_a_connection_that_owns_no_round_trip_closes_on_any_byte(script: Script) -> None:
    async def main() -> None:
        connection, sock, lender = connected()
        connection.data_received(payload(script))
        assert not sock.open
        assert lender.events == ["discarded"]

    asyncio.run(main())
