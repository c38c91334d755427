"""What the seeds' example configs need around them: the files and the variables that the text tells to make."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from otelgw_exporters import catalog

__all__ = ["REMOTE", "destinations_named", "surroundings", "value_of"]

REMOTE = re.compile(r"[\"'](?:s3|gcs)://")
"""Tells a config whose callback is in a bucket, which is refused until the bucket is allowed."""

_CALLBACK = "custom_callbacks.proxy_handler_instance"
_DSN = "postgresql://user:password@127.0.0.1:1/database"
_KEYS = ("callbacks", "success_callback", "failure_callback")


def _named(block: str) -> set[str]:
    """Return the callbacks that a config names."""
    loaded = yaml.safe_load(block) or {}
    settings = loaded.get("litellm_settings") or {}
    found: set[str] = {"otel"} if (loaded.get("general_settings") or {}).get("otel") else set()
    for key in _KEYS:
        given = settings.get(key) or []
        found.update([given] if isinstance(given, str) else given)
    return found


def _rows(block: str) -> list[catalog.Row]:
    named = _named(block)
    return [row for row in catalog.ROWS if named & {row.name, *row.callbacks}]


def destinations_named(block: str) -> bool:
    """Say whether a config names a destination that there is."""
    return bool(_rows(block)) or bool(_named(block) & {"otel", _CALLBACK})


def surroundings(block: str, directory: Path) -> dict[str, str]:
    """Write the callback's file if the config names it; return the variables that its destinations need."""
    if _CALLBACK in block:
        (directory / "custom_callbacks.py").write_text("proxy_handler_instance = None\n")
    needed = [option for row in _rows(block) for option in row.options if option.required and option.env]
    referred = dict.fromkeys(re.findall(r"os\.environ/(\w+)", block), "seed-value-x")
    return referred | {option.env[0]: value_of(option) for option in needed}


def value_of(option: catalog.Option) -> str:
    """Return a value that an option takes from a variable."""
    values = {"url": "https://seed.example/x", "count": "7", "flag": "true", "headers": "a=b", "seconds": "5"}
    return _DSN if (option.name, option.kind) == ("dsn", "text") else values.get(option.kind, "seed-value-x")
