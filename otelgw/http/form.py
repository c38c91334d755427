"""The gateway's own fields of a multipart form, as far as they were read before it is routed: taken out, and as JSON's.

A form is streamed on while it arrives, so only what comes before its first file is looked at; the clients of the APIs
send fields first. A nested ``metadata`` is read as OpenAI's clients write it: ``metadata[key]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from otelgw.http.splice import GATEWAY_FIELDS, REDIRECTING_FIELDS, Fields

__all__ = ["HEAD", "Form", "has_file", "read"]

HEAD = 64 * 1024  # bytes in which the first file begins, or it is not waited for
_PART_HEAD = 4096
_NAME = re.compile(rb'[;\s]name="([^"]{1,256})"')
_NESTED = re.compile(r"(metadata|litellm_metadata)\[([^\[\]]{1,128})\](\[\])?")
_OWN = GATEWAY_FIELDS - REDIRECTING_FIELDS
_READ = _OWN | {"metadata", "user"}


class Form(NamedTuple):
    """``fields`` as they would stand in a JSON body; ``body`` without those that are not for the upstream."""

    fields: Fields
    body: bytes


def has_file(body: bytes | bytearray) -> bool:
    """Say whether a file has begun in the beginning of a form."""
    return b"filename=" in body or b"filename*=" in body


def read(body: bytes, boundary: bytes, *, keep_metadata: bool) -> Form:
    """Return what the beginning of a form says to the gateway; ``keep_metadata``: the upstream is to have it, too."""
    found: dict[str, Any] = {}
    kept: list[bytes] = []
    at = 0
    for start, end, name, value in _parts(body, b"--" + boundary):
        nested = _NESTED.fullmatch(name)
        own = nested[1] if nested else name
        if own not in _READ:
            continue
        if nested:
            _nest(found, nested, value)
        else:
            found[own] = value if own == "user" else _json(value)
        if own != "user" and not (own == "metadata" and keep_metadata):
            kept.append(body[at:start])
            at = end
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in found.items()}
    return Form(fields, b"".join([*kept, body[at:]]) if kept else body)


def _nest(found: dict[str, Any], nested: re.Match[str], value: str) -> None:
    held = found.get(nested[1])
    if not isinstance(held, dict):
        held = found[nested[1]] = {}
    if nested[3]:
        held[nested[2]] = [*(held[nested[2]] if isinstance(held.get(nested[2]), list) else []), value]
    else:
        held[nested[2]] = _json(value) if nested[2] == "log_raw_request" else value


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int, str, str]]:
    """Yield the fields that are there whole: where the part and the one behind it begin, its name and its text."""
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    while at >= 0 and body.startswith(delimiter, at):
        head_end = body.find(b"\r\n\r\n", at, at + len(delimiter) + _PART_HEAD)
        if head_end < 0:
            return
        end = body.find(b"\r\n" + delimiter, head_end + 2)
        if end < 0:
            return
        head = body[at:head_end]
        name = _NAME.search(head)
        if name is not None and not has_file(head):
            text = body[head_end + 4 : end].decode("utf-8", "replace")
            yield at, end + 2, name[1].decode("utf-8", "replace"), text
        at = end + 2


def _json(text: str) -> Any:
    """Return what a field says as JSON; its text where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
