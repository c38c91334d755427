"""What ``otelgw destinations NAME`` prints: a destination in a config, its options, how it is tested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from otelgw_exporters import catalog
from otelgw_exporters.rows import PROOFS, Option, Row

__all__ = ["example", "page"]

_WIDE = 100


def page(row: Row) -> Iterator[str]:
    """Yield the lines of a row's page."""
    yield f"{row.name}: {row.description}"
    names = catalog.litellm_names(row)
    if names:
        yield f"LiteLLM's {'callback' if len(names) == 1 else 'callbacks'}: {', '.join(names)}"
    if row.proof in PROOFS:
        yield f"Tested against: {PROOFS[row.proof]}{f' ({row.proof_of})' if row.proof_of else ''}"
    yield ""
    yield "In a config:"
    yield ""
    yield from (f"  {line}" if line else "" for line in example(row).splitlines())
    variables = [option for option in row.options if option.required and option.env]
    if names and len(variables) == sum(option.required for option in row.options):
        yield ""
        yield "The same in LiteLLM's words, with the variables in the environment or in .env:"
        yield ""
        yield f'  litellm_settings: {{callbacks: ["{names[0]}"]}}'
        yield from (f"  # {option.env[0]}: {option.description}" for option in variables)
    yield ""
    yield from _table(
        [
            ("OPTION", "TYPE", "DEFAULT", "VARIABLES"),
            *((option.name, _kind(option), _default(option), ", ".join(option.env)) for option in row.options),
        ],
        [option.description for option in row.options],
    )
    yield ""
    yield f"Try it: otelgw doctor {row.name}"


def example(row: Row) -> str:
    """Return a config with the row's destination in it, as YAML; it needs the variables that it names."""
    settings = row.settings or "".join(
        f"{option.name}: {_reference(option)}\n" for option in row.options if option.required
    )
    lines = [f"      {line}" for line in settings.splitlines()]
    return "\n".join(["otelgw:", "  destinations:", f"    - name: {row.name}", *lines]) + "\n"


def _reference(option: Option) -> str:
    return f"os.environ/{option.env[0]}" if option.env else f"<{option.description}>"


def _kind(option: Option) -> str:
    kind = " | ".join(option.choices) if option.kind == "choice" else option.kind
    return f"{kind}, secret" if option.secret else kind


def _default(option: Option) -> str:
    if option.required:
        return "required"
    if option.default is None or option.default == () or option.default == "":
        return ""
    if isinstance(option.default, bool):
        return str(option.default).lower()
    return ", ".join(option.default) if isinstance(option.default, tuple) else str(option.default)


def _table(rows: Sequence[tuple[str, ...]], notes: Sequence[str]) -> Iterator[str]:
    """Yield the rows in columns, and what each means below it, since that is long."""
    widths = [min(max(len(row[column]) for row in rows), 40) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number:
            yield from _wrapped(notes[number - 1])


def _wrapped(text: str) -> Iterator[str]:
    line = "   "
    for word in text.split():
        if len(line) + len(word) + 1 > _WIDE:
            yield line
            line = "   "
        line = f"{line} {word}"
    yield line
