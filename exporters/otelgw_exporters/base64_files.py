"""Payloads without the files in them: pictures, audio and documents that callers send as base64 inside messages."""

from __future__ import annotations

import re
from typing import Any

from otelgw_exporters import document

__all__ = ["stripped"]

_URL = re.compile(r"data:([\w.+-]*/?[\w.+-]*)(?:;[\w=.+-]+)*;base64,")
_BARE = re.compile(rb'"(?:file_data|data|b64_json)":"')
_LONG = 64  # characters: what is shorter is kept, whatever it is called
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_HOLDERS = frozenset({"file_data", "data", "b64_json"})


def stripped(payload: bytes) -> bytes:
    """Return a payload in which every file in base64 is a note that says its type, as far as known, and its size."""
    if b";base64," not in payload and not _BARE.search(payload):
        return payload
    return document.write(_without(document.read(payload), ""))


def _without(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return _note(value, name)
    if isinstance(value, dict):
        return {key: _without(item, key) for key, item in value.items()}
    return [_without(item, name) for item in value] if isinstance(value, list) else value


def _note(text: str, name: str) -> str:
    if found := _URL.match(text):
        return f"[{found[1] or 'file'}, {_size(text[found.end() :])} bytes]"
    if name in _HOLDERS and len(text) > _LONG and _BASE64.fullmatch(text):
        return f"[file, {_size(text)} bytes]"
    return text


def _size(encoded: str) -> int:
    return len(encoded.rstrip("=")) * 3 // 4
