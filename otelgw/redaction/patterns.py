"""The config's own patterns, compiled. They are matched by ``regex``, which stops when it takes too long.

Python's ``re`` has no such bound: one pattern with nested repeats could hold up every destination for hours.
"""

from __future__ import annotations

from collections.abc import Iterator

from otelgw.config.settings import Pattern
from otelgw.errors import ConfigError
from otelgw.redaction.presets import Finder

__all__ = ["MISSING", "compiled", "problem"]

MISSING = "patterns of your own need `regex`: pip install 'otelgw[redaction]'"
_PATIENCE = 1.0  # seconds for one text


def compiled(pattern: Pattern) -> Finder:
    """Return the finder of a pattern. It raises TimeoutError for a text that takes too long.

    Raises:
        ConfigError: it is no regular expression, it matches nothing at all, or ``regex`` is not installed.
    """
    try:
        import regex  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError([MISSING]) from None
    try:
        found = regex.compile(pattern.expression)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ConfigError([f"{pattern.name}: is no regular expression: {error}"]) from None
    if found.search("") is not None:
        raise ConfigError([f"{pattern.name}: matches the empty text, so everywhere; have it require a character"])

    def find(text: str) -> Iterator[tuple[int, int]]:
        for match in found.finditer(text, timeout=_PATIENCE, concurrent=True):
            if match.end() > match.start():
                yield match.span()

    return find


def problem(pattern: Pattern) -> str:
    """Say why a pattern cannot be used; empty where it can."""
    try:
        compiled(pattern)
    except ConfigError as error:
        return error.problems[0]
    return ""
