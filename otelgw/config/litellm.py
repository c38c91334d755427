"""LiteLLM's YAML and the ``otelgw:`` section -> ``Settings``."""

from __future__ import annotations

import hashlib
from typing import Any

from otelgw.config import bind, callback_params, env, python_callbacks
from otelgw.config.blob_store import blob_store
from otelgw.config.context import Context
from otelgw.config.deployments import Defaults, default_deployments, deployments
from otelgw.config.destinations import ADD_ONE, DEFAULT_TAGS, destinations, has_row
from otelgw.config.document import Location
from otelgw.config.findings import did_you_mean
from otelgw.config.flags import Flags
from otelgw.config.keys import keys
from otelgw.config.metrics import metrics
from otelgw.config.model import DestinationSection, OtelgwSection
from otelgw.config.python_callbacks import Told
from otelgw.config.receiver import address, receiver
from otelgw.config.redaction import given
from otelgw.config.settings import (
    Auth,
    Deployment,
    Destination,
    Keys,
    Limits,
    Receiver,
    Settings,
    Spool,
    Timeouts,
    Tracing,
)
from otelgw.config.variables import report_unknown
from otelgw.config.vocabulary import (
    ACCESS_CONTROLS,
    GENERAL_IGNORED,
    LITELLM_IGNORED,
    ROUTER_IGNORED,
    SECTIONS_IGNORED,
    SECTIONS_REFUSED,
    GeneralSettings,
    LitellmSettings,
    RouterSettings,
    Vocabulary,
)
from otelgw.errors import ConfigError
from otelgw.http.proxy import Proxies
from otelgw_exporters import catalog

__all__ = ["SECTIONS", "settings"]

SECTIONS = (
    "model_list",
    "litellm_settings",
    "general_settings",
    "router_settings",
    "callback_settings",
    "environment_variables",
    "otelgw",
)
_PARAMETER_ENDINGS = ("_params", "_default_tags", "_config", "_settings")
_DEFAULT_SAMPLER = "parentbased_always_on"
_MEBIBYTE = 1024 * 1024
_COLLECTOR_SECTIONS = {"receivers", "exporters", "service"}
_COLLECTOR_KEYS = {*_COLLECTOR_SECTIONS, "processors", "connectors", "extensions"}


def settings(context: Context, flags: Flags, *, configured: bool, collecting: bool = False) -> Settings:
    """Return the settings of ``context.document``; every problem is in ``context.findings``.

    ``configured`` says that there is a config file; without one the defaults include the console. ``collecting`` says
    that there is a receiver and no gateway: models and the gateway's own address do not matter.
    """
    document, findings = context.document, context.findings
    data = document.data
    _top_level(data, context)
    section = _own_section(data.get("otelgw"), context)
    litellm = context.vocabulary(LitellmSettings, data.get("litellm_settings"), ("litellm_settings",))
    general = context.vocabulary(GeneralSettings, data.get("general_settings"), ("general_settings",))
    router = context.vocabulary(RouterSettings, data.get("router_settings"), ("router_settings",))
    _others(litellm, "litellm_settings", LITELLM_IGNORED, context)
    _others(general, "general_settings", GENERAL_IGNORED, context)
    _others(router, "router_settings", ROUTER_IGNORED, context)

    environment = env.read(context.environment, findings)
    report_unknown(context.environment, data, findings)
    master_key = _master_key(general, context)
    server = bind.server(
        section, flags, context, json_logs=litellm.json_logs, open_door=not master_key and not collecting
    )
    found = () if collecting else _deployments(data.get("model_list"), section, litellm, general, router, context)
    sampled = environment.sampler is not None or "sampler" in section.model_fields_set
    targets = destinations(
        litellm,
        data.get("callback_settings"),
        [(("otelgw", "destinations", index), item) for index, item in enumerate(section.destinations)],
        context,
        otel=general.otel,
        console_by_default=not configured,
        sampling="parent" if sampled else "all",
        redact=given(section),
        told=Told(section.allow_remote_callbacks, {each.id: dict(each.model_info) for each in found}),
    )
    own = Keys()
    if not collecting:
        default = "parent" if sampled else "all"
        own = keys(section, litellm, general, context, master_key=master_key, sampling=default)
    tracing = _tracing(section, environment, litellm, targets, context, tenants=own.tenants)
    incoming = receiver(section, targets, context, always=collecting)
    if collecting and tracing.disabled:
        context.findings.error((), "there is nothing to collect for: add a destination, and unset OTEL_SDK_DISABLED")
    return Settings(
        server=server,
        state_dir=bind.state_dir(section, _port(incoming) if collecting else server.port, context),
        deployments=found,
        destinations=targets,
        blob_store=blob_store(section.blob_store if "blob_store" in section.model_fields_set else None, context),
        receiver=incoming,
        metrics=metrics(section, context, disabled=tracing.disabled),
        auth=Auth(
            master_key_sha256=hashlib.sha256(master_key.encode()).hexdigest() if master_key else "",
            cors_allow_origins=tuple(dict.fromkeys(general.cors_allow_origins)),
            allowed_hosts=tuple(host.lower() for host in dict.fromkeys(section.auth.allowed_hosts)),
        ),
        keys=own,
        tracing=tracing,
        limits=_limits(section, general),
        spool=Spool(**section.spool.model_dump()),
        proxies=_proxies(context),
        pass_through=tuple(dict.fromkeys(general.pass_through)),
        source=document.source if configured else "",
        warnings=(*findings.strict, *findings.warnings),
        ignored=findings.ignored,
        not_enforced=findings.not_enforced,
    )


