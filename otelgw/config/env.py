"""The only reader of ``os.environ`` in this package: a mapping in, typed values out.

A blank variable counts as unset. A malformed one is reported with its name and the offending entry; of a value that can
hold a secret only the place of the entry is told. Destinations' variables (``OTEL_EXPORTER_OTLP_*``, LiteLLM's
``OTEL_EXPORTER`` …) are read by ``otelgw_exporters.options`` from the mapping that this module hands out.

Names and precedence: OpenTelemetry specification, "Environment Variable Specification"; ``OTEL_TRACER_NAME`` and
``OTEL_ENVIRONMENT_NAME`` are LiteLLM's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote

from otelgw.config.findings import Findings, did_you_mean
from otelgw.config.flags import boolean

__all__ = ["CREDENTIAL_HEADERS", "VARIABLES", "Environment", "process_environment", "proxies", "read"]

PROPAGATORS = ("tracecontext", "baggage", "b3", "b3multi")
_OTHER_PROPAGATORS = {"jaeger", "xray", "ottrace", "xray_lambda"}
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_CONTENT = {
    "no_content": False,
    "event_only": False,  # content on events, hence not on spans
    "span_only": True,
    "span_and_event": True,
}
CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "api-key",
        "x-api-key",
        "x-goog-api-key",
        "x-litellm-api-key",
        "x-amz-security-token",
    }
)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

VARIABLES: dict[str, str] = {
    "OTEL_SERVICE_NAME": "the resource's `service.name`",
    "OTEL_RESOURCE_ATTRIBUTES": "further resource attributes, `key=value,key=value`, percent-encoded",
    "OTEL_SDK_DISABLED": "`true`: no record is written",
    "OTEL_TRACES_EXPORTER": "destinations: `otlp`, `console`, `none` or a list of them",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "counts as an OTLP destination",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "counts as an OTLP destination",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "`grpc`, `http/protobuf` or `http/json`",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "`grpc` (default), `http/protobuf` or `http/json`",
    "OTEL_METRICS_EXPORTER": "`otlp` sends the metrics; `none` does not; `prometheus` is at `/metrics` in any case",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "counts as `OTEL_METRICS_EXPORTER=otlp`; the whole URL for HTTP",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "before `OTEL_EXPORTER_OTLP_PROTOCOL`; likewise `_HEADERS`, `_TIMEOUT`, "
    "`_COMPRESSION`, `_CERTIFICATE`, `_CLIENT_KEY`, `_CLIENT_CERTIFICATE`, `_INSECURE`",
    "OTEL_METRIC_EXPORT_INTERVAL": "milliseconds between two exports of metrics",
    "OTEL_PROPAGATORS": "list of `tracecontext`, `baggage`, `b3`, `b3multi`; or `none`",
    "OTEL_TRACES_SAMPLER": "a standard sampler; destinations then obey its decision (`sampling: parent`)",
    "OTEL_TRACES_SAMPLER_ARG": "the ratio of `traceidratio`, 0 to 1",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "attributes a span",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "the same, second choice",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "characters an attribute value",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "the same, second choice",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "callers' request headers to record",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": "headers of answers to callers to record",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST": "request headers sent upstream to record",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE": "upstreams' answer headers to record",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "`NO_CONTENT` or `false` turns content capture off",
    "OTEL_EXPORTER": "LiteLLM's: `console`, `otlp_grpc`, `otlp_http`; for the callback `otel`",
    "OTEL_TRACER_NAME": "the name of the instrumentation scope",
    "OTEL_ENVIRONMENT_NAME": "the resource's `deployment.environment.name`",
    "HTTP_PROXY": "proxy of `http://` upstreams",
    "HTTPS_PROXY": "proxy of `https://` upstreams",
    "ALL_PROXY": "proxy of both, second choice",
    "NO_PROXY": "hosts, suffixes, addresses and networks called without one",
    "OTELGW_STATE_DIR": "the state directory, after `otelgw.state_dir`",
    "OTELGW_MASTER_KEY": "the master key, where `general_settings.master_key` is absent",
    "LITELLM_MASTER_KEY": "the same, second choice",
    "OTELGW_SALT_KEY": "encrypts what keys and teams are given over HTTP: the settings of their own destinations",
    "LITELLM_SALT_KEY": "the same, second choice",
    "STATE_DIRECTORY": "the state directory that systemd gives",
    "XDG_STATE_HOME": "the base of the default state directory",
}


_N = TypeVar("_N", int, float)


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says; None or empty where it says nothing."""

    service_name: str | None = None
    resource: Mapping[str, str] = field(default_factory=dict)
    tracer_name: str | None = None
    propagators: tuple[str, ...] | None = None
    sampler: str | None = None
    sampler_ratio: float | None = None
    attribute_count_limit: int | None = None
    attribute_length_limit: int | None = None
    capture_request_headers: tuple[str, ...] | None = None
    capture_response_headers: tuple[str, ...] | None = None
    capture_upstream_request_headers: tuple[str, ...] | None = None
    capture_upstream_response_headers: tuple[str, ...] | None = None
    content: bool | None = None
    disabled: bool = False


def process_environment() -> dict[str, str]:
    """Return a copy of the process's environment."""
    return dict(os.environ)


def read(environment: Mapping[str, str], findings: Findings) -> Environment:
    """Return the typed values of ``environment``; every malformed variable is reported to ``findings``."""
    return _Reader(environment, findings).read()


