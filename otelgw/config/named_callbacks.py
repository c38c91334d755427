"""Destinations under names of the user's own: ``callback_settings.<name>.callback_type``, as LiteLLM has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from otelgw.config import callback_params
from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.vocabulary import CallbackSettings
from otelgw_exporters import catalog
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["TYPE", "Named", "named_callbacks"]

TYPE = "callback_type"
_SECTION = "callback_settings"
_CONTROLS = frozenset(CallbackSettings.model_fields)
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.\-]+")


class Named(NamedTuple):
    """A destination's name, and its options as they are written."""

    instance: str
    given: Mapping[str, Any]


def named_callbacks(settings: Any, context: Context) -> Mapping[str, Named]:
    """Return the destinations of ``callback_settings`` by the names that callbacks are listed under; problems are
    reported."""
    if not isinstance(settings, dict):
        return {}
    found = ((str(name), _named(str(name), data, context)) for name, data in settings.items() if _has_type(data))
    return {name: each for name, each in found if each is not None}


def _has_type(data: Any) -> bool:
    return isinstance(data, dict) and data.get(TYPE) is not None


def _is_control(row: catalog.Row, key: str, value: Any, location: Location, context: Context) -> bool:
    """Say whether ``key`` is about what is recorded, or nearly; that it is only nearly so is reported."""
    if key in _CONTROLS:
        return True
    if any(key in {option.name, *option.params} for option in row.options):
        return False
    return context.refused(key, value, location) or context.misspelt_control(key, location)


def _named(name: str, data: Mapping[str, Any], context: Context) -> Named | None:
    location: Location = (_SECTION, name)
    try:
        row = catalog.row(str(data[TYPE]))
    except DestinationConfigError as error:
        context.findings.error((*location, TYPE), str(error))
        return None
    other = next((each for each in catalog.ROWS if name in {each.name, *each.callbacks} and each is not row), None)
    if other is not None:
        message = f"`{name}` is the name of the destination {other.name}; choose another, here and among the callbacks"
        context.findings.error(location, message)
        return None
    options = {key: value for key, value in data.items() if not _is_control(row, key, value, (*location, key), context)}
    resolved = context.references.resolve(options, location)
    given = callback_params.options_of(row, resolved, location, context)
    own = _NOT_IN_A_NAME.sub("-", name).strip("-")
    return Named(row.name if name in {row.name, *row.callbacks} else f"{row.name}/{own or 'callback'}", given)
