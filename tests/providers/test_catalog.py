"""The provider rows: URL, authentication and stream rule of each."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from otelgw.config.load import examine
from otelgw.config.settings import Deployment
from otelgw.providers.catalog import PROVIDERS, UNAVAILABLE, Provider, find, infer, names, owns_host

# (prefix, chat completions URL, header with the key, stream rule, gen_ai.provider.name)
EXPECTED = [
    ("openai", "https://api.openai.com/v1/chat/completions", "authorization", "inject", "openai"),
    ("anthropic", "https://api.anthropic.com/v1/chat/completions", "authorization", "inject", "anthropic"),
    (
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        "authorization",
        "inject",
        "gcp.gemini",
    ),
    ("mistral", "https://api.mistral.ai/v1/chat/completions", "authorization", "as_is", "mistral_ai"),
    ("groq", "https://api.groq.com/openai/v1/chat/completions", "authorization", "inject", "groq"),
    ("deepseek", "https://api.deepseek.com/v1/chat/completions", "authorization", "inject", "deepseek"),
    ("xai", "https://api.x.ai/v1/chat/completions", "authorization", "inject", "x_ai"),
    ("openrouter", "https://openrouter.ai/api/v1/chat/completions", "authorization", "as_is", "openrouter"),
    ("perplexity", "https://api.perplexity.ai/chat/completions", "authorization", "as_is", "perplexity"),
    ("cerebras", "https://api.cerebras.ai/v1/chat/completions", "authorization", "as_is", "cerebras"),
    ("together_ai", "https://api.together.xyz/v1/chat/completions", "authorization", "as_is", "together_ai"),
    (
        "fireworks_ai",
        "https://api.fireworks.ai/inference/v1/chat/completions",
        "authorization",
        "as_is",
        "fireworks_ai",
    ),
    ("deepinfra", "https://api.deepinfra.com/v1/openai/chat/completions", "authorization", "as_is", "deepinfra"),
    ("sambanova", "https://api.sambanova.ai/v1/chat/completions", "authorization", "inject", "sambanova"),
    ("nvidia_nim", "https://integrate.api.nvidia.com/v1/chat/completions", "authorization", "inject", "nvidia_nim"),
    ("moonshot", "https://api.moonshot.ai/v1/chat/completions", "authorization", "inject", "moonshot_ai"),
    ("cohere", "https://api.cohere.ai/compatibility/v1/chat/completions", "authorization", "inject", "cohere"),
    (
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions",
        "authorization",
        "inject",
        "dashscope",
    ),
    ("zai", "https://api.z.ai/api/paas/v4/chat/completions", "authorization", "inject", "zai"),
    ("novita", "https://api.novita.ai/v3/openai/chat/completions", "authorization", "inject", "novita"),
    ("nebius", "https://api.studio.nebius.com/v1/chat/completions", "authorization", "inject", "nebius"),
    ("hyperbolic", "https://api.hyperbolic.xyz/v1/chat/completions", "authorization", "inject", "hyperbolic"),
    ("huggingface", "https://router.huggingface.co/v1/chat/completions", "authorization", "inject", "huggingface"),
    ("github", "https://models.github.ai/inference/chat/completions", "authorization", "inject", "github"),
    ("ollama", "http://localhost:11434/v1/chat/completions", "authorization", "inject", "ollama"),
    ("lm_studio", "http://localhost:1234/v1/chat/completions", "authorization", "inject", "lm_studio"),
    ("llamafile", "http://127.0.0.1:8080/v1/chat/completions", "authorization", "inject", "llamafile"),
    ("hosted_vllm", "https://own.example/v1/chat/completions", "authorization", "inject", "vllm"),
    ("litellm_proxy", "https://own.example/v1/chat/completions", "authorization", "inject", "litellm_proxy"),
    ("azure", "https://own.example/openai/v1/chat/completions", "api-key", "inject", "azure.ai.openai"),
]
ROWS = {row.name: row for row in PROVIDERS}


def only(deployments: tuple[Deployment, ...], alias: str) -> Deployment:
    (found,) = [each for each in deployments if each.alias == alias]
    return found


@pytest.mark.parametrize(
    ("prefix", "url", "header", "stream", "otel_name"), EXPECTED, ids=lambda value: str(value)[:20]
)
def test_a_rows_url_header_and_stream_rule(prefix: str, url: str, header: str, stream: str, otel_name: str) -> None:
    row = ROWS[prefix]
    environment = {row.keys[0]: "secret"} | ({} if row.base_url else {row.bases[0]: "https://own.example"})
    deployment = only(examine(None, environment, prices=False).settings.deployments, f"{prefix}/*")
    assert deployment.urls["chat/completions"] == url
    assert deployment.auth == ((header.encode(), b"secret" if header == "api-key" else b"Bearer secret"),)
    assert deployment.stream_usage == stream
    assert deployment.otel_provider == otel_name
    assert deployment.transport == "http"


def test_every_row_is_tested() -> None:
    assert {row[0] for row in EXPECTED} | {"echo"} == set(ROWS)
    assert len(ROWS) >= 20


@pytest.mark.parametrize("row", PROVIDERS, ids=lambda row: row.name)
def test_a_row_is_whole(row: Provider) -> None:
    assert urlsplit(row.docs).scheme == "https"
    assert row.base_url == row.base_url.rstrip("/")
    assert row.base_url or row.bases or row.transport == "echo"
    assert row.keys or not row.key_required
    assert row.stream_usage in {"inject", "as_is"}


def test_prefixes_are_unique_and_none_is_both_available_and_not() -> None:
    prefixes = [prefix for row in PROVIDERS for prefix in (row.name, *row.aliases)]
    assert sorted(prefixes) == names()
    assert len(set(prefixes)) == len(prefixes)
    assert not UNAVAILABLE & set(prefixes)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("vllm", "hosted_vllm"), ("together", "together_ai"), ("ollama_chat", "ollama"), ("openai_like", "openai")],
)
def test_other_spellings_are_found(prefix: str, name: str) -> None:
    row = find(prefix)
    assert row is not None
    assert row.name == name


def test_an_unknown_prefix_is_not_found() -> None:
    assert find("nobody") is None
    assert find("") is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "openai"),
        ("GPT-4o", "openai"),
        ("ft:gpt-4o-mini:org::id", "openai"),
        ("o1", "openai"),
        ("o3-mini", "openai"),
        ("chatgpt-4o-latest", "openai"),
        ("text-embedding-3-large", "openai"),
        ("dall-e-3", "openai"),
        ("whisper-1", "openai"),
        ("tts-1-hd", "openai"),
        ("claude-3-5-haiku-latest", "anthropic"),
        ("gemini-2.0-flash", "gemini"),
        ("mistral-small-latest", "mistral"),
        ("codestral-latest", "mistral"),
        ("deepseek-reasoner", "deepseek"),
        ("grok-4", "xai"),
        ("sonar-pro", "perplexity"),
        ("command-r-plus", "cohere"),
        ("kimi-k2", "moonshot"),
        ("glm-4.6", "zai"),
        ("echo", "echo"),
        ("llama-3", None),
        ("my-gpt-4", None),
        ("", None),
    ],
)
def test_a_bare_name_is_known_by_its_pattern(model: str, name: str | None) -> None:
    row = infer(model)
    assert (row.name if row else None) == name


def test_no_bare_name_is_claimed_twice() -> None:
    patterns = [pattern for row in PROVIDERS for pattern in row.patterns]
    assert len(set(patterns)) == len(patterns)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://API.OPENAI.COM/v1", True),
        ("https://evilapi.openai.com", False),
        ("https://api.openai.com.evil.example", False),
        ("https://api.openai.com@evil.example", False),
        ("http://localhost", False),
    ],
)
def test_a_providers_own_host_is_told_from_others(url: str, own: bool) -> None:
    assert owns_host(ROWS["openai"], url) is own
