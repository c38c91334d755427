"""The .env file."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.config.dotenv import parse
from otelgw.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("K=v", "v"),
        ('AWS = "v"'.replace("AWS", "K"), "v"),
        ("K = ''", ""),
        ("export K=v", "v"),
        ("K=v # comment", "v"),
        ("K=v#part", "v#part"),
        ('K="a # b" # c "d"', "a # b"),
        ("K='a \"b\" $C'", 'a "b" $C'),
        (r'K="a\nb\"c\\"', 'a\nb"c\\'),
        (r'K="\w"', r"\w"),
        ("K=$HOME/x", "$HOME/x"),
        ("K=a=b", "a=b"),
        ("K=", ""),
        ('K=say "hi"', 'say "hi"'),
    ],
)
def test_assignments_are_read(line: str, value: str) -> None:
    assert parse(line, ".env") == {"K": value}


def test_comments_blank_lines_and_a_byte_order_mark_are_skipped() -> None:
    assert parse("\ufeff# c\n\n  # d\nA=1\r\nB=2\n", ".env") == {"A": "1", "B": "2"}


def test_malformed_lines_are_named_without_their_text() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('A=1\nsk-secret\nB="sk-other\n', "x/.env")
    assert caught.value.problems == [
        'x/.env:2: not an assignment; write NAME="value"',
        "x/.env:3: B: the quotation mark is not closed on this line",
    ]


@given(st.text())
def test_hostile_text_raises_nothing_but_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text, ".env"), dict)


@given(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True),
    st.text(alphabet=st.characters(exclude_categories=["C", "Z"])),
)
def test_a_quoted_value_comes_back_as_it_was(name: str, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse(f'{name}="{quoted}"', ".env") == {name: value}
