"""The upstream providers, one row each: where they are, how they want to be addressed, what they do with usage.

A provider whose API speaks OpenAI's dialect needs nothing but a row. ``find`` takes a prefix as in ``groq/llama-3``,
``infer`` takes a bare model name and knows it by its pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from urllib.parse import urlsplit

__all__ = ["ECHO", "OPENAI", "PROVIDERS", "UNAVAILABLE", "Provider", "find", "infer", "names", "owns_host"]

BEARER = "bearer"  # Authorization: Bearer KEY
API_KEY = "api-key"  # api-key: KEY
NO_AUTH = "none"

INJECT = "inject"  # a stream reports usage only when stream_options.include_usage asks for it
AS_IS = "as_is"  # a stream reports usage by itself, or the field is refused


@dataclass(frozen=True, slots=True)
class Provider:
    """One upstream provider.

    ``base_url`` has no trailing slash; an operation is joined to it. It is empty where every customer has an own one.
    ``keys`` and ``bases`` are the environment variables that usually hold the key and the base URL, first one wins.
    ``prices`` is the provider's id in genai-prices. ``base_path`` is added to an ``api_base`` without a path.
    ``own_names`` says that the model names are the customer's own (deployment names), so that only the answer tells
    which model was served. ``docs`` is the page that the row was written from.
    """

    name: str
    docs: str
    base_url: str = ""
    aliases: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    auth: str = BEARER
    key_required: bool = True
    otel_name: str = ""
    stream_usage: str = INJECT
    prices: str = ""
    patterns: tuple[str, ...] = ()
    base_path: str = ""
    own_names: bool = False
    transport: str = "http"

    @property
    def provider_name(self) -> str:
        """``gen_ai.provider.name``: the well-known value where there is one, the row's name otherwise."""
        return self.otel_name or self.name


OPENAI = Provider(
    name="openai",
    docs="https://platform.openai.com/docs/api-reference",
    base_url="https://api.openai.com/v1",
    aliases=("text-completion-openai", "custom_openai", "openai_like"),
    keys=("OPENAI_API_KEY",),
    bases=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    prices="openai",
    patterns=(
        "gpt-*",
        "ft:gpt-*",
        "o1*",
        "o3*",
        "o4*",
        "chatgpt-*",
        "codex-*",
        "computer-use-*",
        "text-embedding-*",
        "text-moderation-*",
        "omni-moderation-*",
        "dall-e*",
        "whisper*",
        "tts*",
        "sora*",
        "davinci*",
        "babbage*",
    ),
)

ECHO = Provider(
    name="echo",
    docs="https://opentelemetry.io/docs/specs/semconv/gen-ai/",
    auth=NO_AUTH,
    key_required=False,
    patterns=("echo",),
    transport="echo",
)

