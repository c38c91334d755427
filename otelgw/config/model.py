"""The ``otelgw:`` section of the config file: what LiteLLM's YAML has no word for.

An unknown key is an error. The descriptions are the reference page's and the JSON Schema's. Values that are not given
stay unset in pydantic's sense, so that the environment can speak before the default does.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from otelgw.config.blob_store import BlobStoreSection
from otelgw.config.redaction import RedactSection
from otelgw.config.section import DAY, Names, Seconds, Section, names_list, one_or_more
from otelgw.config.settings import Limits, MetricsExport, Receiver, Server, Spool, Timeouts, Tracing
from otelgw.keys.fields import KeySection, TeamSection, TenantsSection

__all__ = [
    "AuthSection",
    "CaptureHeaders",
    "DestinationSection",
    "LimitsSection",
    "MetricsSection",
    "OtelgwSection",
    "OtlpMetricsSection",
    "ReceiverSection",
    "Section",
    "SelectionSection",
    "ServerSection",
    "SpoolSection",
    "TimeoutsSection",
    "names_list",
    "one_or_more",
]

_SERVER, _TIMEOUTS, _LIMITS, _TRACING, _RECEIVER = Server(), Timeouts(), Limits(), Tracing(), Receiver()
_SPOOL = Spool()
_METRICS = MetricsExport("")
_INSTANCE = r"[a-z0-9_]+(/[A-Za-z0-9_.\-]+)?"
_OWN_NAMESPACES = ("gen_ai.", "otelgw.", "http.", "url.", "server.", "client.", "network.", "error.", "openai.")


def _off(value: Any) -> Any:
    """YAML reads a bare ``off`` as a boolean."""
    return "off" if value is False else value


def _none(value: Any) -> Any:
    """``none`` is the way to write an empty list in the standard variables."""
    return [] if value == ["none"] else value


def _header_name(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
        raise ValueError("must be a header's name")
    return name


def _attribute_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,128}", name):
        raise ValueError("must be an attribute's name: letters, digits, `_`, `-` and `.`")
    if name.startswith(_OWN_NAMESPACES) and not name.startswith("otelgw.metadata.") and name != "otelgw.tags":
        raise ValueError(f"is the gateway's own; use a name that does not begin with {', '.join(_OWN_NAMESPACES)}")
    return name


def _instance_name(name: str) -> str:
    if not re.fullmatch(_INSTANCE, name):
        raise ValueError("must be `type` or `type/name`, such as otlp_grpc/backend1")
    return name


HeaderNames = Annotated[list[Annotated[str, AfterValidator(_header_name)]], BeforeValidator(names_list), one_or_more()]
Bytes = Annotated[int, Field(gt=0, le=2**40)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Port = Annotated[int, Field(ge=0, le=65535)]


class ServerSection(Section):
    """How callers reach the gateway. A flag or its ``OTELGW_*`` variable wins over the file."""

    host: str = Field(
        default=_SERVER.host,
        description="The address to listen on. Beyond loopback a `master_key` is required.",
    )
    port: Port = Field(default=_SERVER.port, description="The port to listen on.")
    workers: Annotated[int, Field(ge=1, le=1024)] = Field(default=_SERVER.workers, description="Worker processes.")
    kind: Literal["hypercorn", "uvicorn"] = Field(
        default="hypercorn",
        description="The HTTP server. `uvicorn` needs the extra `otelgw[uvicorn]` and has no HTTP/2.",
    )
    ssl_certfile: str | None = Field(
        default=None,
        description="TLS certificate chain in PEM, relative to the config file.",
    )
    ssl_keyfile: str | None = Field(default=None, description="TLS private key in PEM, relative to the config file.")
    h2c: Annotated[Literal["prior_knowledge", "upgrade", "off"], BeforeValidator(_off)] = Field(
        default="prior_knowledge",
        description="HTTP/2 without TLS: by prior knowledge, also by `Upgrade: h2c`, or not at all.",
    )
    drain: Annotated[float, Field(ge=0, le=DAY)] = Field(
        default=_SERVER.drain, description="Seconds that requests in flight have to finish after SIGTERM."
    )
    keep_alive: Seconds = Field(
        default=_SERVER.keep_alive,
        description="Seconds that an idle connection of a caller is kept.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The gateway's own log.",
    )
    log_json: bool = Field(default=_SERVER.log_json, description="Log JSON lines also on a terminal.")
    allow_open: bool = Field(
        default=_SERVER.allow_open,
        description="Listen beyond loopback without a `master_key`: anybody can spend your tokens.",
    )


class TimeoutsSection(Section):
    """Timeouts of a call to an upstream, in seconds."""

    connect: Seconds = Field(default=_TIMEOUTS.connect, description="DNS, TCP and TLS together.")
    first_byte: Seconds = Field(
        default=_TIMEOUTS.first_byte,
        description="From the request sent to the answer's first byte.",
    )
    stream_first_byte: Seconds | None = Field(default=None, description="Replaces `first_byte` for a streamed answer.")
    idle: Seconds = Field(default=_TIMEOUTS.idle, description="Between two pieces of an answer.")
    total: Seconds = Field(
        default=_TIMEOUTS.total,
        description="From the start of an attempt to the answer's last byte.",
    )


class LimitsSection(Section):
    """Bounds that keep one caller or upstream from taking everything. Bytes unless said otherwise."""

    body: Bytes = Field(default=_LIMITS.body, description="Request body.")
    file_body: Bytes = Field(
        default=_LIMITS.file_body,
        description="Request body of file uploads, audio and image edits.",
    )
    headers: Annotated[int, Field(ge=1024, le=2**24)] = Field(
        default=_LIMITS.headers,
        description="Request headers together.",
    )
    hold: Annotated[int, Field(ge=0, le=2**30)] = Field(
        default=_LIMITS.hold, description="A non-streamed JSON answer up to this size is held until it is complete."
    )
    capture: Annotated[int, Field(ge=0, le=2**30)] = Field(
        default=_LIMITS.capture, description="Captured of each body; of a longer one its head and tail."
    )
    capture_memory: Bytes = Field(default=_LIMITS.capture_memory, description="All captures in flight in one worker.")
    request_body_idle: Seconds = Field(
        default=_LIMITS.request_body_idle, description="Seconds without a byte after which a request body is cut."
    )
    request_body_rate: Annotated[int, Field(ge=0, le=2**30)] = Field(
        default=_LIMITS.request_body_rate, description="Bytes a second that a request body must reach; 0 is no bound."
    )
    request_head: Seconds = Field(
        default=_LIMITS.request_head,
        description="Seconds for the head of a request, and for a connection's first byte.",
    )
    response_idle: Seconds = Field(
        default=_LIMITS.response_idle,
        description="Seconds after which a caller that takes no byte of its answer is cut.",
    )
    upstream_connections: Count = Field(
        default=_LIMITS.upstream_connections, description="Connections to one upstream origin from one worker."
    )
    upstream_keepalive: Annotated[float, Field(ge=0, le=DAY)] = Field(
        default=_LIMITS.upstream_keepalive, description="Seconds that an idle connection to an upstream is kept."
    )
    h2_streams: Count = Field(default=_LIMITS.h2_streams, description="Concurrent streams on one HTTP/2 connection.")
    h2_resets: Count = Field(
        default=_LIMITS.h2_resets,
        description="Resets within `h2_reset_window` that close a connection.",
    )
    h2_reset_window: Seconds = Field(default=_LIMITS.h2_reset_window, description="Seconds.")


class SpoolSection(Section):
    """The durable queue between the gateway and the destinations: see [the spool](spool.md)."""

    fsync: bool = Field(
        default=_SPOOL.fsync,
        description="Hold an answer's last byte until its record is on the disk: safe from power loss, too.",
    )
    intents: bool = Field(
        default=_SPOOL.intents,
        description="Note requests when they are routed, so that those in flight when a worker is killed are traced.",
    )
    retention: Annotated[float, Field(ge=0, le=365 * DAY)] = Field(
        default=_SPOOL.retention,
        description="Seconds that delivered records are kept for `otelgw spool replay`; 0 deletes them at once.",
    )
    disk_cap: Annotated[int, Field(ge=1024 * 1024, le=2**50)] = Field(
        default=_SPOOL.disk_cap,
        description="Bytes. Beyond it the oldest delivered records go first, then the oldest undelivered, counted.",
    )
    dead_letter_cap: Annotated[int, Field(ge=0, le=2**40)] = Field(
        default=_SPOOL.dead_letter_cap, description="Bytes of records kept for dead letters; the oldest go first."
    )
    retry_limit: Annotated[float, Field(ge=0, le=365 * DAY)] = Field(
        default=_SPOOL.retry_limit,
        description="Seconds after which a batch that is tried in vain becomes dead letters; 0 is never.",
    )


class AuthSection(Section):
    """Besides ``general_settings.master_key``."""

    allowed_hosts: Names = Field(
        default_factory=list,
        description="Host names that callers may use where no `master_key` is set, besides loopback names and the "
        "bound address.",
    )
    redis_url: str | None = Field(
        default=None,
        description="`redis://[:password@]host:port/db` of Redis or Valkey, where gateways on several machines count "
        "the rates of keys and teams together. Default: each machine counts its own.",
    )


class ReceiverSection(Section):
    """Spans from other applications, by OTLP: they go to the same destinations. The section's presence turns it on."""

    grpc: Annotated[str, BeforeValidator(_off)] = Field(
        default=_RECEIVER.grpc, description="`host:port` for OTLP over gRPC, or `off`."
    )
    http: Annotated[str, BeforeValidator(_off)] = Field(
        default=_RECEIVER.http, description="`host:port` for OTLP over HTTP, path `/v1/traces`, or `off`."
    )
    token: str | None = Field(
        default=None, description="A bearer token that senders must give. Required beyond loopback."
    )
    ssl_certfile: str | None = Field(
        default=None,
        description="TLS certificate chain in PEM, relative to the config file.",
    )
    ssl_keyfile: str | None = Field(default=None, description="TLS private key in PEM, relative to the config file.")
    max_request_bytes: Annotated[int, Field(ge=1024, le=60 * 1024 * 1024)] = Field(
        default=_RECEIVER.max_request_bytes, description="Bytes of one request, on the wire and decompressed."
    )
    allow_open: bool = Field(default=False, description="Listen beyond loopback without a `token`.")


