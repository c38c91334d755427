"""``os.environ/NAME`` in the values of the config file.

Only the file is read this way, never a value that came over HTTP. A reference is resolved where its value is used:
one in a key without effect may name a variable that is not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from otelgw.config.document import Location
from otelgw.config.findings import Findings

__all__ = ["References", "named"]

_REFERENCE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)?")


def named(value: Any) -> Iterator[str]:
    """Return the variables that the references in ``value`` name, at any depth."""
    if isinstance(value, str):
        yield from filter(None, _REFERENCE.findall(value))
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from named(item)


class References:
    """Resolves references against one environment and reports those that cannot be."""

    def __init__(self, environment: Mapping[str, str], findings: Findings) -> None:
        self._environment = environment
        self._findings = findings

    def resolve(self, value: Any, location: Location) -> Any:
        """Return ``value`` with every reference in it, at any depth, replaced.

        A reference to an unset or blank variable is reported with path, line and name, and becomes None where it is
        the whole value.
        """
        if isinstance(value, str):
            return self._text(value, location)
        if isinstance(value, dict):
            return {key: self.resolve(item, (*location, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*location, index)) for index, item in enumerate(value)]
        return value

    def _text(self, text: str, location: Location) -> str | None:
        if "os.environ/" not in text:
            return text
        missing = False

        def replace(match: re.Match[str]) -> str:
            nonlocal missing
            name = match[1]
            value = self._environment.get(name, "").strip() if name else ""
            if not value:
                missing = True
                self._findings.error(location, _missing(name))
            return value

        replaced = _REFERENCE.sub(replace, text)
        return None if missing and not _REFERENCE.sub("", text) else replaced


def _missing(name: str | None) -> str:
    if not name:
        return "`os.environ/` must be followed by the name of an environment variable"
    return f"the environment variable {name} is not set or blank; set it, or write it into .env beside the config"
