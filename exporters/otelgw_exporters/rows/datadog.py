"""Datadog: logs and LLM observability. For OTLP see docs/how-to/datadog.md."""

from __future__ import annotations

from otelgw_exporters.rows import Option, Row

__all__ = ["ROWS"]


def _options(port: int, port_variables: tuple[str, ...]) -> tuple[Option, ...]:
    return (
        Option(
            "api_key",
            "text",
            "a Datadog API key; an agent has its own",
            env=("DD_API_KEY",),
            secret=True,
            bound=True,
            required=True,
            unless="agent_host",
        ),
        Option("site", "text", "where the account is: datadoghq.com, datadoghq.eu, us5.datadoghq.com", "datadoghq.com",
               env=("DD_SITE",)),
        Option("agent_host", "text", "send to the Datadog Agent on this host instead",
               env=("LITELLM_DD_AGENT_HOST", "DD_AGENT_HOST")),
        Option("agent_port", "count", "the agent's port", port, env=port_variables),
        Option("endpoint", "url", "send there instead: a proxy, say; a URL without a path gets Datadog's",
               env=("DD_BASE_URL",)),
        Option("service", "text", "the service", "otelgw", env=("DD_SERVICE",)),
        Option("env", "text", "the environment, such as prod", env=("DD_ENV",)),
        Option("version", "text", "the service's version", env=("DD_VERSION",)),
        Option("tags", "names", "tags for everything, such as team:search; also apart by spaces", (), env=("DD_TAGS",)),
        Option("timeout", "seconds", "for one request", 10.0),
        Option("compression", "choice", "of requests", "gzip", choices=("none", "gzip")),
        Option("certificate", "path", "PEM file with the roots to trust"),
    )  # fmt: skip


ROWS: tuple[Row, ...] = (
    Row(
        "datadog",
        "otelgw_exporters.datadog:DatadogExporter",
        "Datadog Logs: a log of each call, its message the standard payload",
        options=(
            *_options(10518, ("LITELLM_DD_AGENT_PORT", "DD_AGENT_PORT")),
            Option(
                "max_age",
                "count",
                "seconds; Datadog drops logs of more than 18 hours, so older ones get the time of sending",
                61_200,
            ),
            Option("source", "text", "the logs' source", "otelgw", env=("DD_SOURCE",)),
            Option("hostname", "text", "the logs' host", env=("HOSTNAME",)),
        ),
        callbacks=("datadog",),
        params_key="datadog",
        proof="sdk",
        settings="api_key: os.environ/DD_API_KEY\nsite: datadoghq.com\nenv: prod\n",
    ),
    Row(
        "datadog_llm_observability",
        "otelgw_exporters.datadog_llm:DatadogLlmExporter",
        "Datadog LLM Observability: a span of each call, with its messages, tokens and cost",
        options=(
            *_options(8126, ("LITELLM_DD_LLM_OBS_PORT",)),
            Option(
                "max_age",
                "count",
                "seconds; Datadog drops spans of more than 24 hours, so older ones are dead letters",
                85_800,
            ),
            Option("ml_app", "text", "the application's name there; by default the service", env=("DD_LLMOBS_ML_APP",)),
        ),
        callbacks=("datadog_llm_observability",),
        params_key="datadog_llm_observability",
        proof="validator",
        settings="api_key: os.environ/DD_API_KEY\nsite: datadoghq.com\nml_app: assistant\n",
    ),
)