class OtlpMetricsSection(Section):
    """The metrics by OTLP, beside `/metrics`: see [metrics](metrics.md). The section's presence turns it on."""

    endpoint: str | None = Field(
        default=None,
        description="`http://` for plain text, `https://` for TLS; for HTTP the whole URL, one without a path gets "
        "`/v1/metrics`. Default: `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT`, this machine.",
    )
    protocol: Literal["grpc", "http/protobuf", "http/json"] | None = Field(
        default=None, description="Default: the variables', then what the endpoint's port and path suggest."
    )
    headers: dict[str, str] = Field(default_factory=dict, description="Sent with every export.")
    timeout: Seconds = Field(default=_METRICS.timeout, description="Seconds for one export.")
    interval: Seconds = Field(default=_METRICS.interval, description="Seconds between two exports.")
    compression: Literal["none", "gzip"] = Field(default="none", description="Of exports.")
    certificate: str | None = Field(
        default=None, description="PEM file with the roots to trust, relative to the config file."
    )
    client_key: str | None = Field(default=None, description="PEM file with the client's key.")
    client_certificate: str | None = Field(default=None, description="PEM file with the client's certificate chain.")


class MetricsSection(Section):
    """What is counted is at `/metrics` for Prometheus in any case."""

    otlp: OtlpMetricsSection = Field(
        default=OtlpMetricsSection(),
        description="Send the metrics by OTLP. Off unless the section is there or the standard variables ask for it.",
    )


