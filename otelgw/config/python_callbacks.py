"""Callbacks in Python as destinations: where their code is, and what they are told of the config."""

from __future__ import annotations

import importlib.machinery
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from otelgw.config.context import Context
from otelgw_exporters.callbacks import source
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["TYPE", "Told", "filled_in", "instance", "is_python", "problem"]

TYPE = "callback"
"""The destination type that runs them."""

_NAMED = re.compile(
    r"(?:s3|gs|gcs)://\S+"
    r"|(?:~|\.{1,2})?/\S+\.[A-Za-z_]\w*"
    r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"
)
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.\-]+")


class Told(NamedTuple):
    """What the rest of the config says to callbacks: buckets that code may come from, ``model_info`` by deployment."""

    buckets: Sequence[str] = ()
    model_info: Mapping[str, Any] = {}


def is_python(name: str) -> bool:
    """Say whether ``name``, which is no destination's, looks like the place of a Python object."""
    return _NAMED.fullmatch(name) is not None


def instance(name: str) -> str:
    """Return the destination's name for the callback at ``name``."""
    return f"{TYPE}/{_NOT_IN_A_NAME.sub('-', name).strip('-')}"


def filled_in(given: Mapping[str, Any], context: Context, told: Told) -> dict[str, Any]:
    """Return the options of a callback that the config gives without being asked."""
    target = given.get("target")
    found: dict[str, Any] = {
        "allowed_buckets": tuple(told.buckets),
        "directory": str(_folder(context)),
        "environment": dict(context.environment),
        "model_info": dict(told.model_info),
    }
    if isinstance(target, str) and target.startswith(("~", ".")):
        found["target"] = context.path(target)
    return {**given, **{name: value for name, value in found.items() if name == "target" or name not in given}}


def problem(options: Mapping[str, Any]) -> str:
    """Return why the callback cannot be loaded, as far as that shows without running any of its code; else nothing."""
    try:
        found = source.parse(options["target"])
        source.check_bucket(found, options["allowed_buckets"])
    except DestinationConfigError as error:
        return str(error)
    if found.scheme:
        return ""
    path = found.beside(options["directory"])
    if path.is_file():
        return ""
    if "/" in found.module:
        return f"there is no file {path}"
    if importlib.machinery.PathFinder.find_spec(found.module.partition(".")[0]) is not None:
        return ""
    return f"there is no file {path}, and no module `{found.module}` is installed"


def _folder(context: Context) -> Path:
    return Path(context.document.source).absolute().parent