PROVIDERS: tuple[Provider, ...] = (
    OPENAI,
    Provider(
        name="azure",
        docs="https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        aliases=("azure_text",),
        keys=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
        bases=("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT"),
        auth=API_KEY,
        otel_name="azure.ai.openai",
        prices="azure",
        own_names=True,
    ),
    Provider(
        name="anthropic",
        docs="https://docs.claude.com/en/api/openai-sdk",
        base_url="https://api.anthropic.com/v1",
        keys=("ANTHROPIC_API_KEY",),
        bases=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        otel_name="anthropic",
        prices="anthropic",
        patterns=("claude-*",),
        base_path="/v1",
    ),
    Provider(
        name="gemini",
        docs="https://ai.google.dev/gemini-api/docs/openai",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        bases=("GEMINI_API_BASE",),
        otel_name="gcp.gemini",
        prices="google",
        patterns=("gemini-*", "gemma-*"),
    ),
    Provider(
        name="mistral",
        docs="https://docs.mistral.ai/api/",
        base_url="https://api.mistral.ai/v1",
        keys=("MISTRAL_API_KEY",),
        bases=("MISTRAL_API_BASE",),
        otel_name="mistral_ai",
        stream_usage=AS_IS,  # refuses stream_options.include_usage with 422 and reports usage unasked
        prices="mistral",
        patterns=(
            "mistral-*",
            "ministral-*",
            "magistral-*",
            "devstral-*",
            "codestral-*",
            "pixtral-*",
            "voxtral-*",
            "open-mistral-*",
            "open-mixtral-*",
        ),
    ),
    Provider(
        name="groq",
        docs="https://console.groq.com/docs/openai",
        base_url="https://api.groq.com/openai/v1",
        keys=("GROQ_API_KEY",),
        bases=("GROQ_API_BASE",),
        prices="groq",
    ),
    Provider(
        name="deepseek",
        docs="https://api-docs.deepseek.com/api/create-chat-completion",
        base_url="https://api.deepseek.com/v1",
        keys=("DEEPSEEK_API_KEY",),
        bases=("DEEPSEEK_API_BASE",),
        prices="deepseek",
        patterns=("deepseek-*",),
    ),
    Provider(
        name="xai",
        docs="https://docs.x.ai/docs/api-reference",
        base_url="https://api.x.ai/v1",
        keys=("XAI_API_KEY",),
        bases=("XAI_API_BASE",),
        otel_name="x_ai",
        prices="x-ai",
        patterns=("grok-*",),
    ),
    Provider(
        name="openrouter",
        docs="https://openrouter.ai/docs/use-cases/usage-accounting",
        base_url="https://openrouter.ai/api/v1",
        keys=("OPENROUTER_API_KEY",),
        bases=("OPENROUTER_API_BASE",),
        stream_usage=AS_IS,
        prices="openrouter",
        own_names=True,
    ),
    Provider(
        name="perplexity",
        docs="https://docs.perplexity.ai/api-reference/chat-completions-post",
        base_url="https://api.perplexity.ai",
        keys=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
        bases=("PERPLEXITYAI_API_BASE",),
        stream_usage=AS_IS,
        prices="perplexity",
        patterns=("sonar*",),
    ),
    Provider(
        name="cerebras",
        docs="https://inference-docs.cerebras.ai/resources/openai",
        base_url="https://api.cerebras.ai/v1",
        keys=("CEREBRAS_API_KEY",),
        bases=("CEREBRAS_API_BASE",),
        stream_usage=AS_IS,
        prices="cerebras",
    ),
    Provider(
        name="together_ai",
        docs="https://docs.together.ai/docs/openai-api-compatibility",
        base_url="https://api.together.xyz/v1",
        aliases=("together",),
        keys=("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_API_KEY"),
        bases=("TOGETHER_AI_API_BASE",),
        stream_usage=AS_IS,
        prices="together",
    ),
    Provider(
        name="fireworks_ai",
        docs="https://docs.fireworks.ai/tools-sdks/openai-compatibility",
        base_url="https://api.fireworks.ai/inference/v1",
        aliases=("fireworks",),
        keys=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY"),
        bases=("FIREWORKS_API_BASE",),
        stream_usage=AS_IS,
        prices="fireworks",
    ),
    Provider(
        name="deepinfra",
        docs="https://deepinfra.com/docs/openai_api",
        base_url="https://api.deepinfra.com/v1/openai",
        keys=("DEEPINFRA_API_KEY",),
        bases=("DEEPINFRA_API_BASE",),
        stream_usage=AS_IS,
    ),
    Provider(
        name="sambanova",
        docs="https://docs.sambanova.ai/docs/en/features/openai-compatibility",
        base_url="https://api.sambanova.ai/v1",
        keys=("SAMBANOVA_API_KEY",),
        bases=("SAMBANOVA_API_BASE",),
        prices="huggingface_sambanova",
    ),
    Provider(
        name="nvidia_nim",
        docs="https://docs.nvidia.com/nim/large-language-models/latest/api-reference.html",
        base_url="https://integrate.api.nvidia.com/v1",
        keys=("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY"),
        bases=("NVIDIA_NIM_API_BASE",),
    ),
    Provider(
        name="moonshot",
        docs="https://platform.moonshot.ai/docs/api/chat",
        base_url="https://api.moonshot.ai/v1",
        keys=("MOONSHOT_API_KEY",),
        bases=("MOONSHOT_API_BASE",),
        otel_name="moonshot_ai",
        prices="moonshotai",
        patterns=("kimi-*", "moonshot-*"),
    ),
    Provider(
        name="cohere",
        docs="https://docs.cohere.com/docs/compatibility-api",
        base_url="https://api.cohere.ai/compatibility/v1",
        aliases=("cohere_chat",),
        keys=("COHERE_API_KEY", "CO_API_KEY"),
        bases=("COHERE_API_BASE",),
        prices="cohere",
        patterns=("command-*", "embed-english-*", "embed-multilingual-*", "embed-v*"),
    ),
    Provider(
        name="dashscope",
        docs="https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        keys=("DASHSCOPE_API_KEY",),
        bases=("DASHSCOPE_API_BASE",),
    ),
    Provider(
        name="zai",
        docs="https://docs.z.ai/api-reference/introduction",
        base_url="https://api.z.ai/api/paas/v4",
        keys=("ZAI_API_KEY",),
        bases=("ZAI_API_BASE",),
        prices="zai",
        patterns=("glm-*",),
    ),
    Provider(
        name="novita",
        docs="https://novita.ai/docs/guides/llm-api",
        base_url="https://api.novita.ai/v3/openai",
        keys=("NOVITA_API_KEY",),
        bases=("NOVITA_API_BASE",),
        prices="novita",
    ),
    Provider(
        name="nebius",
        docs="https://docs.studio.nebius.com/api-reference/introduction",
        base_url="https://api.studio.nebius.com/v1",
        keys=("NEBIUS_API_KEY",),
        bases=("NEBIUS_API_BASE",),
        prices="huggingface_nebius",
    ),
    Provider(
        name="hyperbolic",
        docs="https://docs.hyperbolic.xyz/docs/rest-api",
        base_url="https://api.hyperbolic.xyz/v1",
        keys=("HYPERBOLIC_API_KEY",),
        bases=("HYPERBOLIC_API_BASE",),
        prices="huggingface_hyperbolic",
    ),
    Provider(
        name="huggingface",
        docs="https://huggingface.co/docs/inference-providers/index",
        base_url="https://router.huggingface.co/v1",
        keys=("HUGGINGFACE_API_KEY", "HF_TOKEN"),
        bases=("HF_API_BASE", "HUGGINGFACE_API_BASE"),
    ),
    Provider(
        name="github",
        docs="https://docs.github.com/en/rest/models/inference",
        base_url="https://models.github.ai/inference",
        keys=("GITHUB_API_KEY",),
    ),
    Provider(
        name="hosted_vllm",
        docs="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        aliases=("vllm",),
        keys=("HOSTED_VLLM_API_KEY",),
        bases=("HOSTED_VLLM_API_BASE",),
        key_required=False,
        otel_name="vllm",
        base_path="/v1",
    ),
    Provider(
        name="ollama",
        docs="https://docs.ollama.com/api/openai-compatibility",
        base_url="http://localhost:11434/v1",
        aliases=("ollama_chat",),
        keys=("OLLAMA_API_KEY",),
        bases=("OLLAMA_API_BASE",),
        key_required=False,
        base_path="/v1",
    ),
    Provider(
        name="lm_studio",
        docs="https://lmstudio.ai/docs/developer/openai-compat",
        base_url="http://localhost:1234/v1",
        keys=("LM_STUDIO_API_KEY",),
        bases=("LM_STUDIO_API_BASE",),
        key_required=False,
        base_path="/v1",
    ),
    Provider(
        name="llamafile",
        docs="https://github.com/mozilla-ai/llamafile/blob/main/llamafile/server/doc/v1_chat_completions.md",
        base_url="http://127.0.0.1:8080/v1",
        keys=("LLAMAFILE_API_KEY",),
        bases=("LLAMAFILE_API_BASE",),
        key_required=False,
        base_path="/v1",
    ),
    Provider(
        name="litellm_proxy",
        docs="https://docs.litellm.ai/docs/providers/litellm_proxy",
        keys=("LITELLM_PROXY_API_KEY",),
        bases=("LITELLM_PROXY_API_BASE",),
        otel_name="litellm_proxy",
        base_path="/v1",
    ),
    ECHO,
)

