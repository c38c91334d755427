"""model_list -> deployments."""

from __future__ import annotations

from typing import Any

import pytest

from otelgw.config.settings import Deployment
from otelgw.config.upstream import ROUTES
from tests.config.conftest import Examine

KEY = {"OPENAI_API_KEY": "sk-env"}


def entry(params: str, name: str = "m", info: str = "") -> str:
    text = f"model_list:\n  - model_name: '{name}'\n    litellm_params: {{{params}}}\n"
    return text + (f"    model_info: {{{info}}}\n" if info else "")


@pytest.fixture
def one(examine_text: Examine) -> Any:
    def run(params: str, environment: dict[str, str] | None = None, name: str = "m", info: str = "") -> Deployment:
        settings, findings = examine_text(entry(params, name, info), environment)
        assert findings.errors == ()
        (deployment,) = settings.deployments
        return deployment

    return run


@pytest.fixture
def errors(examine_text: Examine) -> Any:
    def run(params: str, environment: dict[str, str] | None = None, name: str = "m", info: str = "") -> tuple[str, ...]:
        return examine_text(entry(params, name, info), environment).findings.errors

    return run


@pytest.mark.parametrize(
    ("params", "provider", "model"),
    [
        ("model: groq/llama-3.3-70b", "groq", "llama-3.3-70b"),
        ("model: openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("model: openai/fake", "openai", "fake"),
        ("model: 'azure/gpt-turbo-small-eu', api_base: 'https://x.openai.azure.com'", "azure", "gpt-turbo-small-eu"),
        ("model: groq/gpt-4o, custom_llm_provider: openai", "groq", "gpt-4o"),
        ("model: llama3, custom_llm_provider: ollama", "ollama", "llama3"),
        ("model: gpt-4o, custom_llm_provider: openrouter", "openrouter", "gpt-4o"),
        ("model: gpt-3.5-turbo", "openai", "gpt-3.5-turbo"),
        ("model: o3-mini", "openai", "o3-mini"),
        ("model: claude-sonnet-4-20250514", "anthropic", "claude-sonnet-4-20250514"),
        ("model: gemini-2.5-pro", "gemini", "gemini-2.5-pro"),
        ("model: mistral-large-latest", "mistral", "mistral-large-latest"),
        ("model: deepseek-chat", "deepseek", "deepseek-chat"),
        ("model: grok-4", "xai", "grok-4"),
        ("model: text-embedding-3-small", "openai", "text-embedding-3-small"),
        ("model: 'meta-llama/Llama-3', api_base: 'http://gpu:8000/v1'", "openai", "meta-llama/Llama-3"),
        ("model: whatever, base_url: 'http://gpu:8000/v1'", "openai", "whatever"),
        ("model: echo", "echo", "echo"),
        ("model: vllm/q, api_base: 'http://gpu:8000/v1'", "hosted_vllm", "q"),
    ],
)
def test_the_provider_is_found_by_prefix_then_name_then_address(
    one: Any, params: str, provider: str, model: str
) -> None:
    deployment = one(params)
    assert (deployment.provider, deployment.model) == (provider, model)


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ("model: whatever", "the provider of `whatever` is not known; write `provider/whatever`, or set api_base"),
        ("model: opnai/x", "did you mean `openai`?"),
        ("model: bedrock/claude", "the provider `bedrock` is not available in this version"),
        ("model: x, custom_llm_provider: grok", "unknown provider; did you mean `groq`?"),
        ("model: openai/", "a model name must follow `openai/`"),
        ("model: azure/x", "azure needs api_base (or AZURE_API_BASE or AZURE_OPENAI_ENDPOINT)"),
        ("model: hosted_vllm/x", "hosted_vllm needs api_base"),
        ("api_base: 'http://x'", "litellm_params.model: is required"),
        ("model: openai/x, api_base: 'ftp://x'", "must be an http or https URL"),
        ("model: openai/x, api_base: 'http://u:p@x'", "must not hold a user name or password"),
        ("model: openai/x, api_base: 'http://x:99999'", "is no URL"),
        ("model: openai/x, api_base: 'http://x/a b'", "must be a plain URL"),
        ("model: openai/x, api_base: 'http://a', base_url: 'http://b'", "differs from api_base"),
        ("model: openai/x, api_key: 'two words'", "must be one word"),
        ("model: openai/x, rpm: many", "must be a valid integer"),
        ("model: openai/x, timeout: 0", "must be greater than 0"),
        ("model: openai/x, headers: {host: x}", "is set by the gateway itself"),
        ("model: openai/x, headers: {'a b': x}", "is no header"),
        ('model: openai/x, headers: {a: "x\\r\\ny"}', "is no header"),
        ("model: openai/x, stream_usage: maybe", "must be 'inject' or 'as_is'"),
        ("model: openai/x, forward_traceparent_to_llm_provider: zipkin", "must be 'tracecontext'"),
        ("model: openai/x, api_keey: sk-1", "did you mean `api_key`?"),
        ("model: openai/x, turn_off_mesage_logging: true", "did you mean `turn_off_message_logging`?"),
        ("model: openai/x, no-log: true", "is not available in this version"),
        ("model: azure/x, api_base: 'https://x', api_version: 'a&b'", "must look like 2024-10-21"),
        ("model: openai/x, allow_client_params: [{api_base: '.*'}]", "must be a valid string"),
        ("model: openai/*", "must hold a `*`"),
    ],
)
def test_what_cannot_be_called_is_an_error_with_its_line(errors: Any, params: str, part: str) -> None:
    found = errors(params)
    assert any(part in error for error in found), found
    assert all("config.yaml:" in error and "sk-1" not in error for error in found)