class CaptureHeaders(Section):
    """Header names to record on spans, one list for each direction. Headers with credentials are never recorded."""

    request: HeaderNames = Field(default_factory=list, description="Callers' request headers.")
    response: HeaderNames = Field(default_factory=list, description="Headers of answers to callers.")
    upstream_request: HeaderNames = Field(default_factory=list, description="Request headers sent upstream.")
    upstream_response: HeaderNames = Field(default_factory=list, description="Upstreams' answer headers.")


class SelectionSection(Section):
    """Which requests a destination gets. Names are patterns with `*` and `?`; an empty list means any."""

    model: Names = Field(default_factory=list, description="The model that was asked for, or the one that answered.")
    key: Names = Field(default_factory=list, description="Key aliases, or SHA-256 hashes of keys in hex.")
    team: Names = Field(default_factory=list, description="Team ids or aliases.")
    tag: Names = Field(default_factory=list, description="Tags of the request's metadata; one that fits is enough.")
    route: Names = Field(default_factory=list, description="Routes, such as `/v1/chat/completions`.")
    ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="The share of traces that is sent; the same traces for every destination."
    )
    slow: Seconds | None = Field(default=None, description="Seconds; what took as long is sent whatever `ratio` says.")
    costly: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="USD; what cost as much is sent whatever `ratio` says. Failures always are."
    )