# Prefixes that LiteLLM knows and that need a wire format or a kind of signature that no row has.
UNAVAILABLE: frozenset[str] = frozenset(
    {
        "ai21",
        "ai21_chat",
        "aiml",
        "aleph_alpha",
        "anthropic_text",
        "assemblyai",
        "azure_ai",
        "baseten",
        "bedrock",
        "bedrock_converse",
        "cloudflare",
        "codestral",
        "cohere_rerank",
        "databricks",
        "datarobot",
        "deepgram",
        "elevenlabs",
        "featherless_ai",
        "friendliai",
        "gradient_ai",
        "heroku",
        "infinity",
        "jina_ai",
        "lambda_ai",
        "langflow",
        "maritalk",
        "meta_llama",
        "nlp_cloud",
        "nscale",
        "oci",
        "palm",
        "petals",
        "predibase",
        "recraft",
        "replicate",
        "sagemaker",
        "sagemaker_chat",
        "snowflake",
        "topaz",
        "triton",
        "v0",
        "vercel_ai_gateway",
        "vertex_ai",
        "vertex_ai_beta",
        "volcengine",
        "voyage",
        "watsonx",
        "watsonx_text",
        "xinference",
    }
)


@cache
def _by_prefix() -> dict[str, Provider]:
    return {prefix: row for row in PROVIDERS for prefix in (row.name, *row.aliases)}


def names() -> list[str]:
    """Return every prefix that ``find`` knows."""
    return sorted(_by_prefix())


def find(prefix: str) -> Provider | None:
    """Return the row for ``prefix`` (``groq`` of ``groq/llama-3``), None for an unknown one."""
    return _by_prefix().get(prefix)


def infer(model: str) -> Provider | None:
    """Return the row whose well-known names ``model`` looks like, None when it looks like none of them."""
    lowered = model.lower()
    for row in PROVIDERS:
        if any(fnmatchcase(lowered, pattern) for pattern in row.patterns):
            return row
    return None


def owns_host(row: Provider, url: str) -> bool:
    """Say whether ``url`` is on the provider's own host or a subdomain of it.

    The key that the environment holds for a provider is for that provider: another host must be given one by name.
    """
    if not row.base_url:
        return True
    own, host = urlsplit(row.base_url).hostname or "", urlsplit(url).hostname or ""
    return host == own or host.endswith("." + own)
