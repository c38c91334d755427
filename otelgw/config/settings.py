"""The resolved configuration: frozen, picklable, complete. Nothing below the config room reads YAML or the environment.

The master loads the config once and hands one ``Settings`` to every worker and to the pipeline, so that all of them
run on the same configuration, also while the file is being edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelgw.tracing.record import Price

if TYPE_CHECKING:
    from otelgw.keys.schema import Key, Team

__all__ = [
    "Auth",
    "BlobStore",
    "Deployment",
    "Destination",
    "Keys",
    "Limits",
    "LoggingPolicy",
    "MetricsExport",
    "Pattern",
    "Receiver",
    "Redaction",
    "Server",
    "Settings",
    "Timeouts",
    "Tracing",
]

RawHeaders = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``total`` covers an attempt from its start to the last byte."""

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 300.0
    total: float = 6000.0
    stream_first_byte: float | None = None  # replaces first_byte for a streamed answer


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes unless said otherwise."""

    body: int = 50 * 1024 * 1024
    file_body: int = 512 * 1024 * 1024
    headers: int = 64 * 1024
    hold: int = 1024 * 1024  # a non-streamed JSON answer up to this size is held until complete
    capture: int = 1024 * 1024  # of each body, each way
    capture_memory: int = 256 * 1024 * 1024  # of all captures in flight in one worker
    request_body_idle: float = 30.0  # seconds without a byte of the request body
    request_body_rate: int = 1024  # bytes a second that a request body must reach after the idle time has passed
    request_head: float = 15.0  # seconds for the head of a request, and for a new connection's first byte
    response_idle: float = 300.0  # seconds in which a caller that does not read takes no byte of its answer
    upstream_connections: int = 1000  # per origin and worker
    upstream_keepalive: float = 4.0  # seconds an idle upstream connection is kept
    h2_streams: int = 100
    h2_resets: int = 200  # within h2_reset_window seconds closes the connection
    h2_reset_window: float = 10.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One row of ``model_list``, ready to be called.

    ``urls`` maps an operation route ("chat/completions", "embeddings", …) to the full upstream URL; a pass-through
    path without an entry is joined to ``base_url``. ``auth`` holds complete header values and is never logged.
    """

    id: str
    alias: str
    provider: str  # row name in otelgw.providers
    otel_provider: str  # gen_ai.provider.name
    model: str  # the name sent upstream
    base_url: str
    urls: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    auth: RawHeaders = field(default=(), repr=False)
    headers: RawHeaders = field(default=(), repr=False)
    transport: str = "http"  # "http", or "echo": answered in process
    stream_usage: str = "inject"  # or "as_is"
    defaults: Mapping[str, Any] = field(default_factory=dict)  # default fields of the upstream body
    timeouts: Timeouts = Timeouts()
    retries: int = 0  # further attempts after 408, 409, 429, 5xx or a failed connection, before any byte goes out
    forward_trace: tuple[str, ...] = ()  # of "tracecontext", "b3", "b3multi", "baggage"
    forward_client_headers: bool = False
    forward_metadata: bool = False
    mock_response: str | None = None
    price: Price | None = None
    allow_client_params: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    content: bool = True  # False: turn_off_message_logging for this model
    model_info: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = True  # False: a bare-name pattern (`gpt-*`) beside `provider/*`, left out of /v1/models


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests a destination gets; an empty list means any. Patterns have ``*`` and ``?``.

    Of what is selected the share ``ratio`` is sent, the same traces everywhere; failed requests, those that took
    ``slow`` seconds and those that cost ``costly`` USD are always sent.
    """

    model: tuple[str, ...] = ()  # the alias that was asked for, or the model's name
    key: tuple[str, ...] = ()  # the key's alias or its SHA-256 in hex
    team: tuple[str, ...] = ()  # the team's id or alias
    tag: tuple[str, ...] = ()
    route: tuple[str, ...] = ()  # such as /v1/chat/completions
    ratio: float = 1.0
    slow: float | None = None
    costly: float | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression whose matches are replaced by ``[REDACTED:<name>]``."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is taken out of the text that a destination gets; see ``otelgw.redaction``. The default takes nothing out.

    ``presets`` are names of ``otelgw.redaction.presets.PRESETS``; ``media`` replaces images and audio in base64 by
    their size and hash; ``limit`` is in bytes of UTF-8 for each attribute that carries content, 0 is none.
    """

    presets: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    media: bool = False
    limit: int = 0


