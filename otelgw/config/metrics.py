"""Where the metrics go by OTLP: the section ``otelgw.metrics.otlp``, then the standard variables.

OpenTelemetry specification, "OTLP exporter configuration": a metrics variable before the general one; a general
endpoint is a base that gets ``/v1/metrics``. Unlike there, nothing is sent unless somebody asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.findings import did_you_mean
from otelgw.config.model import OtelgwSection, OtlpMetricsSection
from otelgw.config.settings import MetricsExport
from otelgw_exporters import options
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["metrics"]

_AT: Location = ("otelgw", "metrics", "otlp")
_PATH = "/v1/metrics"
_EXPORTERS = ("otlp", "prometheus", "none")
_PROTOCOLS = ("grpc", "http/protobuf", "http/json")
_FILES = ("certificate", "client_key", "client_certificate")
_LONGEST = 86_400.0  # seconds
_SHORTEST = 100.0  # milliseconds that a timeout can sensibly be


def metrics(section: OtelgwSection, context: Context, *, disabled: bool) -> MetricsExport | None:
    """Return where metrics are sent, None where nobody asks for it; problems are reported.

    ``disabled`` says that nothing is recorded: then there is nothing to count either.
    """
    configured = "metrics" in section.model_fields_set and "otlp" in section.metrics.model_fields_set
    if not configured and not _asked(context):
        return None
    if disabled:
        context.findings.warn(
            _AT if configured else (),
            "metrics are counted from records, and none are written: nothing is sent. Add a destination",
            strict=False,
        )
        return None
    return _Resolved(section.metrics.otlp, context).export()


def _asked(context: Context) -> bool:
    """Say whether the variables ask for metrics by OTLP."""
    names = [name.strip().lower() for name in context.variable("OTEL_METRICS_EXPORTER").split(",") if name.strip()]
    for name in names:
        if name not in _EXPORTERS:
            context.findings.environment_error(
                "OTEL_METRICS_EXPORTER",
                f"`{name[:40]}` is not one of {', '.join(_EXPORTERS)}{did_you_mean(name, _EXPORTERS)}",
            )
    return "otlp" in names if names else bool(context.variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))


class _Resolved:
    def __init__(self, given: OtlpMetricsSection, context: Context) -> None:
        self._given = given
        self._context = context

    def export(self) -> MetricsExport | None:
        before = len(self._context.findings.errors)
        protocol = self._protocol()
        found = MetricsExport(
            endpoint=self._endpoint(protocol),
            protocol=protocol,
            headers=self._headers(),
            timeout=self._seconds("timeout", *_variables("TIMEOUT")),
            interval=self._seconds("interval", "OTEL_METRIC_EXPORT_INTERVAL"),
            compression=self._compression(),
            **{name: self._file(name) for name in _FILES},
        )
        if bool(found.client_key) != bool(found.client_certificate):
            self._error("client_key", "client_key and client_certificate go together: set both")
        if self._variable("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").lower() not in {"", "cumulative"}:
            self._context.findings.environment_warning(
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                "metrics are sent cumulative; the Collector's cumulativetodelta processor makes deltas of them",
            )
        return found if len(self._context.findings.errors) == before else None

    def _is_given(self, name: str) -> bool:
        return name in self._given.model_fields_set and getattr(self._given, name) is not None

    def _variable(self, *names: str) -> str:
        return self._context.variable(*names)

    def _error(self, name: str, message: str) -> None:
        self._context.findings.error((*_AT, name), message)

    def _protocol(self) -> str:
        if self._given.protocol is not None:
            return self._given.protocol
        name, value = self._first(*_variables("PROTOCOL"))
        if value:
            return self._choice(name, value.lower(), _PROTOCOLS)
        endpoint = self._given.endpoint or self._variable(*_variables("ENDPOINT"))
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        return "http/protobuf" if parts.path.strip("/") or parts.netloc.endswith(":4318") else "grpc"

    def _first(self, *names: str) -> tuple[str, str]:
        return next(((name, value) for name in names if (value := self._variable(name))), ("", ""))

    def _choice(self, name: str, value: str, choices: tuple[str, ...]) -> str:
        if value in choices:
            return value
        self._context.findings.environment_error(name, f"`{value[:40]}` is not one of {', '.join(choices)}")
        return choices[0]

    def _endpoint(self, protocol: str) -> str:
        general = "OTEL_EXPORTER_OTLP_ENDPOINT"
        if self._given.endpoint is not None:
            name, value = "", self._given.endpoint.strip()
        else:
            name, value = self._first("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", general)
        if not value:
            return "http://127.0.0.1:4317" if protocol == "grpc" else f"http://127.0.0.1:4318{_PATH}"
        if protocol == "grpc" and "://" not in value:
            plain = self._variable(*_variables("INSECURE")).lower() == "true" and bool(name)
            value = f"{'http' if plain else 'https'}://{value}"
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            message = "expected a URL with a scheme and a host, such as http://127.0.0.1:4317"
            if name:
                self._context.findings.environment_error(name, message)
            else:
                self._error("endpoint", message)
            return ""
        if protocol == "grpc":
            return value
        if name == general:
            return parts._replace(path=parts.path.rstrip("/") + _PATH).geturl()
        return parts._replace(path=parts.path or (_PATH if not name else "/")).geturl()

    def _headers(self) -> dict[str, str]:
        """Return the headers; those of the variables belong to the variables' endpoint, and to no other."""
        name, value = self._first(*_variables("HEADERS"))
        try:
            if self._given.headers:
                return options.checked_headers(self._given.headers, "otelgw.metrics.otlp.headers")
            return options.parse_headers(value, name) if value and self._given.endpoint is None else {}
        except DestinationConfigError as error:
            self._context.findings.error(_AT if self._given.headers else (), str(error))
            return {}

    def _seconds(self, option: str, *variables: str) -> float:
        default: float = getattr(self._given, option)
        name, value = self._first(*variables)
        if self._is_given(option) or not value:
            return default
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        # As for traces: the specification has milliseconds, OpenTelemetry's own Python exporters read seconds.
        seconds = number if option == "timeout" and number < _SHORTEST else number / 1000
        if not 0 < seconds <= _LONGEST:
            self._context.findings.environment_error(name, f"`{value[:40]}` is no number of milliseconds")
            return default
        return seconds

    def _compression(self) -> str:
        name, value = self._first(*_variables("COMPRESSION"))
        if self._is_given("compression") or not value:
            return self._given.compression
        return self._choice(name, value.lower(), ("none", "gzip"))

    def _file(self, option: str) -> str:
        given: Any = getattr(self._given, option)
        if given:
            path = self._context.path(given)
        else:
            path = "" if self._given.endpoint is not None else self._variable(*_variables(option.upper()))
        if path and not Path(path).is_file():
            self._error(option, f"no such file: {path}")
        return path


def _variables(name: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_METRICS_{name}", f"OTEL_EXPORTER_OTLP_{name}"
