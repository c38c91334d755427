"""Vendors' own attributes, by the name that a catalogue row or ``semconv:`` gives them."""

from __future__ import annotations

from collections.abc import Mapping

from otelgw_exporters.dialects import platforms
from otelgw_exporters.dialects.dialect import Dialect
from otelgw_exporters.dialects.langfuse import LANGFUSE
from otelgw_exporters.dialects.openinference import OPENINFERENCE
from otelgw_exporters.dialects.traceloop import OPENLLMETRY, TRACELOOP

__all__ = ["TABLES", "Dialect"]

TABLES: Mapping[str, Dialect] = {
    "braintrust": platforms.BRAINTRUST,
    "confident": platforms.CONFIDENT,
    "langfuse": LANGFUSE,
    "langsmith": platforms.LANGSMITH,
    "langtrace": platforms.LANGTRACE,
    "logfire": platforms.LOGFIRE,
    "mlflow": platforms.MLFLOW,
    "openinference": OPENINFERENCE,
    "openllmetry": OPENLLMETRY,
    "opik": platforms.OPIK,
    "otel-1.41": platforms.PLAIN,
    "posthog": platforms.POSTHOG,
    "sentry": platforms.SENTRY,
    "traceloop": TRACELOOP,
    "weave": platforms.WEAVE,
}
