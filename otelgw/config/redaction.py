"""``redact``: what is taken out of what a destination gets, in the config and as the pipeline has it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from otelgw.config.section import Section, names_list, one_or_more
from otelgw.config.settings import Pattern, Redaction
from otelgw.redaction.patterns import problem
from otelgw.redaction.presets import PRESETS

__all__ = ["PatternSection", "RedactSection", "given", "redaction"]

_SHORTEST_LIMIT = 256  # bytes: what a mark and a little of the content take
_NAMES = tuple(sorted(PRESETS))


def _pattern_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError("must be letters, digits, `_`, `-` and `.`, 64 at most")
    return name


class PatternSection(Section):
    """A pattern of your own: a regular expression, or a name and one."""

    name: Annotated[str, AfterValidator(_pattern_name)] = Field(
        default="pattern", description="What stands in place of a match: `[REDACTED:<name>]`."
    )
    pattern: str = Field(
        min_length=1,
        max_length=4096,
        description="A regular expression, as Python's `regex` reads it. Needs the extra `otelgw[redaction]`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"pattern": value} if isinstance(value, str) else value


class RedactSection(Section):
    """What is taken out of what a destination gets, before it leaves: see [logging controls](logging-controls.md)."""

    presets: Annotated[
        list[Literal["api_key", "card", "email", "iban", "phone"]],
        BeforeValidator(names_list),
        one_or_more(*_NAMES),
    ] = Field(default_factory=list, description="Kinds of text that are replaced by `[REDACTED:<preset>]`.")
    patterns: list[PatternSection] = Field(
        default_factory=list, description="Patterns of your own: regular expressions, or `name` and `pattern` of each."
    )
    media: bool = Field(
        default=False, description="Replace images, audio and other files in base64 by their type, size and SHA-256."
    )
    limit: Annotated[int, Field(ge=_SHORTEST_LIMIT, le=2**30)] | None = Field(
        default=None,
        description="Bytes of each attribute with content; a longer one is cut, stays valid JSON and is marked.",
    )

    @field_validator("patterns")
    @classmethod
    def _usable(cls, patterns: list[PatternSection]) -> list[PatternSection]:
        for each in patterns:
            wrong = problem(Pattern(each.name, each.pattern))
            if wrong:
                raise ValueError(wrong)
        return patterns


def given(holder: Any) -> RedactSection | None:
    """Return the ``redact`` of a section that has one; None where the config says nothing."""
    return holder.redact if "redact" in holder.model_fields_set else None


def redaction(section: RedactSection | None) -> Redaction:
    """Return what a section says."""
    if section is None:
        return Redaction()
    return Redaction(
        presets=tuple(dict.fromkeys(section.presets)),
        patterns=tuple(Pattern(each.name, each.pattern) for each in section.patterns),
        media=section.media,
        limit=section.limit or 0,
    )
