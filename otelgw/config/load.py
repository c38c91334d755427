"""A config file, an environment and flags -> ``Settings``, or every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from otelgw.config import document, dotenv, litellm
from otelgw.config.context import Context
from otelgw.config.findings import Findings
from otelgw.config.flags import Flags
from otelgw.config.references import References
from otelgw.config.settings import Settings
from otelgw.errors import ConfigError

__all__ = ["Outcome", "examine", "load"]

NO_FILE = "(no config file)"


class Outcome(NamedTuple):
    """``settings`` are to be used only where ``findings`` has no errors."""

    settings: Settings
    findings: Findings


def load(
    path: str | None, environment: Mapping[str, str], flags: Flags | None = None, *, collecting: bool = False
) -> Settings:
    """Return the settings of the config file at ``path``, or of ``OTELGW_CONFIG``, or of the environment alone.

    ``collecting`` asks for those of a receiver without a gateway.

    Raises:
        ConfigError: with every problem that the file and the environment have.
    """
    settings, findings = examine(path, environment, flags, prices=not collecting, collecting=collecting)
    if findings.errors:
        raise ConfigError(list(findings.errors))
    return settings


def examine(
    path: str | None,
    environment: Mapping[str, str],
    flags: Flags | None = None,
    *,
    prices: bool = True,
    collecting: bool = False,
) -> Outcome:
    """Return the settings together with everything found; ``prices=False`` leaves the slow price list unread.

    Raises:
        ConfigError: the file or the ``.env`` beside it cannot be read at all.
    """
    flags = flags or Flags()
    source = path or flags.config or environment.get("OTELGW_CONFIG", "").strip() or None
    parsed = document.Document(NO_FILE)
    variables: dict[str, str] = {}
    if source is not None:
        parsed = document.parse(_read(Path(source)), source)
        variables = _dotenv(Path(source).with_name(".env"))
    findings = Findings(parsed)
    merged = _over(variables, environment)
    merged = _over(_declared(parsed, merged, findings), merged)
    context = Context(parsed, findings, References(merged, findings), merged, prices)
    found = litellm.settings(context, flags, configured=source is not None, collecting=collecting)
    return Outcome(found, findings)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    except ValueError:
        raise ConfigError([f"{path!s:.200}: is no file name"]) from None


def _dotenv(path: Path) -> dict[str, str]:
    try:
        if not path.is_file():
            return {}
        return dotenv.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not UTF-8 text; save the file as UTF-8"]) from None


def _over(below: Mapping[str, str], above: Mapping[str, str]) -> dict[str, str]:
    """Return both; ``above`` wins where it is not blank."""
    return {**below, **{name: value for name, value in above.items() if value.strip() or name not in below}}


def _declared(parsed: document.Document, environment: Mapping[str, str], findings: Findings) -> dict[str, str]:
    """Return the file's ``environment_variables``, their own references resolved."""
    location: document.Location = ("environment_variables",)
    data = parsed.data.get("environment_variables")
    if data is None:
        return {}
    if not isinstance(data, dict):
        findings.error(location, "must be `NAME: value` pairs")
        return {}
    declared: dict[str, str] = {}
    references = References(environment, findings)
    for name, value in data.items():
        resolved = references.resolve(value, (*location, name))
        if isinstance(resolved, dict | list):
            findings.error((*location, name), "must be text or a number")
        elif resolved is not None:
            declared[name] = str(resolved).lower() if isinstance(resolved, bool) else str(resolved)
    return declared
