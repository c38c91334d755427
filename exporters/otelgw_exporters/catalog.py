"""One row per destination. Rows are strings, so listing them imports no destination."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.rows import (
    Option,
    Row,
    aws,
    buckets,
    callbacks,
    core,
    datadog,
    elastic,
    http,
    kafka,
    meant,
    platforms,
    postgres,
)

if TYPE_CHECKING:
    from otelgw_exporters.delivery import Exporter

__all__ = ["KNOWN_CALLBACKS", "ROWS", "Option", "Row", "build", "litellm_names", "row"]

ROWS: tuple[Row, ...] = (
    *core.ROWS,
    *buckets.ROWS,
    *aws.ROWS,
    *http.ROWS,
    *callbacks.ROWS,
    *datadog.ROWS,
    *postgres.ROWS,
    *platforms.ROWS,
    *elastic.ROWS,
    *kafka.ROWS,
)

_CALLBACKS = frozenset(
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
KNOWN_CALLBACKS: frozenset[str] = _CALLBACKS - {name for each in ROWS for name in (each.name, *each.callbacks)}
"""LiteLLM's callback names that are known and have no row here."""


def litellm_names(each: Row) -> tuple[str, ...]:
    """Return the callback names that LiteLLM has for what a row sends to; none where it has no such callback."""
    return tuple(dict.fromkeys([each.name] * (each.name in _CALLBACKS) + [*each.callbacks]))


def row(destination_type: str) -> Row:
    """Return the row of a destination type.

    Raises:
        DestinationConfigError: there is no such type; says which are and which was probably meant.
    """
    names = [each.name for each in ROWS]
    if destination_type not in names:
        hint = meant(destination_type, names)
        raise DestinationConfigError(
            f"there is no destination type {destination_type!r}{hint or '.'} Types: {', '.join(names)}"
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
