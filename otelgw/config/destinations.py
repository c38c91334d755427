"""Where spans go: LiteLLM's callbacks, the section's ``destinations`` and the environment, merged into instances.

No destination is named here; what there is comes from ``otelgw_exporters.catalog``. The one name this module knows is
LiteLLM's callback ``otel``, which means whatever the standard variables say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.findings import did_you_mean
from otelgw.config.model import DestinationSection, SelectionSection
from otelgw.config.settings import Destination, Selection
from otelgw.config.vocabulary import MASKING_CALLBACKS, CallbackSettings, LitellmSettings
from otelgw_exporters import catalog, options
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["ADD_ONE", "Wanted", "destinations"]

ADD_ONE = (
    "no destination: requests are answered, nothing is recorded. Add one, for example "
    "`otelgw: {destinations: [console]}` in the config, the callback `otel`, or the variable "
    "OTEL_EXPORTER_OTLP_ENDPOINT"
)
OTEL = "otel"
_NO_URL = "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_ENDPOINT is no URL"
_PYTHON_CALLBACK = re.compile(r"(?:(?:s3|gcs)://\S+|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)")
_EVENTS = (("callbacks", "all"), ("success_callback", "success"), ("failure_callback", "failure"))


@dataclass(slots=True)
class Wanted:
    """One destination that something asks for, before its options are resolved."""

    name: str
    location: Location = ()
    callback: str = ""
    on: str = "all"
    given: Mapping[str, Any] = field(default_factory=dict)
    content: bool = True
    sampling: str | None = None
    redact: bool = False
    selection: Selection = field(default_factory=Selection)

    @property
    def type(self) -> str:
        return self.name.partition("/")[0]

    def answers_to(self, callback: str) -> bool:
        """Say whether ``callback_settings.<callback>`` is about this destination."""
        row = _row(self.type)
        return callback in {self.name, self.type, self.callback} or (
            row is not None and callback in {*row.callbacks, row.params_key}
        )


def destinations(
    settings: LitellmSettings,
    callback_settings: Any,
    section: Iterable[tuple[Location, DestinationSection]],
    context: Context,
    *,
    otel: bool,
    console_by_default: bool,
    sampling: str,
) -> tuple[Destination, ...]:
    """Return every destination; problems are reported. ``sampling`` is that of destinations that do not say."""
    wanted = [each for location, item in section if (each := _of_section(item, location, context)) is not None]
    named = {each.name for each in wanted}
    wanted += [each for each in _of_callbacks(settings, context, otel=otel) if each.name not in named]
    standard = _standard_types(context)
    wanted += _of_environment(standard or (), wanted)
    if not wanted and standard is None and console_by_default:
        wanted.append(Wanted("console"))
    _withhold(callback_settings, wanted, context)
    found = (_resolved(each, context, sampling, redact=settings.redact_user_api_key_info) for each in wanted)
    return tuple(each for each in found if each is not None)


def _row(name: str) -> catalog.Row | None:
    return next((row for row in catalog.ROWS if row.name == name), None)


def _of_section(item: DestinationSection, location: Location, context: Context) -> Wanted | None:
    if _row(item.type) is None:
        if item.type in catalog.KNOWN_CALLBACKS:
            context.findings.warn(location, _unavailable(item.type))
        else:
            names = [row.name for row in catalog.ROWS]
            context.findings.error(
                (*location, "name"),
                f"unknown destination type `{item.type}`; there are {', '.join(names)}{did_you_mean(item.type, names)}",
            )
        return None
    return Wanted(
        item.name,
        location,
        on=item.on,
        given=item.options,
        content=item.content,
        sampling=item.sampling if "sampling" in item.model_fields_set else None,
        redact=item.redact_user_api_key_info,
        selection=_selection(item.select),
    )


def _selection(section: SelectionSection) -> Selection:
    return Selection(
        model=tuple(section.model),
        key=tuple(section.key),
        team=tuple(section.team),
        tag=tuple(section.tag),
        route=tuple(section.route),
        ratio=section.ratio,
        slow=section.slow,
        costly=section.costly,
    )


def _unavailable(name: str) -> str:
    return f"the destination `{name}` is not available in this version; nothing is sent there"


def _of_callbacks(settings: LitellmSettings, context: Context, *, otel: bool) -> list[Wanted]:
    """Return one destination a type; success and failure together are every outcome."""
    events: dict[str, tuple[Location, set[str]]] = {}
    for key, on in _EVENTS:
        for index, name in enumerate(getattr(settings, key) or ()):
            location: Location = ("litellm_settings", key, index)
            if _is_destination(name, location, context):
                events.setdefault(name, (location, set()))[1].add(on)
    if otel:
        events.setdefault(OTEL, (("general_settings", "otel"), set()))[1].add("all")
    wanted: dict[str, Wanted] = {}
    for callback, (location, outcomes) in events.items():
        on = next(iter(outcomes)) if len(outcomes) == 1 else "all"
        for name in _types_of(callback, location, context):
            earlier = wanted.get(name)
            if earlier is not None and earlier.on != on:
                on = "all"
            wanted[name] = Wanted(name, location, callback, on)
    return list(wanted.values())


def _is_destination(name: str, location: Location, context: Context) -> bool:
    """Say whether ``name`` is a callback that has a destination here; report why it has none."""
    callbacks = {callback for row in catalog.ROWS for callback in (row.name, *row.callbacks)} | {OTEL}
    if name in callbacks:
        return True
    if name in MASKING_CALLBACKS:
        context.findings.error(
            location,
            f"`{name}` masks content, which is not available in this version: content would be recorded unmasked. "
            "Remove it, or set turn_off_message_logging: true",
        )
    elif name in catalog.KNOWN_CALLBACKS:
        context.findings.warn(location, _unavailable(name))
    elif _PYTHON_CALLBACK.fullmatch(name):
        context.findings.warn(
            location, f"callbacks in Python are not available in this version; `{name}` is not loaded and does not run"
        )
    else:
        context.findings.error(
            location, f"unknown callback `{name[:60]}`{did_you_mean(name, callbacks | catalog.KNOWN_CALLBACKS)}"
        )
    return False


def _types_of(callback: str, location: Location, context: Context) -> tuple[str, ...]:
    if callback != OTEL:
        return (next(row.name for row in catalog.ROWS if callback in {row.name, *row.callbacks}),)
    if context.variable("OTEL_TRACES_EXPORTER"):
        standard = _standard_types(context) or ()
        if not standard:
            message = "OTEL_TRACES_EXPORTER=none turns `otel` off; unset it to send spans"
            context.findings.warn(location, message, strict=False)
        return standard
    try:
        return (options.otlp_type(context.environment),)
    except DestinationConfigError as error:
        context.findings.error(location, str(error))
    except ValueError:
        context.findings.error(location, _NO_URL)
    return ()


def _standard_types(context: Context) -> tuple[str, ...] | None:
    """Return the destination types that the standard variables ask for; None when they say nothing."""
    environment = context.environment
    try:
        if context.variable("OTEL_TRACES_EXPORTER"):
            return options.traces_exporter_types(environment)
        if context.variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            return options.traces_exporter_types({**environment, "OTEL_TRACES_EXPORTER": "otlp"})
    except DestinationConfigError as error:
        context.findings.error((), str(error))
    except ValueError:
        context.findings.error((), _NO_URL)
    return None


def _of_environment(types: tuple[str, ...], wanted: list[Wanted]) -> list[Wanted]:
    """Return the destinations of the standard variables that none of ``wanted`` stands for already.

    A configured one stands for it when it is of the same kind and takes its endpoint from the same variables.
    """
    names = {each.name for each in wanted}
    covered = {_kind(each.type) for each in wanted if each.given.get("endpoint") is None}
    return [
        Wanted(f"{name}/environment" if name in names else name, callback=OTEL)
        for name in types
        if _kind(name) not in covered
    ]


def _kind(name: str) -> str:
    row = _row(name)
    return (row.params_key or row.name) if row is not None else name


def _withhold(callback_settings: Any, wanted: list[Wanted], context: Context) -> None:
    """Apply ``callback_settings.<callback>.message_logging: false``."""
    if callback_settings is None:
        return
    if not isinstance(callback_settings, dict):
        context.findings.error(("callback_settings",), "must be `callback:` with `message_logging:` below it")
        return
    known = {OTEL, *catalog.KNOWN_CALLBACKS, *(each.name for each in wanted)}
    known |= {name for row in catalog.ROWS for name in (row.name, row.params_key, *row.callbacks) if name}
    for callback, data in callback_settings.items():
        location: Location = ("callback_settings", callback)
        section = context.vocabulary(CallbackSettings, data, location)
        if callback not in known:
            report = context.findings.warn if section.message_logging else context.findings.error
            report(location, f"unknown callback{did_you_mean(callback, known)}")
            continue
        meant = [each for each in wanted if each.answers_to(callback)]
        if not meant:
            context.findings.ignore(location, "no such destination is configured")
            continue
        context.others(section, location, frozenset())
        for each in meant:
            each.content = each.content and section.message_logging


def _resolved(wanted: Wanted, context: Context, sampling: str, *, redact: bool) -> Destination | None:
    row = catalog.row(wanted.type)
    given = {name: value for name, value in wanted.given.items() if _usable(row, name, value, wanted.location, context)}
    for option in row.options:
        if option.kind == "path" and isinstance(given.get(option.name), str):
            given[option.name] = path = context.path(given[option.name])
            if not Path(path).is_file():
                context.findings.error((*wanted.location, option.name), f"no such file: {path}")
    try:
        found = options.resolve(row, given, context.environment)
    except DestinationConfigError as error:
        context.findings.error(wanted.location, str(error))
        return None
    return Destination(
        name=wanted.name,
        type=wanted.type,
        options=found,
        on=wanted.on,
        content=wanted.content,
        sampling=wanted.sampling or sampling,
        semconv=str(found.get("semconv", "otel")),
        redact_user_api_key_info=wanted.redact or redact,
        selection=wanted.selection,
    )


def _usable(row: catalog.Row, name: str, value: Any, location: Location, context: Context) -> bool:
    """Check one option by itself, so that each problem is reported on its own line."""
    try:
        options.resolve(row, {name: value}, {})
    except DestinationConfigError as error:
        controls = [key for key in DestinationSection.model_fields if key != "name"]
        near = get_close_matches(name, controls, n=1, cutoff=0.7)
        known = any(option.name == name for option in row.options)
        message = f"unknown key; did you mean `{near[0]}`?" if near and not known else str(error)
        context.findings.error((*location, name), message)
        return False
    return True
