"""From ``litellm_params`` to what is needed to call an upstream: provider, URLs, authentication, headers, timeouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import urlsplit

from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.findings import did_you_mean
from otelgw.config.settings import RawHeaders, Timeouts
from otelgw.config.vocabulary import LitellmParams
from otelgw.providers import azure
from otelgw.providers.catalog import API_KEY, OPENAI, UNAVAILABLE, Provider, find, infer, names, owns_host

__all__ = ["ROUTES", "Base", "authentication", "base_of", "endpoints", "extra_headers", "provider_of", "timeouts_of"]

ROUTES = (
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "images/generations",
    "images/edits",
    "images/variations",
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
    "moderations",
    "rerank",
)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_KEY = re.compile(r"[\x21-\x7e]+")
_CONNECTION_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
)
_AUTH_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})
_PASTED = ("/chat/completions", "/completions", "/embeddings")
_API_VERSION = re.compile(r"[0-9A-Za-z.\-]*")


class Base(NamedTuple):
    """``url`` has no trailing slash and no query; ``trusted`` says that the provider's usual key may be sent there."""

    url: str
    query: str
    trusted: bool


@dataclass(frozen=True, slots=True)
class Addressing:
    """Where a deployment's operations are."""

    base_url: str
    urls: Mapping[str, str]
    query: str


def provider_of(params: LitellmParams, context: Context, location: Location) -> tuple[Provider, str] | None:
    """Return the provider and the model's name there.

    Prefix, then ``custom_llm_provider``, then the name's pattern, then openai where ``api_base`` is set.
    """
    model = params.model
    prefix, slash, rest = model.partition("/")
    place = (*location, "model")
    if slash and (row := find(prefix)) is not None:
        if not rest:
            context.findings.error(place, f"a model name must follow `{prefix}/`")
            return None
        return row, rest
    if params.custom_llm_provider is not None:
        return _custom(params.custom_llm_provider, model, context, (*location, "custom_llm_provider"))
    if slash and prefix in UNAVAILABLE:
        context.findings.error(place, _unavailable(prefix))
        return None
    if (row := infer(model)) is not None:
        return row, model
    if params.api_base or params.base_url:
        return OPENAI, model
    hint = did_you_mean(prefix, names()) if slash else ""
    context.findings.error(
        place, f"the provider of `{model}` is not known; write `provider/{rest or model}`, or set api_base{hint}"
    )
    return None


def _custom(name: str, model: str, context: Context, place: Location) -> tuple[Provider, str] | None:
    row = find(name)
    if row is None:
        problem = _unavailable(name) if name in UNAVAILABLE else f"unknown provider{did_you_mean(name, names())}"
        context.findings.error(place, problem)
        return None
    return row, model


def _unavailable(prefix: str) -> str:
    return (
        f"the provider `{prefix}` is not available in this version; an OpenAI-compatible endpoint in front of it works "
        "as `openai/…` with api_base"
    )


def base_of(row: Provider, params: LitellmParams, context: Context, location: Location) -> Base | None:
    """Return the upstream's base URL: configured, from the provider's usual variable, or the provider's own."""
    if params.api_base and params.base_url and params.api_base != params.base_url:
        context.findings.error((*location, "base_url"), "differs from api_base; keep one of them")
        return None
    key = "api_base" if params.api_base else "base_url"
    configured = params.api_base or params.base_url
    url = configured or context.variable(*row.bases) or row.base_url
    if not url:
        variables = " or ".join(row.bases)
        context.findings.error(location, f"{row.name} needs api_base{f' (or {variables})' if variables else ''}")
        return None
    place = (*location, key) if configured else location
    problem = _url_problem(url)
    if problem:
        named = "" if configured else f"{' or '.join(row.bases)}: "
        context.findings.error(place, named + problem)
        return None
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    for ending in _PASTED:
        if path.endswith(ending):
            path = path.removesuffix(ending)
            context.findings.warn(place, f"{ending} is added for each call and was left out; end the URL before it")
            break
    path = path or row.base_path
    return Base(f"{parts.scheme}://{parts.netloc}{path}", parts.query, not configured or owns_host(row, url))


