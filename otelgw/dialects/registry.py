"""The dialects by name: what ``Target.dialect`` of a record refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from otelgw.dialects import (
    document,
    labels,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_media,
    openai_responses,
)
from otelgw.dialects.facts import NOTHING, Facts

__all__ = ["DIALECTS", "Dialect", "ReadRequest", "ReadResponse", "dialect"]


class ReadRequest(Protocol):
    """``tail`` holds the last bytes of a body whose middle is missing; ``body`` then holds its first ones."""

    def __call__(self, body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts: ...


class ReadResponse(Protocol):
    """As ``ReadRequest``; ``stream`` says what was asked for, the media type of the answer decides."""

    def __call__(self, body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts: ...


class Dialect(NamedTuple):
    """How a wire format is read."""

    read_request: ReadRequest
    read_response: ReadResponse


def _labels_only(body: bytes, content_type: str = "", *, tail: bytes = b"") -> Facts:  # noqa: ARG001  # the protocol
    request = document.load(body, tail).value if body[:64].lstrip()[:1] == b"{" else None
    found = labels.from_request(request) if isinstance(request, dict) else None
    return Facts(found) if found else NOTHING


def _no_response(body: bytes, content_type: str, *, stream: bool, tail: bytes = b"") -> Facts:  # noqa: ARG001
    return NOTHING


_UNKNOWN = Dialect(_labels_only, _no_response)

DIALECTS: Mapping[str, Dialect] = {
    "openai_chat": Dialect(openai_chat.read_request, openai_chat.read_response),
    "openai_completions": Dialect(openai_completions.read_request, openai_completions.read_response),
    "openai_embeddings": Dialect(openai_embeddings.read_request, openai_embeddings.read_response),
    "openai_media": Dialect(openai_media.read_request, openai_media.read_response),
    "openai_responses": Dialect(openai_responses.read_request, openai_responses.read_response),
}


def dialect(name: str) -> Dialect:
    """Return the dialect called ``name``; for an unknown or empty name one that reads only the labels."""
    return DIALECTS.get(name, _UNKNOWN)
