"""``model_list`` -> deployments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from otelgw.config import upstream
from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.settings import Deployment, Timeouts
from otelgw.config.vocabulary import (
    PARAMS_IGNORED,
    PARAMS_IGNORED_PREFIXES,
    LitellmParams,
    ModelEntry,
    ModelInfo,
)
from otelgw.providers.catalog import PROVIDERS, Provider, find
from otelgw.tracing.record import Price

__all__ = ["Defaults", "default_deployments", "deployments"]

_LIKELY = 0.85
_CREDENTIALS = frozenset({"api_key", "azure_ad_token"})
_WITHOUT_OUTPUT = frozenset(
    {"embedding", "rerank", "moderation", "audio_transcription", "image_generation", "audio_speech"}
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What applies to every deployment that does not say otherwise."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    timeout: float | None = None
    stream_timeout: float | None = None
    retries: int = 0
    forward_trace: tuple[str, ...] = ()
    forward_metadata: bool = False
    forward_client_headers: bool = False


def deployments(entries: Any, defaults: Defaults, context: Context) -> tuple[Deployment, ...]:
    """Return the deployments of ``model_list``; every problem is reported."""
    location: Location = ("model_list",)
    if not isinstance(entries, list):
        context.findings.error(location, "must be a list: each item starts with `- model_name:`")
        return ()
    found: list[Deployment] = []
    for index, entry in enumerate(entries):
        found += _Entry((*location, index), defaults, context).deployments(entry)
    return _with_distinct_ids(found, context)


def default_deployments(defaults: Defaults, context: Context) -> tuple[Deployment, ...]:
    """Return what runs without a ``model_list``: echo, and every provider whose usual key variable is set."""
    entry = _Entry((), defaults, context)
    echo = entry.deployment("echo", LitellmParams(model="echo/echo"), ModelInfo())
    return (*echo, *entry.of_environment(LitellmParams(model="*"), ModelInfo()))


class _Entry:
    """One item of ``model_list`` at ``location``; without a location, what the environment alone gives."""

    def __init__(self, location: Location, defaults: Defaults, context: Context) -> None:
        self._location = location
        self._params_at: Location = (*location, "litellm_params") if location else ()
        self._defaults = defaults
        self._context = context

    def deployments(self, entry: Any) -> list[Deployment]:
        findings = self._context.findings
        if not isinstance(entry, dict):
            findings.error(self._location, "must be `model_name:` and `litellm_params:`")
            return []
        before = len(findings.errors)
        # Their references are resolved below, key by key: some of these keys do nothing here.
        known = self._context.section(ModelEntry, entry, self._location, {"model_name"})
        self._context.others(known, self._location, frozenset())
        if len(findings.errors) > before:
            return []
        params = _params(known.litellm_params, self._params_at, self._context)
        info = self._context.section(ModelInfo, known.model_info, (*self._location, "model_info"))
        if len(findings.errors) > before or not self._wildcards_fit(known.model_name, params.model):
            return []
        if params.model == "*" and not (params.custom_llm_provider or params.api_base or params.base_url):
            prefix = known.model_name.partition("/")[0]
            if find(prefix) is None:
                return self._any_provider(known.model_name, params, info)
            params = params.model_copy(update={"model": f"{prefix}/*"})
        return self.deployment(known.model_name, params, info)

    def _wildcards_fit(self, alias: str, model: str) -> bool:
        place = (*self._location, "model_name")
        if alias.count("*") > 1:
            self._context.findings.error(place, "may hold one `*` only")
        elif "*" in model and "*" not in alias:
            self._context.findings.error(place, "must hold a `*`, whose text takes the place of the one in model")
        else:
            return True
        return False

    def _any_provider(self, alias: str, params: LitellmParams, info: ModelInfo) -> list[Deployment]:
        """Return the deployments of ``model: "*"``: any model of any provider whose usual key variable is set."""
        place = (*self._params_at, "model")
        if alias != "*":
            self._context.findings.error(place, '`*` alone goes with `model_name: "*"`; write `provider/*`')
            return []
        found = self.of_environment(params, info)
        if not found:
            self._context.findings.warn(place, "no provider's usual key variable is set, so there is no model; set one")
        return found

    def of_environment(self, params: LitellmParams, info: ModelInfo) -> list[Deployment]:
        """Return ``provider/*`` and the provider's bare names for each provider that the environment has a key for."""
        variable = self._context.variable
        found: list[Deployment] = []
        for row in PROVIDERS:
            if not row.keys or not variable(*row.keys) or not (row.base_url or variable(*row.bases)):
                continue
            found += self.deployment(f"{row.name}/*", params.model_copy(update={"model": f"{row.name}/*"}), info)
            for pattern in row.patterns:
                bare = params.model_copy(update={"model": f"{row.name}/{pattern}"})
                found += [replace(each, listed=False) for each in self.deployment(pattern, bare, info)]
        return found

    def deployment(self, alias: str, params: LitellmParams, info: ModelInfo) -> list[Deployment]:
        """Return the deployment, or nothing after a problem that leaves no address to call."""
        context, defaults, place = self._context, self._defaults, self._params_at
        provider = upstream.provider_of(params, context, place)
        if provider is None:
            return []
        row, model = provider
        base: upstream.Base | None = upstream.Base("", "", trusted=True)
        if row.transport == "http":
            base = upstream.base_of(row, params, context, place)
        if base is None:
            return []
        addressing = upstream.endpoints(row, base, model, params, context, place)
        own_auth, headers = upstream.extra_headers(params, context, place)
        facts = _facts(params, info, context, self._location)
        self._report_limits(params)
        forward, metadata = params.forward_traceparent_to_llm_provider, params.forward_metadata
        allowed = (*params.allow_client_params, *params.configurable_clientside_auth_params)
        return [
            Deployment(
                id=info.id or _identity(alias, params, row),
                alias=alias,
                provider=row.name,
                otel_provider=row.provider_name,
                model=model,
                base_url=addressing.base_url,
                urls=addressing.urls,
                query=addressing.query,
                auth=own_auth or upstream.authentication(row, base, params, context, place),
                headers=headers,
                transport=row.transport,
                stream_usage=params.stream_usage or row.stream_usage,
                defaults={**params.others, **(params.extra_body or {})},
                timeouts=upstream.timeouts_of(defaults.timeouts, params, defaults.timeout, defaults.stream_timeout),
                retries=next((n for n in (params.num_retries, params.max_retries) if n is not None), defaults.retries),
                forward_trace=defaults.forward_trace if forward is None else tuple(dict.fromkeys(forward)),
                forward_client_headers=defaults.forward_client_headers,
                forward_metadata=defaults.forward_metadata if metadata is None else metadata,
                mock_response=params.mock_response,
                price=_price(row, model, facts, context),
                allow_client_params=tuple(dict.fromkeys(allowed)),
                rpm=params.rpm,
                tpm=params.tpm,
                content=not params.turn_off_message_logging,
                model_info=facts,
            )
        ]

    def _report_limits(self, params: LitellmParams) -> None:
        for name in ("rpm", "tpm"):
            if getattr(params, name) is not None:
                self._context.findings.unenforced((*self._params_at, name), "accepted, not yet enforced")


def _params(data: dict[str, Any], location: Location, context: Context) -> LitellmParams:
    """Return ``litellm_params``; keys without effect are reported and left out, their references unread."""
    used = {}
    for key, value in data.items():
        place = (*location, key)
        if key in LitellmParams.model_fields:
            used[key] = value
        elif context.refused(key, value, place):
            continue
        elif key in PARAMS_IGNORED or key.startswith(PARAMS_IGNORED_PREFIXES):
            context.findings.ignore(place, "known, without effect in this version")
        elif not context.misspelt_control(key, place):
            used[key] = value
            near = get_close_matches(key, sorted({*LitellmParams.model_fields, *PARAMS_IGNORED}), n=1, cutoff=_LIKELY)
            if near and near[0] in _CREDENTIALS:
                context.findings.error(place, f"unknown key; did you mean `{near[0]}`? It would be sent in the body")
            elif near:
                context.findings.warn(place, f"is sent upstream as a field of the body; did you mean `{near[0]}`?")
    return context.section(LitellmParams, used, location)


def _facts(params: LitellmParams, info: ModelInfo, context: Context, location: Location) -> dict[str, Any]:
    """Return ``model_info`` with the costs that LiteLLM also takes from ``litellm_params``."""
    facts = {**info.others, **info.model_dump(include=set(ModelInfo.model_fields), exclude_none=True)}
    for key in ("input_cost_per_token", "output_cost_per_token"):
        value = getattr(params, key)
        if value is not None:
            facts.setdefault(key, value)
    if "input_cost_per_token" in facts and "output_cost_per_token" not in facts and info.mode not in _WITHOUT_OUTPUT:
        context.findings.warn(
            (*location, "model_info", "input_cost_per_token"),
            "output tokens count as free; set output_cost_per_token too, or mode: embedding",
            strict=False,
        )
    return facts


def _price(row: Provider, model: str, facts: Mapping[str, Any], context: Context) -> Price | None:
    if not context.prices:
        return None
    from otelgw.config.prices import resolve_price

    return resolve_price(row, model, facts)


def _identity(alias: str, params: LitellmParams, row: Provider) -> str:
    """Return a stable id: the same row always has the same one. A secret enters it only as its own hash."""
    data = params.model_dump(mode="json", exclude_none=True)
    for key in _CREDENTIALS:
        if key in data:
            data[key] = _sha256(data[key])
    for key in ("headers", "extra_headers"):
        if key in data:
            data[key] = {name: _sha256(value) for name, value in data[key].items()}
    return _sha256(json.dumps([alias, row.name, data], sort_keys=True, default=str))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _with_distinct_ids(found: list[Deployment], context: Context) -> tuple[Deployment, ...]:
    """Return ``found`` with rows that are alike told apart; two rows with one configured id are an error."""
    seen: dict[str, int] = {}
    distinct: list[Deployment] = []
    for deployment in found:
        count = seen.get(deployment.id, 0)
        seen[deployment.id] = count + 1
        if count and deployment.id == deployment.model_info.get("id"):
            if deployment.listed:
                context.findings.error(("model_list",), f"two deployments have the model_info.id `{deployment.id}`")
            continue
        distinct.append(replace(deployment, id=_sha256(f"{deployment.id} {count}")) if count else deployment)
    return tuple(distinct)
