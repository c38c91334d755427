from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from otelgw_exporters.base64_files import stripped

PICTURE = base64.b64encode(b"\x89PNG" + b"x" * 300).decode()


def through(value: object) -> object:
    return json.loads(stripped(json.dumps(value, separators=(",", ":")).encode()))


def test_files_become_notes_of_their_type_and_size() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PICTURE}"}},
        {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}},
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    ]
    assert through({"messages": [{"role": "user", "content": parts}]}) == {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "[image/png, 304 bytes]"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "[application/pdf, 304 bytes]"}},
                    {"type": "input_audio", "input_audio": {"data": "[file, 304 bytes]", "format": "wav"}},
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
                ],
            }
        ]
    }


def test_a_payload_without_files_is_not_touched() -> None:
    text = b'{"messages": [{"content": "data: none"}],  "data":7}'
    assert stripped(text) is text


@given(st.text())
def test_what_is_no_file_stays(text: str) -> None:
    value = {"data": text[:60], "content": text}
    if ";base64," not in text:
        assert through(value) == value