class _Reader:
    def __init__(self, environment: Mapping[str, str], findings: Findings) -> None:
        self._environment = environment
        self._findings = findings

    def read(self) -> Environment:
        resource = self._resource()
        named = resource.pop("service.name", None)  # it must not stay there: OTEL_SERVICE_NAME wins
        return Environment(
            service_name=self._text("OTEL_SERVICE_NAME") or named,
            resource=resource,
            tracer_name=self._text("OTEL_TRACER_NAME"),
            propagators=self._propagators(),
            sampler=self._sampler(),
            sampler_ratio=self._ratio(),
            attribute_count_limit=self._limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
            attribute_length_limit=self._limit(
                "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"
            ),
            capture_request_headers=self._headers("SERVER_REQUEST"),
            capture_response_headers=self._headers("SERVER_RESPONSE"),
            capture_upstream_request_headers=self._headers("CLIENT_REQUEST"),
            capture_upstream_response_headers=self._headers("CLIENT_RESPONSE"),
            content=self._content(),
            disabled=bool(self._boolean("OTEL_SDK_DISABLED")),
        )

    def _text(self, name: str) -> str | None:
        return self._environment.get(name, "").strip() or None

    def _names(self, name: str) -> list[str] | None:
        text = self._text(name)
        return None if text is None else [part.strip() for part in text.split(",") if part.strip()]

    def _boolean(self, name: str) -> bool | None:
        text = self._text(name)
        if text is None:
            return None
        value = boolean(text)
        if value is None:
            self._findings.environment_error(name, "must be true or false")
        return value

    def _choice(self, name: str, choices: Mapping[str, str]) -> str | None:
        text = self._text(name)
        if text is None:
            return None
        found = choices.get(text.lower())
        if found is None:
            self._findings.environment_error(
                name, f"`{text[:40]}` is not one of {', '.join(choices)}{did_you_mean(text, choices)}"
            )
        return found

    def _number(self, name: str, kind: Callable[[str], _N], low: _N, high: _N | None) -> _N | None:
        text = self._text(name)
        if text is None:
            return None
        try:
            value: _N | None = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value or (high is not None and value > high):
            limits = f"between {low} and {high}" if high is not None else f"of {low} or more"
            self._findings.environment_error(name, f"`{text[:40]}` must be a number {limits}")
            return None
        return value

    def _limit(self, *names: str) -> int | None:
        for name in names:
            if self._text(name) is not None:
                return self._number(name, int, 0, None)
        return None

    def _ratio(self) -> float | None:
        return self._number("OTEL_TRACES_SAMPLER_ARG", float, 0.0, 1.0)

    def _sampler(self) -> str | None:
        return self._choice("OTEL_TRACES_SAMPLER", {name: name for name in SAMPLERS})

    def _resource(self) -> dict[str, str]:
        resource: dict[str, str] = {}
        for position, entry in enumerate(self._names("OTEL_RESOURCE_ATTRIBUTES") or [], start=1):
            key, equals, value = entry.partition("=")
            if not equals or not key.strip():
                self._findings.environment_error(
                    "OTEL_RESOURCE_ATTRIBUTES", f"entry {position} (`{key.strip()[:40]}`) is not key=value"
                )
                continue
            resource[unquote(key.strip())] = unquote(value.strip())
        name = self._text("OTEL_ENVIRONMENT_NAME")
        if name is not None and not resource.keys() & {"deployment.environment.name", "deployment.environment"}:
            resource["deployment.environment.name"] = name
        return resource

    def _propagators(self) -> tuple[str, ...] | None:
        names = self._names("OTEL_PROPAGATORS")
        if names is None:
            return None
        found: list[str] = []
        for name in dict.fromkeys(name.lower() for name in names):
            if name in PROPAGATORS:
                found.append(name)
            elif name in _OTHER_PROPAGATORS:
                self._findings.environment_warning(
                    "OTEL_PROPAGATORS", f"`{name}` is not available; the gateway has {', '.join(PROPAGATORS)}"
                )
            elif name != "none":
                self._findings.environment_error(
                    "OTEL_PROPAGATORS",
                    f"`{name[:40]}` is not one of {', '.join(PROPAGATORS)}, none{did_you_mean(name, PROPAGATORS)}",
                )
        return tuple(found)

    def _headers(self, side: str) -> tuple[str, ...] | None:
        variable = f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{side}"
        names = self._names(variable)
        if names is None:
            return None
        found: list[str] = []
        for name in dict.fromkeys(name.lower() for name in names):
            if name in CREDENTIAL_HEADERS:
                self._findings.environment_warning(variable, f"`{name}` carries credentials and is never recorded")
            elif re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9a-z]+", name):
                found.append(name)
            else:
                self._findings.environment_error(variable, f"`{name[:40]}` is no header name")
        return tuple(found)

    def _content(self) -> bool | None:
        name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
        text = self._text(name)
        if text is None:
            return None
        value = _CONTENT.get(text.lower(), boolean(text))
        if value is None:
            choices = ", ".join(_CONTENT).upper()
            self._findings.environment_error(name, f"`{text[:40]}` must be true, false or one of {choices}")
        return value


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name proxies for upstream calls, in either case."""
    return {name: value for name, value in environment.items() if name.lower() in _PROXIES and value.strip()}
