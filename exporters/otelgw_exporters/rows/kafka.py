"""Apache Kafka."""

from __future__ import annotations

from otelgw_exporters.rows import SHAPE, Option, Row

__all__ = ["ROWS"]

_ONE = "identity"

ROWS: tuple[Row, ...] = (
    Row(
        "kafka",
        "otelgw_exporters.kafka:KafkaExporter",
        "Apache Kafka: OTLP as the Collector's kafkareceiver reads it, or the standard payload",
        options=(
            Option(
                "brokers",
                "names",
                "host:port of some of the brokers",
                required=True,
                env=("OTELGW_KAFKA_BROKERS", "KAFKA_BROKERS"),
            ),
            Option(
                "topic",
                "text",
                "the topic, which must be there; without it otlp_spans, or otelgw_calls where `format` is payload",
                env=("OTELGW_KAFKA_TOPIC", "KAFKA_TOPIC"),
            ),
            Option(
                "format",
                "choice",
                "otlp_proto: a message holds spans of one trace, as the Collector reads them; payload: it is the "
                "standard payload of a call, as JSON. Keys are trace ids, in hex",
                "otlp_proto",
                choices=("otlp_proto", "payload"),
                env=("OTELGW_KAFKA_FORMAT",),
            ),
            Option(
                "compression",
                "choice",
                "of batches",
                "zstd",
                choices=("none", "gzip", "snappy", "lz4", "zstd"),
            ),
            Option(
                "security_protocol",
                "choice",
                "how brokers are spoken to; without it what the other options ask for",
                choices=("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
                env=("OTELGW_KAFKA_SECURITY_PROTOCOL",),
            ),
            Option(
                "sasl_mechanism",
                "choice",
                "how `username` and `password` are proved",
                "plain",
                choices=("plain", "scram-sha-256", "scram-sha-512"),
                env=("OTELGW_KAFKA_SASL_MECHANISM",),
            ),
            Option("username", "text", "for SASL", env=("OTELGW_KAFKA_USERNAME",), group=_ONE),
            Option("password", "text", "for SASL", env=("OTELGW_KAFKA_PASSWORD",), group=_ONE, secret=True),
            Option("certificate", "path", "PEM file with the roots to trust", env=("OTELGW_KAFKA_CERTIFICATE",)),
            Option("client_key", "path", "PEM file with the client's key"),
            Option("client_certificate", "path", "PEM file with the client's certificate chain"),
            Option(
                "max_message_bytes",
                "count",
                "of one message and one batch, before compression; no more than the topic's max.message.bytes",
                1_000_000,
            ),
            Option(
                "client",
                "mapping",
                "further settings of the client, by librdkafka's names (linger.ms, sasl.oauthbearer.method …)",
                secret=True,
            ),
            Option("timeout", "seconds", "for one delivery, with the client's own repetitions", 30.0),
            *SHAPE,
        ),
        proof="server",
        settings="brokers: [127.0.0.1:9092]\n",
    ),
)
