"""The page ``docs/reference/config.md``, from the models and tables: ``python -m otelgw.config.reference``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from otelgw.config import vocabulary
from otelgw.config.env import VARIABLES
from otelgw.config.flags import COMMANDS, FLAGS
from otelgw.config.model import DestinationSection, OtelgwSection, Section
from otelgw.keys.fields import CallbackFields, KeySection, PolicyFields, TeamSection
from otelgw.providers.catalog import PROVIDERS
from otelgw_exporters import catalog

__all__ = ["page"]

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m otelgw.config.reference`; change the models and tables in otelgw/config instead. -->

One YAML file, LiteLLM's format, with one more section `otelgw:`. `otelgw check` reads it and shows every problem at
once; `otelgw schema` prints its JSON Schema for editors.

- `os.environ/NAME` in a value is replaced by the environment variable. An unset or blank variable is an error.
- A `.env` file beside the config is read; it never overrides the environment. A blank variable counts as unset, an
  `OTELGW_…` variable that nothing reads is a warning.
- In `otelgw:` an unknown key is an error. In LiteLLM's sections it is a warning at start and an error under
  `otelgw check --strict`; an unknown key of `litellm_params` becomes a default field of the upstream body. A misspelt
  control over what is recorded (`turn_off_message_logging`, `message_logging`, `redact_user_api_key_info`) is always
  an error.
- For tracing the file wins over the standard `OTEL_*` variables; of content capture the stricter of all wins. Flags and
  their `OTELGW_*` variables win over the file.
- Without a `model_list` the models are `echo` and, for every provider whose usual key variable is set, `provider/*` and
  the provider's well-known bare names. Without a config file and without a destination in the environment, spans go to
  the console.
"""

_MODEL_NOTES = """\
The provider is found by prefix (`groq/llama-3.3-70b`), then `custom_llm_provider`, then by a well-known name
(`gpt-4o`, `claude-sonnet-4`), then it is `openai` where `api_base` is set. In `model_name: "openai/*"` the text in the
place of `*` takes the place of `*` in `model`. `model_name: "*"` with `model: "*"` is every model of every provider
whose usual key variable is set. The usual key variable is used for the provider's own host only: with an `api_base`
elsewhere, name the key.
"""

_DESTINATION_NOTES = """\
LiteLLM's callback names and a destination's type both work in `callbacks`, `success_callback` and `failure_callback`.
`otel` is an OTLP destination as the standard variables say (`OTEL_EXPORTER=console` makes it the console; the default
is gRPC to 127.0.0.1:4317). `OTEL_TRACES_EXPORTER` or `OTEL_EXPORTER_OTLP_ENDPOINT` in the environment add one, unless a
configured one takes its endpoint from there. A destination with an `endpoint` of its own takes no credentials from the
environment.
"""


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines()).rstrip("\n") + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield "## Commands\n"
    yield from _table(("command", "what it does"), ((f"`otelgw {each.name}`", each.help) for each in COMMANDS))
    yield "Exit status: 0 ok, 1 at run time, 2 usage or config.\n"
    yield from _table(
        ("flag", "variable", "commands", "meaning", "default"),
        (
            (
                ", ".join(f"`{name}`" for name in flag.names),
                f"`{flag.variable}`",
                ", ".join(flag.commands),
                flag.help,
                f"`{flag.default}`" if flag.default else "",
            )
            for flag in FLAGS
        ),
    )
    yield "## `model_list`\n"
    yield _MODEL_NOTES
    yield from _section("model_list[]", vocabulary.ModelEntry)
    yield from _section("model_list[].litellm_params", vocabulary.LitellmParams)
    yield from _section("model_list[].model_info", vocabulary.ModelInfo)
    for name, model in (
        ("litellm_settings", vocabulary.LitellmSettings),
        ("general_settings", vocabulary.GeneralSettings),
        ("router_settings", vocabulary.RouterSettings),
        ("callback_settings.<callback>", vocabulary.CallbackSettings),
    ):
        yield from _section(name, model, level=2)
    yield "## `environment_variables`\n"
    yield "`NAME: value` pairs for variables that neither the environment nor `.env` sets.\n"
    yield from _section("otelgw", OtelgwSection, level=2)
    yield "## Keys and teams\n"
    yield "What they are for: [how-to](../how-to/keys-and-teams.md), [reference](keys.md).\n"
    yield from _section("otelgw.keys[]", KeySection)
    yield from _section("otelgw.teams[]", TeamSection)
    yield from _section("logging_policy", PolicyFields)
    yield from _section("metadata.logging[]", CallbackFields)
    yield "## Destinations\n"
    yield _DESTINATION_NOTES
    yield from _section("otelgw.destinations[]", DestinationSection)
    for row in catalog.ROWS:
        yield from _destination(row)
    yield "## Environment variables\n"
    yield from _table(("variable", "meaning"), ((f"`{name}`", text) for name, text in VARIABLES.items()))
    yield from _providers()
    yield from _without_effect()


