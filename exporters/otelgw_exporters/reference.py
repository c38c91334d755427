"""The page ``docs/reference/destinations.md``, from the catalogue: ``python -m otelgw_exporters.reference``."""

from __future__ import annotations

from collections.abc import Iterator

from otelgw_exporters import catalog
from otelgw_exporters.rows import PROOFS, Row, Wire

__all__ = ["page"]

_INTRODUCTION = """\
# Destinations

<!-- Written by `python -m otelgw_exporters.reference`; change the rows in exporters/otelgw_exporters/rows instead. -->

Every destination is an OpenTelemetry `SpanExporter`: by its name in a config (`otelgw: {destinations: [name]}`), by
LiteLLM's callback name (`success_callback: ["name"]`), or as `OTEL_TRACES_EXPORTER=otelgw_<name>` in any OpenTelemetry
application. Options of each are in [the configuration's reference](config.md#destinations).

How strong the proof is that a destination gets what it understands:

"""


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines()).rstrip("\n") + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION + "\n".join(f"- **{name}**: {text}" for name, text in PROOFS.items()) + "\n"
    yield "| destination | callbacks | what it is | proof |\n| --- | --- | --- | --- |"
    for row in sorted(catalog.ROWS, key=lambda row: row.name):
        names = ", ".join(f"`{name}`" for name in dict.fromkeys((row.name, *row.callbacks)))
        proof = f"{row.proof} ({row.proof_of})" if row.proof_of else row.proof
        yield f"| `{row.name}` | {names} | {row.description} | {proof} |"
    yield ""
    yield "## Platforms that take OTLP or JSON of their own\n"
    yield (
        "`parent` is what becomes of a caller's span as the parent of the gateway's: `keep` where the platform shows a "
        "trace whose root it never gets, `detach` where it would hide it or never finish it. Each can be set.\n"
    )
    yield "| destination | sent to | regions | attributes | parent | variables |\n| --- | --- | --- | --- | --- | --- |"
    for row in sorted(catalog.ROWS, key=lambda row: row.name):
        if row.wire is not None:
            yield _platform(row, row.wire)


def _platform(row: Row, wire: Wire) -> str:
    parent = next((str(option.default) for option in row.options if option.name == "parent"), "")
    variables = ", ".join(f"`{name}`" for option in row.options for name in option.env)
    regions = ", ".join(name for name, _ in wire.regions)
    paths = ", ".join(f"`{path}`" for path in (*wire.others, wire.path) if path)
    return f"| `{row.name}` | {paths} | {regions} | {wire.dialect} | {parent} | {variables} |"


if __name__ == "__main__":
    print(page(), end="")
