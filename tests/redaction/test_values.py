"""Text and JSON without patterns and media, however they are quoted."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.redaction.presets import PRESETS
from otelgw.redaction.text import Named, redacted
from otelgw.redaction.values import Rules

ALL = tuple(Named(name, find) for name, find in PRESETS.items())
RULES = Rules(ALL)
SECRETS = {
    "email": "ann.smith@mail.example",
    "phone": "+49 171 1234567",
    "card": "4111 1111 1111 1111",
    "api_key": "sk-abc123def456ghi",
    "iban": "DE89 3704 0044 0532 0130 00",
}


def test_what_has_nothing_to_take_out_is_the_same_object() -> None:
    for value in ("text", '{"a": 1}', {"a": ["b", {"c": 1}]}, [1, 2.5, None, True], 12345678):
        assert RULES.value(value) is value


@pytest.mark.parametrize("name", SECRETS)
def test_each_kind_has_its_own_mark(name: str) -> None:
    assert RULES.text(f"it is {SECRETS[name]}, yes") == f"it is [REDACTED:{name}], yes"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"a":"ann\\u0040mail.example"}', '{"a":"[REDACTED:email]"}'),
        ('{"ann\\u0040mail.example":1}', '{"[REDACTED:email]":1}'),
        ('{"n":4111111111111111}', '{"n":"[REDACTED:card]"}'),
        ('{"a":"{\\"b\\":\\"ann\\\\u0040mail.example\\"}"}', '{"a":"{\\"b\\":\\"[REDACTED:email]\\"}"}'),
        ('"ann\\u0040mail.example"', '"[REDACTED:email]"'),
        ('{"mail":"ann@mail.example","mail":"none"}', '{"mail":"none"}'),
        ('cut {"a":"ann\\u0040mail.exa\\u006dple', 'cut {"a":"[REDACTED:email]'),
        ('cut {\\"a\\":\\"x\\\\nann\\\\u0040mail.example', 'cut {\\"a\\":\\"x\\\\n[REDACTED:email]'),
        ("ann\\\\u005cu0040mail.example", "[REDACTED:email]"),
        ("data: {\"a\":\"sk-abc123456\\/def\"}\n\n", "data: {\"a\":\"[REDACTED:api_key]\\/def\"}\n\n"),
    ],
)  # fmt: skip
def test_escapes_hide_nothing_and_json_stays_json(given: str, expected: str) -> None:
    assert RULES.text(given) == expected


def test_a_url_is_read_as_its_server_reads_it() -> None:
    assert RULES.text("https://h/?q=ann%40mail.example&x=1", url=True) == "https://h/?q=[REDACTED:email]&x=1"
    assert RULES.text("https://h/j%C3%B6rg%40mail.example/x", url=True) == "https://h/[REDACTED:email]/x"


def test_two_keys_that_become_one_both_stay() -> None:
    found = RULES.value({"a@mail.example": 1, "b@mail.example": 2, "c": 3})
    assert sorted(found.values()) == [1, 2, 3]


def test_nesting_without_end_is_refused_rather_than_let_through() -> None:
    value: Any = "ann@mail.example"
    for _ in range(150):
        value = [value]
    with pytest.raises(RecursionError):
        RULES.value(value)
    text = "ann@mail.example"
    for _ in range(9):
        text = json.dumps([text])
    assert "ann" not in RULES.text(text)


@st.composite
def escaped(draw: st.DrawFn, text: str) -> str:
    """Return ``text`` as the inside of a JSON string, any of its characters by their number."""
    return "".join(
        f"\\u{ord(character):04x}" if draw(st.booleans()) else json.dumps(character)[1:-1] for character in text
    )


LEAVES = (
    st.sampled_from(sorted(SECRETS.values())).map(lambda secret: f"<{secret}>") | st.text(max_size=5) | st.integers()
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", SECRETS["email"]]), inner, max_size=3)
        | inner.map(json.dumps)
    ),
    max_leaves=8,
)


def strings(value: Any) -> list[str]:
    """Return every string of a value, those inside JSON in strings too, keys among them."""
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    if not isinstance(value, str):
        return []
    try:
        held = json.loads(value)
    except ValueError:
        return [value]
    return [value, *strings(held)] if isinstance(held, str | list | dict) else [value]


@given(TREES)
def test_no_secret_is_left_in_any_string_of_a_value_at_any_depth(tree: Any) -> None:
    found = RULES.value(tree)
    for text in strings(found):
        assert not any(secret in text for secret in SECRETS.values())
    assert RULES.value(found) == found, "redacting twice changes nothing"


@given(TREES, st.booleans())
def test_a_body_stays_json_and_says_no_secret_however_it_is_written(tree: Any, ascii_only: bool) -> None:
    text = RULES.text(json.dumps([tree], ensure_ascii=ascii_only))
    for each in strings(json.loads(text)):
        assert not any(secret in each for secret in SECRETS.values())


@given(st.data(), st.sampled_from(sorted(SECRETS)), st.integers(1, 4))
def test_a_piece_of_json_is_read_through_any_number_of_quotations(data: st.DataObject, name: str, times: int) -> None:
    inside = data.draw(escaped(SECRETS[name]))
    for _ in range(times - 1):
        inside = json.dumps(inside)[1:-1]
    assert RULES.text(f"…{{<{inside}> and") == f"…{{<[REDACTED:{name}]> and"


@given(st.text() | st.text(st.sampled_from('\\u0040"{}[]:,an@.de4 1+')))
def test_no_text_breaks_it(text: str) -> None:
    found = RULES.text(text)
    assert redacted(found, ALL) == found
    try:
        json.loads(text)
    except ValueError:
        return
    json.loads(found)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(100)
PCM = bytes(range(256))


def said(kind: str, data: bytes) -> str:
    return f"[{kind}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}]"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"url": f"data:image/png;base64,{b64(PNG)}"}, {"url": said("image/png", PNG)}),
        (f"see data:image/png;base64,{b64(PNG)}) and", f"see {said('image/png', PNG)}) and"),
        ({"data": b64(PCM), "format": "pcm16"}, {"data": said("audio/pcm16", PCM), "format": "pcm16"}),
        ({"b64_json": b64(PCM)}, {"b64_json": said("application/octet-stream", PCM)}),
        ({"b64_json": b64(PNG)}, {"b64_json": said("image/png", PNG)}),
        ({"audio": {"id": "a", "data": b64(PCM)}}, {"audio": {"id": "a", "data": said("audio", PCM)}}),
        ({"type": "blob", "mime_type": "audio/wav", "content": b64(WAV)}, {"type": "blob", "mime_type": "audio/wav",
         "content": said("audio/wav", WAV)}),
        ({"source": {"media_type": "image/png", "data": b64(PNG)}}, {"source": {"media_type": "image/png",
         "data": said("image/png", PNG)}}),
        ({"x": base64.urlsafe_b64encode(WAV).decode()}, {"x": said("audio/wav", WAV)}),
        ({"a": json.dumps({"b64_json": b64(PNG)})}, {"a": json.dumps({"b64_json": said("image/png", PNG)},
         separators=(",", ":"))}),
        ({"id": "a" * 100, "data": "short"}, {"id": "a" * 100, "data": "short"}),
        ({"text": "a plain sentence that is long enough to be looked at, and no base64 at all."},
         {"text": "a plain sentence that is long enough to be looked at, and no base64 at all."}),
    ],
)  # fmt: skip
def test_media_become_type_size_and_hash(value: Any, expected: Any) -> None:
    assert Rules(media=True).value(value) == expected
    assert Rules().value(value) is value


@given(st.binary(min_size=64, max_size=300))
def test_whatever_a_data_url_holds_it_is_told_by_its_hash(data: bytes) -> None:
    assert Rules(media=True).text(f"data:audio/ogg;base64,{b64(data)}") == said("audio/ogg", data)
