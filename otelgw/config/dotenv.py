"""The ``.env`` file beside the config: ``NAME = "value"`` lines."""

from __future__ import annotations

import re

from otelgw.errors import ConfigError

__all__ = ["parse"]

_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?P<value>.*?)\s*", re.DOTALL)
_QUOTED = re.compile(r"""(?:"(?P<escaped>(?:[^"\\]|\\.)*)"|'(?P<plain>[^']*)')\s*(?:\#.*)?""", re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)#.*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse(text: str, source: str) -> dict[str, str]:
    """Return the variables of ``text``; the last of two lines with one name wins.

    Spaces around ``=``, ``export``, comments and quotes are accepted; in double quotes a backslash escapes. There is no
    expansion of ``$NAME``: a key may contain a dollar sign.

    Raises:
        ConfigError: a line that is no assignment; the message has its number, not its text.
    """
    variables: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            problems.append(f'{source}:{number}: not an assignment; write NAME="value"')
            continue
        value = _value(match["value"])
        if value is None:
            problems.append(f"{source}:{number}: {match['name']}: the quotation mark is not closed on this line")
            continue
        variables[match["name"]] = value
    if problems:
        raise ConfigError(problems)
    return variables


def _value(text: str) -> str | None:
    if text[:1] not in {'"', "'"}:
        return _COMMENT.sub("", text).strip()
    match = _QUOTED.fullmatch(text)
    if match is None:
        return None
    if match["plain"] is not None:
        return match["plain"]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match["escaped"])
