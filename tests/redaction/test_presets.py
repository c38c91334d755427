"""What the presets find, what they leave alone, and that no text keeps them busy."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.redaction.presets import PRESETS, is_iban, is_luhn

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
BUSY = (
    "a",
    "1",
    "1 ",
    "a.",
    "@",
    "a@",
    "a@a.",
    "+1",
    "00",
    "sk-",
    "eyJ",
    "eyJa.",
    "DE89",
    "bearer ",
    "-----BEGIN ",
    "4-",
)


def found(preset: str, text: str) -> list[str]:
    return [text[start:end] for start, end in PRESETS[preset](text)]


@pytest.mark.parametrize(
    ("preset", "text", "expected"),
    [
        ("email", "write to ann.o'neil+x@mail.example.co.uk, or", ["neil+x@mail.example.co.uk"]),
        ("email", "<ann@example.com>;bob@example.org", ["ann@example.com", "bob@example.org"]),
        ("email", "mailto:ann@example.com?subject=x", ["ann@example.com"]),
        ("email", "jörg@bücher.example 用户@例子.测试", ["jörg@bücher.example", "用户@例子.测试"]),
        ("email", "ann\uff20example.com", ["ann\uff20example.com"]),
        ("email", "a@b @home ann@localhost 5@ x@1.2", []),
        ("phone", "+49 171 1234567 and 0049-30-901820 and +1 (555) 123-4567", ["+49 171 1234567", "0049-30-901820",
         "+1 (555) 123-4567"]),
        ("phone", "(555) 123-4567, 555-123-4567, 555.123.4567, 0171 1234567", ["(555) 123-4567", "555-123-4567",
         "555.123.4567", "0171 1234567"]),
        ("phone", "2024-01-15 12:34:56 192.168.100.7 1.234.567 b980db26-9512-45cc-b1da-c511a363b83f 1700000000", []),
        ("card", "4111111111111111 4111 1111 1111 1111 5500-0000-0000-0004", ["4111111111111111",
         "4111 1111 1111 1111", "5500-0000-0000-0004"]),
        ("card", "no 1 4111 1111 1111 1111 2 x378282246310005x", ["4111 1111 1111 1111", "378282246310005"]),
        ("card", "4111111111111112 41111111111111111111111 1700000000000 0000000000000000", []),
        ("iban", "DE89 3704 0044 0532 0130 00 was GB33BUKB20201555555555.", ["DE89 3704 0044 0532 0130 00",
         "GB33BUKB20201555555555"]),
        ("iban", "de89370400440532013000", ["de89370400440532013000"]),
        ("iban", "DE88370400440532013000 ZZ89370400440532013000 DE893704004405320130001 de12 is", []),
        ("api_key", "sk-abc123def456 sk-proj-A1b2C3d4E5 AKIAIOSFODNN7EXAMPLE ghp_" + "a1" * 18, ["sk-abc123def456",
         "sk-proj-A1b2C3d4E5", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18]),
        ("api_key", "Authorization: Bearer abcdef123456", ["Bearer abcdef123456"]),
        ("api_key", f"token={JWT};", [JWT]),
        ("api_key", f"key:\n{PEM}\n", [PEM]),
        ("api_key", "sk-learn sk-only task-force-1234 bearer of bad news, monkey_business", []),
    ],
)  # fmt: skip
def test_a_preset_finds_what_it_is_for_and_nothing_else(preset: str, text: str, expected: list[str]) -> None:
    assert found(preset, text) == expected


@given(st.text("0123456789", min_size=12, max_size=18).filter(lambda digits: digits[0] in "23456"), st.data())
def test_every_number_with_luhns_digit_is_found_however_it_is_grouped(digits: str, data: st.DataObject) -> None:
    number = next(digits + check for check in "0123456789" if is_luhn(digits + check))
    separators = data.draw(st.lists(st.sampled_from(["", " ", "-"]), min_size=len(number), max_size=len(number)))
    text = "".join(map("".join, zip(number, separators, strict=True))).rstrip(" -")
    assert text in found("card", f"card {text}.")


@given(st.sampled_from([("DE", 18), ("NO", 11), ("GB", 18), ("MT", 27)]), st.data())
def test_every_iban_is_found_and_one_with_a_wrong_digit_is_not(kind: tuple[str, int], data: st.DataObject) -> None:
    country, length = kind
    account = data.draw(st.text("0123456789ABCXYZ", min_size=length, max_size=length))
    check = next(f"{n:02}" for n in range(2, 99) if is_iban(f"{country}{n:02}{account}"))
    iban = country + check + account
    assert found("iban", f"to {iban}, please") == [iban]
    assert found("iban", " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))) != []
    assert found("iban", f"{country}{(int(check) + 1) % 97:02}{account}") == []


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("piece", BUSY)
def test_a_text_made_to_keep_a_preset_busy_does_not(preset: str, piece: str) -> None:
    # Were one of them quadratic, a megabyte would take minutes, and the suite's own limit would end the test.
    text = piece * (1_000_000 // len(piece))
    assert all(end > start for start, end in PRESETS[preset](text))


@pytest.mark.parametrize("preset", PRESETS)
@given(text=st.text(st.sampled_from('0123456789 -.@ab+()DEsk\\"')))
def test_places_are_in_order_and_do_not_overlap(preset: str, text: str) -> None:
    places = list(PRESETS[preset](text))
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert all(before[1] <= after[0] for before, after in pairwise(places))
