"""An upstream's answer on its way to the caller: what is noted, kept and masked of each chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import httpx

from otelgw.http.capture import BodyCapture
from otelgw.http.chunk import HEADS, HEADS_OF_WHOLE, LONGEST
from otelgw.http.exchange import Exchange
from otelgw.http.headers import AnswerHead
from otelgw.http.redaction import mask
from otelgw.http.routing import Upstream
from otelgw.http.sse import EVENT_ENDING, NULL_USAGE, UsageFilter
from otelgw.http.stream import Stream
from otelgw.tracing.record import Attempt

__all__ = ["Answer", "Passing"]

_EVENT_CHUNK = EVENT_ENDING + b"\r\n"
_REST_CHUNK = b"}" + _EVENT_CHUNK
_NULL_CHUNK = NULL_USAGE + _REST_CHUNK


class Answer(NamedTuple):
    """An upstream's answer at its head."""

    upstream: Upstream
    response: httpx.Response
    head: AnswerHead
    attempt: Attempt
    usage_injected: bool


class Passing:
    """An answer on its way to the caller."""

    __slots__ = ("answer", "capture", "encoding", "exchange", "filter", "secret")

    def __init__(self, exchange: Exchange, answer: Answer, capture: BodyCapture) -> None:
        self.exchange = exchange
        self.answer = answer
        self.capture = capture
        self.filter: UsageFilter | None = None
        self.secret = True  # the answer may repeat what the upstream was sent
        self.encoding = "" if answer.head.encoding == "identity" else answer.head.encoding

    def sink(self, put: Callable[[bytes], bool | None]) -> Callable[[bytes], bool | None]:
        """Return the function that notes a chunk, and has ``put`` take what the caller gets of it, if anything; it
        returns what ``put`` does."""
        exchange, secrets = self.exchange, self.answer.upstream.secrets
        add = self.capture.add
        feed = self.filter.feed if self.filter is not None else None
        noted = False  # when the first chunk came and went

        def take(chunk: bytes) -> bool | None:
            nonlocal noted
            if not noted and not exchange.first_byte:
                exchange.first_byte = exchange.now()
            add(chunk)
            out = chunk if feed is None else feed(chunk)
            out = mask(out, secrets)
            if not out:
                return False
            if not noted:
                exchange.first_chunk = exchange.first_chunk or exchange.now()
                noted = True
            exchange.sent_bytes += len(out)
            return put(out)

        return take

    def express(self, outlet: Stream) -> Callable[[bytes], bool | None] | None:
        """Return the function that takes a read which is one chunk, and what is usual besides, all the way from the
        upstream's connection to the caller's; None where ``outlet`` does not write chunks.

        It returns what ``sink``'s does, which does the same with the chunk's data, and None for what it does not take.
        A worker that waits for most of the time has forgotten, whenever it wakes, how to call a function: one for a
        chunk costs half of what the nine cost that it stands for.
        """
        connection = outlet.chunked()
        if connection is None:
            return None
        exchange, secrets, stream_filter, capture = (
            self.exchange,
            self.answer.upstream.secrets,
            self.filter,
            self.capture,
        )
        keep, write = capture.chunks.append, connection.writer()
        heads, heads_of_whole, null_usage = HEADS, HEADS_OF_WHOLE, len(NULL_USAGE)

        def pass_on(read: bytes) -> bool | None:
            length = len(read)
            if length > LONGEST or not read.startswith(head := heads_of_whole[length]):
                return None
            begin = len(head)
            size = sent = length - begin - 2
            out = read
            if stream_filter is None:
                if not read.endswith(b"\r\n"):
                    return None
            elif stream_filter.held:
                return None
            elif read.endswith(_NULL_CHUNK) and read.find(b"\n", begin) == length - 4:
                sent -= null_usage
                out = heads[sent] + read[begin : -len(_NULL_CHUNK)] + _REST_CHUNK
            elif b'"usage"' in read or not read.endswith(_EVENT_CHUNK):
                return None
            for secret in secrets:
                if secret in read:
                    return None
            room = capture.room - size
            if room < 0 or connection.finishing or not exchange.first_chunk:
                return None
            capture.room = room
            keep(read[begin:-2])
            exchange.sent_bytes += sent
            write(out)
            return connection.congested

        return pass_on

    def finish_upstream(self) -> None:
        """The upstream's last byte is here."""
        if not self.answer.attempt.end:
            self.answer.attempt.end = self.exchange.generation_end = self.exchange.now()
