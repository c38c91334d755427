"""What every part of the config file's own section is made of: strict models, and the kinds of values they share."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

__all__ = ["DAY", "Names", "Seconds", "Section", "names_list", "one_or_more"]

DAY = 86_400.0


def names_list(value: Any) -> Any:
    """Read ``a, b`` or one bare name where a list of names is expected."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def one_or_more(*choices: str, switch: bool = False) -> WithJsonSchema:
    """Return the JSON Schema of a list of names that may also be written as one name, or as true or false."""
    name: dict[str, Any] = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    forms: list[dict[str, Any]] = [{"type": "array", "items": name}, name]
    return WithJsonSchema({"anyOf": [*forms, {"type": "boolean"}] if switch else forms})


Names = Annotated[list[str], BeforeValidator(names_list), one_or_more()]
Seconds = Annotated[float, Field(gt=0, le=DAY)]


class Section(BaseModel):
    """A part of the config file: unknown keys are errors and no value shows up in an error message."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )

    @classmethod
    def every_key(cls) -> set[str]:
        """Return the keys of this section and of those below it, for did-you-mean."""
        found = set(cls.model_fields)
        for field in cls.model_fields.values():
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Section):
                    found |= kind.every_key()
        return found
