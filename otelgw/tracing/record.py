"""The one flat record per request: the request path's product, the pipeline's raw material.

A record is written to the spool in one piece, encoded as a MessagePack array in field order. New fields are only ever
appended, with a default, so that every released version can be read. Times are ``start`` (nanoseconds since the epoch,
one wall-clock reading) plus monotonic differences in nanoseconds, so a clock jump cannot turn a duration negative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = [
    "EVERYBODY",
    "Attempt",
    "Audience",
    "Caller",
    "Capture",
    "Price",
    "Record",
    "Target",
    "capture_whole",
    "decode",
    "encode",
]

Headers = list[tuple[str, str]]


class Price(msgspec.Struct, array_like=True, frozen=True):
    """Where a price comes from: ``genai-prices`` (provider and model id), or ``config`` (USD per token)."""

    source: str
    provider: str = ""
    model: str = ""
    input_per_token: float = 0.0
    output_per_token: float = 0.0


class Capture(msgspec.Struct, array_like=True, frozen=True):
    """One body as it was on the wire.

    ``size`` is in bytes. When the whole body is held it is in ``head`` and ``sha256`` is empty; a longer one keeps its
    first and last bytes in ``head`` and ``tail`` and has the hash of the whole, in hex. A body that is not recorded
    (``withheld``) has neither; what was read of it without content is in the record's ``facts``.
    """

    content_type: str = ""
    encoding: str = ""
    size: int = 0
    head: bytes = b""
    tail: bytes = b""
    sha256: str = ""
    withheld: bool = False


class Attempt(msgspec.Struct, array_like=True):
    """One call to an upstream. Times are nanoseconds after ``Record.start``; 0 means that it did not happen."""

    span_id: str
    number: int
    start: int
    end: int = 0
    first_byte: int = 0
    method: str = "POST"
    url: str = ""  # without credentials: query values of secret parameters are replaced
    server_address: str = ""
    server_port: int = 0
    status: int = 0
    error_type: str = ""
    retry_reason: str = ""
    provider: str = ""
    model: str = ""
    request_id: str = ""
    request_headers: Headers = []
    response_headers: Headers = []


class Target(msgspec.Struct, array_like=True, frozen=True):
    """What the request was routed to; constant per deployment and route, resolved when the config is loaded.

    ``operation`` is a ``gen_ai.operation.name`` or empty for a route without one; ``dialect`` names a module of
    ``otelgw.dialects``; ``provider`` is the ``gen_ai.provider.name``.
    """

    alias: str = ""
    model: str = ""
    provider: str = ""
    deployment_id: str = ""
    api_base: str = ""
    operation: str = ""
    dialect: str = ""
    server_address: str = ""
    server_port: int = 0
    price: Price | None = None


class Caller(msgspec.Struct, array_like=True, frozen=True):
    """Who called: never the key itself, only its SHA-256 in hex and what is known of it."""

    authenticated: bool = False
    key_hash: str = ""
    key_alias: str = ""
    user_id: str = ""
    user_email: str = ""
    team_id: str = ""
    team_alias: str = ""


class Audience(msgspec.Struct, array_like=True, frozen=True):
    """Which destinations a request is for, by the names that they answer to, in lower case.

    ``only`` these (None is all), ``without`` those. ``nobody`` gets it but who must: a destination with
    ``required: true`` gets every record, without content where it is not among those that it is for.
    """

    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    nobody: bool = False

    def includes(self, names: Iterable[str]) -> bool:
        """Say whether a destination that answers to ``names`` is among them."""
        if self.nobody:
            return False
        answers = set(names)
        return (self.only is None or not answers.isdisjoint(self.only)) and answers.isdisjoint(self.without)


EVERYBODY = Audience()


class Record(msgspec.Struct, array_like=True, kw_only=True):
    """One request, from the first byte read to the last byte sent."""

    version: int = 1
    call_id: str
    trace_id: str  # 32 hex digits
    span_id: str  # SERVER span, 16 hex digits
    generation_span_id: str = ""  # empty: no gen_ai span (refused before routing, or a route without an operation)
    parent_span_id: str = ""
    trace_flags: int = 1
    trace_state: str = ""
    sampled: bool = True  # the sampler's decision; destinations with `sampling: parent` obey it
    link_trace_id: str = ""  # the caller's context where it is linked, not continued
    link_span_id: str = ""
    baggage: dict[str, str] = {}

    start: int  # nanoseconds since the epoch
    upstream_start: int = 0  # generation span start, after Record.start
    first_byte: int = 0  # first byte of the answer's body from upstream
    first_chunk: int = 0  # first body byte sent to the caller
    generation_end: int = 0
    end: int = 0

    method: str = "POST"
    route: str = ""
    path: str = ""
    scheme: str = "http"
    http_version: str = "1.1"
    server_address: str = ""
    server_port: int = 0
    client_address: str = ""
    client_port: int = 0
    user_agent: str = ""
    status: int = 0
    error_type: str = ""
    error_message: str = ""
    stream: bool = False
    sent_bytes: int = 0
    request_headers: Headers = []
    response_headers: Headers = []

    target: Target = Target()
    caller: Caller = Caller()
    attempts: list[Attempt] = []
    request: Capture = Capture()
    response: Capture = Capture()
    content: bool = True  # content capture allowed; when False both captures are withheld and `facts` has the rest
    facts: dict[str, Any] = {}  # attributes read in the gateway, where content is withheld
    cost: float | None = None  # USD, where the gateway computed it for a header
    metadata: dict[str, Any] = {}
    stream_usage_injected: bool = False
    retry_count: int = 0
    audience: Audience = EVERYBODY
    labels: dict[str, Any] = {}  # attributes of every span, from headers that the config names
    raw_request: str = ""  # the last call of an upstream as a command, where the caller asked for it
    credentials: tuple[str, ...] = ()  # the names of the headers that carried the caller's credentials, never a value


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    return _encoder.encode(record)


def decode(payload: bytes) -> Record:
    """Return the record in ``payload``.

    Raises:
        msgspec.DecodeError: the payload is no record of a known shape.
    """
    return _decoder.decode(payload)


def capture_whole(body: bytes, content_type: str, encoding: str = "") -> Capture:
    """Return a capture that holds all of ``body``."""
    return Capture(content_type=content_type, encoding=encoding, size=len(body), head=body)
