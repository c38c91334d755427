"""The LLM observability platforms. Most take OTLP: such a row's ``wire`` is all that tells the vendor from others."""

from __future__ import annotations

from typing import Any

from otelgw_exporters.rows import Option, Row, Wire

__all__ = ["ROWS"]

_OTLP = "otelgw_exporters.platforms:"


def _key(*variables: str, name: str = "api_key", text: str = "the API key", required: bool = True) -> Option:
    return Option(name, "text", text, env=variables, secret=True, bound=True, required=required)


def _text(name: str, text: str, *variables: str, default: Any = None, required: bool = False) -> Option:
    return Option(name, "text", text, default, env=variables, required=required)


def _common(default: str | None, *variables: str, size: int = 4_000_000, timeout: float = 10.0) -> tuple[Option, ...]:
    """Return what every vendor's row has: where it is and how it is sent to."""
    return (
        Option("endpoint", "url", "of a server of your own; its path is added", default, env=variables),
        Option("headers", "headers", "sent with every request, beside the vendor's own", secret=True, bound=True),
        Option("timeout", "seconds", "for one delivery", timeout),
        Option("max_request_bytes", "count", "of one request before compression, at most", size),
    )


def _otlp(
    default: str | None, *variables: str, size: int = 4_000_000, gzip: bool = True, parent: str = "keep"
) -> tuple[Option, ...]:
    return (
        *_common(default, *variables, size=size),
        Option("compression", "choice", "of requests", "gzip" if gzip else "none", choices=("none", "gzip")),
        Option(
            "parent",
            "choice",
            "of the gateway's span: keep the caller's span, or detach from it, because the vendor never gets that one",
            parent,
            choices=("keep", "detach"),
        ),
    )


def _region(*names: str) -> Option:
    return Option("region", "choice", "of the vendor's cloud, where no endpoint is set", choices=names)


_LANGFUSE = {
    "eu": "https://cloud.langfuse.com",
    "us": "https://us.cloud.langfuse.com",
    "jp": "https://jp.cloud.langfuse.com",
    "hipaa": "https://hipaa.cloud.langfuse.com",
}
_LANGSMITH = {
    "us": "https://api.smith.langchain.com",
    "eu": "https://eu.api.smith.langchain.com",
    "apac": "https://apac.api.smith.langchain.com",
    "aws": "https://aws.api.smith.langchain.com",
}
_LOGFIRE = {"us": "https://logfire-us.pydantic.dev", "eu": "https://logfire-eu.pydantic.dev"}
_CONFIDENT = {"us": "https://otel.confident-ai.com", "eu": "https://eu.otel.confident-ai.com"}
_ARIZE = {"us": "https://otlp.arize.com", "eu": "https://otlp.eu-west-1a.arize.com"}
_POSTHOG = {"us": "https://us.i.posthog.com", "eu": "https://eu.i.posthog.com"}