@dataclass(frozen=True, slots=True)
class BlobStore:
    """Where content of more than ``above`` bytes an attribute goes; ``type`` is one of
    ``otelgw_exporters.blob_store.TYPES``, ``options`` are its resolved ones, secrets among them."""

    type: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    prefix: str = ""
    above: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class LoggingPolicy:
    """What is recorded of a caller's requests, as its key and its team have it.

    ``content`` withholds it (False) or has it recorded where the config would not (True); None leaves it to the
    config. Without ``enabled`` requests are not recorded. ``destinations`` are the only ones that get them, by any name
    that a destination answers to; None is all. Who ``may_relax`` may ask in a request for more than the config and
    this policy record.
    """

    content: bool | None = None
    enabled: bool = True
    destinations: tuple[str, ...] | None = None
    may_relax: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination instance, named ``type/name`` (or ``type``).

    ``options`` are the destination's own, resolved (no ``os.environ/`` references left); secrets among them, so the
    repr leaves them out. ``on`` is "all", "success" or "failure". ``sampling`` is "all" or "parent".
    """

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    on: str = "all"
    content: bool = True
    sampling: str = "all"
    semconv: str = "otel"
    redact_user_api_key_info: bool = False  # who called (key hash and alias, user, team) is left out
    selection: Selection = Selection()
    callbacks: tuple[str, ...] = ()  # other names that it answers to: LiteLLM's, in lower case
    required: bool = False  # it gets every request, without content where a caller does not want it logged
    redaction: Redaction = Redaction()
    default_tags: tuple[str, ...] = ()  # names of ``otelgw.tracing.default_tags.KNOWN``
    base_url: str = ""  # this gateway's, for the tag ``proxy_base_url``
    blob_store: bool = True  # its long content goes to the blob store, where there is one


@dataclass(frozen=True, slots=True)
class Spool:
    """The durable queue between the workers and the pipeline. Bytes and seconds."""

    fsync: bool = False  # an answer's last byte waits until its record is on the disk
    intents: bool = True  # requests in flight are on record before they end
    retention: float = 86_400.0  # of delivered records; 0: deleted at once
    disk_cap: int = 2 * 1024 * 1024 * 1024
    dead_letter_cap: int = 256 * 1024 * 1024
    retry_limit: float = 0.0  # a batch that has been tried for so long becomes dead letters; 0: never


@dataclass(frozen=True, slots=True)
class Auth:
    """``master_key_sha256`` is empty when no master key is set: then any or no key is accepted."""

    master_key_sha256: str = field(default="", repr=False)
    cors_allow_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()  # besides loopback names and the bound address


@dataclass(frozen=True, slots=True)
class Keys:
    """Virtual keys and teams of the config file, and where those that come over HTTP are kept and counted.

    ``team_logging`` are LiteLLM's ``default_team_settings``: teams that have destinations, and nothing else, from here.
    ``allow_networks`` are those beside the public ones that tenants' destinations may be in, as CIDR.
    """

    keys: tuple[Key, ...] = field(default=(), repr=False)
    teams: tuple[Team, ...] = field(default=(), repr=False)
    team_logging: tuple[Team, ...] = field(default=(), repr=False)
    database_url: str = field(default="", repr=False)  # PostgreSQL; empty: keys.db in the state directory
    redis_url: str = field(default="", repr=False)
    salt_key: str = field(default="", repr=False)
    tenants: bool = False  # somebody may have destinations of their own
    template: Destination = Destination("tenants", "tenants")  # what the config says of all of these
    allow_networks: tuple[str, ...] = ()
    exporters: int = 256  # of tenants' destinations that are kept open at once
    threads: int = 8  # that deliver to them


@dataclass(frozen=True, slots=True)
class Tracing:
    """Resource, propagation and span limits, from the standard ``OTEL_*`` variables and the config."""

    service_name: str = "otelgw"
    resource: Mapping[str, str] = field(default_factory=dict)
    tracer_name: str = "otelgw"
    propagators: tuple[str, ...] = ("tracecontext", "baggage", "b3", "b3multi")
    trust: str = "continue"  # or "link", "ignore": what a caller's trace context is worth
    baggage_allow: tuple[str, ...] = ()
    sampler: str = "parentbased_always_on"
    sampler_ratio: float = 1.0
    attribute_count_limit: int | None = None
    attribute_length_limit: int | None = None
    capture_request_headers: tuple[str, ...] = ()  # lower case; caller's headers onto the SERVER span
    capture_response_headers: tuple[str, ...] = ()
    capture_upstream_request_headers: tuple[str, ...] = ()  # onto the attempt span
    capture_upstream_response_headers: tuple[str, ...] = ()
    content: bool = True
    allow_no_log: bool = True  # a caller may ask for no record with `"no-log": true` in the body
    header_attributes: tuple[tuple[str, str], ...] = ()  # (header in lower case, attribute on every span)
    disabled: bool = False  # OTEL_SDK_DISABLED, or no destination at all: no record is written
    name_credentials: bool = False  # which headers carried the caller's credentials goes on the SERVER span, no value


@dataclass(frozen=True, slots=True)
class Server:
    """How callers reach the gateway. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 4000
    workers: int = 1
    kind: str = "hypercorn"  # or "uvicorn"
    certfile: str | None = None
    keyfile: str | None = None
    h2c: str = "prior_knowledge"  # or "upgrade" (also by Upgrade: h2c), "off"
    drain: float = 30.0
    keep_alive: float = 75.0
    log_level: str = "info"
    log_json: bool = False
    allow_open: bool = False


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where other applications send their spans by OTLP. Addresses are ``host:port``; an empty one is off."""

    grpc: str = "127.0.0.1:4317"
    http: str = "127.0.0.1:4318"
    token_sha256: str = field(default="", repr=False)  # of the bearer token; empty: none is asked for
    certfile: str | None = None
    keyfile: str | None = None
    max_request_bytes: int = 16 * 1024 * 1024  # on the wire and decompressed


@dataclass(frozen=True, slots=True)
class MetricsExport:
    """Where the metrics are sent by OTLP, in ``interval`` seconds' steps. ``endpoint`` is a whole URL for HTTP."""

    endpoint: str
    protocol: str = "grpc"  # or "http/protobuf", "http/json"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    interval: float = 60.0
    compression: str = "none"  # or "gzip"
    certificate: str = ""
    client_key: str = ""
    client_certificate: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker or the pipeline needs."""

    server: Server = Server()
    state_dir: str = ""
    deployments: tuple[Deployment, ...] = ()
    destinations: tuple[Destination, ...] = ()
    blob_store: BlobStore | None = None
    receiver: Receiver | None = None
    metrics: MetricsExport | None = None
    auth: Auth = Auth()
    keys: Keys = Keys()
    tracing: Tracing = Tracing()
    limits: Limits = Limits()
    spool: Spool = Spool()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY
    pass_through: tuple[str, ...] = ()  # of "files", "batches", "uploads", "vector_stores", "fine_tuning"
    source: str = ""  # the config file's path, for messages
    warnings: tuple[str, ...] = ()  # shown at start
    ignored: tuple[str, ...] = ()  # known keys without effect here, shown by `otelgw check`
    not_enforced: tuple[str, ...] = ()  # accepted, not yet enforced: rpm and tpm of a deployment
