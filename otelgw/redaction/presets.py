"""What the presets find. Each takes time linear in the text, whatever the text is.

A finder is a function from a text to the places (start, end) of what it looks for, in order and without overlaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["PRESETS", "Finder", "is_iban", "is_luhn"]

Place = tuple[int, int]
Finder = Callable[[str], Iterable[Place]]

# RFC 5321 has 64 characters before the @ and 255 behind it; international addresses have letters of any script.
_EMAIL = re.compile(
    r"[^\s@\uff20\"'<>(),:;\[\]\\{}|=/?&#]{1,64}[@\uff20](?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}"
)
_PHONE = re.compile(
    # E.164: a plus or 00, then at most 15 digits.
    r"(?<![\w.+])(?:\+|00)[ ]?\(?[1-9](?:[ ().\-/]{0,2}[0-9]){6,14}(?![\w])"
    # A national number in groups: an area code, and two more groups or one long one.
    r"|(?<![\w.\-])(?:\([0-9]{2,5}\)[ .\-]?|[0-9]{3,5}[ .\-/])[0-9]{3,4}[ .\-][0-9]{3,5}(?![\w\-]|\.[0-9])"
    r"|(?<![\w.\-])0[0-9]{2,4}[ \-/][0-9]{5,9}(?![\w\-])"
)
# ISO/IEC 7812: 13 to 19 digits, the last one Luhn's; those of payment cards begin with 2 to 6.
_DIGITS = re.compile(r"(?<![0-9])[0-9](?:[ \-]?[0-9]){12,}")
_GROUP = re.compile(r"[0-9]+")
_CARD = range(13, 20)
_FIRST_OF_CARD = frozenset("23456")

_API_KEY = re.compile(
    r"(?<![\w-])(?:sk|pk|rk|ak|gsk|xai|hf|r8|nvapi|pplx|csk|tgp|key)[-_](?=[\w*-]*[0-9*])[\w*-]{8,256}"
    r"|(?<!\w)(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|npm_|pypi-|dop_v1_|SG\.|shpat_)[\w.-]{16,256}"
    r"|(?<!\w)AIza[\w-]{30,45}|(?<!\w)ya29\.[\w-]{20,512}"
    r"|(?<![A-Z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,20}(?![A-Z0-9])"
    r"|(?<!\w)eyJ[\w-]{8,4096}\.[\w-]{4,8192}(?:\.[\w-]{0,4096})?"  # JSON Web Tokens
    r"|-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]{0,16384}(?:-----END [A-Z ]{0,32}PRIVATE KEY-----)?"
    r"|(?i:(?<!\w)bearer[ \t]{1,4}|(?<!\w)api[-_ ]?key[\"' \t]{0,3}[:=][\"' \t]{0,3})"
    r"(?=[^\s'\",;]{0,64}[0-9])[^\s'\",;]{8,4096}"
)

# ISO 13616: the length by country.
_IBAN_LENGTHS = {
    code: int(length)
    for code, length in (
        pair.split(":")
        for pair in """
        AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27
        DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28
        IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22
        MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24
        SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 YE:30
        """.split()  # noqa: SIM905 - eighty quoted pairs would hide the pairs
    )
}
_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[ -]?[0-9]{2}")
_LONGEST_IBAN = 2 * max(_IBAN_LENGTHS.values())  # characters, with separators


def is_luhn(digits: str) -> bool:
    """Say whether the last of ``digits`` is the check digit of those before it (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + index % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Say whether ``text``, without separators, is an IBAN: the country's length and ISO 7064's check digits."""
    if len(text) != _IBAN_LENGTHS.get(text[:2].upper()) or not text.isascii() or not text.isalnum():
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def _cards(text: str) -> Iterator[Place]:
    """Yield cards: whole groups of digits whose check digit is right."""
    for run in _DIGITS.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, run.start(), run.end())]
        at = 0
        while at < len(groups):
            end = _card_from(text, groups, at)
            if end > at:
                yield groups[at][0], groups[end - 1][1]
            at = max(at + 1, end)


def _card_from(text: str, groups: list[Place], first: int) -> int:
    """Return the number of the group behind the longest card that begins with group ``first``; 0 without one."""
    if text[groups[first][0]] not in _FIRST_OF_CARD:
        return 0
    digits, found = "", 0
    for number in range(first, len(groups)):
        start, end = groups[number]
        if len(digits) + end - start >= _CARD.stop:
            break
        digits += text[start:end]
        if len(digits) in _CARD and is_luhn(digits):
            found = number + 1
    return found


def _ibans(text: str) -> Iterator[Place]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[1].upper())
        if length is None:
            continue
        held, end = "", match.start()
        for end in range(match.start(), min(len(text), match.start() + _LONGEST_IBAN)):
            if text[end].isascii() and text[end].isalnum():
                held += text[end]
            elif text[end] not in " -":
                break
            if len(held) == length:
                break
        behind = text[end + 1 : end + 2]
        if is_iban(held) and not (behind.isascii() and behind.isalnum()):
            yield match.start(), end + 1


def _matches(pattern: re.Pattern[str], sign: str = "") -> Finder:
    """Return the finder of a pattern; a text without ``sign`` has nothing of the kind."""

    def find(text: str) -> Iterator[Place]:
        if sign in text:
            for match in pattern.finditer(text):
                yield match.span()

    return find


def _emails(text: str) -> Iterator[Place]:
    if "@" in text or "\uff20" in text:
        for match in _EMAIL.finditer(text):
            yield match.span()


PRESETS: Mapping[str, Finder] = {
    "api_key": _matches(_API_KEY),
    "iban": _ibans,
    "card": _cards,
    "email": _emails,
    "phone": _matches(_PHONE),
}
"""By their names in the config, in the order in which they are looked for: what one has found the next ones leave."""
