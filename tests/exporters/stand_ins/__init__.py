"""How the contract suite stands in for a destination: one module a catalogue row, named as the row, with ``STAND_IN``.

A stand-in says how the vendor answers; the suite's server sends it, and makes the faults that all vendors share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Answer", "Request", "StandIn"]


class Request(NamedTuple):
    """What arrived: ``path`` with its query, header names in lower case, the body without its content encoding."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What the vendor says."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


@dataclass(frozen=True)
class StandIn:
    """One destination's vendor, as far as every test of the suite needs it.

    options
        the exporter's keywords that lead it to the server at an origin such as ``http://127.0.0.1:1234``.
    accepted
        the answer to a request all of which is taken.
    items
        the ids (``<trace id>-<span id>`` of the generation span, in hex) of what a request holds; empty for a request
        that carries none (a login, say).
    partial
        the answer to a request of which the first item is refused for good and the rest taken; None where the vendor
        has no such answer.
    busy
        the answer that asks for patience; ``{after}`` in a header or in the body is filled in with seconds.
    transport
        ``http`` or ``grpc``; ``local`` for what is reached over no network, or by a protocol with a server of its own.
    """

    options: Callable[[str], dict[str, Any]] = lambda origin: {"endpoint": origin}
    accepted: Callable[[Request], Answer] = lambda _: Answer()
    items: Callable[[Request], list[str]] = lambda _: []
    partial: Callable[[Request], Answer] | None = None
    busy: Answer = field(default_factory=lambda: Answer(429, {"retry-after": "{after}"}))
    transport: str = "http"