def test_a_model_without_a_name_is_an_error_with_its_line(examine_text: Examine) -> None:
    _, findings = examine_text("model_list:\n  - litellm_params: {model: openai/x}\n")
    assert findings.errors[0].endswith("config.yaml:2: model_list[0].model_name: is required; add it")


def test_every_operation_has_its_url(one: Any) -> None:
    deployment = one("model: openai/fake, api_base: 'https://example.com/v1/'")
    assert deployment.base_url == "https://example.com/v1"
    assert set(deployment.urls) == set(ROUTES)
    assert deployment.urls["chat/completions"] == "https://example.com/v1/chat/completions"


def test_a_query_in_the_address_goes_with_every_call(one: Any) -> None:
    deployment = one("model: openai/x, api_base: 'https://e.com/v1?tenant=1'")
    assert (deployment.base_url, deployment.query) == ("https://e.com/v1", "tenant=1")


def test_a_pasted_operation_is_left_out_of_the_address_with_a_warning(examine_text: Examine) -> None:
    settings, findings = examine_text(
        entry("model: openai/x, api_base: 'https://e.com/v1/chat/completions', api_key: k")
    )
    assert settings.deployments[0].base_url == "https://e.com/v1"
    assert "/chat/completions is added for each call" in findings.strict[0]


@pytest.mark.parametrize("base", ["http://localhost:11434", "http://localhost:11434/", "http://localhost:11434/v1"])
def test_an_address_that_the_provider_leaves_bare_gets_its_path(one: Any, base: str) -> None:
    assert one(f"model: ollama/llama3, api_base: '{base}'").base_url == "http://localhost:11434/v1"


def test_the_usual_address_variable_is_used(one: Any) -> None:
    deployment = one("model: openai/x", {**KEY, "OPENAI_BASE_URL": "https://eu.example/v1"})
    assert deployment.base_url == "https://eu.example/v1"
    assert deployment.auth == ((b"authorization", b"Bearer sk-env"),)


