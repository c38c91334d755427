"""The report of ``otelgw check``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from otelgw.config.flags import Flags
from otelgw.config.load import examine
from otelgw.config.settings import Settings
from otelgw.errors import ConfigError

__all__ = ["Report", "check"]


class Report(NamedTuple):
    """What ``check`` found. With ``strict`` some warnings have become errors.

    ``settings``, to be used only without errors, have no prices; there are none where the file cannot be read.
    """

    source: str
    summary: str
    settings: Settings | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.errors


def check(
    path: str | None, environment: Mapping[str, str], flags: Flags | None = None, *, strict: bool = False
) -> Report:
    """Return everything that can be said about a configuration without starting it; nothing is raised for one."""
    try:
        settings, findings = examine(path, environment, flags, prices=False)
    except ConfigError as error:
        return Report(path or "", "", errors=tuple(error.problems))
    errors, warnings = findings.errors, (*findings.strict, *findings.warnings)
    if strict:
        errors, warnings = (*findings.errors, *findings.strict), findings.warnings
    models = list(dict.fromkeys(deployment.alias for deployment in settings.deployments if deployment.listed))
    destinations = [destination.name for destination in settings.destinations]
    summary = (
        f"models: {', '.join(models) or 'none'}  destinations: {', '.join(destinations) or 'none'}  "
        f"auth: {'on' if settings.auth.master_key_sha256 else 'off'}  "
        f"content: {'on' if settings.tracing.content else 'off'}"
    )
    return Report(settings.source, summary, settings, errors, warnings, findings.ignored, findings.not_enforced)