def _port(incoming: Receiver | None) -> int:
    """Return the port that tells one receiver's state directory from another's."""
    bound = (incoming.grpc or incoming.http) if incoming is not None else ""
    return address(bound).port if bound else 0


def _top_level(data: dict[str, Any], context: Context) -> None:
    collectors = data.keys() >= _COLLECTOR_SECTIONS
    if collectors:
        check = f"otelgw collector check {context.document.source}"
        context.findings.warn((), f"this is an OpenTelemetry Collector's config, not a gateway's: `{check}` checks it")
    for key, value in data.items():
        if key in SECTIONS:
            continue
        if key in SECTIONS_REFUSED:
            if value not in (None, [], {}):
                context.findings.error((key,), SECTIONS_REFUSED[key])
        elif key in SECTIONS_IGNORED:
            context.findings.ignore((key,), "known, without effect in this version")
        elif not (collectors and key in _COLLECTOR_KEYS):
            context.unknown(key, (key,), {*SECTIONS, *SECTIONS_IGNORED})


def _own_section(data: Any, context: Context) -> OtelgwSection:
    """Return the ``otelgw:`` section; one bad destination does not hide the problems of the others."""
    location: Location = ("otelgw",)
    items = data.get("destinations") if isinstance(data, dict) else None
    if not isinstance(items, list):
        return context.section(OtelgwSection, data, location)
    rest = {key: value for key, value in data.items() if key != "destinations"}
    section = context.section(OtelgwSection, rest, location)
    found: list[DestinationSection] = []
    for index, item in enumerate(items):
        place = (*location, "destinations", index)
        item = {"name": item} if isinstance(item, str) else item  # noqa: PLW2901 - the short form of an item
        before = len(context.findings.errors)
        destination = context.section(DestinationSection, item, place)
        if len(context.findings.errors) == before:
            found.append(destination)
    try:
        OtelgwSection.unique(found)
    except ValueError as error:
        context.findings.error((*location, "destinations"), str(error))
    return section.model_copy(update={"destinations": found})


def _others(section: Vocabulary, name: str, ignored: frozenset[str], context: Context) -> None:
    """Report keys without effect: parameters of destinations, controls over access, and the rest."""
    location: Location = (name,)
    known = ignored | ACCESS_CONTROLS | set(type(section).model_fields)
    for key, value in section.others.items():
        place = (*location, key)
        if context.refused(key, value, place):
            continue
        if key in ACCESS_CONTROLS:
            if value not in (None, False, [], {}):
                context.findings.unenforced(place, "accepted, not yet enforced")
                context.findings.warn(place, "restricts access, and is not enforced in this version", strict=False)
        elif key in ignored:
            context.findings.ignore(place, "known, without effect in this version")
        elif key.endswith(DEFAULT_TAGS) and has_row(key.removesuffix(DEFAULT_TAGS)):
            continue  # `destinations` has read it
        elif callback_params.belongs(key):
            continue  # the same
        elif _of_a_destination(key):
            context.findings.ignore(place, "belongs to a destination that is not available in this version")
        elif not context.misspelt_control(key, place):
            context.findings.warn(place, f"unknown key{did_you_mean(key, known)}")


def _of_a_destination(key: str) -> bool:
    """Say whether ``key`` configures one of LiteLLM's callbacks, as ``<callback>_callback_params`` does."""
    return any(
        key.startswith(f"{callback}_") and (key.endswith(_PARAMETER_ENDINGS) or callback in _PREFIXES)
        for callback in (*catalog.KNOWN_CALLBACKS, *(row.name for row in catalog.ROWS))
    )


# Callbacks whose every setting in LiteLLM begins with their name.
_PREFIXES = frozenset(callback for callback in catalog.KNOWN_CALLBACKS if len(callback) > 5 and "_" not in callback)


def _master_key(general: GeneralSettings, context: Context) -> str:
    if general.master_key:
        return general.master_key
    return context.variable("OTELGW_MASTER_KEY", "LITELLM_MASTER_KEY")