def _section(name: str, model: type[BaseModel], level: int = 3) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n"
    if model.__doc__:
        yield " ".join(model.__doc__.split()).replace("``", "`") + "\n"
    properties = model.model_json_schema()["properties"]
    below: list[tuple[str, type[Section]]] = []
    rows: list[tuple[str, ...]] = []
    for key, field in model.model_fields.items():
        kind, default = _kind(properties[key]), _default(field.default)
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            below.append((f"{name}.{key}", annotation))
            kind, default = f"[section](#{_anchor(f'{name}.{key}')})", ""
        rows.append((f"`{key}`", kind, field.description or "", default))
    yield from _table(("key", "type", "meaning", "default"), rows)
    for child, section in below:
        yield from _section(child, section, level + 1)


def _anchor(heading: str) -> str:
    """Return a heading's anchor, as code forges make them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _kind(schema: dict[str, Any]) -> str:
    """Return the type of a value in words."""
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        kinds = [_kind(each) for each in schema["anyOf"] if each.get("type") != "null"]
        names = [kind for kind in kinds if not any(kind != other and kind in other for other in kinds)]
        return " or ".join(dict.fromkeys(names))
    if "$ref" in schema:
        return "section"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    kind = str(schema.get("type", "any"))
    return {"object": "mapping", "boolean": "true or false"}.get(kind, kind)


def _default(value: Any) -> str:
    if value is PydanticUndefined or value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _destination(row: catalog.Row) -> Iterator[str]:
    yield f"### `{row.name}`\n"
    names = ", ".join(f"`{each}`" for each in catalog.litellm_names(row))
    yield f"{row.description}.{f' LiteLLM callback: {names}.' if names else ''}\n"
    yield from _table(
        ("option", "type", "meaning", "variables", "default"),
        (
            (
                f"`{option.name}`",
                ", ".join(f"`{choice}`" for choice in option.choices) or option.kind,
                option.description,
                ", ".join(f"`{name}`" for name in option.env),
                _default(option.default),
            )
            for option in row.options
        ),
    )


def _providers() -> Iterator[str]:
    yield "## Providers\n"
    yield "`openai/<anything>` with an `api_base` calls any other OpenAI-compatible API.\n"
    yield from _table(
        ("prefix", "base URL", "key variable", "`gen_ai.provider.name`", "stream usage", "documentation"),
        (
            (
                ", ".join(f"`{name}/`" for name in (row.name, *row.aliases)),
                f"`{row.base_url}`" if row.base_url else "in process" if row.transport != "http" else "`api_base`",
                ", ".join(f"`{name}`" for name in row.keys),
                f"`{row.provider_name}`",
                f"`{row.stream_usage}`",
                f"<{row.docs}>",
            )
            for row in PROVIDERS
        ),
    )


def _without_effect() -> Iterator[str]:
    yield "## Accepted, not yet enforced\n"
    yield "`rpm` and `tpm` of a deployment, and these controls over access, which are warned about at every start:\n"
    yield _names(vocabulary.ACCESS_CONTROLS)
    yield "## Known keys without effect\n"
    yield "`otelgw check` lists those that a config uses.\n"
    for title, keys in (
        ("litellm_params", vocabulary.PARAMS_IGNORED),
        ("litellm_settings", vocabulary.LITELLM_IGNORED),
        ("general_settings", vocabulary.GENERAL_IGNORED),
        ("router_settings", vocabulary.ROUTER_IGNORED),
        ("top level", vocabulary.SECTIONS_IGNORED),
    ):
        yield f"**{title}:** {_names(keys)}"
    prefixes = ", ".join(f"`{prefix}*`" for prefix in vocabulary.PARAMS_IGNORED_PREFIXES)
    yield f"Also, in `litellm_params`, keys that begin with {prefixes}.\n"
    yield "Refused, because without them more would be recorded or let through than the config says:\n"
    yield _names({*vocabulary.REFUSED_CONTROLS, *vocabulary.MASKING_CALLBACKS, *vocabulary.SECTIONS_REFUSED})


def _names(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in sorted(keys, key=str.lower)) + ".\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
