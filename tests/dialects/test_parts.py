from __future__ import annotations

from typing import Any

import pytest

from otelgw.dialects.parts import from_content, locator, tool_call
from tests.dialects.conventions import check_content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, []),
        ("", []),
        ("hi", [{"type": "text", "content": "hi"}]),
        (["a", {"type": "text", "text": "b"}], [{"type": "text", "content": "a"}, {"type": "text", "content": "b"}]),
        ({"type": "text", "text": "b"}, [{"type": "text", "content": "b"}]),
        ([{"type": "text", "text": None}], [{"type": "openai.text", "content": {"text": None}}]),
        ([{"type": "tool_call", "x": 1}], [{"type": "openai.tool_call", "content": {"x": 1}}]),
        ([{"type": "hologram", "api_key": "sk-1"}], [{"type": "hologram", "content": {"api_key": "REDACTED"}}]),
        ([{"no": "type"}], [{"type": "unknown", "content": {"no": "type"}}]),
        (
            [{"type": "image_url", "image_url": "https://x.example/1"}],
            [{"type": "uri", "modality": "image", "uri": "https://x.example/1"}],
        ),
        ([17, None], []),
    ],
)
def test_any_content_becomes_parts_of_the_conventions(content: Any, expected: Any) -> None:
    found = from_content(content)
    assert found == expected
    check_content({"gen_ai.input.messages": [{"role": "user", "parts": found}]})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/png;base64,AAAA", {"mime_type": "image/png", "content": "AAAA"}),
        ("DATA:image/gif;name=x;base64,AAAA", {"mime_type": "image/gif", "content": "AAAA"}),
        ("data:,a%20b", {"mime_type": "text/plain", "content": "YSBi"}),
    ],
)
def test_inline_data_is_a_blob_of_base64(url: str, expected: dict[str, str]) -> None:
    assert locator("image", url) == {"type": "blob", "modality": "image", **expected}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"a":1}', {"a": 1}),
        ("[1]", [1]),
        ("17", "17"),
        ("", ""),
        ("{broken", "{broken"),
        (None, None),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_arguments_are_an_object_where_they_are_one(given: Any, expected: Any) -> None:
    assert tool_call("c", "f", given)["arguments"] == expected
