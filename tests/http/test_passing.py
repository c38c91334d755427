"""An answer's chunks on the short way and on the long one: what the caller gets and what is kept is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otelgw.errors import UpstreamError
from otelgw.http.capture import BodyCapture, Budget
from otelgw.http.exchange import Exchange
from otelgw.http.headers import from_upstream
from otelgw.http.passing import Answer, Passing
from otelgw.http.roundtrip import BUFFER
from otelgw.http.sse import UsageFilter
from otelgw.http.stream import Chunked, Stream, http_scope
from otelgw.tracing.record import Attempt, Capture
from tests.http.test_connection import ask, connected
from tests.http.test_roundtrip import HEAD, begun, chunk

SECRET = b"sk-upstream-canary"
PLENTY = 10**9
LIMIT = 20_000  # bytes that a capture keeps
END = b"0\r\n\r\n"

WORD = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"word"}}],"usage":null}\n\n'
PLAIN = WORD.replace(b',"usage":null', b"")
USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
ODD = (
    b": comment\n\n",
    b"event: x\n" + WORD,
    WORD + WORD,
    WORD[:-1],
    WORD[:20],
    WORD[20:],
    WORD.replace(b"\n", b"\r\n"),
    USAGE,
    PLAIN.replace(b"word", b"w" * 5000),
    PLAIN.replace(b"word", SECRET),
    WORD.replace(b"word", SECRET),
    WORD.replace(b"word", b'\\"usage\\":null'),
    b"data: [DONE]\n\n",
    b',"usage":null}\n\n',
    b"\r\n",
    b"x",
)


class Outlet(Stream):
    """An answer of which the test is the caller; ``expressed`` are the chunks that came framed."""

    immediate = True

    def __init__(self) -> None:
        super().__init__(http_scope("POST", b"/v1/chat/completions", "1.1", [(b"host", b"x")], "http", None, None))
        self.body = b""
        self.expressed: list[bytes] = []
        self.finishing = self.congested = False

    def put_out(self, data: bytes) -> bool:
        if self.finishing:
            raise ConnectionResetError("the caller has gone")
        self.body += data
        return self.congested

    def chunked(self) -> Chunked:
        return self

    def writer(self) -> Callable[[bytes], None]:
        return self._write

    def _write(self, data: bytes) -> None:
        assert not self.finishing
        size, _, rest = data.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2
        assert rest.endswith(b"\r\n")
        self.expressed.append(rest[:-2])
        self.body += rest[:-2]


@dataclass
class Outcome:
    """What became of an answer; ``expressed`` counts its chunks that took the short way."""

    body: bytes
    sent: int
    capture: Capture
    error: str = ""
    expressed: int = 0


def passing_of(outlet: Outlet, *, filtered: bool, limit: int = LIMIT) -> Passing:
    """Return an answer in progress; only what a chunk meets on its way is there."""
    upstream: Any = SimpleNamespace(secrets=(SECRET,))
    head = from_upstream([(b"content-type", b"text/event-stream")])
    answer = Answer(upstream, cast("httpx.Response", None), head, cast("Attempt", None), filtered)
    passing = Passing(Exchange(outlet.scope), answer, BodyCapture(limit, Budget(PLENTY)))
    passing.filter = UsageFilter() if filtered else None
    return passing


def ways_of(passing: Passing, outlet: Outlet) -> tuple[Callable[[bytes], bool | None], ...]:
    """Return the long way and the short one."""
    express = passing.express(outlet)
    assert express is not None
    return passing.sink(outlet.put_out), express


def passed(reads: list[bytes], *, short: bool, filtered: bool = True, limit: int = LIMIT) -> Outcome:
    """Have an upstream send an answer in ``reads`` after its head, and close the connection."""

    async def main() -> Outcome:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)
        outlet = Outlet()
        passing = passing_of(outlet, filtered=filtered, limit=limit)
        pumping = await begun(trip, *ways_of(passing, outlet)[: 1 + short])
        for read in reads:
            if not connection.closed:
                connection.data_received(read)
        if not trip.ended:
            connection.eof_received()
        error = ""
        try:
            await pumping
        except UpstreamError as caught:
            error = caught.error_type
        rest = passing.filter.flush() if passing.filter is not None else b""
        assert bool(passing.exchange.first_chunk) == bool(outlet.body)
        body = outlet.body + rest
        return Outcome(body, passing.exchange.sent_bytes, passing.capture.finish(), error, len(outlet.expressed))

    return asyncio.run(main())


def same(reads: list[bytes], **how: Any) -> int:
    """Hold the short way against the long one; return how many chunks took it."""
    long, short = passed(reads, short=False, **how), passed(reads, short=True, **how)
    taken, short.expressed = short.expressed, 0

    assert short == long
    return taken


def spelled(data: bytes, spelling: int) -> bytes:
    """Return a chunk in one of the spellings that RFC 9112 allows."""
    head = (b"%x", b"%X", b"00%x", b"%x;a=b", b'%x;a="b"')[spelling] % len(data)
    return head + b"\r\n" + data + b"\r\n"


events = st.one_of(st.sampled_from((WORD, PLAIN)), st.sampled_from(ODD), st.binary(min_size=1, max_size=300))


@given(st.lists(st.tuples(events, st.sampled_from((0, 0, 0, 1, 2, 3, 4))), max_size=12), st.booleans(), st.data())
def test_both_ways_are_the_same_wherever_the_reads_end(
    parts: list[tuple[bytes, int]], filtered: bool, data: st.DataObject
) -> None:
    chunks = [spelled(*part) for part in parts]
    ending = data.draw(st.sampled_from((END, b"0\r\ntrailer: x\r\n\r\n", b"", b"g\r\nbad\r\n", b"5\r\nab\r\n")))
    wire = b"".join((*chunks, ending))
    cuts = data.draw(st.sets(st.integers(0, len(wire)), max_size=4))
    if data.draw(st.booleans()):
        position = 0
        for part in chunks:
            position += len(part)
            cuts.add(position)
    edges = sorted({0, len(wire), *cuts})

    same([wire[begin:end] for begin, end in pairwise(edges)], filtered=filtered)


@given(st.lists(st.sampled_from((WORD, PLAIN, *ODD)), max_size=12), st.integers(100, 1500), st.booleans())
@example([WORD] * 12, 300, True)
def test_a_capture_that_is_full_keeps_the_same_head_and_tail(parts: list[bytes], limit: int, filtered: bool) -> None:
    same([*map(chunk, parts), END], limit=limit, filtered=filtered)


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("event", [WORD, PLAIN])
def test_the_usual_chunks_take_the_short_way(event: bytes, filtered: bool) -> None:
    # The first one opens the answer, and a few more find that the capture has to be given room.
    assert same([chunk(event)] * 50 + [END], filtered=filtered) > 40


@pytest.mark.parametrize("part", ODD)
@pytest.mark.parametrize("before", [WORD, USAGE, WORD[:20]])
def test_a_chunk_of_any_kind_between_the_usual_ones(part: bytes, before: bytes) -> None:
    same([*map(chunk, (before, part, WORD, part, PLAIN, WORD)), END], filtered=True)
    same([*map(chunk, (before, part, WORD, part, PLAIN, WORD)), END], filtered=False)


@pytest.mark.parametrize("filtered", [True, False])
def test_what_only_looks_like_a_chunk_is_not_taken_for_one(filtered: bool) -> None:
    inside = chunk(PLAIN)
    outer = b"%x\r\n" % (len(inside) + 4)
    tail = b"x" * (0x100 - 2)
    larger = b"1%b%b\r\n" % (inside, tail)  # the first digit of its size ends a read
    assert int(larger.partition(b"\r\n")[0], 16) == len(inside) - 4 + len(tail)

    for reads in (
        [chunk(WORD), outer + b"ab", inside, b"cd\r\n", chunk(WORD), END],
        [chunk(WORD), chunk(WORD) + outer, inside, b"abcd\r\n", END],
        [chunk(WORD) + b"1", larger[1 : 1 + len(inside)], larger[1 + len(inside) :], END],
        [chunk(WORD), chunk(WORD)[:-2] + b"--", chunk(WORD), END],
        [chunk(WORD), chunk(b"x")[:-2] + b"\n\r", END],
        [chunk(WORD), END, chunk(WORD)],
    ):
        same(reads, filtered=filtered)


def test_an_answer_that_is_not_chunked_has_no_chunks_whatever_it_looks_like() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD + chunk(WORD) + END)
        assert [part async for part in trip] == [WORD]
        trip = ask(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
        outlet = Outlet()
        passing = passing_of(outlet, filtered=False)
        pumping = await begun(trip, *ways_of(passing, outlet))
        for _ in range(3):
            connection.data_received(chunk(WORD))
        connection.eof_received()
        assert await pumping is False
        assert outlet.body == chunk(WORD) * 3

    asyncio.run(main())


def test_an_upstreams_key_does_not_take_the_short_way_to_the_caller() -> None:
    reads = [chunk(WORD)] * 3 + [chunk(WORD.replace(b"word", SECRET))] + [chunk(WORD)] * 3 + [END]

    for filtered in (True, False):
        outcome = passed(reads, short=True, filtered=filtered)
        assert SECRET not in outcome.body
        assert b"*" * len(SECRET) in outcome.body
        assert outcome.expressed == 5


def test_a_caller_that_falls_behind_is_waited_for_and_misses_nothing() -> None:
    async def main() -> None:
        connection, sock, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)
        outlet = Outlet()
        passing = passing_of(outlet, filtered=True)
        ways = ways_of(passing, outlet)
        pumping = await begun(trip, *ways)
        connection.data_received(chunk(WORD))
        outlet.congested = True
        connection.data_received(chunk(WORD))
        assert len(outlet.expressed) == 1
        connection.data_received(chunk(WORD))
        connection.data_received(chunk(b"x" * (BUFFER + 1)))
        assert outlet.body == PLAIN * 2
        assert not sock.reading
        assert await pumping is True
        outlet.congested = False
        pumping = await begun(trip, *ways)
        assert outlet.body == PLAIN * 3
        assert sock.reading
        connection.data_received(END)
        assert await pumping is False

    asyncio.run(main())


def test_a_caller_that_has_gone_ends_the_call_in_the_read_that_finds_it_gone() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)
        outlet = Outlet()
        passing = passing_of(outlet, filtered=True)
        pumping = await begun(trip, *ways_of(passing, outlet))
        connection.data_received(chunk(WORD))
        outlet.finishing = True
        connection.data_received(chunk(WORD))
        with pytest.raises(ConnectionResetError):
            await pumping
        trip.close()
        assert connection.closed

    asyncio.run(main())


def test_a_failure_on_the_short_way_is_the_readers_and_not_the_connections() -> None:
    async def main() -> None:
        connection, _, _ = connected()
        trip = ask(connection)
        connection.data_received(HEAD)

        def express(_: bytes) -> bool:
            raise RuntimeError("no")

        pumping = await begun(trip, lambda _: False, express)
        connection.data_received(chunk(b"first"))
        connection.data_received(chunk(b"second"))
        with pytest.raises(RuntimeError, match="no"):
            await pumping
        assert not connection.closed

    asyncio.run(main())
