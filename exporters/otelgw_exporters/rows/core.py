"""What every version of otelgw has: the console, OTLP and files."""

from __future__ import annotations

from otelgw_exporters.rows import OTLP_OPTIONS, SHAPE, Option, Row, otlp_variables

__all__ = ["ROWS"]

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
            *SHAPE,
        ),
        proof="server",
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
                env=otlp_variables("ENDPOINT", "OTEL_ENDPOINT"),
            ),
            Option(
                "insecure",
                "flag",
                "plain text for an endpoint without a scheme",
                False,
                env=otlp_variables("INSECURE"),
                bound=True,
            ),
            *OTLP_OPTIONS,
        ),
        callbacks=("otel",),
        params_key="otel",
        tenant=True,
        proof="server",
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
                env=otlp_variables("ENDPOINT", "OTEL_ENDPOINT"),
            ),
            Option(
                "protocol",
                "choice",
                "encoding of requests",
                "http/protobuf",
                env=otlp_variables("PROTOCOL", "OTEL_EXPORTER"),
                choices=("http/protobuf", "http/json"),
            ),
            *OTLP_OPTIONS,
        ),
        params_key="otel",
        tenant=True,
        proof="server",
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
            *SHAPE,
        ),
        proof="server",
    ),
)
