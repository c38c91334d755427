"""LiteLLM's words: which keys of its YAML are used here, and which are known and without effect.

The models hold the keys that do something; their descriptions are the reference page's. The tables hold the rest of
LiteLLM's documented keys, so that a typo can be told from a key that this gateway has no use for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from otelgw.config.model import TimeoutsSection
from otelgw.config.redaction import RedactSection
from otelgw.config.section import Names, Seconds, Section, names_list, one_or_more

__all__ = [
    "ACCESS_CONTROLS",
    "CONTENT_CONTROLS",
    "GENERAL_IGNORED",
    "LITELLM_IGNORED",
    "MASKING_CALLBACKS",
    "PARAMS_IGNORED",
    "PARAMS_IGNORED_PREFIXES",
    "REFUSED_CONTROLS",
    "ROUTER_IGNORED",
    "SECTIONS_IGNORED",
    "SECTIONS_REFUSED",
    "CallbackSettings",
    "GeneralSettings",
    "LitellmParams",
    "LitellmSettings",
    "ModelEntry",
    "ModelInfo",
    "RouterSettings",
    "Vocabulary",
]


class Vocabulary(Section):
    """A section whose other keys are looked up in a table instead of being errors."""

    model_config = ConfigDict(extra="allow")

    @property
    def others(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _formats(value: Any) -> Any:
    """Read ``true`` as LiteLLM means it and a bare name as a list of one."""
    if value is True:
        return ["tracecontext"]
    return [] if value is False or value is None else names_list(value)


def _blank(value: Any) -> Any:
    """A key without a value, or with a blank one, is as if it were not there."""
    return None if isinstance(value, str) and not value.strip() else value


Formats = Annotated[
    list[Literal["tracecontext", "b3", "b3multi", "baggage"]],
    BeforeValidator(_formats),
    one_or_more("tracecontext", "b3", "b3multi", "baggage", switch=True),
]
Text = Annotated[Annotated[str, StringConstraints(strip_whitespace=True)] | None, BeforeValidator(_blank)]
HeaderMap = dict[str, str] | None
Amount = Annotated[float, Field(ge=0)]
Rate = Annotated[int, Field(ge=0)]
Retries = Annotated[int, Field(ge=0, le=100)]
_RETRIES = (
    "Further attempts after 408, 409, 429, 5xx or a failed connection, as long as the caller has got nothing; each "
    "is a span of its own."
)

_FORWARD = (
    "Send the attempt's trace context to the upstream: `true` (W3C), or a list of `tracecontext`, `b3`, `b3multi`, "
    "`baggage`. Only for upstreams of your own."
)
_EVENTS = "Destinations, by LiteLLM's callback names or a destination's type; a list or one name"


class LitellmParams(Vocabulary):
    """How one deployment is called. A key that is neither here nor known becomes a default field of the body."""

    model: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="`provider/model`, or a well-known model's bare name; `*` stands for what the caller asked for."
    )
    custom_llm_provider: Text = Field(default=None, description="The provider, where `model` has no prefix.")
    api_base: Text = Field(
        default=None,
        description="Base URL of the upstream, to which `/chat/completions` … is added.",
    )
    base_url: Text = Field(default=None, description="The same.")
    api_key: Text = Field(
        default=None,
        description="The upstream's key. Default: the provider's usual environment variable.",
    )
    azure_ad_token: Text = Field(default=None, description="Azure: a Microsoft Entra ID token, instead of a key.")
    api_version: Text = Field(
        default=None,
        description="Azure: the API version; `v1`, `preview` or none is the `/openai/v1` API. Default: "
        "`AZURE_API_VERSION`.",
    )
    organization: Text = Field(default=None, description="Sent as `OpenAI-Organization`.")
    headers: HeaderMap = Field(default=None, description="Headers to send upstream.")
    extra_headers: HeaderMap = Field(default=None, description="The same; wins over `headers`.")
    extra_body: dict[str, Any] | None = Field(default=None, description="Default fields of the upstream body.")
    timeout: Seconds | None = Field(
        default=None,
        description="Seconds to the first byte of an answer, and at most between two pieces of it.",
    )
    stream_timeout: Seconds | None = Field(default=None, description="Seconds to the first byte of a streamed answer.")
    timeouts: TimeoutsSection | None = Field(
        default=None,
        description="otelgw's: the keys of `otelgw.timeouts`; seconds.",
    )
    num_retries: Retries | None = Field(default=None, description=f"{_RETRIES} Default: 0.")
    max_retries: Retries | None = Field(default=None, description="The same; `num_retries` wins.")
    rpm: Rate | None = Field(default=None, description="Requests a minute. Accepted, not yet enforced.")
    tpm: Rate | None = Field(default=None, description="Tokens a minute. Accepted, not yet enforced.")
    mock_response: Text = Field(default=None, description="Answer with this text without calling anything.")
    input_cost_per_token: Amount | None = Field(default=None, description="As in `model_info`.")
    output_cost_per_token: Amount | None = Field(default=None, description="As in `model_info`.")
    turn_off_message_logging: bool = Field(default=False, description="Record no prompts and answers of this model.")
    forward_traceparent_to_llm_provider: Formats | None = Field(default=None, description=_FORWARD)
    forward_metadata: bool | None = Field(default=None, description="otelgw's: send the body's `metadata` upstream.")
    stream_usage: Literal["inject", "as_is"] | None = Field(
        default=None,
        description="otelgw's: whether streams are asked to report usage. Default: what the provider's row says.",
    )
    allow_client_params: Names = Field(
        default_factory=list,
        description="otelgw's: fields that callers may set although they redirect the call, such as `api_key`.",
    )
    configurable_clientside_auth_params: Names = Field(default_factory=list, description="LiteLLM's name for it.")


class ModelInfo(Vocabulary):
    """Facts about a deployment. Other keys are kept as they are."""

    id: Text = Field(default=None, description="The deployment's id. Default: a hash of its parameters.")
    mode: Text = Field(default=None, description="`chat`, `embedding` …")
    base_model: Text = Field(
        default=None,
        description="The model whose price applies, where `model` is a name of your own.",
    )
    input_cost_per_token: Amount | None = Field(default=None, description="USD; wins over the price list.")
    output_cost_per_token: Amount | None = Field(default=None, description="USD; wins over the price list.")


class ModelEntry(Vocabulary):
    """One deployment; several with one ``model_name`` share its load."""

    model_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="The name that callers use; may hold one `*`."
    )
    litellm_params: dict[str, Any] = Field(description="How it is called.")
    model_info: dict[str, Any] | None = Field(default=None, description="Facts about it.")


class LitellmSettings(Vocabulary):
    """Callbacks and what they may record."""

    callbacks: Names | None = Field(default=None, description=f"{_EVENTS}. Every outcome is sent.")
    success_callback: Names | None = Field(default=None, description=f"{_EVENTS}. Successes are sent.")
    failure_callback: Names | None = Field(default=None, description=f"{_EVENTS}. Failures are sent.")
    turn_off_message_logging: bool = Field(default=False, description="Record no prompts and answers anywhere.")
    global_disable_no_log_param: bool = Field(
        default=False, description='Record also requests whose body says `"no-log": true`.'
    )
    redact_user_api_key_info: bool = Field(
        default=False, description="Leave who called (key hash and alias, user, team) out of every destination."
    )
    forward_traceparent_to_llm_provider: Formats | None = Field(
        default=None,
        description=f"For every model. {_FORWARD}",
    )
    request_timeout: Seconds | None = Field(default=None, description="`timeout` of models without one; seconds.")
    num_retries: Retries | None = Field(default=None, description="`num_retries` of models without one.")
    json_logs: bool = Field(default=False, description="Log JSON lines.")
    default_team_settings: list[dict[str, Any]] | None = Field(
        default=None,
        description="Teams with destinations of their own: `team_id`, `success_callback`, `failure_callback`, and "
        "what these need, named as their environment variables in lower case.",
    )


class GeneralSettings(Vocabulary):
    """Access to the gateway."""

    master_key: Text = Field(
        default=None,
        description="The key that callers must send. Default: `OTELGW_MASTER_KEY`, then `LITELLM_MASTER_KEY`.",
    )
    otel: bool = Field(default=False, description="`true` is the callback `otel`.")
    database_url: Text = Field(
        default=None,
        description="`postgresql://…`: where keys and teams are kept. Default: `keys.db` in the state directory. A "
        "bare `DATABASE_URL` does nothing.",
    )
    pass_through: Annotated[
        list[Literal["files", "batches", "uploads", "vector_stores", "fine_tuning"]],
        BeforeValidator(names_list),
        one_or_more("files", "batches", "uploads", "vector_stores", "fine_tuning"),
    ] = Field(default_factory=list, description="otelgw's: route groups passed through besides the usual ones.")
    cors_allow_origins: Names = Field(
        default_factory=list, description="otelgw's: origins of web pages that may call the gateway."
    )
    forward_client_headers_to_llm_api: bool = Field(
        default=False, description="Send the caller's own headers upstream, credentials too."
    )
    max_request_size_mb: Annotated[float, Field(gt=0, le=1_000_000)] | None = Field(
        default=None, description="Request body in MiB; `otelgw.limits.body` wins."
    )


class RouterSettings(Vocabulary):
    """Defaults of all deployments."""

    timeout: Seconds | None = Field(
        default=None,
        description="`timeout` of models without one; wins over `request_timeout`.",
    )
    stream_timeout: Seconds | None = Field(default=None, description="`stream_timeout` of models without one.")
    num_retries: Retries | None = Field(
        default=None, description="`num_retries` of models without one; wins over `litellm_settings`."
    )


class CallbackSettings(Vocabulary):
    """What one callback may record, and where one of your own naming sends: ``callback_settings.<callback>``.

    With ``callback_type`` all other keys are options of that destination, ``log_format`` being its ``format``; list the
    name under ``callbacks``, ``success_callback`` or ``failure_callback``.
    """

    callback_type: str | None = Field(
        default=None, description="Type of the destination that the name stands for, as `generic_api`."
    )

    message_logging: bool = Field(default=True, description="`false` withholds prompts and answers from it.")
    redact: RedactSection = Field(
        default=RedactSection(), description="otelgw's: what is taken out of what it gets. Default: `otelgw.redact`."
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# They lessen what is recorded. A misspelt one is an error, never a warning.
CONTENT_CONTROLS = frozenset({"turn_off_message_logging", "message_logging", "redact_user_api_key_info"})

# They would mask content before it is recorded. Nothing here does that yet, so a config that counts on it is refused.
MASKING_CALLBACKS = frozenset({"presidio", "hide_secrets"})
REFUSED_CONTROLS = frozenset({"redact_messages_in_exceptions", "no-log", "no_log"})

# They narrow who may call what. They are not enforced, which is said at every start.
ACCESS_CONTROLS = _words("""
    admin_only_routes allowed_ips allowed_routes budget_duration custom_auth disable_responses_id_security
    enable_jwt_auth enable_oauth2_auth enable_oauth2_proxy_auth enforce_user_param enforced_params
    global_max_parallel_requests max_budget max_end_user_budget max_internal_user_budget max_parallel_requests
    max_response_size_mb reject_clientside_metadata_tags