def test_azure_puts_the_deployment_into_the_path(one: Any) -> None:
    deployment = one(
        "model: azure/my-gpt, api_base: 'https://x.openai.azure.com/', api_key: k, api_version: 2024-10-21"
    )
    assert deployment.urls["chat/completions"] == (
        "https://x.openai.azure.com/openai/deployments/my-gpt/chat/completions"
    )
    assert deployment.urls["responses"] == "https://x.openai.azure.com/openai/responses"
    assert deployment.query == "api-version=2024-10-21"
    assert deployment.auth == ((b"api-key", b"k"),)
    assert deployment.otel_provider == "azure.ai.openai"


def test_azure_without_a_version_is_its_v1_api(one: Any) -> None:
    deployment = one("model: azure/my-gpt, api_base: 'https://x.openai.azure.com', api_key: k")
    assert deployment.urls["chat/completions"] == "https://x.openai.azure.com/openai/v1/chat/completions"
    assert deployment.query == ""
    versioned = one(
        "model: azure/g, api_base: 'https://x.openai.azure.com', api_key: k", {"AZURE_API_VERSION": "2024-06-01"}
    )
    assert versioned.query == "api-version=2024-06-01"


def test_an_entra_token_is_a_bearer_token(one: Any) -> None:
    deployment = one("model: azure/g, api_base: 'https://x.openai.azure.com', azure_ad_token: t")
    assert deployment.auth == ((b"authorization", b"Bearer t"),)


def test_the_usual_key_variable_is_used_for_the_providers_own_host(one: Any) -> None:
    assert one("model: gpt-4o", KEY).auth == ((b"authorization", b"Bearer sk-env"),)
    assert one("model: gpt-4o, api_base: 'https://eu.api.openai.com/v1'", KEY).auth


@pytest.mark.parametrize(
    "host", ["https://evil.example/v1", "https://api.openai.com.evil.example", "http://openai.com"]
)
def test_a_providers_key_never_goes_to_another_host_unasked(examine_text: Examine, host: str) -> None:
    settings, findings = examine_text(entry(f"model: openai/x, api_base: '{host}'"), KEY)
    assert settings.deployments[0].auth == ()
    assert "api_key: os.environ/OPENAI_API_KEY" in findings.strict[0]
    assert "sk-env" not in findings.strict[0]


def test_a_named_key_goes_where_it_is_told_to(one: Any) -> None:
    deployment = one("model: openai/x, api_base: 'https://e.com', api_key: os.environ/OPENAI_API_KEY", KEY)
    assert deployment.auth == ((b"authorization", b"Bearer sk-env"),)


def test_a_missing_key_is_a_warning_and_no_authentication(examine_text: Examine) -> None:
    settings, findings = examine_text(
        "model_list:\n  - model_name: a\n    litellm_params:\n      model: gpt-4o\n      api_key:\n"
    )
    assert settings.deployments[0].auth == ()
    place = f"{settings.source}:5: model_list[0].litellm_params.api_key"
    assert findings.strict == (f"{place}: no key: set api_key, or OPENAI_API_KEY in the environment",)
    assert not findings.errors


@pytest.mark.parametrize("params", ["model: ollama/x", "model: gpt-4o, mock_response: hi", "model: echo/echo"])
def test_a_provider_without_keys_gets_no_warning(examine_text: Examine, params: str) -> None:
    assert examine_text(entry(params)).findings.strict == ()


def test_headers_are_sent_and_may_bring_their_own_authentication(one: Any) -> None:
    deployment = one(
        "model: gpt-4o, organization: org-1, headers: {X-A: '1', Authorization: Basic x}, extra_headers: {x-a: '2'}",
        KEY,
    )
    assert deployment.auth == ((b"authorization", b"Basic x"),)
    assert dict(deployment.headers) == {b"openai-organization": b"org-1", b"x-a": b"2"}


