"""Images, audio and other media in base64, replaced by their type, size and hash."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["without_data_urls", "without_member"]

_SHORTEST = 64  # characters; an icon of less is no burden
_DATA_URL = re.compile(
    r"data:([\w.+-]{1,64}/[\w.+-]{1,64})?((?:;[\w.+-]{1,64}=[^;,\s\"]{0,128})*);base64,([A-Za-z0-9+/_\-=\s]{16,})"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_URL_SAFE = str.maketrans("-_", "+/")
# Beginnings of files, in base64 (RFC 4648): three bytes are four characters.
_MAGIC: tuple[tuple[str, str], ...] = (
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGODdh", "image/gif"),
    ("R0lGODlh", "image/gif"),
    ("UklGR", "application/octet-stream"),  # RIFF: WebP, WAV
    ("SUkqAA", "image/tiff"),
    ("TU0AKg", "image/tiff"),
    ("SUQz", "audio/mpeg"),
    ("//uQ", "audio/mpeg"),
    ("//NE", "audio/mpeg"),
    ("T2dnUw", "audio/ogg"),
    ("ZkxhQ", "audio/flac"),
    ("GkXfo", "video/webm"),
    ("JVBERi0", "application/pdf"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
# Fields of the APIs that hold media and nothing else, and those beside them that say of what type.
_FIELDS = frozenset({"b64_json", "file_data", "image_base64", "partial_image_b64"})
_TYPES = ("mime_type", "mimeType", "media_type", "mediaType")


def without_data_urls(text: str) -> str:
    """Return ``text`` with each ``data:`` URL in base64 replaced; the same object where there is none."""
    if ";base64," not in text:
        return text
    return _DATA_URL.sub(lambda match: _described(match[3], match[1] or "application/octet-stream"), text)


def without_member(key: str, text: str, siblings: Mapping[Any, Any], parent: str) -> str:
    """Return what is to stand in place of the member ``key`` of a JSON object that is itself called ``parent``.

    It is replaced where it is base64 and a known field, a known beginning or a field beside it says that it is a file.
    """
    if len(text) < _SHORTEST or _BASE64.fullmatch(text) is None:
        return text
    kind = next((str(siblings[name]) for name in _TYPES if isinstance(siblings.get(name), str)), "")
    if not kind and isinstance(siblings.get("format"), str) and key == "data":
        kind = f"audio/{siblings['format']}"  # OpenAI's input_audio
    kind = kind or next((name for magic, name in _MAGIC if text.startswith(magic)), "")
    if not kind and key == "data" and parent == "audio":
        kind = "audio"
    if not kind and key not in _FIELDS:
        return text
    return _described(text, kind or "application/octet-stream")


def _described(encoded: str, kind: str) -> str:
    """Return type, size and hash of what ``encoded`` holds; of what cannot be decoded those of the text."""
    plain = re.sub(r"\s+", "", encoded).rstrip("=").translate(_URL_SAFE)
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        data = encoded.encode()
    if data[:4] == b"RIFF" and kind == "application/octet-stream":
        kind = _RIFF.get(data[8:12], kind)
    return f"[{kind}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}]"
