"""Where spans go: LiteLLM's callbacks, the section's ``destinations`` and the environment, merged into instances.

No destination is named here; what there is comes from ``otelgw_exporters.catalog``. The one name this module knows is
LiteLLM's callback ``otel``, which means whatever the standard variables say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from otelgw.config import callback_params, python_callbacks
from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.findings import did_you_mean
from otelgw.config.model import DestinationSection, SelectionSection
from otelgw.config.named_callbacks import Named, named_callbacks
from otelgw.config.python_callbacks import Told
from otelgw.config.redaction import RedactSection, given, redaction
from otelgw.config.section import names_list
from otelgw.config.settings import Destination, Selection
from otelgw.config.vocabulary import MASKING_CALLBACKS, CallbackSettings, LitellmSettings
from otelgw.tracing import default_tags
from otelgw_exporters import catalog, options
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["ADD_ONE", "DEFAULT_TAGS", "Wanted", "destinations", "has_row"]

ADD_ONE = (
    "no destination: requests are answered, nothing is recorded. Add one, for example "
    "`otelgw: {destinations: [console]}` in the config, the callback `otel`, or the variable "
    "OTEL_EXPORTER_OTLP_ENDPOINT"
)
OTEL = "otel"
_NOTHING = Told()
DEFAULT_TAGS = "_default_tags"
_BASE_URL = "PROXY_BASE_URL"
_NO_URL = "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_ENDPOINT is no URL"
_BUILT_IN = {"prometheus": "`/metrics` is always there; nothing has to be turned on"}
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
    required: bool = False
    redaction: RedactSection | None = None
    tags: tuple[str, ...] = ()
    blob_store: bool = True

    @property
    def callbacks(self) -> tuple[str, ...]:
        """The other names that it answers to, in lower case."""
        row = _row(self.type)
        names = (self.callback, row.params_key, *row.callbacks) if row is not None else (self.callback,)
        return tuple(dict.fromkeys(name.lower() for name in names if name))

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
    redact: RedactSection | None = None,
    told: Told = _NOTHING,
) -> tuple[Destination, ...]:
    """Return every destination; problems are reported.

    ``sampling`` and ``redact`` are those of destinations that do not say; ``told`` is for callbacks in Python.
    """
    wanted = [each for location, item in section if (each := _of_section(item, location, context)) is not None]
    named = {each.name for each in wanted}
    own = named_callbacks(callback_settings, context)
    wanted += [each for each in _of_callbacks(settings, own, context, otel=otel) if each.name not in named]
    standard = _standard_types(context)
    wanted += _of_environment(standard or (), wanted)
    if not wanted and standard is None and console_by_default:
        wanted.append(Wanted("console"))
    _withhold(callback_settings, wanted, own, context)
    callback_params.fill_in(settings, wanted, context)
    _tag(settings, wanted, context)
    for each in wanted:
        each.redaction = each.redaction or redact
    found = (_resolved(each, context, sampling, told, redact=settings.redact_user_api_key_info) for each in wanted)
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
        content=item.content if "content" in item.model_fields_set else not item.required,
        sampling=item.sampling if "sampling" in item.model_fields_set else None,
        redact=item.redact_user_api_key_info,
        selection=_selection(item.select),
        required=item.required,
        redaction=given(item),
        tags=_known_tags(item.default_tags, (*location, "default_tags"), context),
        blob_store=item.blob_store,
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


def _of_callbacks(settings: LitellmSettings, own: Mapping[str, Named], context: Context, *, otel: bool) -> list[Wanted]:
    """Return one destination a type; success and failure together are every outcome."""
    events: dict[str, tuple[Location, set[str]]] = {}
    for key, on in _EVENTS:
        for index, name in enumerate(getattr(settings, key) or ()):
            location: Location = ("litellm_settings", key, index)
            if name in own or _is_destination(name, location, context):
                events.setdefault(name, (location, set()))[1].add(on)
    if otel:
        events.setdefault(OTEL, (("general_settings", "otel"), set()))[1].add("all")
    wanted: dict[str, Wanted] = {}
    for callback, (location, outcomes) in events.items():
        on = next(iter(outcomes)) if len(outcomes) == 1 else "all"
        mine = own.get(callback)
        for name in (mine.instance,) if mine else _types_of(callback, location, context):
            earlier = wanted.get(name)
            if earlier is not None and earlier.on != on:
                on = "all"
            python = name.startswith(f"{python_callbacks.TYPE}/")
            given = mine.given if mine else {"target": callback} if python else {}
            wanted[name] = Wanted(name, location, callback, on, given=given)
    return list(wanted.values())


def _is_destination(name: str, location: Location, context: Context) -> bool:
    """Say whether ``name`` is a callback that has a destination here; report why it has none."""
    callbacks = {callback for row in catalog.ROWS for callback in (row.name, *row.callbacks)} | {OTEL}
    if name in callbacks:
        return True
    if name in MASKING_CALLBACKS:
        context.findings.error(
            location,
            f"`{name}` is not available here, and without it content would be recorded unmasked. Remove it, and say "
            "in `otelgw.redact` what is to be taken out, or set turn_off_message_logging: true",
        )
    elif name in _BUILT_IN:
        context.findings.ignore(location, _BUILT_IN[name])
    elif name in catalog.KNOWN_CALLBACKS:
        context.findings.warn(location, _unavailable(name))
    elif python_callbacks.is_python(name):
        return True
    else:
        context.findings.error(
            location, f"unknown callback `{name[:60]}`{did_you_mean(name, callbacks | catalog.KNOWN_CALLBACKS)}"
        )
    return False


def _types_of(callback: str, location: Location, context: Context) -> tuple[str, ...]:
    if callback != OTEL:
        named = (row.name for row in catalog.ROWS if callback in {row.name, *row.callbacks})
        return (next(named, None) or python_callbacks.instance(callback),)
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


def _withhold(callback_settings: Any, wanted: list[Wanted], own: Iterable[str], context: Context) -> None:
    """Apply ``callback_settings.<callback>.message_logging: false``."""
    if callback_settings is None:
        return
    if not isinstance(callback_settings, dict):
        context.findings.error(("callback_settings",), "must be `callback:` with `message_logging:` below it")
        return
    known = {OTEL, *catalog.KNOWN_CALLBACKS, *(each.name for each in wanted), *own}
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
        if section.callback_type is None:  # else the other keys are options
            context.others(section, location, frozenset())
        for each in meant:
            each.content = each.content and section.message_logging
            each.redaction = each.redaction or given(section)


def has_row(callback: str) -> bool:
    """Say whether ``callback`` is a name of a destination that there is here."""
    return any(callback in {row.name, row.params_key, *row.callbacks} for row in catalog.ROWS)


def _tag(settings: LitellmSettings, wanted: list[Wanted], context: Context) -> None:
    """Apply ``litellm_settings.<callback>_default_tags``."""
    for key, value in settings.others.items():
        callback, ending, _ = key.partition(DEFAULT_TAGS)
        if not ending or not has_row(callback):
            continue
        location: Location = ("litellm_settings", key)
        meant = [each for each in wanted if each.answers_to(callback)]
        if not meant:
            context.findings.ignore(location, "no such destination is configured")
            continue
        names = names_list(value)
        if not isinstance(names, list):
            context.findings.error(location, "must be a list of names")
            continue
        tags = _known_tags(map(str, names), location, context)
        for each in meant:
            each.tags = each.tags or tags


def _known_tags(names: Iterable[str], location: Location, context: Context) -> tuple[str, ...]:
    """Return the names that are known, each once; the others are reported together."""
    given = tuple(dict.fromkeys(names))
    unknown = [name for name in given if name not in default_tags.KNOWN]
    if unknown:
        context.findings.warn(location, f"ignored, no such tag: {', '.join(unknown)[:200]}", strict=False)
    if default_tags.BASE_URL in given and not context.variable(_BASE_URL):
        context.findings.warn(location, f"{default_tags.BASE_URL} is left out: {_BASE_URL} is not set", strict=False)
    return tuple(name for name in given if name in default_tags.KNOWN)


def _resolved(wanted: Wanted, context: Context, sampling: str, told: Told, *, redact: bool) -> Destination | None:
    row = catalog.row(wanted.type)
    given = {name: value for name, value in wanted.given.items() if _usable(row, name, value, wanted.location, context)}
    for option in row.options:
        if option.kind == "path" and isinstance(given.get(option.name), str):
            given[option.name] = path = context.path(given[option.name])
            if not Path(path).is_file():
                context.findings.error((*wanted.location, option.name), f"no such file: {path}")
    python = wanted.type == python_callbacks.TYPE
    if python:
        given = python_callbacks.filled_in(given, context, told)
    try:
        found = options.complete(row, given, context.environment)
    except DestinationConfigError as error:
        context.findings.error(wanted.location, str(error))
        return None
    if python and (problem := python_callbacks.problem(found)):
        context.findings.error(wanted.location, problem)
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
        callbacks=wanted.callbacks,
        required=wanted.required,
        redaction=redaction(wanted.redaction),
        default_tags=wanted.tags,
        base_url=context.variable(_BASE_URL) if default_tags.BASE_URL in wanted.tags else "",
        blob_store=wanted.blob_store,
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