def test_other_parameters_become_default_fields_of_the_body(examine_text: Examine) -> None:
    settings, findings = examine_text(
        entry(
            "model: ollama/x, temperature: 0.2, stop: [a], extra_body: {top_k: 3}, drop_params: 1, aws_region_name: x"
        )
    )
    assert settings.deployments[0].defaults == {"temperature": 0.2, "stop": ["a"], "top_k": 3}
    assert [line.split(": ")[1] for line in findings.ignored] == [
        "model_list[0].litellm_params.drop_params",
        "model_list[0].litellm_params.aws_region_name",
    ]


def test_a_reference_in_a_key_without_effect_may_be_missing(examine_text: Examine) -> None:
    _, findings = examine_text(entry("model: ollama/x, aws_access_key_id: os.environ/NOT_SET"))
    assert not findings.errors


def test_timeouts_follow_litellms_words_and_our_own(one: Any) -> None:
    plain = one("model: ollama/x, timeout: 20, stream_timeout: 5").timeouts
    assert (plain.connect, plain.first_byte, plain.idle, plain.total) == (10.0, 20.0, 20.0, 6000.0)
    assert plain.stream_first_byte == 5.0
    long = one("model: ollama/x, timeout: 9000").timeouts
    assert (long.first_byte, long.idle, long.total) == (9000.0, 300.0, 9000.0)
    own = one("model: ollama/x, timeout: 20, timeouts: {idle: 7}").timeouts
    assert (own.first_byte, own.idle) == (20.0, 7.0)


def test_defaults_of_all_deployments_apply_where_one_says_nothing(examine_text: Examine) -> None:
    settings, _ = examine_text(
        """\
        model_list:
          - {model_name: a, litellm_params: {model: ollama/a}}
          - model_name: b
            litellm_params:
              model: ollama/b
              timeout: 3
              forward_traceparent_to_llm_provider: [b3, b3multi]
              forward_metadata: false
        litellm_settings: {request_timeout: 50, forward_traceparent_to_llm_provider: true}
        router_settings: {timeout: 40, stream_timeout: 4}
        general_settings: {forward_client_headers_to_llm_api: true}
        otelgw: {timeouts: {connect: 2}, forward_metadata: true}
        """
    )
    first, second = settings.deployments
    assert (first.timeouts.connect, first.timeouts.first_byte, first.timeouts.stream_first_byte) == (2.0, 40.0, 4.0)
    assert second.timeouts.first_byte == 3.0
    assert (first.forward_trace, second.forward_trace) == (("tracecontext",), ("b3", "b3multi"))
    assert (first.forward_metadata, second.forward_metadata) == (True, False)
    assert first.forward_client_headers


def test_forwarding_is_off_by_default(one: Any) -> None:
    deployment = one("model: ollama/x")
    assert deployment.forward_trace == ()
    assert not deployment.forward_client_headers
    assert not deployment.forward_metadata


def test_content_of_one_model_can_be_withheld(one: Any) -> None:
    assert one("model: ollama/x, turn_off_message_logging: true").content is False
    assert one("model: ollama/x").content is True


def test_rate_limits_are_accepted_and_listed_as_not_enforced(examine_text: Examine) -> None:
    settings, findings = examine_text(entry("model: ollama/x, rpm: 6, tpm: '1000'"))
    assert (settings.deployments[0].rpm, settings.deployments[0].tpm) == (6, 1000)
    assert [line.split(": ", 1)[1] for line in findings.not_enforced] == [
        "model_list[0].litellm_params.rpm: accepted, not yet enforced",
        "model_list[0].litellm_params.tpm: accepted, not yet enforced",
    ]


def test_rows_with_one_name_are_all_kept(examine_text: Examine) -> None:
    settings, _ = examine_text(
        """\
        model_list:
          - {model_name: a, litellm_params: {model: ollama/a}}
          - {model_name: a, litellm_params: {model: ollama/a}}
          - {model_name: a, litellm_params: {model: ollama/b}}
        """
    )
    assert [each.model for each in settings.deployments] == ["a", "a", "b"]
    assert len({each.id for each in settings.deployments}) == 3