""")

LITELLM_IGNORED = _words("""
    LITELLM_DISABLE_STOP_SEQUENCE_LIMIT add_function_to_prompt allowed_fails api_base api_key audit_log_callbacks
    black_list_words_file blocked_user_list cache cache_params caching content_policy_fallbacks
    context_window_fallbacks cost_discount_config credential_list custom_provider_map cooldown_time
    default_fallbacks default_internal_user_params default_max_internal_user_budget
    default_team_params disable_add_transform_inline_image_block disable_add_prefix_to_prompt
    disable_add_user_agent_to_request_tags disable_aiohttp_transport disable_copilot_system_to_assistant
    disable_end_user_cost_tracking disable_end_user_cost_tracking_prometheus_only disable_hf_tokenizer_download
    disable_no_log_param disable_token_counter drop_params drop_unsupported_params
    enable_caching_on_provider_specific_optional_params enable_end_user_cost_tracking_prometheus_only
    enable_json_schema_validation enable_key_alias_format_validation enable_preview_features extra_spend_tag_headers
    fallbacks force_ipv4 guardrail_name_config_map headers image_generation
    key_generation_settings llm_guard_mode max_tokens max_ui_session_budget mcp_aliases mcp_semantic_tool_filter
    merge_reasoning_content_in_choices model_alias_map model_fallbacks model_group_settings modify_params
    organization post_call_rules pre_call_rules priority_reservation priority_reservation_settings
    provider_url_destination_allowed_hosts public_model_groups public_model_groups_links retry
    require_auth_for_metrics_endpoint return_response_headers
    secret_manager_settings service_callback service_callbacks set_verbose ssl_certificate
    ssl_security_level ssl_verify suppress_debug_info tag_budget_config telemetry token
    upperbound_key_generate_params use_chat_completions_url_for_anthropic_messages use_client user_url_validation
