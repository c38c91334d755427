"""What every part of loading a configuration needs at hand."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from otelgw.config.document import Document, Location
from otelgw.config.findings import Findings, did_you_mean
from otelgw.config.model import Section
from otelgw.config.references import References
from otelgw.config.vocabulary import CONTENT_CONTROLS, REFUSED_CONTROLS, Vocabulary

__all__ = ["Context"]

_S = TypeVar("_S", bound=Section)
_LIKELY = 0.8


@dataclass(slots=True)
class Context:
    """``environment`` is the process's with ``.env`` and the file's ``environment_variables`` below it."""

    document: Document
    findings: Findings
    references: References
    environment: Mapping[str, str]
    prices: bool = True

    def variable(self, *names: str) -> str:
        """Return the first of ``names`` that is set and not blank; empty without one."""
        for name in names:
            value = self.environment.get(name, "").strip()
            if value:
                return value
        return ""

    def path(self, text: str) -> str:
        """Return a path of the config file: relative ones start at its folder, ``~`` is the home of the environment."""
        if text == "~" or text.startswith("~/"):
            return str(Path(self.variable("HOME") or str(Path.home())) / text[2:])
        path = Path(text)
        return str(path if path.is_absolute() else Path(self.document.source).parent / path)

    def section(self, model: type[_S], data: Any, location: Location, used: Container[str] | None = None) -> _S:
        """Return ``data`` as ``model``, its references resolved; problems are reported, and what is right is returned.

        ``used`` restricts reading to these keys: references of other keys may be missing.
        """
        if data is None:
            data = {}
        if not isinstance(data, dict):
            self.findings.error(location, "must be `key: value` pairs")
            return model.model_construct()
        chosen = data if used is None else {key: value for key, value in data.items() if key in used}
        resolved = self.references.resolve(chosen, location)
        rest = {key: value for key, value in data.items() if key not in chosen}
        values = {**rest, **_given(resolved)}
        try:
            return model.model_validate(values)
        except ValidationError as error:
            self.findings.invalid(error, location, model.every_key())
            return _right(model, values, error)

    def vocabulary(self, model: type[_S], data: Any, location: Location) -> _S:
        """Return a section of LiteLLM's; only the keys that are used here have their references resolved."""
        return self.section(model, data, location, model.model_fields)

    def unknown(self, key: str, location: Location, known: frozenset[str] | set[str]) -> None:
        """Report a key of LiteLLM's sections that nobody knows."""
        hint = did_you_mean(key, known | CONTENT_CONTROLS)
        if self.misspelt_control(key, location):
            return
        self.findings.warn(location, f"unknown key{hint}")

    def misspelt_control(self, key: str, location: Location) -> bool:
        """Report ``key`` as an error if it is close to a control over what is recorded: a slip must not open it."""
        from difflib import get_close_matches

        near = get_close_matches(key.lower().replace("-", "_"), sorted(CONTENT_CONTROLS), n=1, cutoff=_LIKELY)
        if near:
            self.findings.error(
                location, f"unknown key; did you mean `{near[0]}`? Without it content would be recorded"
            )
        return bool(near)

    def refused(self, key: str, value: Any, location: Location) -> bool:
        """Report a control that would lessen what is recorded and cannot be honoured; say whether it was one."""
        if key not in REFUSED_CONTROLS:
            return False
        if value not in (None, False):
            self.findings.error(
                location,
                "is not available in this version, and without it more would be recorded; remove it, or set "
                "`litellm_settings.turn_off_message_logging: true`",
            )
        return True

    def others(self, section: Vocabulary, location: Location, ignored: frozenset[str]) -> None:
        """Report the keys of a LiteLLM section that do nothing here."""
        known = ignored | set(type(section).model_fields)
        for key, value in section.others.items():
            place = (*location, key)
            if self.refused(key, value, place):
                continue
            if key in ignored:
                self.findings.ignore(place, "known, without effect in this version")
            else:
                self.unknown(key, place, known)


def _right(model: type[_S], values: dict[str, Any], error: ValidationError) -> _S:
    """Return ``model`` without the keys that ``error`` names, so that the problems of the others are found as well."""
    wrong = {problem["loc"][0] for problem in error.errors(include_url=False) if problem["loc"]}
    kept = {key: value for key, value in values.items() if key not in wrong}
    try:
        return model.model_validate(kept)
    except ValidationError:
        # A required key is missing: what is left is the defaults and the keys that nobody knows.
        return model.model_construct(**{key: value for key, value in kept.items() if key not in model.model_fields})


def _given(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``data`` without the keys that have no value, at any depth: they are as if they were not there."""
    return {
        key: _given(value) if isinstance(value, dict) else value for key, value in data.items() if value is not None
    }