ROWS: tuple[Row, ...] = (
    Row(
        "langfuse",
        "otelgw_exporters.langfuse:LangfuseExporter",
        "Langfuse, cloud or self-hosted",
        options=(
            _key("LANGFUSE_PUBLIC_KEY", name="public_key", text="the project's public key"),
            _key("LANGFUSE_SECRET_KEY", name="secret_key", text="the project's secret key"),
            _region(*_LANGFUSE),
            _text("environment", "the environment", "LANGFUSE_TRACING_ENVIRONMENT"),
            _text("release", "the release", "LANGFUSE_RELEASE"),
            Option(
                "api",
                "choice",
                "otlp: version 3.22 or newer; ingestion: self-hosted versions before 4, by JSON",
                "otlp",
                choices=("otlp", "ingestion"),
            ),
            *_otlp(None, "LANGFUSE_OTEL_HOST", "LANGFUSE_HOST", "LANGFUSE_BASE_URL"),
        ),
        callbacks=("langfuse_otel",),
        params_key="langfuse",
        header_prefix="langfuse_",
        proof="sdk",
        proof_of="api: ingestion against the published schema",
        wire=Wire(
            "/api/public/otel/v1/traces",
            "langfuse",
            headers=(
                ("authorization", "basic:{public_key}:{secret_key}"),
                ("x-langfuse-ingestion-version", "4"),
                ("x-langfuse-public-key", "{public_key}"),
            ),
            regions=tuple(_LANGFUSE.items()),
            attributes=(("langfuse.environment", "{environment}"), ("langfuse.release", "{release}")),
            trace="/api/public/traces/{trace}",
        ),
    ),
    Row(
        "phoenix",
        f"{_OTLP}Phoenix",
        "Arize Phoenix, self-hosted or cloud",
        options=(
            _key("PHOENIX_API_KEY", required=False, text="the API key, where the server asks for one"),
            _text("project", "the project", "PHOENIX_PROJECT", "PHOENIX_PROJECT_NAME", default="default"),
            *_otlp("http://127.0.0.1:6006", "PHOENIX_COLLECTOR_HTTP_ENDPOINT", "PHOENIX_COLLECTOR_ENDPOINT"),
        ),
        callbacks=("arize_phoenix",),
        params_key="arize_phoenix",
        proof="server",
        wire=Wire(
            "/v1/traces",
            "openinference",
            headers=(("authorization", "Bearer {api_key}"),),
            resource=(("openinference.project.name", "{project}"),),
            trace="/v1/projects/{project}/spans?limit=100&trace_id={trace}",
        ),
    ),
    Row(
        "arize",
        f"{_OTLP}Arize",
        "Arize AX",
        options=(
            _key("ARIZE_API_KEY"),
            _key("ARIZE_SPACE_ID", "ARIZE_SPACE_KEY", name="space_id", text="the space's id"),
            _text("project", "the project; Arize refuses spans without one", "ARIZE_PROJECT_NAME", default="otelgw"),
            _region(*_ARIZE),
            *_otlp(None, "ARIZE_HTTP_ENDPOINT", "ARIZE_COLLECTOR_ENDPOINT"),
        ),
        callbacks=("arize",),
        params_key="arize",
        proof="sdk",
        wire=Wire(
            "/v1/traces",
            "openinference",
            headers=(
                ("authorization", "{api_key}"),
                ("api_key", "{api_key}"),
                ("arize-space-id", "{space_id}"),
                ("space_id", "{space_id}"),
                ("arize-interface", "otel"),
            ),
            regions=tuple(_ARIZE.items()),
            resource=(
                ("openinference.project.name", "{project}"),
                ("model_id", "{project}"),
                ("arize.project.type", "application"),
            ),
            attributes=(("arize.project.name", "{project}"),),
        ),
    ),
    Row(
        "logfire",
        f"{_OTLP}Logfire",
        "Pydantic Logfire",
        options=(
            _key("LOGFIRE_TOKEN", name="token", text="the write token, which names its region"),
            _region(*_LOGFIRE),
            *_otlp(None, "LOGFIRE_BASE_URL"),
        ),
        callbacks=("logfire",),
        proof="sdk",
        wire=Wire(
            "/v1/traces",
            "logfire",
            headers=(("authorization", "{token}"),),
            regions=tuple(_LOGFIRE.items()),
            region_in="token",
        ),
    ),
    Row(
        "traceloop",
        f"{_OTLP}Traceloop",
        "Traceloop",
        options=(_key("TRACELOOP_API_KEY"), *_otlp("https://api.traceloop.com", "TRACELOOP_BASE_URL")),
        callbacks=("traceloop",),
        proof="sdk",
        wire=Wire("/v1/traces", "openllmetry", headers=(("authorization", "Bearer {api_key}"),)),
    ),
    Row(
        "braintrust",
        f"{_OTLP}Braintrust",
        "Braintrust",
        options=(
            _key("BRAINTRUST_API_KEY"),
            _text(
                "project",
                "where spans go: project_name:NAME, project_id:ID or experiment_id:ID",
                "BRAINTRUST_PARENT",
                default="project_name:otelgw",
            ),
            *_otlp("https://api.braintrust.dev", "BRAINTRUST_API_URL", "BRAINTRUST_API_BASE", parent="detach"),
        ),
        callbacks=("braintrust",),
        proof="sdk",
        proof_of="address and headers; attributes by documentation",
        wire=Wire(
            "/otel/v1/traces",
            "braintrust",
            headers=(("authorization", "Bearer {api_key}"), ("x-bt-parent", "{project}")),
        ),
    ),
    Row(
        "opik",
        f"{_OTLP}Opik",
        "Comet Opik, cloud or self-hosted",
        options=(
            _key("OPIK_API_KEY", required=False, text="the API key; a server of your own may ask for none"),
            _text("workspace", "the workspace", "OPIK_WORKSPACE"),
            _text("project", "the project", "OPIK_PROJECT_NAME", default="Default Project"),
            *_otlp("https://www.comet.com/opik/api", "OPIK_URL_OVERRIDE", parent="detach"),
        ),
        callbacks=("opik",),
        proof="documentation",
        wire=Wire(
            "/v1/private/otel/v1/traces",
            "opik",
            headers=(
                ("authorization", "{api_key}"),
                ("comet-workspace", "{workspace}"),
                ("projectname", "{project}"),
            ),
        ),
    ),
    Row(
        "weave",
        f"{_OTLP}Weave",
        "W&B Weave",
        options=(
            _key("WANDB_API_KEY"),
            _text("project", "the project, as ENTITY/NAME", "WANDB_PROJECT_ID", required=True),
            *_otlp("https://trace.wandb.ai", "WEAVE_OTLP_ENDPOINT", "WANDB_HOST", parent="detach"),
        ),
        callbacks=("weave_otel",),
        params_key="weave_otel",
        proof="documentation",
        wire=Wire(
            "/otel/v1/traces",
            "weave",
            headers=(
                ("authorization", "basic:api:{api_key}"),
                ("wandb-api-key", "{api_key}"),
                ("project_id", "{project}"),
            ),
        ),
    ),
    Row(
        "langtrace",
        f"{_OTLP}Langtrace",
        "Langtrace, cloud or self-hosted",
        options=(
            _key("LANGTRACE_API_KEY"),
            *_otlp("https://app.langtrace.ai", "LANGTRACE_API_HOST", gzip=False),
        ),
        callbacks=("langtrace",),
        params_key="langtrace",
        proof="sdk",
        proof_of="messages by the source of its server",
        wire=Wire("/api/trace", "langtrace", headers=(("x-api-key", "{api_key}"),), one_scope=True),
    ),
    Row(
        "galileo",
        f"{_OTLP}Galileo",
        "Galileo",
        options=(
            _key("GALILEO_API_KEY"),
            _text("project", "the project", "GALILEO_PROJECT", default="otelgw"),
            _text("log_stream", "the log stream", "GALILEO_LOG_STREAM", default="default"),
            *_otlp("https://api.galileo.ai", "GALILEO_BASE_URL"),
        ),
        callbacks=("galileo",),
        params_key="galileo",
        proof="sdk",
        proof_of="address, headers and resource; attributes by documentation",
        wire=Wire(
            "/otel/traces",
            "openinference",
            headers=(("galileo-api-key", "{api_key}"), ("project", "{project}"), ("logstream", "{log_stream}")),
            resource=(("galileo.project.name", "{project}"), ("galileo.logstream.name", "{log_stream}")),
        ),
    ),
    Row(
        "posthog",
        f"{_OTLP}Posthog",
        "PostHog LLM analytics; it gets the generations only",
        options=(
            _key("POSTHOG_API_KEY", text="the project's key"),
            _text(
                "distinct_id",
                "the person that calls without a user count for; others count for their user",
                default="otelgw",
            ),
            _region(*_POSTHOG),
            *_otlp(None, "POSTHOG_API_URL", "POSTHOG_HOST", parent="detach"),
        ),
        callbacks=("posthog",),
        proof="sdk",
        proof_of="address, headers and resource; attributes by documentation",
        wire=Wire(
            "/i/v0/ai/otel",
            "posthog",
            headers=(("authorization", "Bearer {api_key}"),),
            regions=tuple(_POSTHOG.items()),
            resource=(("posthog.distinct_id", "{distinct_id}"),),
            spans="generations",
        ),
    ),
    Row(
        "confident",
        f"{_OTLP}Confident",
        "Confident AI, the platform of DeepEval",
        options=(
            _key("CONFIDENT_API_KEY", text="the API key, which may name its region"),
            _text("environment", "the environment", "CONFIDENT_TRACE_ENVIRONMENT", "LITELM_ENVIRONMENT"),
            Option(
                "region",
                "choice",
                "of the vendor's cloud, where no endpoint is set",
                env=("CONFIDENT_REGION",),
                choices=tuple(_CONFIDENT),
            ),
            *_otlp(None, "CONFIDENT_OTEL_URL"),
        ),
        callbacks=("deepeval",),
        params_key="deepeval",
        proof="sdk",
        wire=Wire(
            "/v1/traces",
            "confident",
            headers=(("x-confident-api-key", "{api_key}"),),
            regions=tuple(_CONFIDENT.items()),
            region_in="api_key",
            attributes=(("confident.trace.environment", "{environment}"),),
        ),
    ),
    Row(
        "mlflow",
        "otelgw_exporters.mlflow:MlflowExporter",
        "MLflow's tracking server (3.3 or newer, with an SQL store)",
        options=(
            _text(
                "experiment", "the experiment; it is made if there is none", "MLFLOW_EXPERIMENT_NAME", default="otelgw"
            ),
            _text("experiment_id", "the experiment's id, instead of its name", "MLFLOW_EXPERIMENT_ID"),
            _text("username", "of a server that asks for one", "MLFLOW_TRACKING_USERNAME"),
            _key("MLFLOW_TRACKING_PASSWORD", name="password", text="of the user", required=False),
            _key("MLFLOW_TRACKING_TOKEN", name="token", text="a token, instead of user and password", required=False),
            *_otlp("http://127.0.0.1:5000", "MLFLOW_TRACKING_URI", parent="detach"),
        ),
        callbacks=("mlflow",),
        params_key="mlflow",
        proof="server",
        wire=Wire(
            "/v1/traces",
            "mlflow",
            headers=(("authorization", "basic:{username}:{password}"), ("authorization", "Bearer {token}")),
            trace="/api/3.0/mlflow/traces/get?allow_partial=false&trace_id=tr-{trace}",
        ),
    ),
    Row(
        "langsmith",
        "otelgw_exporters.langsmith:LangsmithExporter",
        "LangSmith, cloud or self-hosted",
        options=(
            _key("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY"),
            _text("project", "the project", "LANGSMITH_PROJECT", "LANGCHAIN_PROJECT", default="otelgw"),
            _text("workspace", "the workspace's id", "LANGSMITH_WORKSPACE_ID"),
            _text("run_name", "name of runs whose metadata has no run_name", "LANGSMITH_DEFAULT_RUN_NAME"),
            _region(*_LANGSMITH),
            Option(
                "api",
                "choice",
                "runs: with cost and the time of the first token; otlp: with all spans, priced by LangSmith",
                "runs",
                choices=("runs", "otlp"),
            ),
            *_otlp(None, "LANGSMITH_BASE_URL", "LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT", parent="detach"),
        ),
        callbacks=(),
        params_key="langsmith",
        proof="sdk",
        proof_of="api: runs; api: otlp by documentation",
        wire=Wire(
            "/otel/v1/traces",
            "langsmith",
            others=("/runs/batch",),
            headers=(
                ("x-api-key", "{api_key}"),
                ("langsmith-project", "{project}"),
                ("x-tenant-id", "{workspace}"),
            ),
            regions=tuple(_LANGSMITH.items()),
        ),
    ),
    Row(
        "lunary",
        "otelgw_exporters.lunary:LunaryExporter",
        "Lunary, cloud or self-hosted",
        options=(
            _key(
                "LUNARY_PUBLIC_KEY", "LUNARY_PRIVATE_KEY", "LUNARY_APP_ID", text="the project's public or private key"
            ),
            *_common("https://api.lunary.ai", "LUNARY_API_URL", size=16_000_000),
        ),
        proof="contract",
        wire=Wire("/v1/runs/ingest", "", headers=(("authorization", "Bearer {api_key}"),)),
    ),
    Row(
        "openmeter",
        "otelgw_exporters.openmeter:OpenmeterExporter",
        "OpenMeter: an event for each successful call",
        options=(
            _key("OPENMETER_API_KEY"),
            _text("event_type", "the events' type", "OPENMETER_EVENT_TYPE", default="litellm_tokens"),
            Option(
                "trust_user",
                "flag",
                "the request's user is who pays; otherwise the team or the key",
                False,
                env=("OPENMETER_TRUST_REQUEST_USER",),
            ),
            _text("subject", "who pays where none of these is known", "OPENMETER_SUBJECT", default="anonymous"),
            *_common("https://openmeter.cloud", "OPENMETER_API_ENDPOINT"),
        ),
        proof="contract",
        wire=Wire("/api/v1/events", "", headers=(("authorization", "Bearer {api_key}"),)),
    ),
    Row(
        "athina",
        "otelgw_exporters.athina:AthinaExporter",
        "Athina",
        options=(_key("ATHINA_API_KEY"), *_common("https://log.athina.ai", "ATHINA_BASE_URL")),
        proof="sdk",
        wire=Wire("/api/v1/log/inference", "", headers=(("athina-api-key", "{api_key}"),)),
    ),
    Row(
        "helicone",
        "otelgw_exporters.helicone:HeliconeExporter",
        "Helicone",
        options=(_key("HELICONE_API_KEY"), *_common("https://api.worker.helicone.ai", "HELICONE_API_BASE")),
        proof="documentation",
        wire=Wire("/custom/v1/log", "", headers=(("authorization", "Bearer {api_key}"),)),
    ),
    Row(
        "sentry",
        "otelgw_exporters.sentry:SentryExporter",
        "Sentry: traces, and an issue for failed calls",
        options=(
            Option("dsn", "url", "the project's DSN", env=("SENTRY_DSN",), secret=True, bound=True, required=True),
            _text("environment", "the environment", "SENTRY_ENVIRONMENT", default="production"),
            _text("release", "the release", "SENTRY_RELEASE"),
            _text("sample_rate", "share of failed calls that become events", "SENTRY_API_SAMPLE_RATE", default="1.0"),
            _text(
                "traces_sample_rate",
                "share of traces that are sent",
                "SENTRY_API_TRACE_RATE",
                "SENTRY_TRACES_SAMPLE_RATE",
                default="1.0",
            ),
            *_otlp("", parent="keep")[1:],
        ),
        params_key="sentry",
        proof="validator",
        proof_of="error events; spans by documentation",
        wire=Wire(
            "",
            "sentry",
            others=("/api/PROJECT/integration/otlp/v1/traces", "/api/PROJECT/envelope/"),
            attributes=(("sentry.environment", "{environment}"), ("sentry.release", "{release}")),
        ),
    ),
)