""")

GENERAL_IGNORED = _words("""
    alert_to_webhook_url alert_types alerting alerting_args alerting_threshold allow_client_side_credentials
    allow_requests_on_db_unavailable allow_user_auth alternate_master_key always_include_stream_usage
    background_health_checks coding_agent_gateway
    completion_model control_plane_url custom_key_generate custom_key_update custom_sso custom_ui_sso_sign_in_handler
    database_args database_connection_pool_limit database_connection_pool_timeout database_connection_timeout
    database_extra_connection_params database_socket_timeout database_type default_team_disabled
    disable_adding_master_key_hash_to_db disable_error_logs disable_master_key_return disable_prisma_schema_update
    disable_reset_budget disable_retry_on_max_parallel_request_limit_error disable_spend_logs disable_spend_updates
    embedding_model enable_health_check_routing enable_mcp_registry forward_openai_org_id health_check_concurrency
    health_check_details
    health_check_ignore_transient_errors health_check_interval health_check_staleness_threshold
    image_generation_model infer_model_from_keys key_management_settings key_management_system litellm_jwtauth
    litellm_key_header_name litellm_license maximum_spend_logs_cleanup_cron maximum_spend_logs_retention_interval
    maximum_spend_logs_retention_period mcp_client_side_auth_header_name mcp_internal_ip_ranges
    mcp_required_fields mcp_trusted_proxy_ranges moderation_model oauth2_config_mappings pass_through_endpoints
    pass_through_request_timeout password_policy proxy_batch_polling_interval proxy_batch_write_at
    proxy_budget_rescheduler_max_time proxy_budget_rescheduler_min_time public_routes
    require_end_user_mcp_access_defined
    role_mappings role_permissions search_tools service_account_settings spend_report_frequency store_model_in_db
    store_prompts_in_cold_storage store_prompts_in_spend_logs supported_db_objects token_rate_limit_type
    ui_access_mode
    use_azure_key_vault use_client_credentials_pass_through_routes use_google_kms use_redis_transaction_buffer
    use_shared_health_check use_x_forwarded_for user_api_key_cache_ttl user_header_mappings user_header_name
    user_mcp_management_mode
