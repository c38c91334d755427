"""Any HTTP endpoint that takes JSON."""

from __future__ import annotations

from otelgw_exporters.rows import Option, Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    Row(
        "generic_api",
        "otelgw_exporters.generic_api:GenericApiExporter",
        "Any HTTP endpoint: standard payloads by POST, as JSON",
        options=(
            Option("endpoint", "url", "the whole URL to post to", env=("GENERIC_LOGGER_ENDPOINT",), required=True),
            Option(
                "headers",
                "headers",
                "sent with every request; in the variable: name=value,name=value, URL-encoded, where a comma separates "
                "if name= follows it",
                env=("GENERIC_LOGGER_HEADERS",),
                secret=True,
                bound=True,
            ),
            Option(
                "format",
                "choice",
                "json_array: a list of payloads; ndjson: a payload a line; single: one payload a request",
                "json_array",
                env=("GENERIC_LOGGER_FORMAT",),
                choices=("json_array", "ndjson", "single"),
                params=("log_format",),
            ),
            Option(
                "event_types",
                "names",
                "which calls are sent, by how they ended",
                ("llm_api_success", "llm_api_failure"),
                env=("GENERIC_LOGGER_EVENT_TYPES",),
                choices=("llm_api_success", "llm_api_failure"),
            ),
            Option(
                "signing_secret",
                "text",
                "sign every request with HMAC-SHA256 as Standard Webhooks has it; whsec_ and base64, or any text",
                env=("GENERIC_LOGGER_SIGNING_SECRET",),
                secret=True,
                bound=True,
            ),
            Option(
                "compression",
                "choice",
                "of requests",
                "none",
                env=("GENERIC_LOGGER_COMPRESSION",),
                choices=("none", "gzip"),
            ),
            Option("max_calls", "count", "payloads in one request, at most", 512),
            Option("max_request_bytes", "count", "size of one request before compression, at most", 4_000_000),
            Option("timeout", "seconds", "for one request", 10.0),
            Option("certificate", "path", "PEM file with the roots to trust"),
            Option("client_key", "path", "PEM file with the client's key"),
            Option("client_certificate", "path", "PEM file with the client's certificate chain"),
        ),
        callbacks=("generic_api",),
        params_key="generic_api",
        proof="documentation",
        loose_headers=True,
        settings="""\
endpoint: https://logs.example/ingest
headers: {authorization: Bearer os.environ/LOGS_TOKEN}
""",
    ),
)
