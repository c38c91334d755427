"""Search engines that keep spans as documents."""

from __future__ import annotations

from otelgw_exporters.rows import SHAPE, Option, Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = (
    Row(
        "elasticsearch",
        "otelgw_exporters.elasticsearch:ElasticsearchExporter",
        "Elasticsearch and OpenSearch: a document a span, in a data stream, by _bulk",
        options=(
            Option(
                "endpoint",
                "url",
                "of the cluster",
                "http://127.0.0.1:9200",
                env=("ELASTICSEARCH_URL", "ELASTICSEARCH_ENDPOINT"),
            ),
            Option(
                "api_key",
                "text",
                "as Elasticsearch shows it (encoded), or id:key",
                env=("ELASTICSEARCH_API_KEY", "ELASTIC_API_KEY"),
                secret=True,
                bound=True,
                group="identity",
            ),
            Option(
                "username",
                "text",
                "with a password, where there is no key",
                env=("ELASTICSEARCH_USERNAME",),
                bound=True,
                group="identity",
            ),
            Option(
                "password",
                "text",
                "of the user",
                env=("ELASTICSEARCH_PASSWORD",),
                secret=True,
                bound=True,
                group="identity",
            ),
            Option(
                "dataset",
                "text",
                "the data stream is traces-DATASET.otel-NAMESPACE",
                "llm_gateway",
                env=("ELASTICSEARCH_DATASET",),
            ),
            Option(
                "namespace", "text", "of the data stream: an environment", "default", env=("ELASTICSEARCH_NAMESPACE",)
            ),
            Option(
                "template",
                "flag",
                "put the index template of the data stream; false: it is there, or Elasticsearch's own is to apply",
                True,
                env=("ELASTICSEARCH_TEMPLATE",),
            ),
            Option("compression", "choice", "of requests", "gzip", choices=("none", "gzip")),
            Option("max_request_bytes", "count", "size of one request before compression, at most", 5_000_000),
            Option("timeout", "seconds", "for one delivery", 30.0),
            Option(
                "certificate", "path", "PEM file with the roots to trust", env=("ELASTICSEARCH_CA_CERTS",), bound=True
            ),
            *SHAPE,
        ),
        proof="server",
        settings="endpoint: https://cluster.example:9200\napi_key: os.environ/ELASTICSEARCH_API_KEY\n",
    ),
)