""")

ROUTER_IGNORED = _words("""
    alerting_config allowed_fails allowed_fails_policy assistants_config cache_kwargs cache_responses caching_groups
    client_ttl content_policy_fallbacks context_window_fallbacks cooldown_time deployment_affinity_ttl_seconds
    debug_level default_fallbacks
    default_litellm_params default_max_parallel_requests default_priority disable_cooldowns enable_health_check_routing
    enable_pre_call_check enable_pre_call_checks enable_tag_filtering enable_weighted_failover fallbacks guardrail_list
    health_check_staleness_threshold ignore_invalid_deployments max_fallbacks model_group_alias
    model_group_retry_policy
    optional_pre_call_checks polling_interval provider_budget_config redis_db redis_host redis_password redis_port
    redis_url retry_after retry_policy router_general_settings routing_groups routing_strategy routing_strategy_args
    search_tools set_verbose tag_filtering_match_any
""")

PARAMS_IGNORED = _words("""
    additional_drop_params allowed_fails allowed_openai_params auto_router_config auto_router_default_model
    auto_router_embedding_model base_model budget_duration cache cache_control_injection_points caching
    client_id client_secret cooldown_time credential_name custom_tokenizer default_api_key_rpm_limit
    default_api_key_tpm_limit deployment_id drop_params fallbacks force_timeout guardrails
    input_cost_per_audio_token input_cost_per_character input_cost_per_image input_cost_per_pixel
    input_cost_per_query input_cost_per_second cache_creation_input_token_cost cache_read_input_token_cost
    input_cost_per_token_batches litellm_credential_name litellm_trace_id logger_fn max_budget max_file_size_mb
    max_parallel_requests merge_reasoning_content_in_choices milvus_text_field mock_timeout
    mock_tool_calls model_info
    order output_cost_per_audio_token output_cost_per_character output_cost_per_image
    output_cost_per_pixel output_cost_per_second output_cost_per_token_batches provider_specific_header
    region_name retry_policy security_options ssl_certificate
    ssl_verify supports_system_message tag_regex tags tenant_id use_chat_completions_api use_in_pass_through
    use_litellm_proxy use_xai_oauth verbose watsonx_region_name weight
""")
PARAMS_IGNORED_PREFIXES = ("aws_", "vertex_", "azure_", "watsonx_", "gigachat_", "oci_", "litellm_")

SECTIONS_IGNORED = _words("""
    agent_list credential_list files_settings finetune_settings assistant_settings mcp_servers mcp_tools
    password_policy prompts search_tools vector_store_registry worker_registry
""")
# Leaving them out would change what the gateway lets through or where it calls, not just what it can do.
SECTIONS_REFUSED = {
    "guardrails": "guardrails are not available in this version: requests would go through unchecked and unmasked; "
    "remove the section to run without them",
    "include": "including other files is not available in this version; put everything into this file",
}
