"""A key's or team's own destination: from LiteLLM's callback name and ``callback_vars`` to a row and its options.

A variable is called as LiteLLM calls it, which is the environment variable in lower case, or as the option itself
(``endpoint``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from otelgw.config.settings import Keys
from otelgw.errors import OtelgwError
from otelgw.keys.schema import Callback
from otelgw.keys.sealing import Sealer
from otelgw_exporters import catalog, options
from otelgw_exporters.catalog import Option, Row
from otelgw_exporters.confinement import Bounds, confined, networks_of
from otelgw_exporters.errors import DestinationConfigError

__all__ = [
    "EVENTS",
    "answers",
    "bounds_of",
    "check",
    "confining",
    "host_of",
    "make",
    "names_of",
    "option_of",
    "options_of",
    "row_of",
    "secret_names",
]

EVENTS: Mapping[str, str] = {"success": "success", "failure": "failure", "success_and_failure": "all"}
"""LiteLLM's callback types, and what a destination's ``on`` is for each."""

_REFERENCE = "os.environ/"


def bounds_of(settings: Keys) -> Bounds:
    """Return what tenants' destinations may connect to."""
    return Bounds(networks_of(settings.allow_networks))


def row_of(name: str) -> Row:
    """Return the destination type that a callback's name means.

    Raises:
        DestinationConfigError: there is none; says which was probably meant.
    """
    found = next((row for row in catalog.ROWS if name == row.name), None)
    found = found or next((row for row in catalog.ROWS if name in row.callbacks), None)
    return found if found is not None else catalog.row(name)


@lru_cache(maxsize=256)
def answers(name: str) -> frozenset[str]:
    """Return what callers may call a destination whose callback name is ``name``, in lower case."""
    try:
        row = row_of(name)
    except DestinationConfigError:
        return frozenset({name.lower()})
    return frozenset({row.name.lower(), row.params_key.lower(), *(each.lower() for each in row.callbacks)})


def options_of(row: Row, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that ``variables`` give.

    Raises:
        DestinationConfigError: a variable is not known; says which was probably meant.
    """
    found = {}
    for name, value in variables.items():
        option = option_of(row, name)
        found[option or row.option(name).name] = value
    return found


def option_of(row: Row, variable: str) -> str:
    """Return the option that a variable gives, also by the beginning of its name (without ``_key``); or nothing."""
    known = {name: option.name for option in row.options for name in names_of(row, option)}
    name = variable.lower()
    begun = {option for full, option in known.items() if full.startswith(f"{name}_")}
    return known.get(name) or (begun.pop() if len(begun) == 1 else "")


def names_of(row: Row, option: Option) -> tuple[str, ...]:
    """Return the names that a variable for ``option`` may have."""
    prefixed = (f"{row.header_prefix}{option.name}",) if row.header_prefix else ()
    return (option.name, *prefixed, *(variable.lower() for variable in option.env))


def secret_names(row: Row) -> frozenset[str]:
    """Return the names of variables whose values are not shown."""
    return frozenset(name for option in row.options if option.secret for name in names_of(row, option))


def check(callback: Callback, settings: Keys) -> None:
    """Check a destination as it comes over HTTP, before it is kept; ``callback.variables`` hold what was sent.

    Raises:
        DestinationConfigError: it cannot be used, or not by a tenant; says why, and shows no value.
    """
    row = row_of(callback.name)
    if not (row.tenant or row.wire is not None):
        usable = ", ".join(each.name for each in catalog.ROWS if each.tenant or each.wire is not None)
        raise DestinationConfigError(
            f"a key or team cannot have a destination {row.name} that is set over HTTP; put it into the config file, "
            f"or use one of {usable}"
        )
    for name, value in callback.variables.items():
        if isinstance(value, str) and _REFERENCE in value:
            raise DestinationConfigError(
                f"{row.name}: {name}: os.environ/ is read in the config file only; send the value itself"
            )
    given = options_of(row, callback.variables)
    found = options.complete(row, given, {})
    within = bounds_of(settings)
    for option in row.options:
        value = found[option.name]
        if option.kind == "path" and value is not None:
            raise DestinationConfigError(f"{row.name}: {option.name}: a file of this machine cannot be named over HTTP")
        if option.kind == "url" and isinstance(value, str) and not _may_be_public(value, within):
            raise DestinationConfigError(
                f"{row.name}: {option.name}: its address is not a public one; otelgw.tenants.allow_networks in the "
                "config file can allow it"
            )


def make(callback: Callback, owner: str, settings: Keys, name: str) -> Any:
    """Return the exporter of a destination; one that came over HTTP is confined.

    Raises:
        DestinationConfigError: it cannot be built.
        SealError: its settings cannot be decrypted.
        OSError: the address of a confined one is not known, or not allowed.
    """
    row, chosen = _opened(callback, owner, settings)
    with confining(callback, settings):
        return catalog.build(row.name, name, chosen)


def confining(callback: Callback, settings: Keys) -> AbstractContextManager[None]:
    """Return what an exporter has to be built and used in, so that also what it makes later on is in bounds."""
    return confined(bounds_of(settings)) if callback.confined else nullcontext()


def host_of(callback: Callback, owner: str, settings: Keys) -> str:
    """Return what a destination has in common with others that are up or down together with it; empty if unknown."""
    try:
        row, chosen = _opened(callback, owner, settings)
    except OtelgwError:
        return ""
    urls = (chosen.get(option.name) for option in row.options if option.kind == "url")
    url = next((url for url in urls if isinstance(url, str)), "")
    return f"{row.name} {urlsplit(url if '//' in url else f'//{url}').netloc.rpartition('@')[2]}"


def _opened(callback: Callback, owner: str, settings: Keys) -> tuple[Row, dict[str, Any]]:
    row = row_of(callback.name)
    if not callback.confined:
        return row, options_of(row, callback.variables)
    sealed = callback.sealed
    variables = Sealer(settings.salt_key).open(sealed, owner) if sealed else callback.variables
    return row, options.complete(row, options_of(row, variables), {})


def _may_be_public(url: str, within: Bounds) -> bool:
    """Say whether a URL's host may be one to connect to; a name is looked at when it is connected to."""
    host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return within.allows("127.0.0.1")
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return within.allows(host)