class DestinationSection(Section):
    """One destination: these keys and the destination's own options (``otelgw destinations NAME`` lists them)."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, AfterValidator(_instance_name)] = Field(
        description="`type` or `type/name`, such as `otlp_grpc/backend1`."
    )
    on: Literal["all", "success", "failure"] = Field(default="all", description="Which requests are sent there.")
    content: bool = Field(default=True, description="`false` withholds prompts and answers from this destination.")
    sampling: Literal["all", "parent"] = Field(
        default="all",
        description="`parent` obeys the sampler and the caller's sampled flag; `all` gets every request. The default "
        "is `parent` where a sampler is set.",
    )
    redact_user_api_key_info: bool = Field(
        default=False, description="Leave out who called: the key's hash and alias, user, team."
    )
    select: SelectionSection = Field(default=SelectionSection(), description="Which requests are sent there.")
    required: bool = Field(
        default=False,
        description="It gets every request that it selects whatever a caller says, also under `no-log`: then without "
        "content. Of others it gets no content either, unless `content: true` stands here.",
    )
    redact: RedactSection = Field(
        default=RedactSection(), description="What is taken out of what it gets. Default: `otelgw.redact`."
    )
    blob_store: bool = Field(
        default=True, description="`false`: it gets long content whole, also where there is an `otelgw.blob_store`."
    )
    default_tags: Names = Field(
        default_factory=list,
        description="Tags to add, as `key:value`: `cache_hit`, `cache_key`, `proxy_base_url` (from `PROXY_BASE_URL`), "
        "`user_api_key_alias`, `user_api_key_user_id`, `user_api_key_user_email`, `user_api_key_team_alias`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def type(self) -> str:
        return self.name.partition("/")[0]

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class OtelgwSection(Section):
    """The section ``otelgw:``."""

    state_dir: str | None = Field(
        default=None,
        description="Where the spool and the pipeline's state are kept, relative to the config file. Default: "
        "`OTELGW_STATE_DIR`, `$STATE_DIRECTORY`, then `${XDG_STATE_HOME:-~/.local/state}/otelgw/<port>`.",
    )
    server: ServerSection = Field(default=ServerSection(), description="How callers reach the gateway.")
    timeouts: TimeoutsSection = Field(default=TimeoutsSection(), description="Of calls to upstreams, seconds.")
    limits: LimitsSection = Field(default=LimitsSection(), description="Bounds on sizes, rates and counts.")
    spool: SpoolSection = Field(default=SpoolSection(), description="The queue between gateway and destinations.")
    auth: AuthSection = Field(default=AuthSection(), description="Besides `general_settings.master_key`.")
    keys: list[KeySection] = Field(
        default_factory=list, description="Virtual keys: see [keys and teams](../how-to/keys-and-teams.md)."
    )
    teams: list[TeamSection] = Field(default_factory=list, description="Teams of keys.")
    tenants: TenantsSection = Field(
        default=TenantsSection(), description="Bounds for the destinations of keys and teams."
    )
    destinations: list[DestinationSection] = Field(
        default_factory=list, description="Where spans go, besides LiteLLM's callbacks; any number."
    )
    receiver: ReceiverSection = Field(
        default=ReceiverSection(),
        description="Spans from other applications. Off unless the section is there; `otelgw collect` always has it.",
    )
    metrics: MetricsSection = Field(default=MetricsSection(), description="Numbers, besides those of `/metrics`.")
    content: bool = Field(
        default=True,
        description="`false` records no prompts and answers anywhere, as `turn_off_message_logging: true` does.",
    )
    service_name: str | None = Field(default=None, description="The resource's `service.name`. Default: `otelgw`.")
    resource: dict[str, str] = Field(default_factory=dict, description="Further resource attributes.")
    tracer_name: str | None = Field(
        default=None,
        description="The name of the instrumentation scope. Default: `otelgw`.",
    )
    propagators: Annotated[
        list[Literal["tracecontext", "baggage", "b3", "b3multi"]],
        BeforeValidator(_none),
        BeforeValidator(names_list),
        one_or_more("tracecontext", "baggage", "b3", "b3multi", "none"),
    ] = Field(
        default=list(_TRACING.propagators),  # type: ignore[arg-type]
        description="Formats in which a caller's trace context is read; W3C wins. `none` reads none.",
    )
    trust: Literal["continue", "link", "ignore"] = Field(
        default="continue",
        description="What a caller's trace context is worth: continue its trace, link to it, or ignore it.",
    )
    baggage: Names = Field(
        default_factory=list, description="Keys of the caller's baggage that are recorded; no others are read."
    )
    capture_headers: CaptureHeaders = Field(default=CaptureHeaders(), description="Headers to record on spans.")
    header_attributes: dict[
        Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_attribute_name)]
    ] = Field(
        default_factory=dict,
        description="Request header -> attribute on every span of the request: `x-tenant: tenant.id`. The attribute "
        "may be `user.id`, `session.id`, `otelgw.tags`, one below `otelgw.metadata.`, or one that the gateway has no "
        "meaning for.",
    )
    redact: RedactSection = Field(
        default=RedactSection(),
        description="What is taken out of what destinations get that have no `redact` of their own.",
    )
    blob_store: BlobStoreSection = Field(
        default=BlobStoreSection(), description="Long content beside the spans. Off unless the section is there."
    )
    sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field(default="parentbased_always_on", description="The sampler; destinations with `sampling: parent` obey it.")
    sampler_ratio: Annotated[float, Field(ge=0, le=1)] = Field(default=1.0, description="The ratio of `traceidratio`.")
    attribute_count_limit: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Attributes a span.")
    attribute_length_limit: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Characters a value.")
    forward_metadata: bool = Field(
        default=False, description="Send the body's `metadata` upstream; it is for the gateway's spans otherwise."
    )
    allow_remote_callbacks: Names = Field(
        default_factory=list,
        description="Buckets from which callbacks in Python may be loaded and run, such as `s3://bucket`: whoever can "
        "write there can run code in the gateway's pipeline.",
    )

    @field_validator("destinations", mode="before")
    @classmethod
    def _listed(cls, destinations: Any) -> Any:
        if isinstance(destinations, str) and re.fullmatch(_INSTANCE, destinations):
            raise ValueError(f"must be a list, also of one: `destinations: [{destinations}]`")
        if isinstance(destinations, str | dict):
            raise ValueError("must be a list, also of one: `- name: …`, and its options below")  # noqa: TRY004
        return destinations

    @field_validator("allow_remote_callbacks")
    @classmethod
    def _whole_buckets(cls, buckets: list[str]) -> list[str]:
        for bucket in buckets:
            if not re.fullmatch(r"((s3|gs|gcs)://)?[^/]+/?", bucket):
                raise ValueError("must name buckets, such as s3://bucket: one is allowed as a whole, without a folder")
        return buckets

    @classmethod
    def unique(cls, destinations: list[DestinationSection]) -> None:
        """Check that every destination has a name of its own.

        Raises:
            ValueError: two have the same one; says which.
        """
        seen = set[str]()
        for destination in destinations:
            if destination.name in seen:
                raise ValueError(
                    f"two destinations are called {destination.name}; name them apart, as in {destination.type}/second"
                )
            seen.add(destination.name)
