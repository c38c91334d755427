"""How the contract suite stands in for a destination: one module a catalogue row, named as the row, with ``STAND_IN``.

A stand-in says how the vendor answers; the suite's server sends it, and makes the faults that all vendors share.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Answer", "Request", "StandIn", "declared", "json_error"]


class Request(NamedTuple):
    """What arrived: ``path`` with its query, header names in lower case, the body without its content encoding.

    Over gRPC ``path`` is the method's, ``headers`` are the call's metadata and ``body`` is the message.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What the vendor says.

    Over gRPC too ``status`` is HTTP's (google.rpc.Code has the pairs; 429 is RESOURCE_EXHAUSTED, 400
    INVALID_ARGUMENT); ``retry-after`` in seconds becomes RetryInfo, and ``body`` is the message, or the details of a
    failure.
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


def json_error(status: int, words: str) -> Answer:
    """Return a failure as most vendors tell it."""
    document = {"error": {"message": words}, "message": words}
    return Answer(status, {"content-type": "application/json"}, json.dumps(document).encode())


@dataclass(frozen=True)
class StandIn:
    """One destination's vendor, as far as every test of the suite needs it.

    options
        the exporter's keywords that lead it to the server at an origin such as ``http://127.0.0.1:1234``, with a value
        for at least one of its secret options, if it has any.
    accepted
        the answer to a request all of which is taken.
    items
        the ids (``<trace id>-<span id>`` of the generation span, in hex) of what a request holds; empty for a request
        that carries none (a login, say), which is always answered with ``accepted``.
    partial
        the answer to a request of which the first item is refused for good and the rest taken; None where the vendor
        has no such answer.
    names_refused
        False where that answer says how many were refused, but not which.
    busy
        the answer that asks for patience; ``{after}`` in a header or in the body is filled in with seconds. In a header
        Retry-After its other form, a date, is tried too.
    error
        the answer that fails with a status and gives an explanation in the vendor's form.
    final, denied, failing
        the statuses that refuse an item for good, that refuse the credentials, and that are the vendor's own trouble.
    transport
        ``http`` or ``grpc``; ``local`` for what is reached over no network, or by a protocol with a server of its own.
    """

    options: Callable[[str], dict[str, Any]] = lambda origin: {"endpoint": origin}
    accepted: Callable[[Request], Answer] = lambda _: Answer()
    items: Callable[[Request], list[str]] = lambda _: []
    partial: Callable[[Request], Answer] | None = None
    names_refused: bool = True
    busy: Answer = field(default_factory=lambda: Answer(429, {"retry-after": "{after}"}))
    error: Callable[[int, str], Answer] = json_error
    final: tuple[int, ...] = (400,)
    denied: tuple[int, ...] = (401, 403)
    failing: tuple[int, ...] = (500, 502, 503, 504)
    transport: str = "http"


def declared(name: str) -> StandIn | None:
    """Return how the vendor of the row called ``name`` is stood in for, None where that is not written."""
    module = f"{__name__}.{name}"
    try:
        found = importlib.import_module(module).STAND_IN
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    assert isinstance(found, StandIn)
    return found
