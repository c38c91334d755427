"""One row per destination. Rows are strings, so listing them imports no destination."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from otelgw_exporters.errors import DestinationConfigError

if TYPE_CHECKING:
    from otelgw_exporters.delivery import Exporter

__all__ = ["KNOWN_CALLBACKS", "ROWS", "Option", "Row", "build", "row"]

Kind = Literal["text", "url", "headers", "seconds", "count", "path", "flag", "choice"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a destination, by its name in the config and as a keyword of the exporter.

    ``env`` are the variables that give it where it is not set, the first that is set winning. ``bound`` options belong
    to the endpoint they were set with: they are not taken from the environment for an endpoint set elsewhere, so that
    one destination's credentials never reach another.
    """

    name: str
    kind: Kind
    description: str
    default: Any = None
    env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    secret: bool = False
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One destination type. ``factory`` is ``module:class``; ``callbacks`` are LiteLLM's names for it.

    ``params_key`` is its key under LiteLLM's ``callback_settings``, ``header_prefix`` the prefix of request headers
    that are meant for it; empty where LiteLLM has none.
    """

    name: str
    factory: str
    description: str
    options: tuple[Option, ...]
    callbacks: tuple[str, ...] = ()
    params_key: str = ""
    header_prefix: str = ""
    stability: Literal["alpha", "beta", "stable"] = "beta"

    @property
    def env(self) -> Mapping[str, tuple[str, ...]]:
        """The environment variables of each option that has any."""
        return {option.name: option.env for option in self.options if option.env}

    def option(self, name: str) -> Option:
        """Return the option called ``name``.

        Raises:
            DestinationConfigError: there is none; says which name was probably meant.
        """
        for option in self.options:
            if option.name == name:
                return option
        names = [option.name for option in self.options]
        raise DestinationConfigError(f"{self.name} has no option {name!r}{_meant(name, names)}")


def _otlp(name: str, *litellm: str) -> tuple[str, ...]:
    return (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}", *litellm)


_SHAPE = (
    Option(
        "semconv",
        "choice",
        "vocabulary of the attributes",
        "otel",
        choices=("otel", "otel-1.41", "otel-1.36"),
    ),
    Option(
        "form",
        "choice",
        "how messages and tool definitions leave: as JSON text or as structured attributes",
        "json_string",
        choices=("json_string", "structured"),
    ),
    Option(
        "bodies",
        "flag",
        "send the captured request and answer too, as JSON text: otelgw.request.body, otelgw.response.body",
        False,
    ),
)

_OTLP = (
    Option(
        "headers",
        "headers",
        "sent with every request; in variables: name=value,name=value, URL-encoded",
        env=_otlp("HEADERS", "OTEL_HEADERS"),
        secret=True,
        bound=True,
    ),
    Option(
        "timeout",
        "seconds",
        "for one delivery; in variables: milliseconds (below 100: seconds)",
        10.0,
        env=_otlp("TIMEOUT"),
    ),
    Option("compression", "choice", "of requests", "none", env=_otlp("COMPRESSION"), choices=("none", "gzip")),
    Option("certificate", "path", "PEM file with the roots to trust", env=_otlp("CERTIFICATE"), bound=True),
    Option("client_key", "path", "PEM file with the client's key", env=_otlp("CLIENT_KEY"), bound=True),
    Option(
        "client_certificate",
        "path",
        "PEM file with the client's certificate chain",
        env=_otlp("CLIENT_CERTIFICATE"),
        bound=True,
    ),
    Option("max_request_bytes", "count", "spans are split over requests of at most this size", 4_000_000),
    *_SHAPE,
)

ROWS: tuple[Row, ...] = (
    Row(
        "console",
        "otelgw_exporters.console:ConsoleExporter",
        "Standard output: a tree on a terminal, JSON otherwise",
        options=(
            Option(
                "format",
                "choice",
                "tree, json, or auto: a tree on a terminal, JSON otherwise; OTEL_EXPORTER=console is json",
                "auto",
                env=("OTEL_EXPORTER",),
                choices=("auto", "tree", "json"),
            ),
            Option("color", "flag", "colours in the tree; NO_COLOR turns them off", True, env=("NO_COLOR",)),
            *_SHAPE,
        ),
    ),
    Row(
        "otlp_grpc",
        "otelgw_exporters.otlp:OtlpGrpcExporter",
        "OTLP over gRPC: the OpenTelemetry Collector and every backend that speaks it",
        options=(
            Option(
                "endpoint",
                "url",
                "http:// for plain text, https:// for TLS; without a scheme `insecure` decides",
                "http://127.0.0.1:4317",
                env=_otlp("ENDPOINT", "OTEL_ENDPOINT"),
            ),
            Option(
                "insecure",
                "flag",
                "plain text for an endpoint without a scheme",
                False,
                env=_otlp("INSECURE"),
                bound=True,
            ),
            *_OTLP,
        ),
        callbacks=("otel",),
        params_key="otel",
    ),
    Row(
        "otlp_http",
        "otelgw_exporters.otlp:OtlpHttpExporter",
        "OTLP over HTTP, protobuf or JSON",
        options=(
            Option(
                "endpoint",
                "url",
                "the whole URL; one without a path gets /v1/traces",
                "http://127.0.0.1:4318/v1/traces",
                env=_otlp("ENDPOINT", "OTEL_ENDPOINT"),
            ),
            Option(
                "protocol",
                "choice",
                "encoding of requests",
                "http/protobuf",
                env=_otlp("PROTOCOL", "OTEL_EXPORTER"),
                choices=("http/protobuf", "http/json"),
            ),
            *_OTLP,
        ),
        params_key="otel",
    ),
    Row(
        "file",
        "otelgw_exporters.file:FileExporter",
        "JSON lines in files: one standard payload a call, or OTLP",
        options=(
            Option(
                "path",
                "text",
                "relative to the working directory; {date} and {hour} of the request (UTC), {service} and {pid} are "
                "filled in",
                "otelgw-{date}.jsonl",
                env=("OTELGW_FILE_PATH",),
            ),
            Option(
                "format",
                "choice",
                "payload: one StandardLoggingPayload a call; otlp: one OTLP request a trace, as the Collector reads it",
                "payload",
                env=("OTELGW_FILE_FORMAT",),
                choices=("payload", "otlp"),
            ),
            Option(
                "max_bytes",
                "count",
                "a file that would grow beyond is renamed to its name with the next number: spans.jsonl, spans.1.jsonl",
                128 * 1024 * 1024,
                env=("OTELGW_FILE_MAX_BYTES",),
            ),
            Option(
                "max_files",
                "count",
                "renamed files that are kept, the oldest are deleted; without it, all of them",
                env=("OTELGW_FILE_MAX_FILES",),
            ),
            Option(
                "fsync",
                "flag",
                "what is delivered is on the disk, safe from a power cut too",
                False,
                env=("OTELGW_FILE_FSYNC",),
            ),
            *_SHAPE,
        ),
    ),
)

KNOWN_CALLBACKS: frozenset[str] = frozenset(
    """
    agentops anthropic_cache_control_hook argilla arize arize_phoenix athina aws_sqs azure_sentinel azure_storage
    bitbucket braintrust cloudzero compression_interception custom_callback_api datadog datadog_llm_observability
    datadog_metrics deepeval dotprompt dynamic_rate_limiter dynamic_rate_limiter_v3 dynamodb focus galileo gcs_bucket
    gcs_pubsub generic_api gitlab greenscale helicone humanloop lago langfuse langfuse_otel langsmith langtrace levo
    literalai llmonitor logfire lunary mavvrik mlflow newrelic openmeter opik pagerduty posthog prometheus promptlayer
    resend_email s3 s3_v2 sendgrid_email sentry slack smtp_email supabase traceloop vantage vector_store_pre_call_hook
    wandb weave_otel weights_biases
    """.split()  # noqa: SIM905 - sixty quoted names would hide the names
)
"""LiteLLM's callback names that are known and have no row here."""


def row(destination_type: str) -> Row:
    """Return the row of a destination type.

    Raises:
        DestinationConfigError: there is no such type; says which are and which was probably meant.
    """
    names = [each.name for each in ROWS]
    if destination_type not in names:
        hint = _meant(destination_type, names)
        raise DestinationConfigError(
            f"there is no destination type {destination_type!r}{hint}; types: {', '.join(names)}"
        )
    return ROWS[names.index(destination_type)]


def build(destination_type: str, name: str, options: Mapping[str, Any]) -> Exporter:
    """Return the exporter of a destination type, ready to deliver, under the instance name ``name``.

    Raises:
        DestinationConfigError: no such type or option, or an option that cannot be used.
    """
    found = row(destination_type)
    for option in options:
        found.option(option)
    module, _, factory = found.factory.partition(":")
    exporter: Exporter = getattr(importlib.import_module(module), factory)(name=name, **options)
    return exporter


def _meant(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
