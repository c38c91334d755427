"""Everything found wrong or noteworthy in one configuration, each with its file, line and config path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from pydantic import ValidationError

from otelgw.config.document import Document, Location

__all__ = ["Findings", "did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `api_base`?`` or nothing."""
    near = get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.7)
    return f"; did you mean `{near[0]}`?" if near else ""


@dataclass(slots=True)
class Findings:
    """What loading a configuration found.

    ``errors`` make it unusable. ``strict`` are warnings that ``otelgw check --strict`` counts as errors, ``warnings``
    the rest. ``ignored`` are known keys without effect, ``not_enforced`` are limits that are accepted only.
    """

    document: Document
    _errors: list[tuple[int, str]] = field(default_factory=list)
    _strict: list[tuple[int, str]] = field(default_factory=list)
    _warnings: list[tuple[int, str]] = field(default_factory=list)
    _ignored: list[tuple[int, str]] = field(default_factory=list)
    _not_enforced: list[tuple[int, str]] = field(default_factory=list)

    def error(self, location: Location, message: str) -> None:
        self._add(self._errors, location, message)

    def warn(self, location: Location, message: str, *, strict: bool = True) -> None:
        self._add(self._strict if strict else self._warnings, location, message)

    def ignore(self, location: Location, message: str) -> None:
        self._add(self._ignored, location, message)

    def unenforced(self, location: Location, message: str) -> None:
        self._add(self._not_enforced, location, message)

    def environment_error(self, variable: str, message: str) -> None:
        """Report a malformed environment variable; ``message`` must not hold its value if that can be a secret."""
        self._errors.append((0, f"{variable}: {message}"))

    def environment_warning(self, variable: str, message: str, *, strict: bool = True) -> None:
        (self._strict if strict else self._warnings).append((0, f"{variable}: {message}"))

    def invalid(self, error: ValidationError, location: Location, known: Iterable[str] = ()) -> None:
        """Report every problem of a pydantic validation below ``location``, without the values found there."""
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            place = (*location, *(part for part in problem["loc"] if not _is_branch(part)))
            if problem["type"] == "extra_forbidden":
                self.error(place, f"unknown key{did_you_mean(str(place[-1]), known)}")
            elif problem["type"] == "missing":
                self.error(place, "is required; add it")
            else:
                message = str(problem["msg"])
                self.error(place, message.removeprefix("Value error, ").replace("Input should be", "must be"))

    @property
    def errors(self) -> tuple[str, ...]:
        return _in_order(self._errors)

    @property
    def strict(self) -> tuple[str, ...]:
        return _in_order(self._strict)

    @property
    def warnings(self) -> tuple[str, ...]:
        return _in_order(self._warnings)

    @property
    def ignored(self) -> tuple[str, ...]:
        return _in_order(self._ignored)

    @property
    def not_enforced(self) -> tuple[str, ...]:
        return _in_order(self._not_enforced)

    def _add(self, findings: list[tuple[int, str]], location: Location, message: str) -> None:
        findings.append((self.document.line(location), f"{self.document.where(location)}: {message}"))


def _is_branch(part: str | int) -> bool:
    """Say whether a part of pydantic's location names a branch of a union, which is no part of the document."""
    return isinstance(part, str) and ("[" in part or part in {"str", "bool", "int", "float", "list", "dict"})


def _in_order(findings: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(message for _, message in sorted(findings, key=lambda finding: finding[0])))
