"""LiteLLM's parameters of callbacks: ``litellm_settings.<params key>``, and single keys of ``litellm_settings``.

Which keys there are, and which options they stand for, is told by the rows of the catalogue; no destination is named
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, Protocol

from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.vocabulary import LitellmSettings
from otelgw_exporters import catalog, options
from otelgw_exporters.catalog import Option, Row
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["Target", "belongs", "fill_in", "options_of"]

_SECTION = "litellm_settings"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Target(Protocol):
    """A destination that something asks for; ``given`` are its options as they are written."""

    given: Any

    @property
    def type(self) -> str:
        """The name of its row."""


def belongs(key: str) -> bool:
    """Say whether ``litellm_settings.<key>`` gives options of a destination that there is here."""
    return any(map(_about(key), catalog.ROWS))


def fill_in(settings: LitellmSettings, wanted: list[Any], context: Context) -> None:
    """Give each of ``wanted`` what LiteLLM's keys say about it; its own options win. Problems are reported."""
    for key, value in settings.others.items():
        rows = list(filter(_about(key), catalog.ROWS))
        if not rows:
            continue
        location: Location = (_SECTION, key)
        meant = [(each, row) for row in rows for each in wanted if each.type == row.name]
        if not meant:
            context.findings.ignore(location, "no such destination is configured")
            continue
        resolved = context.references.resolve(value, location)
        for each, row in meant:
            each.given = {**dict(_options(row, key, resolved, location, context)), **each.given}


def options_of(row: Row, data: dict[str, Any], location: Location, context: Context) -> dict[str, Any]:
    """Return the options of ``row`` that ``data`` gives, under LiteLLM's names or their own. Problems are reported."""
    return dict(pair for name, item in data.items() for pair in _one(row, str(name), item, (*location, name), context))


def _about(key: str) -> Callable[[Row], bool]:
    """Return the test of a row: is ``litellm_settings.<key>`` about it?"""
    return lambda row: row.params_key == key or any(key in option.params for option in row.options)


def _options(row: Row, key: str, value: Any, location: Location, context: Context) -> Iterator[tuple[str, Any]]:
    """Give the options of ``row`` that the key sets."""
    if row.params_key != key:
        yield from _one(row, key, value, location, context)
    elif isinstance(value, dict):
        yield from options_of(row, value, location, context).items()
    elif value is not None:
        context.findings.error(location, "must be `key: value` pairs")


def _one(row: Row, name: str, value: Any, location: Location, context: Context) -> Iterator[tuple[str, Any]]:
    option = _option(row, name)
    if option is None:
        theirs = [each for option in row.options for each in option.params]
        near = get_close_matches(name, theirs, 1) or get_close_matches(name, [option.name for option in row.options], 1)
        context.findings.warn(location, f"unknown key{f'; did you mean `{near[0]}`?' if near else ''}")
        return
    if value is None or (isinstance(value, str) and not value.strip()):
        return
    value = _number(option, value)
    try:
        options.resolve(row, {option.name: value}, {})
    except DestinationConfigError as error:
        context.findings.error(location, str(error))
        return
    yield option.name, value


def _option(row: Row, name: str) -> Option | None:
    """Return the option that ``name`` stands for: LiteLLM's name for it, or its own."""
    return next((option for option in row.options if name in option.params or name == option.name), None)


def _number(option: Option, value: Any) -> Any:
    """Return a number that an environment variable gave as text as the number that it is."""
    if option.kind not in {"count", "seconds"} or not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    return float(value) if option.kind == "seconds" or "." in value else int(value)