def _url_problem(url: str) -> str:
    """Return what is wrong with ``url`` without showing it: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no URL"
    if not usable:
        return "must be an http or https URL with a host, such as https://host.example/v1"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password; use api_key or headers"
    if parts.fragment or not url.isascii() or any(character <= " " for character in url):
        return "must be a plain URL: ASCII, without blanks and without `#`"
    return ""


def endpoints(
    row: Provider, base: Base, model: str, params: LitellmParams, context: Context, location: Location
) -> Addressing:
    """Return the URL of every operation."""
    if row.transport != "http":
        return Addressing("", {}, "")
    if row.name != "azure":
        return Addressing(base.url, {route: f"{base.url}/{route}" for route in ROUTES}, base.query)
    version = params.api_version or context.variable("AZURE_API_VERSION")
    if not _API_VERSION.fullmatch(version):
        context.findings.error((*location, "api_version"), "must look like 2024-10-21, 2025-04-01-preview or v1")
        version = ""
    found = azure.endpoints(base.url, model, version)
    urls = {route: f"{found.base_url}/{route}" for route in ROUTES} | dict(found.urls)
    return Addressing(found.base_url, urls, "&".join(filter(None, (base.query, found.query))))


def authentication(
    row: Provider, base: Base, params: LitellmParams, context: Context, location: Location
) -> RawHeaders:
    """Return the headers that authenticate the gateway to the upstream; none where there is no key.

    The provider's usual key variable is used only for the provider's own host: a key never goes to another one
    without being told to.
    """
    if params.azure_ad_token:
        return _header(params.azure_ad_token, "bearer", context, (*location, "azure_ad_token"))
    if params.api_key:
        return _header(params.api_key, row.auth, context, (*location, "api_key"))
    variable = next((name for name in row.keys if context.variable(name)), "")
    if variable and base.trusted:
        return _header(context.variable(variable), row.auth, context, location, f"{variable}: ")
    if not row.key_required or params.mock_response is not None:
        return ()
    place = (*location, "api_key")
    if variable:
        host = urlsplit(base.url).hostname
        context.findings.warn(
            place,
            f"no key is sent: {variable} is for {row.name}'s own host, not for {host}. If it is meant, write "
            f"api_key: os.environ/{variable}",
        )
    else:
        context.findings.warn(place, f"no key: set api_key, or {' or '.join(row.keys)} in the environment")
    return ()


def _header(key: str, style: str, context: Context, place: Location, named: str = "") -> RawHeaders:
    if not _KEY.fullmatch(key):
        context.findings.error(place, f"{named}must be one word of printable ASCII characters")
        return ()
    if style == API_KEY:
        return ((b"api-key", key.encode()),)
    return ((b"authorization", b"Bearer " + key.encode()),)


def extra_headers(params: LitellmParams, context: Context, location: Location) -> tuple[RawHeaders, RawHeaders]:
    """Return the configured headers, those that authenticate apart."""
    found: dict[str, str] = {}
    if params.organization:
        found["openai-organization"] = params.organization
    for key, headers in (("headers", params.headers), ("extra_headers", params.extra_headers)):
        for name, value in (headers or {}).items():
            place = (*location, key, name)
            if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                context.findings.error(place, "is no header: a name without blanks, and a value on one line")
            elif name.lower() in _CONNECTION_HEADERS:
                context.findings.error(place, "is set by the gateway itself; remove it")
            else:
                found[name.lower()] = value
    raw = tuple((name.encode(), value.encode("latin-1")) for name, value in found.items() if _VALUE.fullmatch(value))
    return (
        tuple(header for header in raw if header[0].decode() in _AUTH_HEADERS),
        tuple(header for header in raw if header[0].decode() not in _AUTH_HEADERS),
    )


def timeouts_of(base: Timeouts, params: LitellmParams, timeout: float | None, stream: float | None) -> Timeouts:
    """Return a deployment's timeouts; ``timeout`` and ``stream`` are LiteLLM's defaults of all deployments.

    LiteLLM's ``timeout`` is httpx's: of each step, not of the whole. A longer one raises the total.
    """
    seconds = params.timeout if params.timeout is not None else timeout
    streaming = params.stream_timeout if params.stream_timeout is not None else stream
    found = base
    if seconds is not None:
        found = replace(
            found,
            connect=min(found.connect, seconds),
            first_byte=seconds,
            idle=min(found.idle, seconds),
            total=max(found.total, seconds),
        )
    if streaming is not None:
        found = replace(found, stream_first_byte=streaming)
    if params.timeouts is not None:
        own = params.timeouts
        found = replace(found, **{name: getattr(own, name) for name in own.model_fields_set})
    return found