def test_an_id_is_stable_and_changes_with_the_row(one: Any) -> None:
    first = one("model: ollama/x, api_key: k1")
    assert first.id == one("api_key: k1, model: ollama/x").id
    assert len({first.id, one("model: ollama/x, api_key: k2").id, one("model: ollama/y, api_key: k1").id}) == 3
    assert len(first.id) == 64
    assert one("model: ollama/x", info="id: mine").id == "mine"


def test_two_rows_with_one_configured_id_are_an_error(examine_text: Examine) -> None:
    row = "  - {model_name: a, litellm_params: {model: ollama/a}, model_info: {id: same}}\n"
    _, findings = examine_text("model_list:\n" + row * 2)
    assert "two deployments have the model_info.id `same`" in findings.errors[0]


def test_facts_about_a_model_are_kept(one: Any) -> None:
    deployment = one("model: ollama/x, input_cost_per_token: 0.5", info="mode: embedding, supports_vision: true")
    assert deployment.model_info == {"supports_vision": True, "mode": "embedding", "input_cost_per_token": 0.5}


def test_a_price_for_input_only_is_pointed_out(examine_text: Examine) -> None:
    _, findings = examine_text(entry("model: ollama/x", info="input_cost_per_token: 0.5"))
    assert any("output tokens count as free" in warning for warning in findings.warnings)
    _, findings = examine_text(entry("model: ollama/x", info="input_cost_per_token: 0.5, mode: embedding"))
    assert not any("count as free" in warning for warning in findings.warnings)


def test_what_callers_may_set_is_listed(one: Any) -> None:
    deployment = one("model: ollama/x, configurable_clientside_auth_params: [api_key], allow_client_params: api_base")
    assert deployment.allow_client_params == ("api_base", "api_key")


@pytest.mark.parametrize(
    ("name", "params", "provider", "model"),
    [
        ("openai/*", "model: openai/*", "openai", "*"),
        ("*", "model: openai/*", "openai", "*"),
        ("fast-*", "model: groq/llama-*", "groq", "llama-*"),
        ("groq/*", "model: '*'", "groq", "*"),
        ("*", "model: '*', api_base: 'http://gpu/v1', api_key: k", "openai", "*"),
    ],
)
def test_wildcards_keep_their_star(one: Any, name: str, params: str, provider: str, model: str) -> None:
    deployment = one(params, name=name)
    assert (deployment.alias, deployment.provider, deployment.model) == (name, provider, model)


def test_a_star_alone_is_every_provider_that_has_a_key(examine_text: Examine) -> None:
    settings, _ = examine_text(entry("model: '*'", name="*"), {"GROQ_API_KEY": "g", "ANTHROPIC_API_KEY": "a"})
    assert [(each.alias, each.model) for each in settings.deployments if each.listed] == [
        ("anthropic/*", "*"),
        ("groq/*", "*"),
    ]
    assert [(each.alias, each.model) for each in settings.deployments if not each.listed] == [("claude-*", "claude-*")]
    _, findings = examine_text(entry("model: '*'", name="*"))
    assert "no provider's usual key variable is set" in findings.strict[0]


def test_two_stars_in_a_name_are_an_error(errors: Any) -> None:
    assert "may hold one `*` only" in errors("model: openai/*", name="*/*")[0]


@pytest.mark.parametrize(
    "text",
    ["model_list: 1", "model_list: {a: b}", "model_list: [1, x, null]", "model_list: [{model_name: a}]",
     "model_list: [{model_name: a, litellm_params: [1]}]", "model_list: [{model_name: [], litellm_params: {}}]"],
)  # fmt: skip
def test_another_shape_is_an_error_not_an_accident(examine_text: Examine, text: str) -> None:
    assert examine_text(text).findings.errors


def test_no_secret_is_in_a_repr(one: Any) -> None:
    deployment = one("model: openai/x, api_key: sk-secret, headers: {x-token: sk-other}")
    assert "sk-" not in repr(deployment)
