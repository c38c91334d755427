"""Where Azure OpenAI's operations are: the deployment is part of the path, or the ``/openai/v1`` API is used.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/reference and
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

__all__ = ["V1_VERSIONS", "Endpoints", "endpoints"]

# With one of these, or with none, the v1 API is meant, which takes the deployment's name as `model`.
V1_VERSIONS = frozenset({"", "v1", "latest", "preview"})

_DEPLOYMENT_ROUTES = (
    "chat/completions",
    "completions",
    "embeddings",
    "images/generations",
    "images/edits",
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
)


class Endpoints(NamedTuple):
    """``base_url`` takes every path that ``urls`` has no entry for; ``query`` goes with all of them."""

    base_url: str
    urls: Mapping[str, str]
    query: str


def endpoints(base: str, deployment: str, api_version: str) -> Endpoints:
    """Return the URLs of ``deployment``.

    ``base`` is the resource's URL without a trailing slash, as in ``https://name.openai.azure.com``; with
    ``/openai``, ``/openai/v1`` or ``/openai/deployments/NAME`` at its end it is understood as well.
    """
    resource, found, rest = base.partition("/openai")
    fixed = rest if found and rest.startswith("/deployments/") else ""
    if found and rest not in {"", "/", "/v1"} and not fixed:
        resource = base  # a path of a proxy in front that happens to hold the word
    if api_version in V1_VERSIONS and not fixed:
        query = "api-version=preview" if api_version in {"latest", "preview"} else ""
        return Endpoints(f"{resource}/openai/v1", {}, query)
    root = f"{resource}/openai"
    path = fixed.rstrip("/") or f"/deployments/{quote(deployment, safe='*')}"
    query = f"api-version={quote(api_version, safe='')}" if api_version else ""
    return Endpoints(root, {route: f"{root}{path}/{route}" for route in _DEPLOYMENT_ROUTES}, query)
