"""The base of destinations that take calls in the bodies of HTTP requests.

A destination says what a call is on the wire (``encode``) and how a run of them is sent (``send``). What is the same
for all is here: runs within the vendor's limits, halves of what is refused, a verdict for every span.
"""

from __future__ import annotations

import gzip
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import document, http, payload
from otelgw_exporters.calls import Call, verdicts_of
from otelgw_exporters.delivery import (
    UNUSABLE,
    Exporter,
    Outcome,
    Reply,
    Verdict,
    all_retry,
    deliver_in_parts,
    to_outcome,
)

__all__ = [
    "Limits",
    "Piece",
    "Posting",
    "Undeliverable",
    "classify",
    "explanation",
    "packed",
    "runs",
    "write_array",
]

_SAID = ("message", "error", "errors", "detail", "title", "reason", "description")


class Undeliverable(Exception):
    """A call that the vendor would take and drop; its text says why."""


class Limits(NamedTuple):
    """How much one request may hold: a number of calls, and bytes of the body before compression."""

    calls: int
    size: int


class Piece(NamedTuple):
    """What one call is on the wire."""

    call: Call
    data: bytes


class Posting(Exporter):
    """Base of a destination; ``limits`` are those of one request, ``timeout`` is in seconds, for one request."""

    def __init__(self, name: str, *, timeout: float, limits: Limits) -> None:
        super().__init__(name, timeout)
        self._limits = limits

    @abstractmethod
    def encode(self, call: Call) -> bytes | None:
        """Return a call in the vendor's form; None where it is not for this destination.

        Raises:
            Undeliverable: it can never be delivered.
        """

    @abstractmethod
    def send(self, part: Sequence[Piece], deadline: float) -> Reply:
        """Send one request and say what its answer means for everything in it."""

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        pieces: list[Piece] = []
        found: list[tuple[Call, Verdict]] = []
        for call in payload.calls(spans):
            try:
                data = self.encode(call)
            except Undeliverable as error:
                found.append((call, Verdict("dead", str(error))))
                continue
            except UNUSABLE as error:
                found.append((call, Verdict("dead", f"the call cannot be encoded ({type(error).__name__})")))
                continue
            if data is not None:
                pieces.append(Piece(call, data))

        def send(part: Sequence[Piece]) -> Reply:
            return self.send(part, min(deadline, time.monotonic() + self.timeout))

        decided = deliver_in_parts(runs(pieces, self._limits), send, deadline)
        outcome = to_outcome(decided)
        found += zip((piece.call for piece in pieces), outcome.verdicts, strict=True)
        return Outcome(verdicts_of(len(spans), found))


def runs(pieces: Sequence[Piece], limits: Limits) -> list[Sequence[Piece]]:
    """Return ``pieces`` in runs within ``limits``; one that is larger by itself is a run of its own."""
    return list(_runs(pieces, limits))


def _runs(pieces: Sequence[Piece], limits: Limits) -> Iterator[Sequence[Piece]]:
    run: list[Piece] = []
    size = 2  # the brackets of an array; every piece has its comma
    for piece in pieces:
        if run and (len(run) >= limits.calls or size + len(piece.data) + 1 > limits.size):
            yield run
            run, size = [], 2
        run.append(piece)
        size += len(piece.data) + 1
    if run:
        yield run


def write_array(part: Sequence[Piece]) -> bytes:
    """Return the pieces, which are JSON, as a JSON array."""
    return b"[" + b",".join(piece.data for piece in part) + b"]"


def packed(body: bytes) -> bytes:
    """Return ``body`` compressed with gzip: the same bytes for the same body."""
    return gzip.compress(body, compresslevel=1, mtime=0)


def classify(answer: http.Answer, said: str, hints: Mapping[int, str] | None = None) -> Reply:
    """Return what an answer means; ``hints`` say of a status how to mend it, in the vendor's own words for things."""
    reply = http.classify(answer, said)
    hint = (hints or {}).get(answer.status)
    if hint is None:
        return reply
    return replace(reply, reason=f"HTTP {answer.status}{': ' + said if said else ''} ({hint})")


def explanation(answer: http.Answer) -> str:
    """Return what an error answer says about itself: the first text under a usual key of its JSON, or its text."""
    tree = document.read(answer.body)
    if tree is None:
        return answer.body[:300].decode("utf-8", "replace")
    return _text(tree, 4)


def _text(tree: Any, depth: int) -> str:
    if isinstance(tree, str):
        return tree
    if isinstance(tree, list) and depth:
        return "; ".join(filter(None, (_text(item, depth - 1) for item in tree[:3])))
    if isinstance(tree, dict) and depth:
        return next(filter(None, (_text(tree.get(name), depth - 1) for name in _SAID)), "")
    return ""
