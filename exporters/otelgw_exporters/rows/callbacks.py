"""Code of one's own, in Python."""

from __future__ import annotations

from otelgw_exporters.rows import SHAPE, Option, Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    Row(
        "callback",
        "otelgw_exporters.callback:CallbackExporter",
        "A custom callback in Python, or any OpenTelemetry SpanExporter, in a process of its own",
        options=(
            Option(
                "target",
                "text",
                "module.instance, /path/to/module.instance, s3://bucket/module.instance or gcs://bucket/module.instance",
                env=("OTELGW_CALLBACK",),
                required=True,
            ),
            Option("timeout", "seconds", "for one call; then the process is ended", 30.0),
            Option(
                "attempts",
                "count",
                "tries of a call that took too long, whose process ended or that raised an OSError; what raises "
                "anything else is a dead letter at once",
                3,
            ),
            Option("memory", "count", "bytes that the process may take for data (Linux)", 1024 * 1024 * 1024),
            Option("sha256", "text", "the only code that is run, by its SHA-256 in hex; for a callback in a bucket"),
            Option(
                "allowed_buckets",
                "names",
                "buckets from which code is run; filled in from allow_remote_callbacks",
                (),
                env=("OTELGW_ALLOW_REMOTE_CALLBACKS",),
            ),
            Option("directory", "text", "where modules are looked for first; filled in with the config file's folder"),
            Option("model_info", "mapping", "model_info by deployment; filled in from the config"),
            Option("environment", "mapping", "variables of the process; filled in from the environment and .env"),
            *SHAPE,
        ),
        proof="server",
        settings="target: custom_callbacks.proxy_handler_instance\n",
    ),
)
