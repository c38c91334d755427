"""The backends that ``otelgw collector render`` knows: what of the Collector's config differs between them.

Strings only, as the rows of destinations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PIPELINE", "TARGETS", "Target"]

PIPELINE = """\
<<HEADING>>
receivers:
  otlp:
    protocols:
<<RECEIVERS>>

processors:
  # First in the pipeline: refuses with "try again" before memory runs out; otelgw then keeps the spans.
  memory_limiter:
    check_interval: 1s
    limit_mib: 512
    spike_limit_mib: 128
<<PROCESSORS>>
exporters:
<<EXPORTERS>>
    sending_queue:
      # On disk: what is in it outlives a restart, and a backend that is down. Counted in spans.
      storage: file_storage
      sizer: items
      queue_size: 100000
      batch:
        flush_timeout: 1s
        min_size: 1000
        max_size: 5000

extensions:
  file_storage:
    directory: ${env:OTELCOL_STATE:-./otelcol-state}
    create_directory: true
  health_check:
    endpoint: 127.0.0.1:13133

service:
  extensions: [file_storage, health_check]
  pipelines:
    traces:
      receivers: [otlp]
      processors: [<<CHAIN>>]
      exporters: [<<EXPORTER>>]
"""

_PATIENCE = """\
    retry_on_failure:
      # Without an end: the queue is what is limited.
      max_elapsed_time: 0s"""


@dataclass(frozen=True, slots=True)
class Target:
    """One backend. ``<<name>>`` in a text is a value: from ``defaults``, or from the user's config.

    title
        the first line of the config.
    component
        the exporter's name in the Collector.
    exporter, processors
        the YAML of the exporter, and of processors besides memory_limiter, which ``chain`` names.
    variables
        what has to be in the Collector's environment, with its meaning.
    destinations, options
        the gateway's own destination types for the backend, and which of their options are which value; none is a
        secret.
    forms
        of a value that is not the option as it stands: how it is made of it, for ``{}``.
    instead
        of a value that the destination may have: the values that it takes the place of, and the further ones it brings.
    otlp
        the OTLP transport, where the exporter is OTLP's: a destination of that kind that leads off this machine is
        taken for the backend.
    prefix
        of the variables that hold that destination's headers.
    """

    title: str
    component: str
    exporter: str
    defaults: Mapping[str, str] = field(default_factory=dict)
    processors: str = ""
    chain: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    destinations: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    otlp: str = ""
    prefix: str = ""


_STREAM = """
  transform:
    error_mode: ignore
    trace_statements:
      # The data stream traces-llm_gateway.otel-default, as the destination `elasticsearch` names it.
      - set(resource.attributes["data_stream.dataset"], <<dataset>>)
      - set(resource.attributes["data_stream.namespace"], <<namespace>>)
      # The document's id: what arrives twice is stored once.
      - set(span.attributes["elasticsearch.document_id"], Concat([span.trace_id.string, span.span_id.string], "-"))"""

_ELASTIC = Target(
    "otelgw -> OpenTelemetry Collector -> Elasticsearch, in OpenTelemetry's fields and data streams",
    "elasticsearch",
    """
  elasticsearch:
    endpoint: <<endpoint>>
    api_key: <<api_key>>
    user: <<username>>
    password: <<password>>
    mapping:
      mode: otel
    traces_dynamic_id:
      enabled: true
    suppress_conflict_errors: true
    retry:
      max_retries: 100
      max_interval: 1m""",
    {
        "endpoint": "${env:ELASTICSEARCH_URL:-http://127.0.0.1:9200}",
        "api_key": "${env:ELASTICSEARCH_API_KEY}",
        "dataset": '"llm_gateway"',
        "namespace": '"default"',
    },
    processors=_STREAM,
    chain=("transform",),
    variables={
        "ELASTICSEARCH_URL": "of the cluster; 8.16 or newer, which has the index templates",
        "ELASTICSEARCH_API_KEY": "encoded, with create_doc and auto_configure on traces-*",
    },
    destinations=("elasticsearch",),
    options={"endpoint": "endpoint", "dataset": "dataset", "namespace": "namespace", "username": "username"},
    instead={"username": ("api_key", {"password": "${env:ELASTICSEARCH_PASSWORD}"})},
)

_ELASTIC_OTLP = Target(
    "otelgw -> OpenTelemetry Collector -> Elastic's managed OTLP endpoint",
    "otlp_http/elastic",
    f"""
  otlp_http/elastic:
    headers:
      # An API key has the scheme ApiKey; Bearer is for the secret tokens of an APM Server.
      Authorization: ApiKey ${{env:ELASTIC_API_KEY}}
    endpoint: <<endpoint>>
{_PATIENCE}""",
    {"endpoint": "${env:ELASTIC_OTLP_ENDPOINT:-https://PROJECT.ingest.REGION.elastic.cloud:443}"},
    variables={
        "ELASTIC_OTLP_ENDPOINT": "of the deployment or project",
        "ELASTIC_API_KEY": "encoded, as Kibana shows it",
    },
    otlp="http",
    prefix="ELASTIC",
)

_OPENSEARCH = Target(
    "otelgw -> OpenTelemetry Collector -> Data Prepper (otel_trace_source), or `otelgw collect` -> OpenSearch",
    "otlp_grpc/data_prepper",
    f"""
  otlp_grpc/data_prepper:
    headers:
      authorization: Basic ${{env:DATA_PREPPER_BASIC}}
    endpoint: <<endpoint>>
    tls:
      insecure: ${{env:DATA_PREPPER_PLAINTEXT:-true}}
{_PATIENCE}""",
    {
        "endpoint": "${env:DATA_PREPPER_ENDPOINT:-127.0.0.1:21890}",
        "plaintext": "${env:DATA_PREPPER_PLAINTEXT:-true}",
    },
    variables={
        "DATA_PREPPER_ENDPOINT": "host:port of otel_trace_source, or of `otelgw collect`",
        "DATA_PREPPER_BASIC": "user:password in base64, where the source asks for it",
        "DATA_PREPPER_PLAINTEXT": "false where the source has TLS",
    },
    otlp="grpc",
    prefix="DATA_PREPPER",
)


def _otlp_grpc(title: str, name: str, endpoint: str, prefix: str, header: str = "", meaning: str = "") -> Target:
    """Return a backend that takes OTLP by gRPC; ``header`` is a line of its headers."""
    headers = f"    headers:\n      {header}\n" if header else ""
    variables = {f"{prefix}_ENDPOINT": "host:port, where it takes OTLP by gRPC"}
    variables |= {f"{prefix}_PLAINTEXT": "false where it has TLS"}
    if meaning:
        variable, _, text = meaning.partition(": ")
        variables[variable] = text
    return Target(
        title,
        f"otlp_grpc/{name}",
        f"""
  otlp_grpc/{name}:
{headers}    endpoint: <<endpoint>>
    tls:
      insecure: <<plaintext>>
{_PATIENCE}""",
        {
            "endpoint": f"${{env:{prefix}_ENDPOINT:-{endpoint}}}",
            "plaintext": f"${{env:{prefix}_PLAINTEXT:-true}}",
        },
        variables=variables,
        otlp="grpc",
        prefix=prefix,
    )


_ZIPKIN = Target(
    "otelgw -> OpenTelemetry Collector -> Zipkin",
    "zipkin",
    f"""
  zipkin:
    endpoint: <<endpoint>>
    format: json
{_PATIENCE}""",
    {"endpoint": "${env:ZIPKIN_ENDPOINT:-http://127.0.0.1:9411/api/v2/spans}"},
    variables={"ZIPKIN_ENDPOINT": "the whole URL of its API"},
)

_DATADOG = Target(
    "otelgw -> OpenTelemetry Collector -> Datadog LLM Observability, by OTLP",
    "otlp_http/datadog",
    f"""
  otlp_http/datadog:
    headers:
      dd-api-key: ${{env:DD_API_KEY}}
      dd-otlp-source: llmobs
    traces_endpoint: <<endpoint>>
{_PATIENCE}""",
    {"endpoint": "https://otlp.${env:DD_SITE:-datadoghq.com}/v1/traces"},
    variables={
        "DD_SITE": "the site of the account, such as datadoghq.eu; government sites take no OTLP",
        "DD_API_KEY": "an API key",
    },
    destinations=("datadog", "datadog_llm_observability"),
    options={"site": "endpoint"},
    forms={"endpoint": "https://otlp.{}/v1/traces"},
)

_KAFKA = Target(
    "otelgw -> OpenTelemetry Collector -> Kafka, from which other Collectors read as a consumer group",
    "kafka",
    f"""
  kafka:
    brokers: <<brokers>>
    traces:
      topic: <<topic>>
      encoding: otlp_proto
    # The spans of a trace go to one partition, and so to one consumer.
    partition_traces_by_id: true
    producer:
      required_acks: -1
      compression: zstd
{_PATIENCE}""",
    {"brokers": '["${env:KAFKA_BROKERS:-127.0.0.1:9092}"]', "topic": '"${env:KAFKA_TOPIC:-otlp_spans}"'},
    variables={"KAFKA_BROKERS": "host:port of a broker", "KAFKA_TOPIC": "the topic"},
    destinations=("kafka",),
    options={"brokers": "brokers", "topic": "topic"},
)

_S3 = Target(
    "otelgw -> OpenTelemetry Collector -> S3: OTLP in JSON, an object a batch",
    "awss3",
    f"""
  awss3:
    s3uploader:
      region: <<region>>
      s3_bucket: <<bucket>>
      s3_prefix: <<prefix>>
      endpoint: <<endpoint>>
      s3_partition_format: "date=%Y-%m-%d/hour=%H"
      compression: gzip
    marshaler: otlp_json
{_PATIENCE}""",
    {
        "region": "${env:AWS_REGION:-us-east-1}",
        "bucket": "${env:S3_BUCKET:-llm-gateway}",
        "prefix": "${env:S3_PREFIX:-otelgw}",
    },
    variables={
        "AWS_REGION": "of the bucket",
        "S3_BUCKET": "the bucket",
        "S3_PREFIX": "what the objects' names begin with",
        "AWS_ACCESS_KEY_ID": "and AWS_SECRET_ACCESS_KEY, or a role: as any AWS program finds them",
    },
    destinations=("s3",),
    options={"bucket": "bucket", "region": "region", "endpoint_url": "endpoint", "path": "prefix"},
)

_LANGFUSE = Target(
    "otelgw -> OpenTelemetry Collector -> Langfuse",
    "otlp_http/langfuse",
    f"""
  otlp_http/langfuse:
    headers:
      Authorization: Basic ${{env:LANGFUSE_BASIC}}
      x-langfuse-ingestion-version: "4"
    endpoint: <<endpoint>>
{_PATIENCE}""",
    {"endpoint": "${env:LANGFUSE_OTLP_ENDPOINT:-https://cloud.langfuse.com/api/public/otel}"},
    variables={
        "LANGFUSE_OTLP_ENDPOINT": "its address with /api/public/otel",
        "LANGFUSE_BASIC": "public key:secret key in base64: printf '%s:%s' $PUBLIC $SECRET | base64 -w0",
    },
    destinations=("langfuse",),
    options={"endpoint": "endpoint"},
    forms={"endpoint": "{}/api/public/otel"},
    otlp="http",
    prefix="LANGFUSE",
)

_PHOENIX = Target(
    "otelgw -> OpenTelemetry Collector -> Phoenix",
    "otlp_http/phoenix",
    f"""
  otlp_http/phoenix:
    headers:
      authorization: Bearer ${{env:PHOENIX_API_KEY}}
    endpoint: <<endpoint>>
{_PATIENCE}""",
    {"endpoint": "${env:PHOENIX_ENDPOINT:-http://127.0.0.1:6006}", "project": '"${env:PHOENIX_PROJECT:-default}"'},
    processors="""
  transform:
    error_mode: ignore
    trace_statements:
      - set(resource.attributes["openinference.project.name"], <<project>>)""",
    chain=("transform",),
    variables={
        "PHOENIX_ENDPOINT": "its address",
        "PHOENIX_API_KEY": "where it asks for one",
        "PHOENIX_PROJECT": "the project",
    },
    destinations=("phoenix",),
    options={"endpoint": "endpoint", "project": "project"},
    forms={"endpoint": "{}"},
    otlp="http",
    prefix="PHOENIX",
)

TARGETS: Mapping[str, Target] = {
    "elastic": _ELASTIC,
    "elastic_otlp": _ELASTIC_OTLP,
    "opensearch": _OPENSEARCH,
    "jaeger": _otlp_grpc("otelgw -> OpenTelemetry Collector -> Jaeger", "jaeger", "127.0.0.1:14317", "JAEGER"),
    "tempo": _otlp_grpc(
        "otelgw -> OpenTelemetry Collector -> Grafana Tempo",
        "tempo",
        "127.0.0.1:14317",
        "TEMPO",
        "X-Scope-OrgID: ${env:TEMPO_TENANT}",
        "TEMPO_TENANT: the tenant, where Tempo has several",
    ),
    "zipkin": _ZIPKIN,
    "datadog": _DATADOG,
    "kafka": _KAFKA,
    "s3": _S3,
    "langfuse": _LANGFUSE,
    "phoenix": _PHOENIX,
}
"""Backends by the name that ``--to`` gives them."""