def _deployments(
    entries: Any,
    section: OtelgwSection,
    litellm: LitellmSettings,
    general: GeneralSettings,
    router: RouterSettings,
    context: Context,
) -> tuple[Deployment, ...]:
    defaults = Defaults(
        timeouts=Timeouts(**section.timeouts.model_dump()),
        timeout=router.timeout if router.timeout is not None else litellm.request_timeout,
        stream_timeout=router.stream_timeout,
        retries=next((n for n in (router.num_retries, litellm.num_retries) if n is not None), 0),
        forward_trace=tuple(dict.fromkeys(litellm.forward_traceparent_to_llm_provider or ())),
        forward_metadata=section.forward_metadata,
        forward_client_headers=general.forward_client_headers_to_llm_api,
    )
    if entries is None or entries == []:
        return default_deployments(defaults, context)
    return deployments(entries, defaults, context)


def _proxies(context: Context) -> dict[str, str]:
    """Return the proxy variables; one that cannot be used is reported, without its value."""
    found = env.proxies(context.environment)
    try:
        Proxies(found)
    except ConfigError as error:
        for problem in error.problems:
            context.findings.error((), problem)
    return found


def _limits(section: OtelgwSection, general: GeneralSettings) -> Limits:
    values = section.limits.model_dump()
    if general.max_request_size_mb is not None and "body" not in section.limits.model_fields_set:
        values["body"] = int(general.max_request_size_mb * _MEBIBYTE)
    return Limits(**values)


def _tracing(
    section: OtelgwSection,
    environment: env.Environment,
    litellm: LitellmSettings,
    targets: tuple[Destination, ...],
    context: Context,
    *,
    tenants: bool,
) -> Tracing:
    """Return the tracing settings: the file, else the environment, else the default; of content the stricter."""
    given = section.model_fields_set
    default = Tracing()

    def chosen(name: str, own: Any, standard: Any, fallback: Any) -> Any:
        return own if name in given else fallback if standard is None else standard

    if not targets and not tenants and not environment.disabled and not context.findings.errors:
        context.findings.warn((), ADD_ONE, strict=False)
    headers = section.capture_headers
    return Tracing(
        service_name=section.service_name or environment.service_name or default.service_name,
        resource={**environment.resource, **section.resource},
        tracer_name=section.tracer_name or environment.tracer_name or default.tracer_name,
        propagators=tuple(chosen("propagators", section.propagators, environment.propagators, default.propagators)),
        trust=section.trust,
        baggage_allow=tuple(dict.fromkeys(section.baggage)),
        sampler=chosen("sampler", section.sampler, environment.sampler, _DEFAULT_SAMPLER),
        sampler_ratio=chosen("sampler_ratio", section.sampler_ratio, environment.sampler_ratio, 1.0),
        attribute_count_limit=chosen(
            "attribute_count_limit", section.attribute_count_limit, environment.attribute_count_limit, None
        ),
        attribute_length_limit=chosen(
            "attribute_length_limit", section.attribute_length_limit, environment.attribute_length_limit, None
        ),
        capture_request_headers=_headers(headers.request, environment.capture_request_headers, context),
        capture_response_headers=_headers(headers.response, environment.capture_response_headers, context),
        capture_upstream_request_headers=_headers(
            headers.upstream_request, environment.capture_upstream_request_headers, context
        ),
        capture_upstream_response_headers=_headers(
            headers.upstream_response, environment.capture_upstream_response_headers, context
        ),
        header_attributes=_header_attributes(section, context),
        content=section.content and not litellm.turn_off_message_logging and environment.content is not False,
        allow_no_log=not litellm.global_disable_no_log_param,
        disabled=environment.disabled or not (targets or tenants),
        name_credentials=any(each.type == python_callbacks.TYPE for each in targets),
    )


def _header_attributes(section: OtelgwSection, context: Context) -> tuple[tuple[str, str], ...]:
    pairs = {name.lower(): attribute for name, attribute in section.header_attributes.items()}
    for name in pairs.keys() & env.CREDENTIAL_HEADERS:
        context.findings.error(
            ("otelgw", "header_attributes"), f"`{name}` carries credentials and is never recorded; remove it"
        )
    return tuple(pairs.items())


def _headers(own: list[str], standard: tuple[str, ...] | None, context: Context) -> tuple[str, ...]:
    names = dict.fromkeys([*(name.lower() for name in own), *(standard or ())])
    for name in names.keys() & env.CREDENTIAL_HEADERS:
        message = f"`{name}` carries credentials and is never recorded"
        context.findings.warn(("otelgw", "capture_headers"), message)
    return tuple(name for name in names if name not in env.CREDENTIAL_HEADERS)
